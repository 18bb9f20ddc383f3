//! Arriving connections captured by TPROXY: the app sees who calls, whatever is spoken, and nobody
//! speaks in another's name.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;

use ringmesh_tests::ability::{Ability, has};
use ringmesh_tests::stage::{Space, inside};
use ringmesh_tests::upstream::Upstream;
use ringmesh_tests::{
    ControlService, Launch, NodePlan, Process, SOON, Sidecar, Stage, get, repository, stage, wait,
};

const HTTP: u16 = 9080;
/// The app speaks first.
const TCP: u16 = 9081;
/// Says nothing of what it speaks; the app speaks first.
const UNDECLARED: u16 = 9082;
/// Says nothing of what it speaks, which is HTTP.
const UNDECLARED_HTTP: u16 = 9083;
const HTTP2: u16 = 9084;

const PERMISSIVE: &str = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: mesh, namespace: istio-system}\nspec: {mtls: {mode: PERMISSIVE}}\n";

/// Callers, at the other end of the cable. The sidecar of the mesh's own caller is at the first.
const CLIENTS: [&str; 2] = ["10.88.0.254", "10.88.0.253"];
const CLIENTS_V6: [&str; 2] = ["fd88::254", "fd88::253"];
const HERE: &str = "10.88.0.31";
const HERE_V6: &str = "fd88::31";

const fn outside(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 88, 0, last))
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("address")
}

/// A service with its sidecar in a namespace, and callers in another.
struct Scene {
    sidecar: Sidecar,
    control: ControlService,
    apps: Vec<Upstream>,
    space: Space,
    stage: Stage,
}

impl Scene {
    fn set(what: &str, inbound: &str) -> Self {
        let stage = stage();
        let space = Space::make(what, &[2, 31].map(outside)).expect("namespace");
        let add = |netns: &str, address: &str, link: &str| {
            let words = ["-n", netns, "addr", "add", address, "dev", link];
            let nodad: &[&str] = if address.contains(':') {
                &["nodad"]
            } else {
                &[]
            };
            let added = Command::new("ip").args(words).args(nodad).status();
            assert!(added.expect("ip").success(), "{address}");
        };
        add(space.name(), &format!("{HERE_V6}/64"), "c0");
        add(space.world(), &format!("{}/24", CLIENTS[1]), "c1");
        for client in CLIENTS_V6 {
            add(space.world(), &format!("{client}/64"), "c1");
        }
        let apps = inside(space.name(), || {
            let every = |port| SocketAddr::new(ip("::"), port);
            vec![
                Upstream::http_at(every(HTTP)),
                Upstream::greeter_at(every(TCP)),
                Upstream::greeter_at(every(UNDECLARED)),
                Upstream::http_at(every(UNDECLARED_HTTP)),
            ]
        })
        .expect("apps");
        let netns = Some(space.name());
        let control = ControlService::start_in(&stage, "control", outside(2), "{}\n", netns)
            .expect("control");
        let mut plan = NodePlan::new("lines", "v1", "1", outside(31));
        plan.admin = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let settings = settings(&plan, &control, &stage, inbound);
        let mut sidecar = Sidecar::launch(&stage, &plan, &settings, &[], netns).expect("sidecar");
        sidecar.wait_ready().expect("ready");
        let rule = stage.file("permissive.yaml", PERMISSIVE).expect("file");
        control.apply(&rule).expect("apply");
        Self {
            sidecar,
            control,
            apps,
            space,
            stage,
        }
    }

    fn capture(&self, backend: &str) {
        let ports = [HTTP, TCP, UNDECLARED, UNDECLARED_HTTP, HTTP2].map(|port| port.to_string());
        let words = [
            "up",
            "--name",
            "t",
            "--mode",
            "tproxy",
            "--backend",
            backend,
            "--proxy-uid",
            "0",
            "--inbound",
            &ports.join(","),
        ];
        self.space.intercept(&self.stage, &words).expect("up");
    }

    fn release(&self) {
        let down = ["down", "--name", "t"];
        self.space.intercept(&self.stage, &down).expect("down");
        assert_eq!(self.space.rules().expect("rules"), Vec::<String>::new());
    }

    /// A connection of a client outside.
    fn connect(&self, client: &str, to: SocketAddr) -> TcpStream {
        connect(self.space.world(), client, to)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // They are woken by a connection, which has to be made where they listen.
        let apps = std::mem::take(&mut self.apps);
        let _ = inside(self.space.name(), move || drop(apps));
    }
}

fn settings(plan: &NodePlan, control: &ControlService, stage: &Stage, inbound: &str) -> String {
    let state = stage.dir().join(&plan.name);
    let token = control.token(plan).expect("token");
    std::fs::write(state.with_extension("token"), token).expect("token");
    let own = format!("inbound: \"{HERE}:15006\"");
    let settings = plan.settings(None, Some(control.mesh), &state);
    assert!(settings.contains(&own), "{settings}");
    let settings = settings.replace(
        &own,
        &format!("inbound: \"{inbound}\", inbound_mode: tproxy"),
    );
    let mut ports = String::new();
    for (name, port) in [
        ("http", HTTP),
        ("tcp", TCP),
        ("greeting", UNDECLARED),
        ("asking", UNDECLARED_HTTP),
        ("http2", HTTP2),
    ] {
        let check = if port == HTTP2 { ", check: none" } else { "" };
        ports += &format!("  - {{name: {name}, port: {port}, app: \"127.0.0.1:{port}\"{check}}}\n");
    }
    format!("{settings}ports:\n{ports}")
}

fn connect(netns: &str, client: &str, to: SocketAddr) -> TcpStream {
    let client = ip(client);
    let stream = inside(netns, move || {
        let domain = socket2::Domain::for_address(to);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).expect("socket");
        socket
            .bind(&SocketAddr::new(client, 0).into())
            .expect("bind");
        socket.connect_timeout(&to.into(), SOON).expect("connect");
        TcpStream::from(socket)
    });
    let stream = stream.expect("the other end");
    stream.set_read_timeout(Some(SOON)).expect("timeout");
    stream
}

/// Whom the app sees behind an HTTP/1.1 connection.
fn asked(stream: &TcpStream) -> SocketAddr {
    let mut stream = stream;
    stream
        .write_all(b"GET /peer HTTP/1.1\r\nhost: lines\r\n\r\n")
        .expect("ask");
    let mut reader = BufReader::new(stream);
    let mut length = None;
    let mut head = String::new();
    loop {
        let start = head.len();
        reader.read_line(&mut head).expect("answer");
        let line = &head[start..];
        if line == "\r\n" || line.is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok();
        }
    }
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let mut body = vec![0; length.expect("a length")];
    reader.read_exact(&mut body).expect("body");
    let text = String::from_utf8(body).expect("text");
    plain(text.parse().expect("an address"))
}

/// Whom an app sees that speaks first; and bytes go both ways.
fn greeted(stream: &TcpStream) -> SocketAddr {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).expect("greeting");
    let mut stream = stream;
    stream.write_all(b"ping").expect("send");
    let mut heard = [0; 4];
    reader.read_exact(&mut heard).expect("echo");
    assert_eq!(&heard, b"ping");
    plain(line.trim().parse().expect("an address"))
}

/// The apps listen for both families on one socket.
fn plain(seen: SocketAddr) -> SocketAddr {
    SocketAddr::new(seen.ip().to_canonical(), seen.port())
}

#[test]
fn the_app_sees_who_calls() {
    if !has(&[Ability::Root, Ability::Netns, Ability::Uring]) {
        return;
    }
    let scene = Scene::set("tproxy", "0.0.0.0:15006");
    for backend in ["nftables", "iptables"] {
        scene.capture(backend);
        for client in CLIENTS {
            let at = |port| SocketAddr::new(ip(HERE), port);
            for port in [HTTP, UNDECLARED_HTTP] {
                let stream = scene.connect(client, at(port));
                let first = asked(&stream);
                assert_eq!(first.ip(), ip(client), "{backend} {port}");
                let own = stream.local_addr().expect("own address");
                assert_ne!(first, own, "that one is taken by the client itself");
                for _ in 0..3 {
                    assert_eq!(asked(&stream), first, "a kept connection serves it again");
                }
            }
            for port in [TCP, UNDECLARED] {
                let stream = scene.connect(client, at(port));
                assert_eq!(greeted(&stream).ip(), ip(client), "{backend} {port}");
            }
        }
        // The service calls itself: redirected, and it sees itself.
        let stream = connect(scene.space.name(), HERE, SocketAddr::new(ip(HERE), HTTP));
        assert_eq!(asked(&stream).ip(), ip(HERE), "{backend}");
        scene.release();
        // Without rules there is nobody between.
        let stream = scene.connect(CLIENTS[1], SocketAddr::new(ip(HERE), HTTP));
        assert_eq!(asked(&stream), stream.local_addr().expect("own address"));
    }
    let upstream = format!("{HERE}:{HTTP}");
    let shown = |record: &serde_json::Value| record.to_string().contains(&upstream);
    wait::until_true("the log says where calls went", SOON, || {
        scene.sidecar.records().iter().any(shown)
    })
    .expect("logged");
}

#[test]
fn the_app_sees_who_calls_over_ipv6() {
    if !has(&[Ability::Root, Ability::Netns, Ability::Uring]) {
        return;
    }
    let scene = Scene::set("tproxy6", "[::]:15006");
    for backend in ["nftables", "iptables"] {
        scene.capture(backend);
        for client in CLIENTS_V6 {
            let stream = scene.connect(client, SocketAddr::new(ip(HERE_V6), HTTP));
            assert_eq!(asked(&stream).ip(), ip(client), "{backend}");
            let stream = scene.connect(client, SocketAddr::new(ip(HERE_V6), TCP));
            assert_eq!(greeted(&stream).ip(), ip(client), "{backend}");
        }
        scene.release();
    }
}

/// Many kept connections of two clients, each with requests of its own at the same time.
#[test]
fn nobody_is_given_a_connection_in_anothers_name() {
    if !has(&[Ability::Root, Ability::Netns, Ability::Uring]) {
        return;
    }
    const CONNECTIONS: usize = 8;
    const REQUESTS: usize = 50;
    let scene = Scene::set("tproxy-mix", "0.0.0.0:15006");
    scene.capture("nftables");
    std::thread::scope(|scope| {
        for at in 0..CONNECTIONS {
            let client = CLIENTS[at % 2];
            let scene = &scene;
            scope.spawn(move || {
                for round in 0..2 {
                    let stream = scene.connect(client, SocketAddr::new(ip(HERE), HTTP));
                    for request in 0..REQUESTS {
                        let seen = asked(&stream).ip();
                        assert_eq!(seen, ip(client), "{at} {round} {request}");
                    }
                }
            });
        }
    });
    assert_eq!(
        scene.apps[0].requests(),
        (2 * CONNECTIONS * REQUESTS) as u64
    );
    scene.release();
}

/// Other sidecars prove who they are; where they call from is what the app sees.
#[test]
fn the_app_sees_where_another_sidecar_calls_from() {
    if !has(&[Ability::Root, Ability::Netns, Ability::Uring]) {
        return;
    }
    let scene = Scene::set("tproxy-mesh", "0.0.0.0:15006");
    scene.capture("nftables");
    let mut plan = NodePlan::new("caller", "v1", "1", ip(CLIENTS[0]));
    let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
    (plan.admin, plan.outbound) = (local, local);
    let state = scene.stage.dir().join(&plan.name);
    let token = scene.control.token(&plan).expect("token");
    std::fs::write(state.with_extension("token"), token).expect("token");
    let settings = plan.settings(None, Some(scene.control.mesh), &state);
    let world = scene.space.world();
    let words = ["-n", world, "link", "set", "lo", "up"];
    let up = Command::new("ip").args(words).status();
    assert!(up.expect("ip").success());
    let mut caller =
        Sidecar::launch(&scene.stage, &plan, &settings, &[], Some(world)).expect("caller");
    caller.wait_ready().expect("ready");
    let outbound = caller.outbound();
    wait::until("an answer through both", SOON, || {
        let call = move || get(outbound, "lines:9080", "/peer", &[], SOON);
        let answer = inside(world, call)??;
        let seen: SocketAddr = match answer.status {
            200 => answer.text().parse().map_err(|_| answer.text())?,
            status => return Err(format!("{status} {}", answer.text())),
        };
        assert_eq!(plain(seen).ip(), ip(CLIENTS[0]));
        Ok(())
    })
    .expect("called");
    let mut stream = connect(world, "127.0.0.1", outbound);
    stream
        .write_all(format!("CONNECT lines:{TCP} HTTP/1.1\r\nhost: lines:{TCP}\r\n\r\n").as_bytes())
        .expect("ask");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("tunnel");
        head.extend(byte);
    }
    assert!(
        head.starts_with(b"HTTP/1.1 200 "),
        "{}",
        head.escape_ascii()
    );
    assert_eq!(greeted(&stream).ip(), ip(CLIENTS[0]));
    scene.release();
}

#[test]
fn http2_on_either_side() {
    if !has(&[Ability::Root, Ability::Netns, Ability::Uring, Ability::Node]) {
        return;
    }
    let scene = Scene::set("tproxy-h2", "0.0.0.0:15006");
    let node = Launch::new("node")
        .arg(repository("tests/clients/http2_peer_server.js"))
        .arg(HTTP2.to_string())
        .in_netns(Some(scene.space.name()));
    let mut app = Process::start("http2-app", &node, scene.stage.dir()).expect("node");
    scene.capture("nftables");
    let ask = |client: &str, port: u16| {
        let output = Command::new("ip")
            .args(["netns", "exec", scene.space.world(), "curl", "--silent"])
            .args([
                "--show-error",
                "--fail",
                "--max-time",
                "20",
                "--noproxy",
                "*",
            ])
            .args(["--http2-prior-knowledge", "--interface", client])
            .arg(format!("http://{HERE}:{port}/peer"))
            .output()
            .map_err(|error| error.to_string())?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    };
    for client in CLIENTS.into_iter().chain(CLIENTS) {
        for port in [HTTP, HTTP2] {
            let seen = app.ready("an answer", SOON, || ask(client, port));
            let seen: SocketAddr = seen.expect("answered").parse().expect("an address");
            assert_eq!(plain(seen).ip(), ip(client), "{port}");
        }
    }
    scene.release();
}

#[test]
fn without_the_right_to_it_the_sidecar_says_so_and_ends() {
    if !has(&[Ability::Root, Ability::Netns, Ability::Uring]) {
        return;
    }
    let stage = stage();
    let settings = "node: a\nservice: a\nstate_dir: a\nlisteners: {outbound: none, mesh: none, admin: none, inbound_mode: tproxy}\ncontrol: {address: \"127.0.0.1:15012\"}\n";
    let file = stage.file("a.yaml", settings).expect("file");
    let output = Command::new("setpriv")
        .args(["--bounding-set", "-net_admin,-net_raw"])
        .arg(stage.bins.path("ringmesh-proxy"))
        .arg("--config")
        .arg(&file)
        .output()
        .expect("setpriv");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for word in ["a.yaml", "listeners.inbound_mode", "CAP_NET_ADMIN"] {
        assert!(said.contains(word), "{said}");
    }
}
