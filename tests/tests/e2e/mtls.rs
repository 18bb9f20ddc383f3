//! Mutual TLS as the rules demand it.

use ringmesh_tests::ability::{Ability, has};
use ringmesh_tests::mesh::Mesh;
use ringmesh_tests::{SOON, wait};

/// Calls `ratings` once, by a path of its own, and tells from the caller's log whether that was mutual TLS.
fn is_mutual(mesh: &Mesh, n: u32) -> bool {
    let reviews = mesh.node("reviews", "v3");
    let path = format!("/ratings/{n}");
    wait::until("an answer", SOON, || {
        match reviews.call("ratings", &path, &[])?.status {
            200 => Ok(()),
            status => Err(status.to_string()),
        }
    })
    .expect("an answer");
    wait::until("the record of the call", SOON, || {
        let records = reviews.sidecar.records();
        let mut served = records
            .iter()
            .filter(|record| record["path"] == *path && record["status"] == 200);
        let record = served.next_back().ok_or("not yet")?;
        Ok(record["upstream_mtls"] == true)
    })
    .expect("a record")
}

#[test]
fn both_sides_follow_peer_authentication_at_every_level() {
    if !has(&[Ability::Uring]) {
        return;
    }
    let mesh = Mesh::start("{}\n", &[("reviews", "v3"), ("ratings", "v1")]);
    assert!(is_mutual(&mesh, 0), "STRICT without any rule");
    let rule = |name: &str, namespace: &str, spec: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
             metadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
        )
    };
    let selector = "selector: {matchLabels: {app: ratings}}";
    let workload = |rest: &str| rule("ratings", "default", &format!("{{{selector}, {rest}}}"));
    // Each narrower level contradicts the one before.
    let steps = [
        (
            "mesh",
            rule("all", "istio-system", "{mtls: {mode: DISABLE}}"),
            false,
        ),
        (
            "namespace",
            rule("all", "default", "{mtls: {mode: STRICT}}"),
            true,
        ),
        ("workload", workload("mtls: {mode: DISABLE}"), false),
        (
            "port",
            workload("mtls: {mode: DISABLE}, portLevelMtls: {9080: {mode: PERMISSIVE}}"),
            true,
        ),
        (
            "port, and another",
            workload(
                "mtls: {mode: STRICT}, portLevelMtls: {9080: {mode: DISABLE}, 9081: {mode: STRICT}}",
            ),
            false,
        ),
    ];
    for (n, (level, text, mutual)) in (1..).zip(&steps) {
        let applied = mesh.try_apply(&format!("step-{n}.yaml"), text, &[]);
        applied
            .done()
            .unwrap_or_else(|error| panic!("{level}: {error}"));
        assert_eq!(is_mutual(&mesh, n), *mutual, "{level}");
    }
}
