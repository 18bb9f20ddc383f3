//! The command line `ringmesh`: one file per subcommand, each with its `Args` and a `run`.
//!
//! A subcommand that talks to control returns `Result<(), Failure>`; [`run`] prints the failure
//! and makes the exit status. May not: hold rules of its own (it shows what control says).

pub mod analyze;
pub mod compile;
pub mod doctor;
pub mod expr;
pub mod files;
pub mod intercept;

mod audit;
mod cert;
mod change;
mod client;
mod endpoints;
mod failure;
mod get;
mod history;
mod output;
mod proxy;
mod quota;
mod statuses;
mod token;

pub use client::Client;
pub use failure::Failure;

use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;

/// Where control's socket is unless said otherwise.
pub const DEFAULT_SOCKET: &str = "/var/lib/ringmesh-control/api.sock";

/// What the tool can do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Apply rules: all files together are one revision, or nothing.
    Apply(change::ApplyArgs),
    /// List objects and whether they are in force, or show some.
    Get(get::GetArgs),
    /// Delete rules, by file or by name.
    Delete(change::DeleteArgs),
    /// Show what an apply would change; changes nothing.
    Diff(change::DiffArgs),
    /// List revisions: who changed what, and when.
    History(history::HistoryArgs),
    /// Make the rules what they were at a revision; that is a new revision.
    Rollback(change::RollbackArgs),
    /// Who did what, and whether that was changed afterwards (`audit verify`).
    Audit(audit::AuditArgs),
    /// Look into sidecars.
    Proxy(proxy::ProxyArgs),
    /// Registered endpoints.
    Endpoints(endpoints::EndpointsArgs),
    /// Join tokens: what lets a new node in.
    Token(token::TokenArgs),
    /// Certificates: list, inspect, revoke.
    Cert(cert::CertArgs),
    /// Quotas: who may spend how much of them now.
    Quota(quota::QuotaArgs),
    /// Print /etc/hosts lines that give services their names and addresses.
    Hosts(endpoints::HostsArgs),
    /// Compile rules to the snapshot of one sidecar, without a control service.
    Compile(compile::CompileArgs),
    /// Check rules without applying them.
    Analyze(analyze::AnalyzeArgs),
    /// Check an expression, and evaluate it.
    Expr(expr::ExprArgs),
    /// Run the whole mesh on this machine and show that it does what it should.
    Demo(crate::demo::DemoArgs),
    /// Look at this host and say what must be fixed.
    Doctor(doctor::DoctorArgs),
    /// Steer a workload's traffic into its sidecar.
    Intercept(intercept::InterceptArgs),
}

/// Runs a command and makes the exit status of its outcome.
#[must_use]
pub fn run(socket: &Path, command: &Command) -> ExitCode {
    let client = Client::new(socket);
    let outcome = match command {
        Command::Apply(args) => change::apply(&client, args),
        Command::Get(args) => get::run(&client, args),
        Command::Delete(args) => change::delete(&client, args),
        Command::Diff(args) => change::diff(&client, args),
        Command::History(args) => history::run(&client, args),
        Command::Rollback(args) => change::rollback(&client, args),
        Command::Audit(args) => audit::run(&client, args),
        Command::Proxy(args) => proxy::run(&client, args),
        Command::Endpoints(args) => endpoints::run(&client, args),
        Command::Token(args) => token::run(&client, args),
        Command::Cert(args) => cert::run(&client, args),
        Command::Quota(args) => quota::run(&client, args),
        Command::Hosts(args) => endpoints::hosts(&client, args),
        Command::Compile(args) => return compile::run(args),
        Command::Analyze(args) => return analyze::run(args),
        Command::Expr(args) => return expr::run(args),
        Command::Demo(args) => return crate::demo::run(args),
        Command::Doctor(args) => return doctor::run(args),
        Command::Intercept(args) => return intercept::run(args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            ringmesh_tuning::stdout::complain(format_args!("{failure}"));
            ExitCode::from(failure.status)
        }
    }
}
