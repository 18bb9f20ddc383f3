//! One per cent to the new version, by chance and not by a counter.

use super::Seen;
use crate::demo::cast::Cast;
use crate::demo::load::{Call, statuses, with_status};
use crate::demo::stage::Result;
use crate::demo::statistics::{binomial_bounds, gaps, gaps_are_geometric};

const CALLS: u32 = 20_000;
const SHARE: f64 = 0.01;

pub(super) fn play(cast: &mut Cast) -> Result<Seen> {
    cast.with_rule("canary-1pct.yaml", |cast| {
        let call = Call { to: cast.productpage.sidecar.outbound(), authority: "b:9080", target: "/", caller: "productpage/v1" };
        let answers = call.times(CALLS, 8)?;
        let (old, new) = (cast.b_v1_5.app.arrivals()?, cast.b_v2_0_alpha.app.arrivals()?);
        // One row of draws in the order in which the apps received them.
        let mut draws: Vec<(u64, bool)> = old.iter().map(|arrival| (arrival.at_us, false)).collect();
        draws.extend(new.iter().map(|arrival| (arrival.at_us, true)));
        draws.sort_unstable();
        let row: Vec<bool> = draws.iter().map(|(_, hit)| *hit).collect();
        let (geometric, chi_square) = gaps_are_geometric(&gaps(&row), SHARE);
        let (low, high) = binomial_bounds(CALLS, SHARE);
        let hits = u32::try_from(new.len()).unwrap_or(u32::MAX);
        let good = with_status(&answers, 200) == CALLS
            && u32::try_from(row.len()) == Ok(CALLS)
            && (low..=high).contains(&hits)
            && geometric;
        Ok(Seen::new(
            good,
            format!(
                "{}; v1.5 received {}, v2.0-alpha {hits} (bounds {low}-{high}); gaps chi-square {chi_square:.1} (limit 46.5)",
                statuses(&answers),
                old.len()
            ),
        ))
    })
}
