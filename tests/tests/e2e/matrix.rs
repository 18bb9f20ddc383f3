//! Four protocols by two ways, with clients and servers of others only: HTTP/1.1, HTTP/2, gRPC and opaque
//! TCP, in plain text through one sidecar and with mutual TLS through two.

use std::net::SocketAddr;
use std::process::Command;

use ringmesh_tests::ability::{Ability, has};
use ringmesh_tests::upstream::bytes;
use ringmesh_tests::{grpc_python, repository, stage};

use crate::clients::{curl, ended_well};
use crate::foreign::Server;
use crate::http2::calls_of_node;
use crate::standalone::run_to;

/// Calls `with` with a port that leads to `app`, each way. Afterwards every sidecar has logged
/// `protocol`, and mutual TLS exactly where it belongs.
fn both_ways(app: SocketAddr, mode: &str, protocol: &str, with: impl Fn(u16)) {
    converted(app, mode, [protocol; 2], with);
}

/// As [`both_ways`], where the client speaks the first and sidecars among themselves the second.
fn converted(app: SocketAddr, mode: &str, [of_client, of_mesh]: [&str; 2], with: impl Fn(u16)) {
    for (example, logs) in [
        ("standalone", &[("access.log", None, of_client)][..]),
        (
            "pair",
            &[
                ("caller.access.log", Some("upstream_mtls"), of_client),
                ("upstream.access.log", Some("mtls"), of_mesh),
            ],
        ),
    ] {
        let stage = stage();
        let (mut process, port) = run_to(&stage, example, app, mode, &[]);
        println!("{example} {mode}");
        with(port);
        // The lines of what has ended are in the file when the process has.
        process.stop().expect("TERM ends it");
        for (log, tls, protocol) in logs {
            let file = stage.dir().join(example).join(log);
            let text = std::fs::read_to_string(file).expect("a log");
            let records = text.lines().map(|line| {
                serde_json::from_str::<serde_json::Value>(line).expect("a line is JSON")
            });
            let mut count = 0;
            for record in records.filter(|record| record["protocol"] == *protocol) {
                count += 1;
                for field in ["mtls", "upstream_mtls"] {
                    let is = record[field] == true;
                    assert_eq!(is, *tls == Some(field), "{log}, {field}: {record}");
                }
            }
            assert!(count > 0, "{log} has no {protocol}: {text}");
        }
    }
}

/// What a program says that is to end well.
fn say(program: &str, words: &[&str]) -> Vec<u8> {
    let output = Command::new(program).args(words).output().expect(program);
    ended_well(program, &output);
    output.stdout
}

fn h2load(calls: u32, words: &[&str], url: &str) {
    let count = calls.to_string();
    let all = [&["-n", &count, "-c", "4", "-t", "1"], words, &[url]].concat();
    let told = say("h2load", &all);
    let told = String::from_utf8_lossy(&told);
    assert!(told.contains(&format!(" {calls} succeeded,")), "{told}");
}

#[test]
fn http1_of_node_curl_and_h2load() {
    if !has(&[Ability::Uring, Ability::Node, Ability::Nghttp]) {
        return;
    }
    let app = Server::node("http1_server.js");
    let page: Vec<u8> = (0..100_000u32).map(|n| (n % 251) as u8).collect();
    both_ways(app.address, "http", "http1", |port| {
        let url = format!("http://127.0.0.1:{port}/");
        assert!(curl(&["--http1.1", &url], b"") == page);
        let body = bytes(1_000_000);
        let echoed = curl(&["--http1.1", "--data-binary", "@-", &url], &body);
        assert!(echoed == body);
        h2load(200, &["--h1"], &url);
    });
}

#[test]
fn http2_of_nghttp2_and_curl() {
    if !has(&[Ability::Uring, Ability::Nghttp]) {
        return;
    }
    let (files, body) = (stage(), bytes(300_000));
    let upload = files.dir().join("upload");
    std::fs::write(&upload, &body).expect("a file");
    let upload = upload.display().to_string();
    let app = Server::nghttpd(files.dir());
    let calls = |port: u16| {
        let url = format!("http://127.0.0.1:{port}/upload");
        assert!(say("nghttp", &[&url]) == body, "GET");
        assert!(say("nghttp", &["--data", &upload, &url]) == body, "POST");
        let frames = say("nghttp", &["--null-out", "--verbose", &url]);
        let frames = String::from_utf8_lossy(&frames);
        assert!(frames.contains("x-trailer: seen"), "{frames}");
        h2load(400, &["-m", "16"], &url);
        let version = "--http2-prior-knowledge";
        assert!(curl(&[version, &url], b"") == body, "curl");
    };
    both_ways(app.address, "http2", "http2", calls);
    // And to a sidecar that is told nothing of HTTP it is bytes.
    both_ways(app.address, "tcp", "tcp", calls);
}

#[test]
fn grpc_of_node() {
    if !has(&[Ability::Uring, Ability::Node]) {
        return;
    }
    let app = Server::node("http2_server.js");
    both_ways(app.address, "http2", "grpc", |port| {
        calls_of_node("http2_client.js", port);
    });
}

/// What a client speaks and what its server does need not be the same.
#[test]
fn http1_of_curl_to_http2_of_node_and_the_other_way_round() {
    if !has(&[Ability::Uring, Ability::Node]) {
        return;
    }
    let body = bytes(300_000);
    let echo = |version: &str, port: u16| {
        let url = format!("http://127.0.0.1:{port}/echo");
        let echoed = curl(&[version, "--data-binary", "@-", &url], &body);
        assert!(echoed == body, "{version}");
    };
    let app = Server::node("http2_server.js");
    converted(app.address, "http2", ["http1", "http2"], |port| {
        echo("--http1.1", port);
    });
    let app = Server::node("http1_server.js");
    converted(app.address, "http", ["http2", "http1"], |port| {
        echo("--http2-prior-knowledge", port);
    });
}

#[test]
fn grpc_of_grpcio_in_all_cases_of_interop() {
    if !has(&[Ability::Uring, Ability::Grpcio, Ability::Nghttp]) {
        return;
    }
    let (files, app) = (stage(), Server::grpcio());
    let message = files.file("message", "\0\0\0\0\0").expect("a file");
    let message = message.display().to_string();
    both_ways(app.address, "http2", "grpc", |port| {
        let output = Command::new(grpc_python())
            .arg(repository("tests/clients/grpc_client.py"))
            .arg(port.to_string())
            .output()
            .expect("python");
        print!("{}", String::from_utf8_lossy(&output.stdout));
        ended_well("grpc_client.py", &output);
        // A client that only knows HTTP/2 is answered, too.
        let url = format!("http://127.0.0.1:{port}/ringmesh.Interop/Empty");
        let fields = ["-H", "content-type: application/grpc", "-H", "te: trailers"];
        let words = ["--null-out", "--verbose", "--data", &message, &url];
        let frames = say("nghttp", &[&fields[..], &words].concat());
        let frames = String::from_utf8_lossy(&frames);
        assert!(frames.contains("grpc-status: 0"), "{frames}");
    });
}

#[test]
fn tcp_of_redis() {
    if !has(&[Ability::Uring, Ability::Redis]) {
        return;
    }
    let (files, app) = (stage(), Server::redis());
    let big = "0123456789abcdef".repeat(100_000);
    let commands = files
        .file("commands", &format!("set big {big}\nget big\n"))
        .expect("a file");
    both_ways(app.address, "tcp", "tcp", |port| {
        let port = port.to_string();
        let redis = |words: &[&str]| say("redis-cli", &[&["-p", &port], words].concat());
        assert_eq!(redis(&["set", "who", "me"]), b"OK\n");
        assert_eq!(redis(&["get", "who"]), b"me\n");
        let input = std::fs::File::open(&commands).expect("the file");
        let output = Command::new("redis-cli")
            .args(["-p", &port])
            .stdin(input)
            .output()
            .expect("redis-cli");
        ended_well("redis-cli", &output);
        assert!(output.stdout == format!("OK\n{big}\n").into_bytes());
    });
}
