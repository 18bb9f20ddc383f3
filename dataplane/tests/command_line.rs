//! The binary as people and service managers meet it: exit statuses, messages, signals.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use ringmesh_wire::snapshot::{Body, Mesh, MtlsMode, OnQuotaUnavailable, OutboundMode};
use ringmesh_wire::{NodeId, Revision, Snapshot};

const SOON: Duration = Duration::from_secs(20);

fn proxy() -> Command {
    Command::new(env!("CARGO_BIN_EXE_ringmesh-proxy"))
}

fn run(arguments: &[&str]) -> Output {
    proxy().args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn snapshot(revision: u64, node: &str) -> Vec<u8> {
    let mesh = Body::Mesh(Mesh {
        trust_domain: "mesh.local".into(),
        default_timeout_ms: 15_000,
        outbound: OutboundMode::RegistryOnly,
        on_quota_unavailable: OnQuotaUnavailable::Share,
        retry_non_idempotent: false,
        mtls: MtlsMode::Strict,
        mtls_ports: Vec::new(),
    });
    let sections = vec![mesh.seal("").unwrap()];
    let snapshot = Snapshot::new(Revision(revision), NodeId(node.into()), sections).unwrap();
    snapshot.to_file().unwrap()
}

struct Folder {
    dir: tempfile::TempDir,
}

impl Folder {
    fn new(more: &str) -> Self {
        Self::with(SocketAddr::from(([127, 0, 0, 1], 0)), more)
    }

    /// Whose sidecar listens there.
    fn at(outbound: SocketAddr) -> Self {
        Self::with(outbound, "")
    }

    fn with(outbound: SocketAddr, more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let text = format!(
            "node: n\nservice: s\nstate_dir: state\nshards: 1\n\
             listeners: {{outbound: \"{outbound}\", inbound: none, mesh: none, \
             admin: \"127.0.0.1:0\"}}\n{more}"
        );
        std::fs::write(dir.path().join("sidecar.yaml"), text).unwrap();
        std::fs::write(dir.path().join("snapshot.rmsh"), snapshot(1, "n")).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn arguments(&self) -> [String; 4] {
        let text = |path: &Path| path.display().to_string();
        [
            "--config".into(),
            text(&self.path("sidecar.yaml")),
            "--snapshot".into(),
            text(&self.path("snapshot.rmsh")),
        ]
    }
}

/// A running sidecar; killed if the test forgets it.
struct Sidecar {
    child: Child,
    folder: Folder,
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Sidecar {
    fn start(folder: Folder) -> Self {
        let mut child = proxy()
            .args(folder.arguments())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self { child, folder }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.unwrap().success());
    }

    /// Status and body, over the admin socket.
    fn ask(&self, method: &str, path: &str) -> (u16, String) {
        let socket = self.folder.path("state/admin.sock");
        let mut conn = std::os::unix::net::UnixStream::connect(socket).unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        conn.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        conn.read_to_string(&mut answer).unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1.to_owned();
        (answer[9..12].parse().unwrap(), body)
    }

    fn config(&self) -> serde_json::Value {
        serde_json::from_str(&self.ask("GET", "/config").1).unwrap()
    }

    #[track_caller]
    fn until(&self, what: &str, is: impl Fn(&serde_json::Value) -> bool) {
        let deadline = Instant::now() + SOON;
        loop {
            let config = self.config();
            if is(&config) {
                return;
            }
            assert!(Instant::now() < deadline, "{what}: {config}");
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    fn outbound(&self) -> SocketAddr {
        let config = self.config();
        config["listeners"]["outbound"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap()
    }

    #[track_caller]
    fn ends(&mut self) -> Option<i32> {
        let deadline = Instant::now() + SOON;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
}

#[test]
fn help_teaches_and_version_tells() {
    let help = run(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    let text = String::from_utf8_lossy(&help.stdout).into_owned();
    for word in ["--snapshot", "HUP", "ringmesh compile", "Exit status"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let version = run(&["--version"]);
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
}

#[test]
fn wrong_input_is_status_2_with_its_place() {
    let good = Folder::new("");
    let colour = Folder::new("colour: red\n");
    let (good_file, colour_file) = (good.path("sidecar.yaml"), colour.path("sidecar.yaml"));
    let snapshot = good.path("snapshot.rmsh").display().to_string();
    let (good_file, colour_file) = (
        good_file.display().to_string(),
        colour_file.display().to_string(),
    );
    let other = good.path("other.rmsh");
    std::fs::write(&other, self::snapshot(1, "somebody")).unwrap();
    let damaged = good.path("damaged.rmsh");
    std::fs::write(&damaged, b"RMSH nonsense").unwrap();
    let (other, damaged) = (other.display().to_string(), damaged.display().to_string());
    let place = format!("{colour_file}:6:1: colour: unknown field; one of");
    let cases: [(&[&str], &str); 8] = [
        (&[], "--config"),
        (
            &["--config", "/nonexistent"],
            "/nonexistent: cannot be read",
        ),
        (&["--config", &colour_file, "--snapshot", &snapshot], &place),
        (&["--config", &good_file], "no --snapshot is given"),
        (
            &["--config", &good_file, "--snapshot", "/nonexistent"],
            "there is no such file",
        ),
        (
            &["--config", &good_file, "--snapshot", &other],
            "compiled for node somebody",
        ),
        (
            &["--config", &good_file, "--snapshot", &damaged],
            "not usable (wire_",
        ),
        (&["--config", &good_file, "--shards", "many"], "auto, all"),
    ];
    for (arguments, word) in cases {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(
            said(&output).contains(word),
            "{arguments:?}: {}",
            said(&output)
        );
    }
    let checked = run(&["--config", &good_file, "--snapshot", &snapshot, "--check"]);
    assert_eq!(checked.status.code(), Some(0), "{}", said(&checked));
    assert!(!good.path("state").exists(), "a check makes nothing");
}

#[test]
fn a_port_that_is_taken_is_status_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap();
    let folder = Folder::new("");
    let text = std::fs::read_to_string(folder.path("sidecar.yaml")).unwrap();
    let text = text.replacen("127.0.0.1:0", &at.to_string(), 1);
    std::fs::write(folder.path("sidecar.yaml"), text).unwrap();
    let output = proxy().args(folder.arguments()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let why = said(&output);
    assert!(
        why.contains(&format!("cannot listen on {at} (outbound)")),
        "{why}"
    );
}

#[test]
fn hup_swaps_the_snapshot_and_a_bad_one_changes_nothing() {
    let sidecar = Sidecar::start(Folder::new(""));
    assert_eq!(sidecar.config()["revision"], 1);
    let file = sidecar.folder.path("snapshot.rmsh");
    std::fs::write(&file, snapshot(2, "n")).unwrap();
    sidecar.signal("HUP");
    sidecar.until("the second revision", |config| config["revision"] == 2);
    let whole = snapshot(3, "n");
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    sidecar.signal("HUP");
    sidecar.until("the refusal", |config| {
        let why = config["refused"]["reason"].as_str().unwrap_or("");
        why.contains("wire_truncated")
    });
    assert_eq!(sidecar.config()["revision"], 2);
    assert_eq!(sidecar.ask("GET", "/readyz").0, 200);
    std::fs::write(&file, whole).unwrap();
    sidecar.signal("HUP");
    sidecar.until("the third", |config| {
        config["revision"] == 3 && config["refused"].is_null()
    });
}

/// An address that nobody else is given while the first of the two lives: it is bound and does not listen, and a
/// sidecar may listen beside it.
fn held() -> (socket2::Socket, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    let at = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, at)
}

#[test]
fn term_ends_it_and_leaves_no_socket() {
    let (_held, at) = held();
    let mut sidecar = Sidecar::start(Folder::at(at));
    TcpStream::connect(at).unwrap();
    sidecar.signal("TERM");
    assert_eq!(sidecar.ends(), Some(0));
    assert!(!sidecar.folder.path("state/admin.sock").exists());
    assert!(TcpStream::connect(at).is_err());
}

#[test]
fn drain_by_the_socket_keeps_the_process_until_term() {
    let mut sidecar = Sidecar::start(Folder::new(""));
    assert_eq!(sidecar.ask("POST", "/drain").0, 202);
    sidecar.until("draining", |config| config["draining"] == true);
    assert_eq!(sidecar.ask("GET", "/readyz").0, 503);
    assert_eq!(sidecar.ask("POST", "/log?level=debug").0, 200);
    assert_eq!(sidecar.ask("POST", "/log?level=loud").0, 400);
    sidecar.signal("TERM");
    assert_eq!(sidecar.ends(), Some(0));
}

#[test]
fn killed_and_started_again_at_once_it_serves_at_the_same_port() {
    let (_held, at) = held();
    let mut first = Sidecar::start(Folder::at(at));
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    let again = Sidecar::start(Folder::at(at));
    assert_eq!(again.outbound(), at);
    TcpStream::connect(at).unwrap();
}

#[test]
fn a_check_reads_the_token_where_there_is_no_certificate() {
    let check = |folder: &Folder| {
        let file = folder.path("sidecar.yaml").display().to_string();
        let output = run(&["--config", &file, "--check"]);
        let said = said(&output).replace(&file, "FILE");
        (output.status.code(), said)
    };
    let command = "`ringmesh token create --node n --service s --label version=v1`";
    let labels = "labels: {version: v1}";
    let folder = Folder::new(&format!(
        "control: {{address: \"127.0.0.1:9\"}}\n{labels}\n"
    ));
    let (status, why) = check(&folder);
    assert_eq!(status, Some(2), "{why}");
    assert!(
        why.starts_with("FILE:6:10: control.token_file: missing"),
        "{why}"
    );
    assert!(why.contains(command), "{why}");

    let control = "control: {address: \"127.0.0.1:9\", token_file: join.token}";
    let folder = Folder::new(&format!("{control}\n{labels}\n"));
    let good = format!("id.secret.{}\n", "0f".repeat(32));
    for (token, wanted) in [
        (None, "No such file"),
        (Some("garbage"), "three parts"),
        (Some(&*good), ""),
    ] {
        if let Some(token) = token {
            std::fs::write(folder.path("join.token"), token).unwrap();
        }
        let (status, why) = check(&folder);
        if wanted.is_empty() {
            assert_eq!((status, why.as_str()), (Some(0), ""));
            continue;
        }
        assert_eq!(status, Some(2), "{why}");
        assert!(why.starts_with("FILE:6:47: control.token_file: "), "{why}");
        assert!(why.contains(wanted) && why.contains(command), "{why}");
    }
}
