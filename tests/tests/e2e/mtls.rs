//! Mutual TLS as the rules demand it, and until a certificate is revoked.

use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ringmesh_tests::ability::{Ability, has};
use ringmesh_tests::echo::{Echo, ping, tunnel};
use ringmesh_tests::mesh::Mesh;
use ringmesh_tests::{Conn, SOON, Stop, wait};

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

/// What may still be used of a node must be over this long after the tool said that it is revoked.
const REVOKED_WITHIN: Duration = Duration::from_secs(5);

/// When a use went well for the last time, if it ever did.
#[derive(Debug, Default)]
struct LastUse(Mutex<Option<Instant>>);

impl LastUse {
    fn went_well(&self) {
        *self.0.lock().expect("a lock") = Some(Instant::now());
    }

    fn ever(&self) -> bool {
        self.0.lock().expect("a lock").is_some()
    }

    fn after(&self, revoked: Instant) -> Option<Duration> {
        let last = *self.0.lock().expect("a lock");
        last.map(|last| last.saturating_duration_since(revoked))
    }
}

/// For how long each use of what belongs to a revoked certificate went well after it was revoked.
#[derive(Debug, Default)]
struct LastUses {
    /// A request on a connection to the caller's sidecar that stands.
    request: Option<Duration>,
    /// A request on a connection of its own.
    fresh: Option<Duration>,
    /// Bytes on an opaque connection that runs.
    bytes: Option<Duration>,
    /// The end of an opaque connection that carries nothing.
    quiet_until: Duration,
}

/// Revokes `node` while a caller uses `http` and `echo`, once each use has gone well; for how long each went on.
fn revoke(mesh: &Mesh, node: &str, outbound: SocketAddr, http: Option<&str>) -> LastUses {
    let mut quiet = wait::until("a tunnel", SOON, || tunnel(outbound)).expect("a tunnel");
    let mut busy = tunnel(outbound).expect("a tunnel");
    let authority = http.map(|service| format!("{service}:9080"));
    let stop = Stop::default();
    let uses = [(); 3].map(|()| LastUse::default());
    let [request, fresh, bytes] = &uses;
    std::thread::scope(|scope| {
        let until_end = scope.spawn(|| {
            // Longer than all of this: it is to end by itself.
            quiet.set_read_timeout(Some(SOON * 3)).expect("timeout");
            let _ = quiet.read(&mut [0]);
            Instant::now()
        });
        scope.spawn(|| {
            while !stop.flag().load(Ordering::Relaxed) && ping(&mut busy).is_ok() {
                bytes.went_well();
                wait::pass(Duration::from_millis(5));
            }
        });
        let asking = |kept: bool, last: &LastUse| {
            let Some(authority) = &authority else {
                return;
            };
            let mut conn = None;
            while !stop.flag().load(Ordering::Relaxed) {
                let mut open = match conn.take() {
                    Some(open) => open,
                    None => Conn::open(outbound, SOON).expect("the caller's own sidecar"),
                };
                let answer = open.get(authority, "/ratings/0", &[]);
                if answer.is_ok_and(|answer| answer.status == 200) {
                    last.went_well();
                    conn = kept.then_some(open);
                }
                wait::pass(Duration::from_millis(5));
            }
        };
        scope.spawn(move || asking(true, request));
        scope.spawn(move || asking(false, fresh));
        let working = stop.at_end();
        wait::until_true("every use", SOON, || {
            bytes.ever() && (http.is_none() || request.ever() && fresh.ever())
        })
        .expect("used before it is revoked");
        let said = mesh.control.tool(&["cert", "revoke", node]).expect("tool");
        said.done().expect("revoked");
        let revoked = Instant::now();
        // Long enough that a late use would be seen.
        wait::until_after(revoked, REVOKED_WITHIN + Duration::from_millis(500));
        drop(working);
        let quiet_until = until_end.join().expect("a thread");
        LastUses {
            request: request.after(revoked),
            fresh: fresh.after(revoked),
            bytes: bytes.after(revoked),
            quiet_until: quiet_until.saturating_duration_since(revoked),
        }
    })
}

#[test]
fn a_revoked_certificate_is_used_for_the_last_time_within_five_seconds() {
    if !has(&[Ability::Uring]) {
        return;
    }
    let cast = [("reviews", "v3"), ("ratings", "v1"), ("details", "v1")];
    let mesh = Mesh::start("{}\n", &cast);
    let echo = Echo::start(&mesh);
    let reviews = mesh.node("reviews", "v3");
    mesh.wait_for_a_call();

    // The caller's: its callees refuse it. Then a callee's: its callers do without it.
    let details = mesh.node("details", "v1");
    let caller = revoke(
        &mesh,
        &reviews.plan.name,
        reviews.sidecar.outbound(),
        Some("ratings"),
    );
    let callee = revoke(&mesh, &echo.plan.name, details.sidecar.outbound(), None);
    println!("the caller revoked: {caller:?}\nthe callee revoked: {callee:?}");
    for last in [caller.request, caller.fresh, caller.bytes, callee.bytes] {
        let last = last.expect("used before it was revoked");
        assert!(last < REVOKED_WITHIN, "{caller:?} {callee:?}");
    }
    for end in [caller.quiet_until, callee.quiet_until] {
        assert!(end < REVOKED_WITHIN, "{caller:?} {callee:?}");
    }
    assert!(tunnel(reviews.sidecar.outbound()).is_err());
    assert!(tunnel(details.sidecar.outbound()).is_err());
    // Nobody else is touched.
    let answer = details
        .call("ratings", "/ratings/0", &[])
        .expect("an answer");
    assert_eq!(answer.status, 200);
    drop(echo.sidecar);
}
