//! `ringmesh demo`: the example on one machine, rule by rule, with real processes.
//!
//! [`rows`] is the table as data; [`cast`] starts control service, apps and sidecars; [`stage`] is
//! what starts and ends processes (the end-to-end tests use it too); [`statistics`] judges chance;
//! [`load`] is traffic. Nothing here looks into the mesh's own counters: what is counted is what
//! the applications received.

pub mod cast;
pub mod load;
pub mod rows;
pub mod stage;
pub mod statistics;
mod table;
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use ringmesh_tuning::{errln, outln};

use cast::Cast;
use rows::{Play, ROWS, Row, Seen};
use stage::{Bins, Result, cleanup};
use table::{Table, Verdict};

/// Run the whole mesh on this machine and check it rule by rule.
///
/// Starts a control service and bookinfo, each app with its own sidecar, on loopback addresses of
/// their own; plays every rule with real traffic; prints rule, asked, expected, seen, verdict.
/// Exit status 0 only if every row is as expected. Leaves nothing behind, also after Ctrl-C.
#[derive(Args, Debug)]
pub struct DemoArgs {
    /// Folder of ringmesh-proxy, ringmesh-control, ringmesh and bookinfo; default: beside this one.
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// Play only these rows.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    only: Vec<String>,
    /// List the rows and do nothing.
    #[arg(long)]
    list: bool,
    /// Keep logs and state in a temporary folder.
    #[arg(long)]
    keep: bool,
}

/// Runs it. Exit status 1: a row is not as expected or not built; 2: the options are wrong.
#[must_use]
pub fn run(args: &DemoArgs) -> ExitCode {
    if let Some(unknown) = args
        .only
        .iter()
        .find(|name| ROWS.iter().all(|row| row.name != **name))
    {
        errln!(
            "ringmesh demo: --only: there is no row {unknown:?}; `ringmesh demo --list` names them"
        );
        return ExitCode::from(2);
    }
    let wanted: Vec<Row> = ROWS
        .into_iter()
        .filter(|row| args.only.is_empty() || args.only.iter().any(|name| name == row.name))
        .collect();
    if args.list {
        for row in &wanted {
            outln!("{:16} {:44} {}", row.name, row.rule, row.asked);
        }
        return ExitCode::SUCCESS;
    }
    let folder = args
        .bin_dir
        .clone()
        .or_else(|| Some(std::env::current_exe().ok()?.parent()?.to_owned()));
    let bins = match Bins::in_folder(&folder.unwrap_or_default()) {
        Ok(bins) => bins,
        Err(error) => {
            errln!("ringmesh demo: {error}");
            return ExitCode::from(2);
        }
    };
    cleanup::stale();
    end_on_signal();
    let mut table = Table::begin(wanted.len());
    play_all(&wanted, &bins, args.keep, &mut table);
    if table.end() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn play_all(wanted: &[Row], bins: &Bins, keep: bool, table: &mut Table) {
    std::thread::scope(|scope| {
        // Its own stage, started first and fetched last: it lasts 60 s and hardly needs a CPU.
        let beside: Vec<_> = wanted
            .iter()
            .filter_map(|row| match row.play {
                Some(Play::Beside(play)) => Some((
                    row,
                    scope.spawn(move || (play(bins.clone()), Instant::now())),
                    Instant::now(),
                )),
                _ => None,
            })
            .collect();
        play_on_stage(wanted, bins, keep, table);
        for (row, thread, start) in beside {
            table.playing(row);
            match thread.join() {
                Ok((seen, end)) => table.add(row, Verdict::of(seen), end.duration_since(start)),
                Err(_) => table.add(
                    row,
                    Verdict::of(Err("its thread panicked".to_owned())),
                    start.elapsed(),
                ),
            }
        }
    });
    for row in wanted {
        if let Some(Play::Alone(possible, play)) = row.play {
            let start = Instant::now();
            table.playing(row);
            let verdict = match possible() {
                Ok(()) => Verdict::of(play(bins.clone())),
                Err(reason) => Verdict::LeftOut(reason),
            };
            table.add(row, verdict, start.elapsed());
        }
    }
    for row in wanted.iter().filter(|row| row.play.is_none()) {
        table.add(row, Verdict::NotBuilt, std::time::Duration::ZERO);
    }
}

fn play_on_stage(wanted: &[Row], bins: &Bins, keep: bool, table: &mut Table) {
    let rows: Vec<_> = wanted
        .iter()
        .filter_map(|row| match row.play {
            Some(Play::OnStage(play)) => Some((row, play)),
            _ => None,
        })
        .collect();
    if rows.is_empty() {
        return;
    }
    table.note("starting control, 8 apps and 8 sidecars; applying subsets.yaml");
    let mut cast = match Cast::enter(bins.clone(), keep) {
        Ok(cast) => cast,
        Err(error) => {
            for (row, _) in rows {
                table.add(
                    row,
                    Verdict::of(Err(format!("the cast did not start: {error}"))),
                    std::time::Duration::ZERO,
                );
            }
            return;
        }
    };
    for (row, play) in rows {
        let start = Instant::now();
        table.playing(row);
        let seen = cast.fresh().and_then(|()| play(&mut cast));
        table.add(row, Verdict::of(seen), start.elapsed());
    }
    table.note("stopping everyone");
}

impl Verdict {
    fn of(seen: Result<Seen>) -> Self {
        match seen {
            Ok(seen) if seen.good => Self::AsExpected(seen.text),
            Ok(seen) => Self::Differs(seen.text),
            Err(error) => Self::Failed(error),
        }
    }
}

/// From its return on, INT or TERM end every child by its pid, remove namespaces and folders, and end
/// the program with status 130.
fn end_on_signal() {
    let (ready, installed) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
        else {
            return;
        };
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let (Ok(mut int), Ok(mut term)) = (
                signal(SignalKind::interrupt()),
                signal(SignalKind::terminate()),
            ) else {
                return;
            };
            drop(ready);
            tokio::select! {
                _ = int.recv() => {}
                _ = term.recv() => {}
            }
            errln!("\ninterrupted: stopping everyone");
            cleanup::all_and_exit(130);
        });
    });
    // Ends when the sender is dropped: the handlers are in place, or cannot be had.
    let _ = installed.recv();
}
