//! `ringmesh doctor`: what is wrong with this host and the exact fix.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use ringmesh_tuning::intercept::Host;
use ringmesh_tuning::{doctor, probe};
use ringmesh_tuning::{out, outln};

/// Look at this host and say what must be fixed before a sidecar runs well here.
///
/// Exit status 0 if nothing must be fixed, 1 otherwise. Changes nothing.
#[derive(Args, Debug)]
pub struct DoctorArgs {
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Format {
    /// One line per check, with the fix below.
    #[default]
    Table,
    /// Facts and findings.
    Json,
}

/// Runs it.
#[must_use]
pub fn run(args: &DoctorArgs) -> ExitCode {
    let mut facts = probe::gather();
    facts.tproxy = Some(Host::new(facts.binaries.clone()).tproxy());
    let findings = doctor::examine(&facts);
    match args.output {
        Format::Table => out!("{}", doctor::table(&findings)),
        Format::Json => outln!("{:#}", doctor::json(&facts, &findings)),
    }
    ExitCode::from(u8::from(doctor::must_fix(&findings)))
}
