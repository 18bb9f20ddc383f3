//! The tool against small servers: what it reports is what the server saw.

#![expect(clippy::unwrap_used, reason = "a failed step of a test ends the test")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

fn tool(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringmesh-bench"))
        .args(arguments)
        .output()
        .unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// An HTTP server of threads that counts its answers.
fn server() -> (SocketAddr, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (at, answered) = (listener.local_addr().unwrap(), Arc::new(AtomicU64::new(0)));
    let count = Arc::clone(&answered);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let count = Arc::clone(&count);
            std::thread::spawn(move || serve(&stream, &count));
        }
    });
    (at, answered)
}

fn serve(stream: &TcpStream, count: &AtomicU64) -> Option<()> {
    let mut lines = BufReader::new(stream);
    loop {
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            if lines.read_line(&mut line).ok()? == 0 {
                return None;
            }
        }
        count.fetch_add(1, Ordering::SeqCst);
        let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        (&mut &*stream).write_all(answer).ok()?;
    }
}

#[test]
fn every_request_of_a_closed_loop_is_counted_once() {
    let (at, answered) = server();
    let to = at.to_string();
    let folder = tempfile::tempdir().unwrap();
    let plot = folder.path().join("latency.hgrm");
    for (round, churn) in [None, Some("--churn")].into_iter().enumerate() {
        let before = answered.load(Ordering::SeqCst);
        let mut arguments = vec![
            "load",
            "http",
            "--to",
            &to,
            "-c",
            "4",
            "-s",
            "0.3",
            "--warmup",
            "0.1",
            "--json",
            "-",
            "--histogram",
        ];
        arguments.push(plot.to_str().unwrap());
        arguments.extend(churn);
        let found = json(&tool(&arguments));
        let requests = found["requests"].as_u64().unwrap();
        assert_eq!(requests, answered.load(Ordering::SeqCst) - before);
        // Whether any fell into the warm-up depends on the machine; an open loop tells that they do not count.
        assert!(found["measured"].as_u64().unwrap() <= requests);
        assert_eq!(found["errors"], 0);
        let connects = if round == 0 { 4 } else { requests };
        assert_eq!(found["connects"].as_u64().unwrap(), connects);
        assert!(std::fs::read_to_string(&plot).unwrap().contains("#[Max"));
    }
}

#[test]
fn an_open_loop_keeps_its_rate() {
    let (at, answered) = server();
    let found = json(&tool(&[
        "load",
        "http",
        "--to",
        &at.to_string(),
        "-c",
        "4",
        "--rate",
        "500",
        "-s",
        "0.4",
        "--warmup",
        "0.2",
        "--json",
        "-",
    ]));
    // 0.6 s of 500 a second, each answered however late.
    assert_eq!(found["requests"], 300);
    assert_eq!(answered.load(Ordering::SeqCst), 300);
    assert_eq!(found["measured"], 200);
}

#[test]
fn a_server_that_stalls_is_charged_for_what_it_held_up() {
    // Takes the first request and answers it 300 ms later; one connection, so all others wait.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = [0; 4096];
        let mut first = true;
        while stream.read(&mut buffer).is_ok_and(|got| got > 0) {
            if std::mem::take(&mut first) {
                std::thread::park_timeout(std::time::Duration::from_millis(300));
            }
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
            if stream.write_all(answer).is_err() {
                return;
            }
        }
    });
    let found = json(&tool(&[
        "load",
        "http",
        "--to",
        &at.to_string(),
        "-c",
        "1",
        "--rate",
        "100",
        "-s",
        "0.4",
        "--warmup",
        "0",
        "--json",
        "-",
    ]));
    // 40 departures 10 ms apart; those of the first 300 ms waited 300, 290, ... 10 ms. A closed loop
    // would have found one slow request and a median of nothing.
    assert_eq!(found["requests"], 40);
    assert!(found["max_us"].as_f64().unwrap() >= 295_000.0, "{found}");
    assert!(found["p50_us"].as_f64().unwrap() >= 80_000.0, "{found}");
}

/// Our own server, ended with the test.
struct Upstream(Child);

impl Drop for Upstream {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port that nobody else is given while the first of the two lives: it is bound and does not listen, and
/// a server may listen beside it.
fn free_port() -> (socket2::Socket, String) {
    let held = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    held.set_reuse_address(true).unwrap();
    held.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    let at = held.local_addr().unwrap().as_socket().unwrap();
    (held, at.to_string())
}

/// What a load finds that is long enough for `least` of a figure: on a busy machine a short one may come to nothing.
fn load_until(what: &[&str], figure: &str, least: u64) -> serde_json::Value {
    let load = |seconds| {
        let common = ["-c", "4", "-s", seconds, "--warmup", "0", "--json", "-"];
        json(&tool(&[&["load"], what, &common].concat()))
    };
    ["0.2", "2", "20"]
        .into_iter()
        .map(load)
        .find(|found| found[figure].as_u64().unwrap() >= least)
        .unwrap_or_else(|| panic!("{what:?}: fewer than {least} {figure}"))
}

#[test]
fn the_own_server_serves_every_kind_of_load() {
    let ((_http, http), (_echo, echo), (_source, source)) = (free_port(), free_port(), free_port());
    let child = Command::new(env!("CARGO_BIN_EXE_ringmesh-bench"))
        .args([
            "serve", "--http", &http, "--echo", &echo, "--source", &source,
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut upstream = Upstream(child);
    let mut ready = String::new();
    BufReader::new(upstream.0.stdout.take().unwrap())
        .read_line(&mut ready)
        .unwrap();
    assert_eq!(ready, "ready\n");
    let found = load_until(&["http", "--to", &http, "--path", "/65536"], "requests", 1);
    assert_eq!(
        (&found["errors"], &found["refused"]),
        (&0.into(), &0.into())
    );
    assert!(found["bytes"].as_u64().unwrap() > 65_536 * found["requests"].as_u64().unwrap());
    load_until(&["ping", "--to", &echo], "measured", 1);
    load_until(&["bulk", "--to", &source], "bytes", (1 << 20) + 1);
    let held = tool(&["load", "idle", "--to", &http, "-c", "300", "--hold", "0"]);
    assert_eq!(String::from_utf8_lossy(&held.stdout), "idle 300\n");
}

#[test]
fn help_teaches_by_example() {
    let help = tool(&["load", "--help"]);
    let text = String::from_utf8(help.stdout).unwrap();
    for example in [
        "--rate 3000",
        "--to https://",
        "(coordinated omission is accounted for)",
    ] {
        assert!(text.contains(example), "{text}");
    }
}

#[test]
fn what_the_caller_must_change_exits_with_2() {
    for arguments in [
        &["load", "http", "--to", "nothing"][..],
        &["load", "http", "--to", "127.0.0.1:1", "--rate", "0"],
        &["serve"],
    ] {
        assert_eq!(tool(arguments).status.code(), Some(2), "{arguments:?}");
    }
    let refused = tool(&[
        "load",
        "ping",
        "--to",
        "127.0.0.1:1",
        "-s",
        "0.1",
        "--warmup",
        "0",
    ]);
    assert_eq!(refused.status.code(), Some(1));
}
