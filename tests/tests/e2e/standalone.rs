//! `examples/standalone/run`: bodies byte for byte as in a direct call, both modes.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};

use ringmesh_tests::ability::{Ability, has};
use ringmesh_tests::ports::free_port;
use ringmesh_tests::upstream::{BIG, Upstream, big, bytes};
use ringmesh_tests::{
    Conn, Launch, Process, SOON, Stage, bins, get, repository, sha256, stage, wait,
};

pub(crate) const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A script with children: it has to hear TERM, or they outlive it.
#[derive(Debug)]
pub(crate) struct Script(Process);

impl Deref for Script {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.0
    }
}

impl DerefMut for Script {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.0
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // Whether it ended well is a test of its own.
        let _ = self.0.stop();
    }
}

/// Starts `examples/WHAT/run PORT UPSTREAM MODE` and waits for `ready`.
pub(crate) fn run(stage: &Stage, what: &str, upstream: &Upstream, mode: &str) -> (Script, u16) {
    run_with(stage, what, upstream, mode, &[])
}

/// [`run`] with more of the script's environment.
pub(crate) fn run_with(
    stage: &Stage,
    what: &str,
    upstream: &Upstream,
    mode: &str,
    environment: &[(&str, &str)],
) -> (Script, u16) {
    run_to(stage, what, upstream.address, mode, environment)
}

/// [`run_with`] to any address.
pub(crate) fn run_to(
    stage: &Stage,
    what: &str,
    upstream: SocketAddr,
    mode: &str,
    environment: &[(&str, &str)],
) -> (Script, u16) {
    run_from(
        &repository("examples"),
        stage,
        what,
        upstream,
        mode,
        environment,
    )
}

/// [`run`] with routes that give an answer ten minutes: a busy machine needs more than their 15 s for a large one,
/// and how long an answer may take is not what is asked here.
pub(crate) fn run_patiently(
    stage: &Stage,
    what: &str,
    upstream: &Upstream,
    mode: &str,
) -> (Script, u16) {
    let examples = patient_examples(stage);
    run_from(&examples, stage, what, upstream.address, mode, &[])
}

/// The scripts with their rules, copied, with other time limits.
fn patient_examples(stage: &Stage) -> PathBuf {
    let (from, to) = (repository("examples"), stage.dir().join("examples"));
    for script in ["standalone/run", "pair/run"] {
        let copy = to.join(script);
        std::fs::create_dir_all(copy.parent().expect("a folder")).expect("folder");
        std::fs::copy(from.join(script), copy).expect("a copy");
    }
    let rules = to.join("standalone/rules");
    std::fs::create_dir(&rules).expect("folder");
    for file in std::fs::read_dir(from.join("standalone/rules")).expect("rules") {
        let file = file.expect("a file");
        let text = std::fs::read_to_string(file.path()).expect("text");
        let text = text
            .replace(" timeout: 15s", " timeout: 600s")
            .replace("perTryTimeout: 10s", "perTryTimeout: 600s");
        std::fs::write(rules.join(file.file_name()), text).expect("a copy");
    }
    to
}

/// [`run_to`] with the scripts and rules in `examples`.
fn run_from(
    examples: &Path,
    stage: &Stage,
    what: &str,
    upstream: SocketAddr,
    mode: &str,
    environment: &[(&str, &str)],
) -> (Script, u16) {
    start(what, stage, |port| {
        let launch = Launch::new(examples.join(what).join("run"))
            .arg(port.to_string())
            .arg(upstream.to_string())
            .arg(mode)
            .env("BIN", &bins().path("").display().to_string())
            .env("STATE", &stage.dir().join(what).display().to_string());
        let set = |launch: Launch, (key, value): &(&str, &str)| launch.env(key, value);
        environment.iter().fold(launch, set)
    })
}

/// Starts what `launch` makes of a free port and waits for `ready`.
pub(crate) fn start(
    what: &str,
    stage: &Stage,
    launch: impl FnOnce(u16) -> Launch,
) -> (Script, u16) {
    let port = free_port();
    let mut process = Process::start(what, &launch(port), stage.dir()).expect("start");
    let log = stage.dir().join(format!("{what}.log"));
    process
        .ready("ready", SOON * 2, || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            if text.lines().any(|line| line == "ready") {
                Ok(())
            } else {
                Err("not yet".to_owned())
            }
        })
        .expect("ready");
    (Script(process), port)
}

/// Every framing and size through `port`, compared with the direct call.
pub(crate) fn http_bodies_are_identical(port: u16, upstream: &Upstream) {
    let through = (LOCAL, port).into();
    for target in [
        "/bytes/0",
        "/bytes/1",
        "/bytes/16384",
        "/bytes/70001",
        "/chunked/0",
        "/chunked/1",
        "/chunked/300000",
        "/close/100000",
    ] {
        let direct = get(upstream.address, "any.example", target, &[], SOON).expect("direct");
        let meshed = get(through, "any.example", target, &[], SOON)
            .unwrap_or_else(|error| panic!("{target}: {error}"));
        assert_eq!(meshed.status, 200, "{target}");
        assert!(
            meshed.body == direct.body,
            "{target}: {} bytes, not {}",
            meshed.body.len(),
            direct.body.len()
        );
        assert_eq!(
            meshed.header("content-type"),
            direct.header("content-type"),
            "{target}"
        );
    }
    // Keep-alive: many on one connection, big and small in turn.
    let mut conn = Conn::open(through, SOON).expect("connect");
    for size in [0, 5, 65_536, 3, 1_000_000, 0, 17] {
        let answer = conn
            .get("any.example", &format!("/bytes/{size}"), &[])
            .expect("answer");
        assert!(answer.body == bytes(size), "{size}");
    }
    // Uploads, by length and in chunks.
    let body = bytes(200_000);
    let mut request = format!(
        "POST /echo HTTP/1.1\r\nhost: any.example\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend(&body);
    assert!(
        conn.ask(&request).expect("answer").body == body,
        "an upload by length"
    );
    let mut request =
        b"POST /echo HTTP/1.1\r\nhost: any.example\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for piece in body.chunks(7_777) {
        write!(request, "{:x}\r\n", piece.len()).expect("write");
        request.extend(piece);
        request.extend(b"\r\n");
    }
    request.extend(b"0\r\n\r\n");
    assert!(
        conn.ask(&request).expect("answer").body == body,
        "an upload in chunks"
    );
    for kind in ["bytes", "chunked"] {
        let answer = get(
            through,
            "any.example",
            &format!("/{kind}/{BIG}"),
            &[],
            SOON * 3,
        )
        .expect("64 MiB");
        assert_eq!(answer.body.len(), BIG, "{kind}");
        assert_eq!(
            sha256(&answer.body),
            sha256(big()),
            "{kind}: sha256 of 64 MiB"
        );
    }
}

/// 64 MiB there and back over one opaque connection.
pub(crate) fn opaque_bytes_are_identical(port: u16) {
    let conn = TcpStream::connect((LOCAL, port)).expect("connect");
    conn.set_read_timeout(Some(SOON * 3)).expect("timeout");
    let sent = big();
    let came = std::thread::scope(|scope| {
        scope.spawn(|| {
            (&conn).write_all(sent).expect("send");
            conn.shutdown(Shutdown::Write).expect("finish");
        });
        let mut came = Vec::with_capacity(BIG);
        (&conn).read_to_end(&mut came).expect("receive");
        came
    });
    assert_eq!(came.len(), BIG);
    assert_eq!(sha256(&came), sha256(sent));
}

#[test]
fn http_bodies_through_standalone_are_identical() {
    if !has(&[Ability::Uring]) {
        return;
    }
    let (stage, upstream) = (stage(), Upstream::http(LOCAL));
    let (mut process, port) = run_patiently(&stage, "standalone", &upstream, "http");
    http_bodies_are_identical(port, &upstream);
    assert_eq!(process.stop().expect("TERM ends it").code(), Some(0));
    wait::until_true("the port free again", SOON, || {
        TcpListener::bind((LOCAL, port)).is_ok()
    })
    .expect("free");
}

#[test]
fn opaque_bytes_through_standalone_are_identical() {
    if !has(&[Ability::Uring]) {
        return;
    }
    let (stage, upstream) = (stage(), Upstream::echo(LOCAL));
    let (_process, port) = run(&stage, "standalone", &upstream, "tcp");
    opaque_bytes_are_identical(port);
}

#[test]
fn log_lines_are_requests() {
    if !has(&[Ability::Uring]) {
        return;
    }
    let (stage, upstream) = (stage(), Upstream::http(LOCAL));
    let (mut process, port) = run(&stage, "standalone", &upstream, "http");
    let call = ringmesh_tests::load::Call {
        to: (LOCAL, port).into(),
        authority: "any.example",
        target: "/bytes/128",
        caller: "test",
    };
    let answers = call.times(2_000, 8).expect("answers");
    assert_eq!(ringmesh_tests::load::with_status(&answers, 200), 2_000);
    process.stop().expect("stop");
    let log =
        std::fs::read_to_string(stage.dir().join("standalone/access.log")).expect("access log");
    assert_eq!(log.lines().count(), 2_000);
    assert_eq!(upstream.requests(), 2_000);
}
