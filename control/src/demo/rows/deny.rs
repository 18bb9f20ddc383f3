//! A denier, and the ways around it that must not exist.

use std::net::SocketAddr;
use std::time::Duration;

use super::Seen;
use crate::demo::cast::Cast;
use crate::demo::stage::{Conn, Result};

/// What someone would write who hopes that headers are believed: "I am reviews v2".
const FORGED: [(&str, &str); 4] = [
    (
        "x-forwarded-client-cert",
        "By=x;URI=spiffe://cluster.local/ns/default/sa/reviews;Label=version=v2",
    ),
    ("x-ringmesh-source", "reviews"),
    ("x-ringmesh-source-version", "v2"),
    ("x-istio-attributes", "source.labels=app:reviews,version:v2"),
];

pub(super) fn play(cast: &mut Cast) -> Result<Seen> {
    cast.with_rule("denier-complete.yaml", |cast| {
        let v3 = cast.reviews_v3.call("ratings", "/ratings/v3", &[])?.status;
        let v2 = cast.reviews_v2.call("ratings", "/ratings/v2", &[])?.status;
        let forged = cast.reviews_v3.call("ratings", "/ratings/forged", &FORGED)?.status;
        let plain = [cast.ratings.sidecar.mesh(), cast.ratings.sidecar.inbound()].map(plaintext);
        let arrivals = cast.ratings.app.arrivals()?;
        let targets: Vec<&str> = arrivals.iter().map(|arrival| arrival.target.as_str()).collect();
        let good = (v3, v2, forged) == (403, 200, 403)
            && plain.iter().all(|answer| *answer != Some(200))
            && targets == ["/ratings/v2"];
        let words = plain.map(|answer| answer.map_or("closed".to_owned(), |status| status.to_string()));
        Ok(Seen::new(
            good,
            format!(
                "v3 {v3}, v2 {v2}, forged {forged}, plaintext to the mesh port: {}, to the inbound port: {}; ratings received {targets:?}",
                words[0], words[1]
            ),
        ))
    })
}

/// A call without TLS, claiming to be reviews v2. `None`: no HTTP answer came, the connection ended.
fn plaintext(to: SocketAddr) -> Option<u16> {
    let mut conn = Conn::open(to, Duration::from_secs(5)).ok()?;
    conn.get("ratings:9080", "/ratings/plain", &FORGED)
        .ok()
        .map(|answer| answer.status)
}
