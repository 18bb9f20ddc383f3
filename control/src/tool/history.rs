//! `history`.

use clap::Args;

use super::client::Client;
use super::failure::Failure;
use super::output::{self, Output};
use crate::admin::api::Revision;
use crate::time::show_unix_ms;

/// `ringmesh history`
#[derive(Args, Debug)]
pub struct HistoryArgs {
    /// How many, newest last.
    #[arg(long, default_value_t = 50, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    limit: usize,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn newest<T>(mut all: Vec<T>, limit: usize) -> Vec<T> {
    let skip = all.len().saturating_sub(limit);
    all.drain(..skip);
    all
}

pub(super) fn run(client: &Client, args: &HistoryArgs) -> Result<(), Failure> {
    let all: Vec<Revision> = client.get("/v1/history")?;
    output::print(
        args.output,
        &newest(all, args.limit),
        &["REVISION", "WHEN", "WHO", "WHAT", "CHANGES"],
        |r| {
            vec![
                r.revision.to_string(),
                show_unix_ms(r.when_ms),
                r.who.clone(),
                r.what.clone(),
                r.changes.join(", "),
            ]
        },
        "no revisions yet; `ringmesh apply -f FILE` makes the first",
    )
}
