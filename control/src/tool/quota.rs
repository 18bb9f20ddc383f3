//! `quota`: who may spend how much of each quota now.

use clap::Args;
use ringmesh_tuning::{errln, out};

use super::client::Client;
use super::failure::Failure;
use super::output::{self, Output};
use crate::admin::api::{Holding, Quota};

/// `ringmesh quota`
///
/// Units are granted ahead of need; a sidecar spends what it holds without asking. A bucket is a
/// quota with its dimension values. The quota's own line, "all others", says who holds the units of every bucket
/// that only one sidecar has wanted so far.
#[derive(Args, Debug)]
pub struct QuotaArgs {
    /// Only this quota; `#` and what follows may be left out.
    name: Option<String>,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(client: &Client, args: &QuotaArgs) -> Result<(), Failure> {
    let mut all: Vec<Quota> = client.get("/v1/quota")?;
    if let Some(name) = &args.name {
        all.retain(|quota| is_named(quota, name));
        if all.is_empty() {
            return Err(Failure::failed(format!(
                "no quota {name} is enforced (ringmesh quota lists them)"
            )));
        }
    }
    if args.output != Output::Table {
        return output::structured(args.output, &all);
    }
    if all.is_empty() {
        errln!("no quota is enforced by a registered sidecar");
        return Ok(());
    }
    let rows = all.iter().flat_map(rows).collect();
    out!("{}", output::table(&COLUMNS, rows));
    Ok(())
}

/// What follows `#` tells limits of one instance apart, and those who enforce one; people know the instance.
fn is_named(quota: &Quota, name: &str) -> bool {
    let rest = quota.name.strip_prefix(name);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('#'))
}

fn limit(amount_max: u64, window_ms: u64) -> String {
    format!("{amount_max} per {}", window(window_ms))
}

const COLUMNS: [&str; 6] = ["QUOTA", "BUCKET", "LIMIT", "AT CONTROL", "HELD BY", "STATE"];

/// The line of the quota, then one per bucket that several sidecars want.
fn rows(quota: &Quota) -> Vec<Vec<String>> {
    let state = if quota.granting {
        "granting".to_owned()
    } else {
        format!("waits for {}", quota.waits_for.join(", "))
    };
    let own = vec![
        quota.name.clone(),
        "all others".to_owned(),
        match (quota.amount_max, quota.window_ms) {
            (Some(amount_max), Some(window_ms)) => limit(amount_max, window_ms),
            _ => String::new(),
        },
        String::new(),
        holders(&quota.slots, "/64"),
        state,
    ];
    let buckets = quota.buckets.iter().map(|bucket| {
        vec![
            quota.name.clone(),
            bucket.values.join(", "),
            limit(bucket.amount_max, bucket.window_ms),
            bucket.here.to_string(),
            holders(&bucket.held, ""),
            String::new(),
        ]
    });
    std::iter::once(own).chain(buckets).collect()
}

fn holders(held: &[Holding], of: &str) -> String {
    let one = |h: &Holding| format!("{}#{} {}{of}", h.node, h.shard, h.units);
    held.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn window(ms: u64) -> String {
    if ms.is_multiple_of(1_000) {
        format!("{} s", ms / 1_000)
    } else {
        format!("{ms} ms")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_shows_its_holders_and_its_contested_buckets() {
        let hold = |node: &str, units| Holding {
            node: node.into(),
            shard: 0,
            units,
        };
        let quota = Quota {
            name: "requestcount#4516".into(),
            amount_max: Some(5_000),
            window_ms: Some(1_000),
            granting: false,
            waits_for: vec!["ratings-2".into()],
            slots: vec![hold("ratings-1", 64)],
            buckets: vec![crate::admin::api::QuotaBucket {
                values: vec!["ratings".into(), "v3".into()],
                amount_max: 5,
                window_ms: 10_000,
                here: 1,
                held: vec![hold("ratings-1", 3), hold("ratings-2", 1)],
            }],
        };
        assert!(is_named(&quota, "requestcount") && is_named(&quota, "requestcount#4516"));
        assert!(!is_named(&quota, "request") && !is_named(&quota, "requestcount#45"));
        let lines: Vec<String> = rows(&quota).into_iter().map(|row| row.join("|")).collect();
        assert_eq!(
            lines,
            [
                "requestcount#4516|all others|5000 per 1 s||ratings-1#0 64/64|waits for ratings-2",
                "requestcount#4516|ratings, v3|5 per 10 s|1|ratings-1#0 3, ratings-2#0 1|",
            ]
        );
        assert_eq!(window(1_500), "1500 ms");
    }
}
