//! The two binaries as processes: the ready line, the API's socket, the tool's words and exit
//! statuses, and a kill -9 of control.

#![expect(clippy::unwrap_used, reason = "a failed step of a test ends the test")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/rules");

/// A control service that is killed when dropped.
struct Control {
    child: Child,
    ready: String,
    dir: std::path::PathBuf,
}

impl Control {
    fn start(dir: &Path) -> Self {
        Self::start_with(dir, |_| {})
    }

    fn start_with(dir: &Path, more: impl FnOnce(&mut Command)) -> Self {
        let mut command = Self::command(dir);
        more(&mut command);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut ready)
            .unwrap();
        assert!(ready.starts_with("ready mesh=127.0.0.1:"), "{ready:?}");
        Self {
            child,
            ready,
            dir: dir.to_owned(),
        }
    }

    fn command(dir: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringmesh-control"));
        command.arg("--data-dir").arg(dir);
        command.args(["--listen-mesh", "127.0.0.1:0"]);
        command.args(["--listen-metrics", "127.0.0.1:0"]);
        command.args(["--svid-life", "5s"]);
        command.env_remove("CREDENTIALS_DIRECTORY");
        command
    }

    fn tool(&self, args: &[&str]) -> Output {
        self.tool_with(args, "")
    }

    fn tool_with(&self, args: &[&str], input: &str) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ringmesh"))
            .args(args)
            .env("RINGMESH_CONTROL", self.dir.join("api.sock"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        child.wait_with_output().unwrap()
    }

    /// Runs the tool, which must succeed, and gives what it printed.
    fn does(&self, args: &[&str]) -> String {
        let output = self.tool(args);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{args:?}: {}",
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    fn metrics(&self, path: &str) -> String {
        let address = self
            .ready
            .split_whitespace()
            .find_map(|w| w.strip_prefix("metrics="));
        let mut stream = std::net::TcpStream::connect(address.unwrap()).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn term(child: &Child) {
    let killed = Command::new("kill")
        .arg("-TERM")
        .arg(child.id().to_string())
        .status();
    assert!(killed.unwrap().success());
}

#[test]
fn a_day_with_the_tool() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(&dir.path().join("c"));
    let socket = std::fs::metadata(control.dir.join("api.sock")).unwrap();
    assert_eq!(socket.permissions().mode() & 0o777, 0o660);

    // Rules in one order and the other; what is missing is said, and exit status 0.
    let said = control.does(&[
        "apply",
        "-f",
        &format!("{RULES}/timeout-10s.yaml"),
        "--wait",
    ]);
    assert!(
        said.contains("INACTIVE") && said.contains("revision 1"),
        "{said}"
    );
    let listed = control.does(&["get"]);
    let columns: Vec<&str> = listed.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(
        columns,
        ["KIND", "NAMESPACE", "NAME", "REVISION", "STATUS", "WHY"]
    );
    assert!(
        listed.contains("INACTIVE") && listed.contains("ratings"),
        "{listed}"
    );
    let strict = control.tool(&[
        "apply",
        "--strict",
        "-f",
        &format!("{RULES}/fault-delay.yaml"),
    ]);
    assert_eq!(strict.status.code(), Some(2));

    // What is written comes back as it was written.
    let yaml = control.does(&["get", "virtualservice", "ratings", "--output", "yaml"]);
    let written = std::fs::read_to_string(format!("{RULES}/timeout-10s.yaml")).unwrap();
    assert!(yaml.contains(written.trim()), "{yaml}");

    let diff = control.does(&["diff", "-f", &format!("{RULES}/fault-delay.yaml")]);
    assert!(diff.lines().any(|l| l.starts_with("- ")) && diff.lines().any(|l| l.starts_with("+ ")));
    control.does(&["apply", "-f", &format!("{RULES}/fault-delay.yaml")]);
    let back = control.does(&["rollback", "1"]);
    assert!(
        back.contains("configured") && back.contains("revision 3"),
        "{back}"
    );
    let history = control.does(&["history"]);
    assert_eq!(history.lines().count(), 4, "{history}");
    assert!(history.contains("rollback 1"), "{history}");

    // Faults of the input: exit status 2, the position first on the line.
    let broken = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: x}\n\
                  spec: {hosts: [x], htpp: []}\n";
    let refused = control.tool_with(&["apply", "-f", "-"], broken);
    assert_eq!(refused.status.code(), Some(2));
    let said = text(&refused.stderr);
    assert!(said.starts_with("-:4:"), "{said}");
    assert_eq!(
        control
            .tool(&["apply", "-f", "/nowhere.yaml"])
            .status
            .code(),
        Some(2)
    );
    assert_eq!(control.tool(&["get", "nonsense"]).status.code(), Some(2));
    assert_eq!(
        control
            .tool(&["delete", "VirtualService", "absent"])
            .status
            .code(),
        Some(1)
    );
    assert_eq!(control.tool(&["rollback", "77"]).status.code(), Some(1));

    let token = control.does(&["token", "create", "--node", "n1", "--service", "reviews"]);
    assert_eq!(token.trim().split('.').count(), 3);
    let secret = token.split('.').nth(1).unwrap();
    let tokens = control.does(&["token", "list"]);
    assert!(tokens.contains("n1") && tokens.contains("fresh") && !tokens.contains(secret));
    let audit = control.does(&["audit"]);
    assert!(
        audit.contains("token create n1") && audit.contains("revision 3: "),
        "{audit}"
    );
    for list in [
        &["proxy", "list", "--output", "json"][..],
        &["endpoints", "--output", "json"],
        &["cert", "list", "--output", "json"],
    ] {
        assert_eq!(control.does(list).trim(), "[]", "{list:?}");
    }
    assert!(control.does(&["hosts"]).starts_with("# ringmesh hosts"));
    let root = control.dir.join("ca/root.pem");
    assert!(
        control
            .does(&["cert", "inspect", root.to_str().unwrap()])
            .contains("authority")
    );

    let metrics = control.metrics("/metrics");
    assert!(
        metrics.contains("\nringmesh_control_revision 3\n")
            && metrics
                .contains("\nringmesh_control_ca_expiry_timestamp_seconds{certificate=\"root\"} ")
            && metrics.contains("_ca_expiry_timestamp_seconds{certificate=\"intermediate\"} "),
        "{metrics}"
    );
    assert!(control.metrics("/healthz").ends_with("ok\n"));

    let gone = control.does(&["delete", "virtualservice", "ratings"]);
    assert!(
        gone.contains("deleted") && gone.contains("revision 4"),
        "{gone}"
    );
}

#[test]
fn a_kill_loses_nothing_and_a_term_ends_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("c");
    let control = Control::start(&data);
    control.does(&["apply", "-f", &format!("{RULES}/timeout-10s.yaml")]);
    let before = control.does(&["get", "--output", "json"]);
    let token = control.does(&["token", "create", "--node", "n1", "--service", "reviews"]);
    control.kill();
    // The socket is left behind: the tool says what to do.
    let output = Command::new(env!("CARGO_BIN_EXE_ringmesh"))
        .args(["get", "--control"])
        .arg(data.join("api.sock"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("start ringmesh-control"));

    let mut control = Control::start(&data);
    assert_eq!(control.does(&["get", "--output", "json"]), before);
    assert!(
        control
            .does(&["token", "list"])
            .contains(token.split('.').next().unwrap())
    );
    // A second service on the same data says why it cannot run.
    let second = Command::new(env!("CARGO_BIN_EXE_ringmesh-control"))
        .arg("--data-dir")
        .arg(&data)
        .args([
            "--listen-mesh",
            "127.0.0.1:0",
            "--listen-metrics",
            "127.0.0.1:0",
        ])
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(
        text(&second.stderr).contains("another ringmesh-control"),
        "{}",
        text(&second.stderr)
    );

    term(&control.child);
    assert_eq!(control.child.wait().unwrap().code(), Some(0));
    assert!(!data.join("api.sock").exists());
}

/// One entry of the record is changed while control is down, past all the ways there are for it.
#[test]
fn the_audit_record_shows_what_was_changed_in_it() {
    use ringmesh_control::store::{Disk, Shelf, Store, Txn};
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("c");
    let control = Control::start(&data);
    let none = control.does(&["audit", "verify"]);
    assert!(none.contains("there is no chain yet"), "{none}");
    for node in ["n1", "n2", "n3"] {
        control.does(&["token", "create", "--node", node, "--service", "reviews"]);
    }
    let good = control.does(&["audit", "verify"]);
    assert!(
        good.contains("entries 1 to 3 are as they were written"),
        "{good}"
    );
    let last = good.lines().last().unwrap().strip_prefix("last ").unwrap();
    control.does(&["audit", "verify", "--known", last]);
    let json = control.does(&["audit", "--limit", "1", "--output", "json"]);
    assert!(json.contains(last.strip_prefix("3:").unwrap()), "{json}");
    let wrong = control.tool(&["audit", "verify", "--known", "3"]);
    assert_eq!(wrong.status.code(), Some(2), "{}", text(&wrong.stderr));
    control.kill();

    let at = format!("{:020}", 2);
    let change = |of: &str, to: &str| {
        let store = Disk::open(&data.join("store.redb")).unwrap();
        let row = store.get(Shelf::Audit, &at).unwrap().unwrap();
        let row = text(&row).replace(of, to);
        let write = vec![(Shelf::Audit, at.clone(), Some(row.into_bytes()))];
        let expect = Vec::new();
        store.commit(&Txn { expect, write }).unwrap();
    };
    change("create n2", "create n9");
    let control = Control::start(&data);
    let broken = control.tool(&["audit", "verify"]);
    assert_eq!(broken.status.code(), Some(1));
    let said = text(&broken.stderr);
    assert!(
        said.contains("broken at entry 2: ") && said.contains("create n9"),
        "{said}"
    );
    control.kill();

    change("create n9", "create n2");
    let control = Control::start(&data);
    control.does(&["audit", "verify", "--known", last]);
    let longer = last.replacen("3:", "4:", 1);
    let missed = control.tool(&["audit", "verify", "--known", &longer]);
    assert_eq!(missed.status.code(), Some(1));
    assert!(text(&missed.stderr).contains("entry 4: it is not there"));
}

#[test]
fn the_passphrase_of_the_ca_comes_by_flag_by_setting_or_as_a_credential() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("c");
    let credentials = dir.path().join("credentials");
    std::fs::create_dir(&credentials).unwrap();
    let (file, credential) = (dir.path().join("phrase"), credentials.join("ca-passphrase"));
    for (path, mode) in [(&file, 0o600), (&credential, 0o440)] {
        std::fs::write(path, "correct horse\n").unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let config = dir.path().join("control.yaml");
    std::fs::write(&config, "ca_passphrase_file: phrase\n").unwrap();

    let control = Control::start_with(&data, |command| {
        command.arg("--ca-passphrase-file").arg(&file);
    });
    control.does(&["token", "create", "--node", "n1", "--service", "reviews"]);
    control.kill();
    let key = std::fs::read_to_string(data.join("ca/root.key")).unwrap();
    assert!(key.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"));
    Control::start_with(&data, |command| {
        command.arg("--config").arg(&config);
    })
    .kill();
    Control::start_with(&data, |command| {
        command.env("CREDENTIALS_DIRECTORY", &credentials);
    })
    .kill();

    let refused = |more: &dyn Fn(&mut Command)| {
        let mut command = Control::command(&data);
        more(&mut command);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(!said.contains("horse"), "{said}");
        said
    };
    let said = refused(&|_| {});
    assert!(
        said.contains("root.key: the key is under a passphrase"),
        "{said}"
    );
    // Said outright to be a file, it must be nobody else's.
    let said = refused(&|command| {
        command.arg("--ca-passphrase-file").arg(&credential);
    });
    assert!(said.contains("chmod 600"), "{said}");
    std::fs::write(&file, "correct horsf\n").unwrap();
    let said = refused(&|command| {
        command.arg("--ca-passphrase-file").arg(&file);
    });
    assert!(said.contains("does not open this key"), "{said}");
}

#[test]
fn wrong_settings_are_refused_with_their_place() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("control.yaml");
    for (settings, wanted) in [
        ("trust_domain: a\nsvid_lief: 5s\n", "control.yaml:2:"),
        ("svid_life: soon\n", "svid_life"),
        (
            "listen: {mesh: nowhere}\n",
            "control.yaml:1:16: listen.mesh: ",
        ),
        (
            "ca: {certificate: x.pem, key: y.pem, roots: z.pem}\n",
            "control.yaml:1:19: ca.certificate: ",
        ),
    ] {
        std::fs::write(&config, settings).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_ringmesh-control"))
            .arg("--data-dir")
            .arg(dir.path().join("c"))
            .arg("--config")
            .arg(&config)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{settings}");
        let said = text(&output.stderr);
        assert!(said.contains(wanted), "{settings}: {said}");
    }
}

#[test]
fn a_trust_domain_is_a_name_and_that_of_the_first_start() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("c");
    let start = |domain: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_ringmesh-control"))
            .arg("--data-dir")
            .arg(&data)
            .args([
                "--listen-mesh",
                "127.0.0.1:0",
                "--listen-metrics",
                "127.0.0.1:0",
            ])
            .args(["--trust-domain", domain])
            .output()
            .unwrap();
        (output.status.code(), text(&output.stderr))
    };
    let (status, said) = start("A b");
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains("is no trust domain"), "{said}");
    assert!(!data.exists());
    drop(Control::start(&data));
    let (status, said) = start("other.local");
    assert_eq!(status, Some(2), "{said}");
    assert!(
        said.contains("start with --trust-domain mesh.local"),
        "{said}"
    );
}

#[test]
fn files_that_are_no_rules_are_wrong_input() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let empty = file("empty.yaml", b"# nothing\n---\n");
    let latin1 = file("latin1.yaml", b"apiVersion: \xe9\n");
    let node = file("sidecar.yaml", b"node: n\nservice: s\nstate_dir: /x\n");
    let rules = format!("{RULES}/fault-abort.yaml");
    let out = dir.path().join("out").display().to_string();
    let socket = dir.path().join("none.sock").display().to_string();
    for (args, wanted) in [
        (
            &["analyze", "-f", &empty] as &[&str],
            "empty.yaml: holds no object",
        ),
        (&["apply", "-f", &empty], "empty.yaml: holds no object"),
        (
            &["compile", "-f", &empty, "--node", &node, "-o", &out],
            "empty.yaml: holds no object",
        ),
        (&["analyze", "-f", &latin1], "latin1.yaml: cannot be read"),
        (&["apply", "-f", &latin1], "latin1.yaml: cannot be read"),
        (
            &["compile", "-f", &rules, "--node", "nope.yaml", "-o", &out],
            "nope.yaml: cannot be read",
        ),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_ringmesh"))
            .args(["--control", &socket])
            .args(args)
            .output()
            .unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(wanted), "{args:?}: {said}");
    }
}

/// Standard output that closes, or takes nothing.
#[test]
fn a_standard_output_that_fails_ends_the_tool_without_a_panic() {
    let run = |args: &[&str], to: Stdio| {
        let output = Command::new(env!("CARGO_BIN_EXE_ringmesh"))
            .args(args)
            .stdout(to)
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), said)
    };
    let rules = format!("{RULES}/fault-abort.yaml");
    for args in [
        &["doctor"] as &[&str],
        &["doctor", "--output", "json"],
        &["expr", "--attributes"],
        &["analyze", "-f", &rules],
        &["demo", "--list"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        assert_eq!(
            run(args, writer.into()),
            (Some(141), String::new()),
            "{args:?}"
        );
        let full = std::fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let (status, said) = run(args, full.into());
        assert_eq!(status, Some(1), "{args:?}: {said}");
        assert!(said.starts_with("standard output: No space left"), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

/// Nobody reads why it failed, and its status still says so: 101 would be a panic's.
#[test]
fn a_standard_error_that_closed_changes_no_status() {
    let broken = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(broken.path(), "kind: [").unwrap();
    let broken = broken.path().to_str().unwrap();
    for args in [
        &["analyze", "-f", broken] as &[&str],
        &["expr", "source.nothing =="],
        &["services", "--control", "/nobody/listens.sock"],
    ] {
        let run = |to: Stdio| {
            Command::new(env!("CARGO_BIN_EXE_ringmesh"))
                .args(args)
                .stdout(Stdio::null())
                .stderr(to)
                .status()
                .unwrap()
                .code()
        };
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let status = run(writer.into());
        assert_eq!(status, run(Stdio::null()), "{args:?}");
        assert!(matches!(status, Some(1 | 2)), "{args:?}: {status:?}");
    }
}

#[test]
fn what_cannot_be_meant_is_said_in_the_words_of_the_flags() {
    let run = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_ringmesh"))
            .args(args)
            .output()
            .unwrap();
        (
            output.status.code(),
            text(&output.stdout) + &text(&output.stderr),
        )
    };
    let (status, said) = run(&["--version"]);
    assert_eq!(status, Some(0));
    assert!(said.starts_with("ringmesh 0."), "{said}");
    for (args, wanted) in [
        (&["delete"] as &[&str], "-f FILE"),
        (&["history", "--limit", "0"], "--limit"),
        (
            &["intercept", "up", "--dry-run"],
            "--outbound: nothing to capture: list ports, here or in --inbound",
        ),
        (
            &["intercept", "up", "--outbound", "80", "--proxy-uid", "foo"],
            "id -u USER",
        ),
    ] {
        let (status, said) = run(args);
        assert_eq!(status, Some(2), "{args:?}: {said}");
        assert!(said.contains(wanted), "{args:?}: {said}");
    }
}

/// Whether the tool has looked for the socket in vain: it sleeps, in a runtime that it makes in order to look.
fn waits(tool: &Child) -> bool {
    let proc = std::path::PathBuf::from(format!("/proc/{}", tool.id()));
    let stat = std::fs::read_to_string(proc.join("stat")).unwrap();
    let files = std::fs::read_dir(proc.join("fd")).unwrap().flatten();
    let mut leads_to = files.filter_map(|file| std::fs::read_link(file.path()).ok());
    stat.contains(") S ") && leads_to.any(|file| file.ends_with("anon_inode:[eventpoll]"))
}

/// As in `ringmesh-control ... & ringmesh ...`.
#[test]
fn the_tool_waits_a_moment_for_a_control_that_is_starting() {
    let dir = tempfile::tempdir().unwrap();
    // It runs already, and its socket comes to the place where the tool looks: a start may take a busy machine longer
    // than the tool's patience.
    let control = Control::start(dir.path());
    let socket = dir.path().join("late.sock");
    let mut tool = Command::new(env!("CARGO_BIN_EXE_ringmesh"))
        .args(["get", "--output", "json"])
        .env("RINGMESH_CONTROL", &socket)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while !waits(&tool) {
        assert_eq!(tool.try_wait().unwrap(), None, "it did not wait");
        std::thread::park_timeout(std::time::Duration::from_millis(5));
    }
    std::os::unix::fs::symlink(dir.path().join("api.sock"), &socket).unwrap();
    let status = tool.wait().unwrap();
    let mut said = String::new();
    tool.stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    assert_eq!(status.code(), Some(0), "{said}");
    drop(control);
}
