//! TPROXY: who is captured, whom the app sees, and that its answers find the sidecar.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Instant;

use ringmesh_tuning::intercept::{
    APP_MARK, Backend, Capture, Families, Mode, Name, State, plan_up,
};

use super::{
    BACKENDS, DEADLINE, Got, HERE, Net, OTHER, PORT, PROXY, THERE, capture, inside, possible, run,
    take, transparent,
};

fn tproxy(backend: Backend) -> Capture {
    Capture {
        mode: Mode::Tproxy,
        ..capture(backend)
    }
}

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse::<IpAddr>().expect("address"), port)
}

fn accept(listeners: &[std::net::TcpListener], what: &str) -> TcpStream {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(conn) = take(listeners) {
            conn.set_nonblocking(false).expect("blocking");
            conn.set_read_timeout(Some(DEADLINE)).expect("timeout");
            return conn;
        }
        assert!(Instant::now() < deadline, "nothing came: {what}");
        std::thread::yield_now();
    }
}

/// What the sidecar does: a connection to the app in the client's name.
fn speak_for(ns: &str, client: IpAddr, to: SocketAddr) -> TcpStream {
    inside(ns, PROXY_WITH_RIGHTS, move || {
        let domain = socket2::Domain::for_address(to);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).expect("socket");
        transparent(&socket, client);
        socket.set_mark(APP_MARK).expect("mark");
        socket
            .bind(&SocketAddr::new(client, 0).into())
            .expect("bind");
        socket
            .connect_timeout(&to.into(), DEADLINE)
            .expect("the app's answer finds the sidecar");
        socket.set_read_timeout(Some(DEADLINE)).expect("timeout");
        socket.into()
    })
}

/// A thread that gives up root gives up what a sidecar keeps by AmbientCapabilities.
const PROXY_WITH_RIGHTS: u32 = 0;

/// Bytes both ways, enough for many packets.
fn talk(one: &TcpStream, other: &TcpStream) {
    let sent = vec![7; 300_000];
    for (mut from, mut to) in [(one, other), (other, one)] {
        let mut heard = vec![0; sent.len()];
        std::thread::scope(|scope| {
            scope.spawn(|| from.write_all(&sent).expect("send"));
            to.read_exact(&mut heard).expect("receive");
        });
        assert_eq!(heard, sent);
    }
}

/// A call from `there`: captured with its addresses, and carried on to the app in the caller's name.
fn call_through(net: &Net, index: usize) {
    let to = at(HERE[index], PORT);
    let client = inside(&net.there, OTHER, move || {
        TcpStream::connect_timeout(&to, DEADLINE).expect("connect")
    });
    client.set_read_timeout(Some(DEADLINE)).expect("timeout");
    let captured = accept(&net.inbound, "to the sidecar");
    assert_eq!(captured.local_addr().expect("local"), to, "what was called");
    let address = client.local_addr().expect("local");
    assert_eq!(captured.peer_addr().expect("peer"), address, "who called");
    let upstream = speak_for(&net.here, address.ip(), to);
    let app = accept(&net.direct, "to the app");
    assert_eq!(
        app.peer_addr().expect("peer").ip(),
        address.ip(),
        "whom the app sees"
    );
    talk(&client, &captured);
    talk(&upstream, &app);
}

#[test]
fn the_app_sees_the_client() {
    if !possible() {
        return;
    }
    for backend in BACKENDS {
        let net = Net::new();
        let capture = tproxy(backend);
        net.up(&capture);
        assert_eq!(net.state(&capture.name), State::Up, "{backend:?}");
        for index in 0..2 {
            call_through(&net, index);
        }
        // Strictly checked ways back, and sockets that take over marks, change nothing.
        for setting in [
            "net.ipv4.conf.all.rp_filter=1",
            "net.ipv4.conf.c0.rp_filter=1",
            "net.ipv4.conf.lo.rp_filter=1",
            "net.ipv4.tcp_fwmark_accept=1",
        ] {
            run(&["ip", "netns", "exec", &net.here, "sysctl", "-qw", setting]);
        }
        for index in 0..2 {
            call_through(&net, index);
        }
        net.down(&capture.name);
        for there in HERE {
            assert_eq!(net.connect(&net.there, OTHER, there), Got::Direct);
        }
    }
}

#[test]
fn what_leaves_is_redirected_as_ever() {
    if !possible() {
        return;
    }
    for backend in BACKENDS {
        let net = Net::new();
        net.up(&tproxy(backend));
        for index in 0..2 {
            let (here, there) = (HERE[index], THERE[index]);
            assert_eq!(
                net.connect(&net.here, super::APP, there),
                Got::Outbound(at(there, PORT)),
                "{backend:?} app out"
            );
            assert_eq!(net.connect(&net.here, PROXY, there), Got::Direct);
            assert_eq!(net.connect(&net.here, OTHER, there), Got::Direct);
            // The sidecar's outbound side to its own service is redirected, not what it does in a
            // client's name.
            assert_eq!(
                net.connect(&net.here, PROXY, here),
                Got::Inbound(at(here, PORT)),
                "{backend:?} app to itself"
            );
            assert_eq!(net.connect(&net.here, super::APP, here), Got::Direct);
        }
    }
}

#[test]
fn connections_from_before_go_on_and_without_a_sidecar_none_begins() {
    if !possible() {
        return;
    }
    for backend in BACKENDS {
        let mut net = Net::new();
        let to = at(HERE[0], PORT);
        let before = inside(&net.there, OTHER, move || {
            TcpStream::connect_timeout(&to, DEADLINE).expect("connect")
        });
        before.set_read_timeout(Some(DEADLINE)).expect("timeout");
        let app = accept(&net.direct, "before");
        net.up(&tproxy(backend));
        talk(&before, &app);
        net.inbound.clear();
        let patience = std::time::Duration::from_millis(300);
        let deadline = Instant::now() + DEADLINE;
        // A process that another test begins at this moment holds the listeners until its exec.
        while inside(&net.there, OTHER, move || {
            TcpStream::connect_timeout(&to, patience)
        })
        .is_ok()
        {
            assert!(Instant::now() < deadline, "{backend:?} closed, not open");
        }
        assert!(take(&net.direct).is_none(), "{backend:?} past the sidecar");
        talk(&before, &app);
    }
}

#[test]
fn up_twice_is_up_once_and_down_leaves_what_others_added() {
    if !possible() {
        return;
    }
    for backend in BACKENDS {
        let net = Net::new();
        // Istio's own rule on the same host.
        for family in ["-4", "-6"] {
            for words in [
                &["rule", "add", "fwmark", "1337", "lookup", "133"][..],
                &[
                    "route", "add", "local", "default", "dev", "lo", "table", "133",
                ],
            ] {
                run(&[&["ip", family, "-n", &net.here], words].concat());
            }
        }
        let (before, capture) = (net.rules(), tproxy(backend));
        net.up(&capture);
        let once = net.rules();
        assert_ne!(before, once);
        net.up(&capture);
        assert_eq!(net.rules(), once, "{backend:?} up twice");
        net.down(&capture.name);
        assert_eq!(net.rules(), before, "{backend:?} down");
        net.down(&capture.name);
        assert_eq!(net.rules(), before, "{backend:?} down twice");
    }
}

#[test]
fn routing_goes_with_the_last_that_needs_it() {
    if !possible() {
        return;
    }
    let net = Net::new();
    let before = net.rules();
    let name: Name = "u".parse().expect("name");
    let other = Capture {
        name: name.clone(),
        ..tproxy(Backend::Iptables)
    };
    let capture = tproxy(Backend::Nftables);
    net.up(&capture);
    net.up(&other);
    net.down(&capture.name);
    assert_eq!(net.state(&name), State::Up);
    call_through(&net, 0);
    net.up(&capture);
    net.down(&name);
    assert_eq!(net.state(&capture.name), State::Up);
    call_through(&net, 1);
    // The other mode needs none.
    net.up(&Capture {
        mode: Mode::Redirect,
        ..capture.clone()
    });
    assert!(!net.rules().contains("lookup 133"), "{}", net.rules());
    assert_eq!(
        net.connect(&net.there, OTHER, HERE[0]),
        Got::Inbound(at(HERE[0], PORT))
    );
    net.down(&capture.name);
    assert_eq!(net.rules(), before);
}

#[test]
fn backends_and_modes_replace_each_other() {
    if !possible() {
        return;
    }
    let net = Net::new();
    let before = net.rules();
    for backend in [Backend::Iptables, Backend::Nftables, Backend::Iptables] {
        net.up(&capture(backend));
        assert_eq!(
            net.connect(&net.there, OTHER, HERE[0]),
            Got::Inbound(at(HERE[0], PORT)),
            "{backend:?}"
        );
        net.up(&tproxy(backend));
        call_through(&net, 0);
    }
    let v4 = Capture {
        families: Families::V4,
        ..tproxy(Backend::Iptables)
    };
    net.up(&v4);
    call_through(&net, 0);
    assert_eq!(net.connect(&net.there, OTHER, HERE[1]), Got::Direct);
    net.down(&v4.name);
    assert_eq!(net.rules(), before);
}

#[test]
fn a_crash_at_any_step_is_seen_and_cleaned_by_name() {
    if !possible() {
        return;
    }
    for backend in BACKENDS {
        let net = Net::new();
        let (before, capture) = (net.rules(), tproxy(backend));
        let whole = plan_up(&capture, &net.host().see(&capture.name).expect("see"));
        for steps in 1..=whole.steps.len() {
            let mut change = whole.clone();
            change.steps.truncate(steps);
            net.host().apply(&change).expect("part of it");
            assert_ne!(net.rules(), before, "{backend:?} {steps}");
            net.down(&capture.name);
            assert_eq!(net.rules(), before, "{backend:?} {steps}");
        }
        net.up(&capture);
        let lost = ["-4", "-n", &net.here, "rule", "del", "pref", "133"];
        assert!(
            Command::new("ip")
                .args(lost)
                .status()
                .expect("ip")
                .success()
        );
        assert_eq!(net.state(&capture.name), State::Broken, "{backend:?}");
        let lost = ["-6", "-n", &net.here, "rule", "del", "pref", "133"];
        assert!(
            Command::new("ip")
                .args(lost)
                .status()
                .expect("ip")
                .success()
        );
        let told = net.host().tproxy();
        assert!(told.capturing && !told.routed, "{told:?}");
        net.up(&capture);
        let told = net.host().tproxy();
        assert!(told.capturing && told.routed, "{told:?}");
        assert_ne!(told.module, Some(false));
        call_through(&net, 0);
    }
}

#[test]
fn a_refusal_takes_the_routing_back() {
    if !possible() {
        return;
    }
    let net = Net::new();
    let before = net.rules();
    // Something of another's has the place of the v6 route.
    run(&[
        "ip",
        "-6",
        "-n",
        &net.here,
        "route",
        "add",
        "blackhole",
        "default",
        "metric",
        "1024",
        "table",
        "133",
    ]);
    let with_theirs = net.rules();
    assert_ne!(before, with_theirs);
    let capture = tproxy(Backend::Nftables);
    let seen = net.host().see(&capture.name).expect("see");
    net.host()
        .apply(&plan_up(&capture, &seen))
        .expect_err("refused");
    assert_eq!(net.rules(), with_theirs);
    assert_eq!(net.state(&capture.name), State::Down);
}
