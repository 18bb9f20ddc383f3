//! HTTP/2 with other people's clients and servers: node and curl, through one sidecar and through two.

use std::process::Command;

use ringmesh_tests::ability::{Ability, has};
use ringmesh_tests::upstream::{Upstream, bytes};
use ringmesh_tests::{repository, stage};

use crate::clients::{curl, ended_well};
use crate::foreign::Server;
use crate::standalone::{LOCAL, run, run_to};

pub(crate) fn calls_of_node(script: &str, port: u16) {
    let output = Command::new("node")
        .arg(repository(&format!("tests/clients/{script}")))
        .arg(port.to_string())
        .output()
        .expect("node");
    ended_well(script, &output);
}

/// Node's clients and servers of both versions, in all combinations (RFC 8441).
#[test]
fn node_speaks_websocket_between_the_versions() {
    if !has(&[Ability::Uring, Ability::Node]) {
        return;
    }
    for example in ["standalone", "pair"] {
        for (script, protocol) in [
            ("websocket_http1_server.js", "http"),
            ("websocket_http2_server.js", "http2"),
        ] {
            let (stage, server) = (stage(), Server::node(script));
            let (_process, port) = run_to(&stage, example, server.address, protocol, &[]);
            calls_of_node("websocket_client.js", port);
        }
    }
}

#[test]
fn node_and_curl_speak_http2_through_one_sidecar_and_two() {
    if !has(&[Ability::Uring, Ability::Node]) {
        return;
    }
    for example in ["standalone", "pair"] {
        let (stage, server) = (stage(), Server::node("http2_server.js"));
        let (_process, port) = run_to(&stage, example, server.address, "http2", &[]);
        calls_of_node("http2_client.js", port);
        let body = bytes(100_000);
        let to = format!("http://127.0.0.1:{port}/x");
        for version in ["--http2-prior-knowledge", "--http1.1"] {
            let echoed = curl(&[version, "--data-binary", "@-", &to], &body);
            assert!(echoed == body, "{example} {version}");
        }
    }
}

#[test]
fn an_http1_app_is_called_by_http2_clients() {
    if !has(&[Ability::Uring]) {
        return;
    }
    for example in ["standalone", "pair"] {
        let (stage, upstream) = (stage(), Upstream::http(LOCAL));
        let (_process, port) = run(&stage, example, &upstream, "http");
        let at = |target: &str| format!("http://127.0.0.1:{port}{target}");
        let version = "--http2-prior-knowledge";
        // One call a connection: curl 7.88 fails on its second by prior knowledge, whatever the server.
        for (target, len) in [("/bytes/5", 5), ("/chunked/70001", 70_001)] {
            assert!(curl(&[version, &at(target)], b"") == bytes(len), "{target}");
        }
        let body = bytes(1_000_000);
        let echoed = curl(&[version, "--data-binary", "@-", &at("/echo")], &body);
        assert!(echoed == body);
    }
}
