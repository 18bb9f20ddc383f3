//! What h2load (nghttp2) says it did. Pure.

use crate::load::Outcome;

/// Requests that succeeded, the rest as errors, and the rate; `None` if it is not its report. Latency
/// is not told: h2load has only least, most and mean.
pub(super) fn outcome(said: &str) -> Option<Outcome> {
    let line = |label: &str| said.lines().find_map(|line| line.strip_prefix(label));
    let number = |list: &str, label: &str| {
        let part = list.split(',').find(|part| part.trim().ends_with(label))?;
        part.trim().split(' ').next()?.parse::<u64>().ok()
    };
    let requests = line("requests: ")?;
    let answered = number(requests, "succeeded")?;
    let total = number(requests, "total")?;
    let rate = line("finished in ")?.split(", ").nth(1)?;
    let bytes = line("traffic: ")?.split(['(', ')']).nth(1)?;
    let statuses = line("status codes: ")?;
    Some(Outcome {
        requests: answered,
        measured: answered,
        rps: rate.strip_suffix(" req/s")?.parse().ok()?,
        bytes: bytes.parse().ok()?,
        errors: total - answered,
        refused: number(statuses, "4xx")? + number(statuses, "5xx")?,
        ..Outcome::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "finished in 507.06ms, 39443.39 req/s, 6.66MB/s
requests: 20000 total, 20000 started, 20000 done, 19997 succeeded, 3 failed, 0 errored, 0 timeout
status codes: 19997 2xx, 0 3xx, 1 4xx, 2 5xx
traffic: 3.38MB (3540296) total, 39.34KB (40280) headers (space savings 98.01%), 2.44MB (2560000) data
";

    #[test]
    fn its_report_is_understood() {
        let outcome = outcome(SAID).unwrap();
        assert_eq!(
            (outcome.requests, outcome.errors, outcome.refused),
            (19_997, 3, 3)
        );
        assert_eq!((outcome.rps, outcome.bytes), (39_443.39, 3_540_296));
    }

    #[test]
    fn anything_else_is_not() {
        for cut in 0..SAID.len() - 2 {
            let _ = outcome(&SAID[..cut]);
        }
        assert_eq!(outcome("could not connect"), None);
    }
}
