//! HTTP clients that people use, through one sidecar and through two: byte for byte what a direct call
//! gives.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};

use ringmesh_tests::ability::{Ability, has};
use ringmesh_tests::upstream::{Upstream, bytes};
use ringmesh_tests::{repository, stage};

use crate::standalone::{LOCAL, run};

const ONE: &str = "standalone";
const TWO: &str = "pair";

pub(crate) fn ended_well(what: &str, output: &Output) {
    assert!(
        output.status.success(),
        "{what}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Calls `with` with the upstream and the port before one sidecar, then two.
fn through_one_and_two(with: impl Fn(&Upstream, u16)) {
    for example in [ONE, TWO] {
        let (stage, upstream) = (stage(), Upstream::http(LOCAL));
        let (_process, port) = run(&stage, example, &upstream, "http");
        println!("{example}");
        with(&upstream, port);
    }
}

fn run_script(program: &str, script: &str, upstream: &Upstream, port: u16) {
    let output = Command::new(program)
        .arg(repository("tests/clients").join(script))
        .arg(upstream.address.port().to_string())
        .arg(port.to_string())
        .output()
        .expect(program);
    ended_well(script, &output);
}

#[test]
fn pythons_http_client_sees_no_difference() {
    if has(&[Ability::Uring]) {
        through_one_and_two(|upstream, port| {
            run_script("python3", "http_client.py", upstream, port);
        });
    }
}

#[test]
fn nodes_http_client_sees_no_difference() {
    if has(&[Ability::Uring, Ability::Node]) {
        through_one_and_two(|upstream, port| {
            run_script("node", "http_client.js", upstream, port);
        });
    }
}

pub(crate) fn curl(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut curl = Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--max-time", "60"])
        .args(["--noproxy", "", "--header", "Host: any.example"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("curl");
    let mut stdin = curl.stdin.take().expect("its input");
    let output = std::thread::scope(|scope| {
        // One that does not read its input closes it.
        scope.spawn(move || stdin.write_all(input));
        curl.wait_with_output().expect("curl ends")
    });
    ended_well(&format!("curl {arguments:?}"), &output);
    output.stdout
}

#[test]
fn curl_sees_no_difference() {
    if !has(&[Ability::Uring]) {
        return;
    }
    through_one_and_two(|upstream, port| {
        let at = |target: &str| format!("http://127.0.0.1:{port}{target}");
        // Two on one connection.
        let both = curl(&[&at("/bytes/5"), &at("/chunked/70001")], b"");
        assert_eq!(both, [bytes(5), bytes(70_001)].concat());
        let connects = curl(
            &[
                "--write-out",
                "%{num_connects} ",
                &at("/status/200"),
                &at("/status/200"),
            ],
            b"",
        );
        assert_eq!(
            String::from_utf8_lossy(&connects),
            "1 0 ",
            "a kept connection"
        );
        for target in ["/bytes/100000", "/chunked/100000", "/close/100000"] {
            assert!(
                curl(&["--http1.0", &at(target)], b"") == bytes(100_000),
                "{target}"
            );
        }
        let head = curl(&["--head", &at("/bytes/12345")], b"");
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        assert!(head.contains("content-length: 12345\r\n"), "{head}");
        let body = bytes(3_000_000);
        let by_length = ["--data-binary", "@-", "--header", "Expect: 100-continue"];
        assert!(curl(&[&by_length[..], &[&at("/echo")]].concat(), &body) == body);
        let in_chunks = ["--request", "POST", "--upload-file", "-"];
        assert!(curl(&[&in_chunks[..], &[&at("/echo")]].concat(), &body) == body);
        // As a proxy: absolute form, and a tunnel.
        let proxy = format!("http://127.0.0.1:{port}");
        let absolute = ["--proxy", &proxy, "http://any.example/bytes/999"];
        assert_eq!(curl(&absolute, b""), bytes(999));
        let tunnel = [
            "--proxytunnel",
            "--proxy",
            &proxy,
            "http://any.example/bytes/70001",
        ];
        assert!(curl(&tunnel, b"") == bytes(70_001), "a tunnel");
        assert!(upstream.requests() >= 12);
    });
}

#[test]
fn wrk_meets_no_error() {
    if !has(&[Ability::Uring]) {
        return;
    }
    through_one_and_two(|upstream, port| {
        let to = SocketAddr::from((LOCAL, port));
        let output = Command::new("wrk")
            .args(["--threads", "1", "--connections", "16", "--duration", "3s"])
            // It takes an answer for an error that comes later than this, by default than 2 s.
            .args(["--timeout", "30s"])
            .args(["--header", "Host: any.example"])
            .arg(format!("http://{to}/bytes/1000"))
            .output()
            .expect("wrk");
        ended_well("wrk", &output);
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(
            !told.contains("Socket errors") && !told.contains("Non-2xx"),
            "{told}"
        );
        let answered = told
            .lines()
            .find_map(|line| line.trim().split_once(" requests in "))
            .and_then(|(count, _)| count.parse::<u64>().ok())
            .unwrap_or_else(|| panic!("{told}"));
        // Those it broke off at its end reached the upstream, too.
        assert!((1..=upstream.requests()).contains(&answered), "{told}");
    });
}
