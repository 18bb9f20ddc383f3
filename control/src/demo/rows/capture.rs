//! An app that knows nothing at all: its connections are taken by rules, in a network namespace of
//! the row's own, so that the machine's rules are never touched.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use ringmesh_tuning::probe;

use super::Seen;
use crate::demo::stage::{
    App, Bins, ControlService, NodePlan, Result, Sidecar, Space, Stage, get, inside, wait,
};

/// The captured app's user. No account is needed.
const APP_UID: u32 = 4101;

pub(super) fn possible() -> std::result::Result<(), String> {
    let facts = probe::gather();
    if !facts.capabilities.net_admin || !facts.capabilities.sys_admin {
        return Err("needs root: a network namespace and its rules".to_owned());
    }
    if facts.binaries.nft.is_none() || facts.binaries.iptables_save.is_none() {
        return Err("needs nft and iptables: apt-get install nftables iptables".to_owned());
    }
    Ok(())
}

pub(super) fn nftables(bins: Bins) -> Result<Seen> {
    play(bins, "nft", &["--backend", "nftables"])
}

pub(super) fn iptables(bins: Bins) -> Result<Seen> {
    play(
        bins,
        "ipt",
        &[
            "--backend",
            "iptables",
            "--inbound",
            "9080",
            "--inbound-to",
            "15001",
        ],
    )
}

const fn outside(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 88, 0, last))
}

const fn loopback(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))
}

fn play(bins: Bins, what: &str, options: &[&str]) -> Result<Seen> {
    let stage = Stage::set(bins, false)?;
    let space = Space::make(what, &[2, 11, 31].map(outside))?;
    let control =
        ControlService::start_in(&stage, "control", outside(2), "{}\n", Some(space.name()))?;
    let app = |service: &str, version: &str, last: u8| {
        App::start_in(
            &stage,
            service,
            service,
            version,
            loopback(last),
            space.name(),
            APP_UID,
        )
    };
    let ratings_app = app("ratings", "v1", 31)?;
    let mut ratings = sidecar(&stage, &control, &space, "ratings", "v1", 31)?;
    let mut reviews = sidecar(&stage, &control, &space, "reviews", "v3", 11)?;
    ratings.wait_ready()?;
    reviews.wait_ready()?;
    let baseline = stage.file(
        "subsets.yaml",
        include_str!("../../../../examples/rules/subsets.yaml"),
    )?;
    control.apply(&baseline)?;
    // Names are there once the services are registered; the caller reads them when it starts.
    space.hosts(&control.tool(&["hosts"])?.done()?)?;
    let reviews_app = app("reviews", "v3", 11)?;

    let name = format!("d{}", std::process::id());
    let uid = APP_UID.to_string();
    let common = [
        "up",
        "--name",
        &name,
        "--family",
        "v4",
        "--outbound",
        "9080",
        "--proxy-uid",
        "0",
        "--from-uid",
        &uid,
    ];
    space.intercept(&stage, &[&common[..], options].concat())?;
    // That a rule is in force says nothing of endpoints, and the one call must find its callee.
    wait::until_true("the way to ratings", Duration::from_secs(20), || {
        knows(&reviews, &space, outside(31)).unwrap_or(false)
    })?;
    let to = reviews_app.address();
    let answer = inside(space.name(), move || {
        get(
            to,
            "reviews:9080",
            "/reviews/0",
            &[],
            Duration::from_secs(40),
        )
    })??;
    let rules_up = space.rules()?.len();
    space.intercept(&stage, &["down", "--name", &name])?;
    let left = space.rules()?;

    let status = answer.json()["ratings"]["status"].clone();
    let why = if status == 200 {
        String::new()
    } else {
        format!(" ({})", answer.json()["ratings"]["body"])
    };
    let received = ratings_app.count()?;
    let outbound = || {
        reviews
            .records()
            .iter()
            .filter(|record| record["direction"] == "outbound")
            .count()
    };
    wait::until_true("the access log record", Duration::from_secs(5), || {
        outbound() > 0
    })?;
    let records = outbound();
    let good = answer.status == 200
        && status == 200
        && received == 1
        && records == 1
        && rules_up > 0
        && left.is_empty();
    Ok(Seen::new(
        good,
        format!(
            "reviews got {status}{why} from ratings; ratings received {received}; outbound records {records}; rules up {rules_up}, after down {}",
            left.len()
        ),
    ))
}

/// Whether a sidecar knows an endpoint at an address.
fn knows(sidecar: &Sidecar, space: &Space, ip: IpAddr) -> Result<bool> {
    let admin = sidecar.admin();
    let told = inside(space.name(), move || {
        get(
            admin,
            "localhost",
            "/endpoints",
            &[],
            Duration::from_secs(5),
        )
    })??;
    Ok(told.text().contains(&ip.to_string()))
}

/// A sidecar whose outbound listener is where REDIRECT sends: 127.0.0.1.
fn sidecar(
    stage: &Stage,
    control: &ControlService,
    space: &Space,
    service: &str,
    version: &str,
    last: u8,
) -> Result<Sidecar> {
    let mut plan = NodePlan::new(service, version, "1", outside(last));
    plan.admin = loopback(last);
    plan.outbound = if service == "reviews" {
        loopback(1)
    } else {
        outside(last)
    };
    let state = stage.dir().join(&plan.name);
    std::fs::write(state.with_extension("token"), control.token(&plan)?)
        .map_err(|error| error.to_string())?;
    let settings = plan.settings(
        Some(SocketAddr::new(loopback(last), 9080)),
        Some(control.mesh),
        &state,
    );
    Sidecar::launch(stage, &plan, &settings, &[], Some(space.name()))
}
