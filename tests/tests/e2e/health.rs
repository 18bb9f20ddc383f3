//! An app that says of itself, by gRPC health v1, whether it serves: its sidecar asks, and callers hear of it.

use std::net::SocketAddr;
use std::process::Command;

use ringmesh_tests::ability::{Ability, has};
use ringmesh_tests::mesh::Mesh;
use ringmesh_tests::{SOON, grpc_python, repository, wait};

use crate::clients::ended_well;
use crate::foreign::Server;

/// What grpcio's client hears of a call.
fn call(to: SocketAddr, method: &str, text: &str) -> String {
    let output = Command::new(grpc_python())
        .arg(repository("tests/clients/grpc_call.py"))
        .args([&to.to_string(), "interop:9090", method, text])
        .output()
        .expect("python");
    ended_well("grpc_call.py", &output);
    let said = String::from_utf8_lossy(&output.stdout);
    said.trim().to_owned()
}

/// The server goes on answering all the while: only what it says of itself changes.
#[test]
fn an_app_of_grpcio_is_called_while_it_says_that_it_serves() {
    if !has(&[Ability::Uring, Ability::Grpcio]) {
        return;
    }
    let mesh = Mesh::start("{}\n", &[("reviews", "v3")]);
    let app = Server::grpcio();
    let port = "{name: grpc, port: 9090, check: grpc ringmesh.Interop,";
    let (_, _sidecar) = mesh.serve("interop", app.address, port);
    let outbound = mesh.node("reviews", "v3").sidecar.outbound();
    let callers_hear = |wanted: &str| {
        wait::until(wanted, SOON, || {
            let heard = call(outbound, "Empty", "hello");
            if heard == wanted { Ok(()) } else { Err(heard) }
        })
        .expect("callers hear it");
    };
    callers_hear("OK hello");
    for _ in 0..2 {
        assert_eq!(call(app.address, "Serving", "no"), "OK");
        callers_hear("UNAVAILABLE no_endpoint");
        assert_eq!(call(app.address, "Empty", "direct"), "OK direct");
        assert_eq!(call(app.address, "Serving", "yes"), "OK");
        callers_hear("OK hello");
    }
}
