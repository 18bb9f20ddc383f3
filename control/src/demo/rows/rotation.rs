//! Certificates of ten seconds under traffic, on a control service and a pair of their own.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Seen;
use crate::demo::load::{Call, statuses, with_status};
use crate::demo::stage::{Answer, Bins, ControlService, Node, NodePlan, Result, Stage, wait};

/// As long as the rows beside it take in any case.
const LASTS: Duration = Duration::from_secs(60);
/// Short enough to be renewed often, and twice as long as a busy machine was ever seen to stand still: the half that is
/// left when renewal is due has to outlast that.
const CONFIG: &str = "svid_life: 10s\n";
/// Renewal is due at half of ten seconds: twelve times in sixty.
const CERTIFICATES_MIN: usize = 8;

pub(super) fn play(bins: Bins) -> Result<Seen> {
    let stage = Stage::set(bins, false)?;
    let control = ControlService::start(&stage, "control", 2, CONFIG)?;
    let node = |service: &str, last: u8| {
        Node::start(
            &stage,
            &control,
            NodePlan::new(service, "v1", "1", stage.block.ip(last)),
        )
    };
    let (mut caller, mut callee) = (node("productpage", 11)?, node("details", 12)?);
    caller.sidecar.wait_ready()?;
    callee.sidecar.wait_ready()?;
    let call = Call {
        to: caller.sidecar.outbound(),
        authority: "details:9080",
        target: "/details/0",
        caller: "productpage/v1",
    };
    wait::until("the first call", Duration::from_secs(10), || {
        match call.times(1, 1)?[0].status {
            200 => Ok(()),
            status => Err(status.to_string()),
        }
    })?;
    let stop = AtomicBool::new(false);
    let (answers, seen) = std::thread::scope(|scope| {
        let kept = scope.spawn(|| paced(&stop, || call.times(4, 1)));
        let fresh = scope.spawn(|| paced(&stop, || call.times(2, 2)));
        let files = [&caller, &callee].map(|node| node.sidecar.state.join("svid.pem"));
        let mut seen = [BTreeSet::new(), BTreeSet::new()];
        let start = Instant::now();
        while start.elapsed() < LASTS {
            for (file, seen) in files.iter().zip(&mut seen) {
                seen.extend(std::fs::read(file).ok());
            }
            wait::pass(Duration::from_millis(50));
        }
        stop.store(true, Ordering::Relaxed);
        let mut answers = Vec::new();
        for thread in [kept, fresh] {
            answers.extend(
                thread
                    .join()
                    .map_err(|_| "a caller's thread panicked".to_owned())??,
            );
        }
        Ok::<_, String>((answers, seen.map(|set| set.len())))
    })?;
    let good = with_status(&answers, 200) as usize == answers.len()
        && !answers.is_empty()
        && seen.iter().all(|count| *count >= CERTIFICATES_MIN);
    Ok(Seen::new(
        good,
        format!(
            "{} in 60 s; certificates seen: {} and {}",
            statuses(&answers),
            seen[0],
            seen[1]
        ),
    ))
}

fn paced(stop: &AtomicBool, work: impl Fn() -> Result<Vec<Answer>>) -> Result<Vec<Answer>> {
    let mut answers = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        answers.extend(work()?);
        wait::pass(Duration::from_millis(20));
    }
    Ok(answers)
}
