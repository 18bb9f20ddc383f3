//! A plain call: two sidecars, one record each, one request id.

use std::time::Duration;

use serde_json::Value;

use super::Seen;
use crate::demo::cast::Cast;
use crate::demo::stage::{Result, Sidecar, get, wait};

const PAGE_PATIENCE: Duration = Duration::from_secs(60);
const LOG_PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn play(cast: &mut Cast) -> Result<Seen> {
    let path = "/details/plain-row";
    let answer = cast.productpage.call("details", path, &[])?;
    let arrivals = cast.details.app.arrivals()?;
    let ids: Vec<&str> = arrivals
        .iter()
        .map(|arrival| arrival.request_id.as_str())
        .collect();
    let outbound = records(&cast.productpage.sidecar, path)?;
    let inbound = records(&cast.details.sidecar, path)?;
    let one_each = |records: &[Value], direction: &str| {
        records.len() == 1
            && records[0]["direction"] == direction
            && Some(&records[0]["request_id"]) == ids.first().map(|id| Value::from(*id)).as_ref()
    };
    // As a browser: to the app itself, which calls the others through its sidecar.
    let page = get(
        cast.productpage.app.address(),
        "productpage:9080",
        "/productpage",
        &[],
        PAGE_PATIENCE,
    )?
    .json();
    let complete = page["details"]["status"] == 200 && page["reviews"]["status"] == 200;
    let good = answer.status == 200
        && ids.len() == 1
        && !ids[0].is_empty()
        && one_each(&outbound, "outbound")
        && one_each(&inbound, "inbound")
        && complete;
    Ok(Seen::new(
        good,
        format!(
            "{}; app received {} (id {}); records: {} outbound, {} inbound{}; page {}",
            answer.status,
            ids.len(),
            ids.first().unwrap_or(&"none"),
            outbound.len(),
            inbound.len(),
            if one_each(&outbound, "outbound") && one_each(&inbound, "inbound") {
                ", same id"
            } else {
                ", ids differ"
            },
            if complete {
                "complete".to_owned()
            } else {
                page.to_string()
            },
        ),
    ))
}

/// The records of one path, once there is one.
fn records(sidecar: &Sidecar, path: &str) -> Result<Vec<Value>> {
    let of_path = || -> Vec<Value> {
        sidecar
            .records()
            .into_iter()
            .filter(|record| record["path"] == path)
            .collect()
    };
    wait::until_true("an access log record", LOG_PATIENCE, || {
        !of_path().is_empty()
    })?;
    Ok(of_path())
}
