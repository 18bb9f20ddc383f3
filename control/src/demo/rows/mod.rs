//! The rows of the table, as data: each starts from the baseline (`subsets.yaml` applied, apps
//! fresh), applies its rule, drives real traffic, deletes the rule. What is counted is what the
//! *apps* received.

mod canary;
mod capture;
mod deny;
mod fault;
mod impostor;
mod outage;
mod plain;
mod protocols;
mod quota;
mod rotation;
mod timeout;

use super::cast::Cast;
use super::stage::{Bins, Result};

/// What a row saw.
#[derive(Clone, Debug)]
pub struct Seen {
    /// In words.
    pub text: String,
    /// Whether it is what was expected.
    pub good: bool,
}

impl Seen {
    /// A sight with its judgement.
    #[must_use]
    pub const fn new(good: bool, text: String) -> Self {
        Self { text, good }
    }
}

/// How a row is played.
#[derive(Clone, Copy, Debug)]
pub enum Play {
    /// With the cast, alone.
    OnStage(fn(&mut Cast) -> Result<Seen>),
    /// On a stage of its own, beside the others, from the start: it takes long and hardly any CPU.
    Beside(fn(Bins) -> Result<Seen>),
    /// On a stage of its own, alone; `Err(reason)` of the first function: left out with that message.
    Alone(Possible, fn(Bins) -> Result<Seen>),
}

/// Whether a row can be played on this machine; the reason if not.
pub type Possible = fn() -> std::result::Result<(), String>;

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Short name, for `--only`.
    pub name: &'static str,
    /// Rule file, or what stands in its place.
    pub rule: &'static str,
    /// What is asked.
    pub asked: &'static str,
    /// What must be seen.
    pub expected: &'static str,
    /// How; `None`: this part of the mesh is not built yet.
    pub play: Option<Play>,
}

const fn row(
    name: &'static str,
    rule: &'static str,
    asked: &'static str,
    expected: &'static str,
    play: Play,
) -> Row {
    Row {
        name,
        rule,
        asked,
        expected,
        play: Some(play),
    }
}

/// All rows in the order they are played and printed.
pub const ROWS: [Row; 18] = [
    row(
        "plain",
        "(none)",
        "productpage calls details through two sidecars; the whole page",
        "200; one outbound and one inbound record with the app's request id; page complete",
        Play::OnStage(plain::play),
    ),
    row(
        "timeout",
        "timeout-10s.yaml",
        "reviews v3 calls a ratings that hangs",
        "504 after 10 s; ratings received 1",
        Play::OnStage(timeout::timeout),
    ),
    row(
        "retries",
        "retries-3x2s.yaml",
        "reviews v3 calls a ratings that hangs",
        "504 after 8 s and back-off; ratings received 4, 2 s apart",
        Play::OnStage(timeout::retries),
    ),
    row(
        "delay",
        "fault-delay.yaml",
        "200 calls of reviews v2 to ratings",
        "all 200; 10 % (binomial, 1e-6) take 5 s longer; ratings received 200",
        Play::OnStage(fault::delay),
    ),
    row(
        "abort",
        "fault-abort.yaml",
        "2,000 calls of reviews v2 to ratings",
        "10 % (binomial, 1e-6) get 400; ratings received exactly the others",
        Play::OnStage(fault::abort),
    ),
    row(
        "canary",
        "canary-1pct.yaml",
        "20,000 calls of productpage to b",
        "all 200; 1 % (binomial, 1e-6) received by v2.0-alpha; gaps between its hits geometric",
        Play::OnStage(canary::play),
    ),
    row(
        "quota-1-per-5s",
        "memquota.yaml",
        "reviews v3 calls ratings at t = 0, 4.5, 5.2 and 9.0 s",
        "200, 429, 200, 429; ratings received 2",
        Play::OnStage(quota::one_per_five),
    ),
    row(
        "quota-5-per-10s",
        "memquota.yaml",
        "two callers, two ratings sidecars, bursts every 0.5 s for 13 s, across the boundary",
        "each caller: 5 received in the first 10 s, 10 in all, never more than 5 in any 10 s",
        Play::OnStage(quota::five_per_ten),
    ),
    row(
        "deny",
        "denier-complete.yaml",
        "reviews v3 and v2 call ratings; v3 with forged headers; plaintext to ratings' sidecar",
        "v3 403, v2 200, forged 403, plaintext refused; ratings received v2's call only",
        Play::OnStage(deny::play),
    ),
    row(
        "impostor",
        "(none)",
        "details' valid certificate answers at ratings' address",
        "503 identity_mismatch; the impostor receives no request; 200 when ratings is back",
        Play::OnStage(impostor::play),
    ),
    row(
        "outage",
        "quota-complete.yaml, then denier-complete.yaml",
        "control killed (-9) with the quota active and traffic going on, restarted, a rule applied",
        "no failed call; v3 never more than 1 per 5 s; after the restart v3 gets 403",
        Play::OnStage(outage::play),
    ),
    row(
        "rotation",
        "(certificates of 10 s)",
        "traffic for 60 s on kept and on new connections",
        "0 errors; at least 8 new certificates on each side",
        Play::Beside(rotation::play),
    ),
    row(
        "http2",
        "(none)",
        "50 HTTP/2 calls of productpage to store, at once on one connection",
        "all 200; store received 50; store's sidecar: 50 of HTTP/2 over mutual TLS by productpage",
        Play::Alone(protocols::possible, protocols::http2),
    ),
    row(
        "grpc",
        "(none)",
        "a unary call, a stream of 5 messages in turn, an unknown method",
        "1 and 5 messages back with status 0; status 12, and so in the log; all over mutual TLS",
        Play::Alone(protocols::possible, protocols::grpc),
    ),
    row(
        "tcp",
        "(none)",
        "1 MiB to an echo on a port declared tcp",
        "the same bytes back; one record of TCP over mutual TLS by productpage, of all bytes",
        Play::Alone(protocols::possible, protocols::tcp),
    ),
    row(
        "capture-nft",
        "ringmesh intercept up (nftables)",
        "an unaware app in a network namespace calls http://ratings:9080",
        "200 through both sidecars; ratings received 1; no rule left after down",
        Play::Alone(capture::possible, capture::nftables),
    ),
    row(
        "capture-iptables",
        "ringmesh intercept up (iptables)",
        "the same with iptables and port 15001 for both directions",
        "200 through both sidecars; ratings received 1; no rule left after down",
        Play::Alone(capture::possible, capture::iptables),
    ),
    row(
        "tidy",
        "(none)",
        "what is left on the machine",
        "no process, no rule, no namespace",
        Play::Alone(super::tidy::possible, super::tidy::play),
    ),
];
