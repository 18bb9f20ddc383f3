//! What an AUDIT policy leaves in the log.

use std::net::Shutdown;

use ringmesh_wire::snapshot::{AuthzAction, AuthzRule, MtlsMode};

use super::*;

/// A sidecar before an app, reached in plaintext, with an AUDIT policy for everybody.
fn audited(app: SocketAddr, protocol: Protocol) -> Draft {
    let mut draft = Draft::new();
    draft.mesh.mtls = MtlsMode::Permissive;
    let port = &mut draft.workload.ports[0];
    (port.app, port.mtls, port.protocol) = (app, MtlsMode::Permissive, protocol);
    draft.authz("nothing", AuthzAction::Audit, vec![]).authz(
        "watch",
        AuthzAction::Audit,
        vec![AuthzRule::default()],
    )
}

fn assert_names_the_policy(line: &serde_json::Value, reason: &str) {
    assert_eq!(line["audited"], true, "{line}");
    assert_eq!(line["audit_policy"], "watch.default", "{line}");
    assert_eq!(line["audit_rule"], 0, "{line}");
    assert_eq!(line["reason"], reason, "{line}");
}

#[test]
fn the_line_of_a_request_names_the_policy_that_watched_it() {
    let (upstream, _) = hello();
    let draft = audited(upstream, Protocol::Http1);
    let bed = Bed::start(&draft, Role::Inbound);
    assert!(bed.get("app").starts_with("HTTP/1.1 200 "));
    // Refused or not.
    bed.configure(draft.authz("nobody", AuthzAction::Allow, vec![]).tables());
    assert!(bed.get("app").starts_with("HTTP/1.1 403 "));
    let log = bed.log();
    assert_eq!(log.len(), 2);
    assert_names_the_policy(&log[0], "-");
    assert_names_the_policy(&log[1], "authz_denied");

    let (upstream, _) = hello();
    let mut unwatched = audited(upstream, Protocol::Http1);
    unwatched.policy.authz.pop();
    let bed = Bed::start(&unwatched, Role::Inbound);
    assert!(bed.get("app").starts_with("HTTP/1.1 200 "));
    let line = &bed.log()[0];
    assert!(line.get("audited").is_none(), "{line}");
    assert!(line.get("audit_policy").is_none(), "{line}");
}

/// The configuration it was judged by is gone when an opaque connection ends, declared or found out.
#[test]
fn the_line_of_an_opaque_connection_names_it_by_what_it_was_judged_by() {
    for protocol in [Protocol::Tcp, Protocol::Auto] {
        let (upstream, _) = server(|_, mut stream| {
            stream.write_all(b"hi").unwrap();
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let draft = audited(upstream, protocol);
        let bed = Bed::start(&draft, Role::Inbound);
        let mut client = bed.client();
        client.read_exact(&mut [0; 2]).unwrap();
        let mut other = draft;
        other.policy.authz.clear();
        bed.configure(other.tables());
        client.shutdown(Shutdown::Write).unwrap();
        client.read_to_end(&mut Vec::new()).unwrap();
        let log = bed.log();
        assert_eq!(log.len(), 1, "{protocol:?}");
        assert_names_the_policy(&log[0], "-");
    }
}
