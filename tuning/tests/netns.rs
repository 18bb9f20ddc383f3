//! Capture against the real kernel: every test makes network namespaces of its own, with names no
//! one else has, and takes them away at the end. Nothing touches the host's own rules.

#[path = "netns/tproxy.rs"]
mod tproxy;

use std::fs::File;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ringmesh_tuning::intercept::{
    Backend, Capture, Families, Host, Name, Ports, State, plan_down, plan_up,
};
use rustix::process::{Gid, Uid};
use rustix::thread::{
    LinkNameSpaceType, move_into_link_name_space, set_thread_gid, set_thread_uid,
};

const APP: u32 = 4101;
const OTHER: u32 = 4102;
const PROXY: u32 = 4137;
const DEADLINE: Duration = Duration::from_secs(10);

/// Who took a connection, and where it was meant to go.
#[derive(Debug, PartialEq, Eq)]
enum Got {
    Outbound(SocketAddr),
    Inbound(SocketAddr),
    Direct,
}

/// Two hosts joined by a cable: `here` has the sidecar and the rules, `there` is the world.
struct Net {
    here: String,
    there: String,
    outbound: Vec<TcpListener>,
    inbound: Vec<TcpListener>,
    direct: Vec<TcpListener>,
}

const HERE: [&str; 2] = ["10.77.0.1", "fd77::1"];
const THERE: [&str; 2] = ["10.77.0.2", "fd77::2"];
const PORT: u16 = 9080;
const INBOUND_PORT: u16 = 15006;

impl Net {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = format!(
            "{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let mut net = Self {
            here: format!("rmt-h{id}"),
            there: format!("rmt-t{id}"),
            outbound: vec![],
            inbound: vec![],
            direct: vec![],
        };
        run(&["ip", "netns", "add", &net.here]);
        run(&["ip", "netns", "add", &net.there]);
        net.ip_here(&[
            "link", "add", "c0", "type", "veth", "peer", "name", "c1", "netns", &net.there,
        ]);
        for (ns, link, addresses) in [(&net.here, "c0", HERE), (&net.there, "c1", THERE)] {
            let ip = |args: &[&str]| run(&[&["ip", "-n", ns], args].concat());
            ip(&["addr", "add", &format!("{}/24", addresses[0]), "dev", link]);
            ip(&[
                "addr",
                "add",
                &format!("{}/64", addresses[1]),
                "dev",
                link,
                "nodad",
            ]);
            ip(&["link", "set", link, "up"]);
            ip(&["link", "set", "lo", "up"]);
        }
        net.listen();
        net
    }

    fn listen(&mut self) {
        let at = |ns: &str, port: u16| {
            let ns = ns.to_owned();
            ["0.0.0.0", "::"]
                .map(|any| inside(&ns, 0, move || listener(any, port)))
                .into()
        };
        self.outbound = at(&self.here, 15001);
        self.inbound = at(&self.here, INBOUND_PORT);
        let app: Vec<TcpListener> = at(&self.here, PORT);
        self.direct = at(&self.there, PORT);
        self.direct.extend(app);
    }

    fn ip_here(&self, args: &[&str]) {
        run(&[&["ip", "-n", &self.here], args].concat());
    }

    fn host(&self) -> Host {
        Host::in_netns(ringmesh_tuning::probe::gather().binaries, &self.here)
    }

    fn up(&self, capture: &Capture) {
        capture.check().expect("a right capture");
        let host = self.host();
        let seen = host.see(&capture.name).expect("see");
        host.apply(&plan_up(capture, &seen)).expect("up");
    }

    fn down(&self, name: &Name) {
        let host = self.host();
        host.apply(&plan_down(name, &host.see(name).expect("see")))
            .expect("down");
    }

    fn state(&self, name: &Name) -> State {
        self.host().see(name).expect("see").state()
    }

    /// Everything the firewall holds, counters left out.
    fn rules(&self) -> String {
        let read = |words: &[&str]| {
            let output = Command::new("ip")
                .args(["netns", "exec", &self.here])
                .args(words)
                .output()
                .expect("ip");
            String::from_utf8_lossy(&output.stdout)
                .lines()
                .filter(|line| !line.starts_with('#') && !line.starts_with(':'))
                // iptables' own empty tables, which it makes on first use and keeps.
                .filter(|line| !line.ends_with(" nat") && !line.ends_with(" mangle"))
                .map(|line| line.split(" packets ").next().unwrap_or(line).to_owned() + "\n")
                .collect::<String>()
        };
        read(&["nft", "list", "tables"])
            + &read(&["nft", "list", "table", "inet", "foreign"])
            + &read(&["iptables-save", "-t", "nat"])
            + &read(&["ip6tables-save", "-t", "nat"])
            + &read(&["iptables-save", "-t", "mangle"])
            + &read(&["ip6tables-save", "-t", "mangle"])
            + &read(&["ip", "-4", "rule"])
            + &read(&["ip", "-6", "rule"])
            + &read(&["ip", "-4", "route", "show", "table", "133"])
            + &read(&["ip", "-6", "route", "show", "table", "133"])
    }

    /// Who gets a connection that `uid` opens `from` a namespace.
    fn connect(&self, from: &str, uid: u32, to: &str) -> Got {
        let address = SocketAddr::new(to.parse::<IpAddr>().expect("address"), PORT);
        let _conn = inside(from, uid, move || {
            TcpStream::connect_timeout(&address, DEADLINE).expect("connect")
        });
        let deadline = Instant::now() + DEADLINE;
        while Instant::now() < deadline {
            if let Some(conn) = take(&self.outbound) {
                return Got::Outbound(original(&conn, address.is_ipv4()));
            }
            if let Some(conn) = take(&self.inbound) {
                return Got::Inbound(original(&conn, address.is_ipv4()));
            }
            if take(&self.direct).is_some() {
                return Got::Direct;
            }
            std::thread::yield_now();
        }
        panic!("nobody got the connection to {address}");
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for ns in [&self.here, &self.there] {
            let _ = Command::new("ip").args(["netns", "del", ns]).status();
        }
    }
}

fn take(listeners: &[TcpListener]) -> Option<TcpStream> {
    listeners
        .iter()
        .find_map(|listener| match listener.accept() {
            Ok((conn, _)) => Some(conn),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("accept: {error}"),
        })
}

fn original(conn: &TcpStream, v4: bool) -> SocketAddr {
    let socket = socket2::SockRef::from(conn);
    let address = if v4 {
        socket.original_dst_v4()
    } else {
        socket.original_dst_v6()
    };
    address
        .expect("original destination")
        .as_socket()
        .expect("an internet address")
}

fn listener(any: &str, port: u16) -> TcpListener {
    let address = SocketAddr::new(any.parse().expect("address"), port);
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::STREAM,
        None,
    )
    .expect("socket");
    if address.is_ipv6() {
        socket.set_only_v6(true).expect("v6 only");
    }
    if port == INBOUND_PORT {
        transparent(&socket, address.ip());
    }
    socket.bind(&address.into()).expect("bind");
    socket.listen(16).expect("listen");
    socket.set_nonblocking(true).expect("nonblocking");
    socket.into()
}

fn transparent(socket: &socket2::Socket, address: IpAddr) {
    match address {
        IpAddr::V4(_) => socket.set_ip_transparent_v4(true),
        IpAddr::V6(_) => socket.set_ip_transparent_v6(true),
    }
    .expect("transparent");
}

/// Runs `work` on a thread that lives in the namespace and belongs to `uid`.
fn inside<T: Send + 'static>(ns: &str, uid: u32, work: impl FnOnce() -> T + Send + 'static) -> T {
    let file = File::open(format!("/run/netns/{ns}")).expect("namespace");
    let thread = std::thread::spawn(move || {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("setns");
        if uid != 0 {
            set_thread_gid(Gid::from_raw(uid)).expect("setgid");
            set_thread_uid(Uid::from_raw(uid)).expect("setuid");
        }
        work()
    });
    thread.join().expect("thread")
}

fn run(words: &[&str]) {
    let output = Command::new(words[0])
        .args(&words[1..])
        .output()
        .expect("start");
    assert!(
        output.status.success(),
        "{words:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Root and network namespaces, or a printed reason; an error if `RINGMESH_REQUIRE` wants them.
fn possible() -> bool {
    let required = std::env::var("RINGMESH_REQUIRE").unwrap_or_default();
    let required = required
        .split(',')
        .any(|word| word == "root" || word == "netns");
    let facts = ringmesh_tuning::probe::gather();
    let lacking = if !facts.capabilities.net_admin || !facts.capabilities.sys_admin {
        "not root"
    } else if facts.binaries.nft.is_none() || facts.binaries.iptables_save.is_none() {
        "nft or iptables is not installed"
    } else {
        return true;
    };
    assert!(
        !required,
        "RINGMESH_REQUIRE wants this test, but: {lacking}"
    );
    eprintln!("SKIPPED (netns): {lacking}");
    if let Ok(path) = std::env::var("RINGMESH_SKIPS") {
        use std::io::Write as _;
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("capture");
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .expect("RINGMESH_SKIPS");
        writeln!(file, "{name}: {lacking}").expect("RINGMESH_SKIPS");
    }
    false
}

fn capture(backend: Backend) -> Capture {
    Capture {
        outbound: Ports::Listed(vec![PORT]),
        inbound: Ports::Listed(vec![PORT]),
        proxy_uid: Some(PROXY),
        from_uids: vec![APP],
        ..Capture::new("t".parse().expect("name"), backend)
    }
}

const BACKENDS: [Backend; 2] = [Backend::Nftables, Backend::Iptables];

#[test]
fn both_backends_capture_both_directions_and_families() {
    if !possible() {
        return;
    }
    for backend in BACKENDS {
        let net = Net::new();
        let capture = capture(backend);
        assert_eq!(
            net.connect(&net.here, APP, THERE[0]),
            Got::Direct,
            "{backend:?} before up"
        );
        net.up(&capture);
        for index in 0..2 {
            let (here, there) = (HERE[index], THERE[index]);
            let meant = |to: &str| SocketAddr::new(to.parse().expect("address"), PORT);
            assert_eq!(
                net.connect(&net.here, APP, there),
                Got::Outbound(meant(there)),
                "{backend:?} app out"
            );
            assert_eq!(
                net.connect(&net.here, PROXY, there),
                Got::Direct,
                "{backend:?} the proxy is never captured"
            );
            assert_eq!(
                net.connect(&net.here, OTHER, there),
                Got::Direct,
                "{backend:?} others are left alone"
            );
            assert_eq!(
                net.connect(&net.there, OTHER, here),
                Got::Inbound(meant(here)),
                "{backend:?} in"
            );
            assert_eq!(
                net.connect(&net.here, PROXY, here),
                Got::Inbound(meant(here)),
                "{backend:?} app to itself"
            );
            assert_eq!(
                net.connect(&net.here, APP, here),
                Got::Direct,
                "{backend:?} app on its own host"
            );
            let loopback = ["127.0.0.1", "::1"][index];
            assert_eq!(
                net.connect(&net.here, PROXY, loopback),
                Got::Direct,
                "{backend:?} the proxy to its app"
            );
        }
        net.down(&capture.name);
        assert_eq!(
            net.connect(&net.here, APP, THERE[0]),
            Got::Direct,
            "{backend:?} after down"
        );
        assert_eq!(
            net.connect(&net.there, OTHER, HERE[1]),
            Got::Direct,
            "{backend:?} after down"
        );
    }
}

#[test]
fn one_port_serves_both_directions() {
    if !possible() {
        return;
    }
    for backend in BACKENDS {
        let net = Net::new();
        net.up(&Capture {
            inbound_to: 15001,
            ..capture(backend)
        });
        let meant = |to: &str| SocketAddr::new(to.parse().expect("address"), PORT);
        assert_eq!(
            net.connect(&net.here, APP, THERE[0]),
            Got::Outbound(meant(THERE[0]))
        );
        assert_eq!(
            net.connect(&net.there, OTHER, HERE[0]),
            Got::Outbound(meant(HERE[0]))
        );
    }
}

#[test]
fn exclusions_and_families_are_honoured() {
    if !possible() {
        return;
    }
    for backend in BACKENDS {
        let net = Net::new();
        let base = Capture {
            from_uids: vec![],
            ..capture(backend)
        };
        let out = |capture: &Capture, uid: u32, to: &str| {
            net.up(capture);
            net.connect(&net.here, uid, to) != Got::Direct
        };
        assert!(out(&base, OTHER, THERE[0]), "{backend:?} everyone");
        let without_port = Capture {
            exclude_outbound: vec![PORT],
            ..base.clone()
        };
        assert!(
            !out(&without_port, APP, THERE[0]),
            "{backend:?} excluded port"
        );
        let without_net = Capture {
            exclude_nets: vec!["10.77.0.0/16".parse().expect("net")],
            ..base.clone()
        };
        assert!(
            !out(&without_net, APP, THERE[0]),
            "{backend:?} excluded block"
        );
        assert!(
            out(&without_net, APP, THERE[1]),
            "{backend:?} the other family"
        );
        let without_uid = Capture {
            exclude_uids: vec![OTHER],
            ..base.clone()
        };
        assert!(
            !out(&without_uid, OTHER, THERE[0]),
            "{backend:?} excluded user"
        );
        assert!(out(&without_uid, APP, THERE[0]), "{backend:?} another user");
        let v4 = Capture {
            families: Families::V4,
            ..base.clone()
        };
        assert!(
            out(&v4, APP, THERE[0]) && !out(&v4, APP, THERE[1]),
            "{backend:?} v4 only"
        );
        let v6 = Capture {
            families: Families::V6,
            ..base.clone()
        };
        assert!(
            !out(&v6, APP, THERE[0]) && out(&v6, APP, THERE[1]),
            "{backend:?} v6 only"
        );
        let by_gid = Capture {
            proxy_uid: None,
            proxy_gid: Some(PROXY),
            ..base.clone()
        };
        assert!(
            !out(&by_gid, PROXY, THERE[0]) && out(&by_gid, APP, THERE[0]),
            "{backend:?} by group"
        );
        net.up(&Capture {
            exclude_inbound: vec![PORT],
            ..base
        });
        assert_eq!(
            net.connect(&net.there, APP, HERE[0]),
            Got::Direct,
            "{backend:?} excluded inbound"
        );
    }
}

#[test]
fn up_twice_is_up_once_and_down_leaves_what_others_added() {
    if !possible() {
        return;
    }
    for backend in BACKENDS {
        let net = Net::new();
        let foreign = ["ip", "netns", "exec", &net.here];
        run(&[&foreign[..], &["nft", "add", "table", "inet", "foreign"]].concat());
        for tool in ["iptables", "ip6tables"] {
            run(&[
                &foreign[..],
                &[
                    tool, "-t", "nat", "-A", "OUTPUT", "-p", "tcp", "--dport", "7", "-j", "RETURN",
                ],
            ]
            .concat());
        }
        let (before, capture) = (net.rules(), capture(backend));
        net.up(&capture);
        let once = net.rules();
        assert_ne!(before, once);
        net.up(&capture);
        assert_eq!(net.rules(), once, "{backend:?} up twice");
        assert_eq!(net.state(&capture.name), State::Up);
        net.down(&capture.name);
        assert_eq!(net.rules(), before, "{backend:?} down");
        net.down(&capture.name);
        assert_eq!(net.rules(), before, "{backend:?} down twice");
    }
}

#[test]
fn a_crash_half_way_is_cleaned_by_name() {
    if !possible() {
        return;
    }
    let net = Net::new();
    let capture = capture(Backend::Iptables);
    let before = net.rules();
    let mut change = plan_up(&capture, &net.host().see(&capture.name).expect("see"));
    change.steps.truncate(1);
    net.host().apply(&change).expect("half of it");
    assert_ne!(net.rules(), before);
    net.down(&capture.name);
    assert_eq!(net.rules(), before);
}

#[test]
fn changing_the_backend_replaces_the_rules() {
    if !possible() {
        return;
    }
    let net = Net::new();
    net.up(&capture(Backend::Iptables));
    let nft = capture(Backend::Nftables);
    net.up(&nft);
    let seen = net.host().see(&nft.name).expect("see");
    assert!(
        seen.nftables.is_some() && seen.v4.lines.is_empty() && seen.v6.lines.is_empty(),
        "{seen:?}"
    );
}

#[test]
fn a_refusal_changes_nothing() {
    if !possible() {
        return;
    }
    let net = Net::new();
    let before = net.rules();
    let capture = Capture {
        from_cgroup: Some("no/such/cgroup".to_owned()),
        ..capture(Backend::Nftables)
    };
    let error = net
        .host()
        .apply(&plan_up(
            &capture,
            &net.host().see(&capture.name).expect("see"),
        ))
        .expect_err("refused");
    assert!(error.to_string().contains("nft"), "{error}");
    assert_eq!(net.rules(), before);
}
