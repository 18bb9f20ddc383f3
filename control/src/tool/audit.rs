//! `audit`: who did what, and whether that is what was written down.

use clap::{Args, Subcommand};
use ringmesh_tuning::out;

use super::client::Client;
use super::failure::Failure;
use super::history::newest;
use super::output::{self, Output};
use crate::admin::api::AuditChain;
use crate::store::{AuditRecord, Broken, Link, Unbroken, holds, verify};
use crate::time::show_unix_ms;

/// `ringmesh audit`
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct AuditArgs {
    #[command(subcommand)]
    what: Option<What>,
    /// How many, newest last.
    #[arg(long, default_value_t = 50, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    limit: usize,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Check that no entry was changed, taken out or put in later: each has a hash over itself and the one before.
    /// Tells the first that is broken and ends with exit status 1 then.
    Verify {
        /// What an earlier `verify` printed as the last entry: it must still be there. Without it nobody sees that
        /// the newest entries were cut off, or all of them written anew, by somebody who can write control's store.
        #[arg(long, value_name = "NUMBER:HASH")]
        known: Vec<Link>,
    },
}

pub(super) fn run(client: &Client, args: &AuditArgs) -> Result<(), Failure> {
    match &args.what {
        None => list(client, args),
        Some(What::Verify { known }) => check(client, known),
    }
}

fn list(client: &Client, args: &AuditArgs) -> Result<(), Failure> {
    let all: Vec<AuditRecord> = client.get("/v1/audit")?;
    output::print(
        args.output,
        &newest(all, args.limit),
        &["ENTRY", "WHEN", "WHO", "WHAT"],
        |one| {
            vec![
                one.number.to_string(),
                show_unix_ms(one.entry.when_ms),
                one.entry.who.clone(),
                one.entry.what.clone(),
            ]
        },
        "nothing yet",
    )
}

/// The check is made here: what control says of its own record would be worth little.
fn check(client: &Client, known: &[Link]) -> Result<(), Failure> {
    let AuditChain { chain, records } = client.get("/v1/audit/chain")?;
    let told = |broken: Broken| Failure::failed(tell_broken(&broken, &records));
    let unbroken = verify(chain.as_ref(), &records).map_err(told)?;
    for link in known {
        holds(chain.as_ref(), &records, link).map_err(told)?;
    }
    out!("{}", tell_unbroken(&unbroken));
    Ok(())
}

fn tell_broken(broken: &Broken, records: &[AuditRecord]) -> String {
    let Broken { number, why } = broken;
    let says = records.iter().find(|record| record.number == *number);
    let says = says.map_or_else(String::new, |record| {
        let when = show_unix_ms(record.entry.when_ms);
        format!(
            "\n  it says: {when} {} {}",
            record.entry.who, record.entry.what
        )
    });
    format!("the audit record is broken at entry {number}: {why}{says}")
}

fn tell_unbroken(unbroken: &Unbroken) -> String {
    let mut text = String::new();
    if unbroken.unchained > 0 {
        text.push_str(&format!(
            "{} entries are from a version that wrote no hashes: nothing is known of them\n",
            unbroken.unchained
        ));
    }
    if let Some(anchor) = &unbroken.anchor {
        text.push_str(&format!(
            "entries up to {} have fallen off; the chain goes on from the hash of the last of them\n",
            anchor.number
        ));
    }
    match &unbroken.chained {
        None => text.push_str("there is no chain yet: it begins with the next entry\n"),
        Some((first, last)) => text.push_str(&format!(
            "entries {first} to {} are as they were written\nlast {last}\n",
            last.number
        )),
    }
    text
}
