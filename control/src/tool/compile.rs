//! `ringmesh compile`: rules to a snapshot, without a control service.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use ringmesh_tuning::{errln, outln};
use ringmesh_wire::Revision;
use ringmesh_wire::v1::Snapshot;
use xxhash_rust::xxh3::Xxh3;

use super::files::{is_input, read_objects};
use super::statuses;
use crate::compile::{Mode, NodePort, NodeScope, TrustView, compile};
use crate::model::{Effective, Model, RegistryView};
use crate::rules::parse_sidecar;

/// Compile rules and static endpoints to the binary snapshot of one sidecar.
///
/// For sidecars without a control service: services are those of ServiceEntries with
/// `resolution: STATIC`; their AuthorizationPolicies and quotas are enforced by the calling
/// sidecar. Start it with `ringmesh-proxy --config sidecar.yaml --snapshot snapshot.rmsh`; replace
/// the file and send HUP to swap it. Equal input gives an equal file.
///
/// Exit status: 0 done; 1 a file could not be read or written; 2 the rules are wrong (or, with
/// --strict, not all of them are in force).
#[derive(Args, Debug)]
pub struct CompileArgs {
    /// Files or folders of rules; - is standard input. May be given several times.
    #[arg(short = 'f', long = "file", required = true, num_args = 1.., value_name = "RULES")]
    files: Vec<PathBuf>,
    /// The sidecar's configuration: who the snapshot is for.
    #[arg(long, value_name = "sidecar.yaml")]
    node: PathBuf,
    /// Where the snapshot goes.
    #[arg(short = 'o', long = "out", value_name = "snapshot.rmsh")]
    out: PathBuf,
    /// Refuse rules that refer to something that is not there, instead of leaving them out.
    #[arg(long)]
    strict: bool,
    /// Say what was decided and why.
    #[arg(long)]
    explain: bool,
    /// Trust domain of identities in principals.
    #[arg(long, default_value = "cluster.local")]
    trust_domain: String,
}

/// Runs it.
#[must_use]
pub fn run(args: &CompileArgs) -> ExitCode {
    match work(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, message)) => {
            errln!("{message}");
            code
        }
    }
}

type Failure = (ExitCode, String);

fn work(args: &CompileArgs) -> Result<(), Failure> {
    let objects = read_objects(&args.files).map_err(|e| (e.exit_code(), e.to_string()))?;
    let scope = scope(&args.node)?;
    let registry = RegistryView::default();
    let resolution = Model::new(Revision(1), objects).resolve(&registry, &Effective::default());
    for line in statuses::inactive(&resolution.statuses) {
        errln!("{line}");
    }
    if args.strict && !resolution.all_active() {
        let message = "not all rules are in force, and --strict was asked for";
        return Err((ExitCode::from(2), message.to_owned()));
    }
    let trust = TrustView {
        trust_domain: args.trust_domain.clone(),
        ..TrustView::default()
    };
    let (mut snapshot, explain) = compile(&resolution.effective, &scope, &registry, &trust)
        .map_err(|e| (ExitCode::from(2), e.to_string()))?;
    snapshot.revision = content_revision(&snapshot);
    let bytes = snapshot
        .to_file()
        .map_err(|e| (ExitCode::from(2), e.to_string()))?;
    write(&args.out, &bytes).map_err(|e| {
        let message = format!("{}: cannot be written: {e}", args.out.display());
        (ExitCode::from(1), message)
    })?;
    if args.explain {
        for one in explain {
            outln!("{}: {}", one.about, one.why);
        }
    }
    outln!(
        "{}: {} sections, {} bytes, revision {}",
        args.out.display(),
        snapshot.sections.len(),
        bytes.len(),
        snapshot.revision
    );
    Ok(())
}

fn scope(path: &Path) -> Result<NodeScope, Failure> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        let message = format!("{}: cannot be read: {e}", path.display());
        (ExitCode::from(if is_input(&e) { 2 } else { 1 }), message)
    })?;
    let sidecar = parse_sidecar(&path.display().to_string(), &text)
        .map_err(|e| (ExitCode::from(2), e.to_string()))?;
    let ports = sidecar.ports.into_iter();
    Ok(NodeScope {
        node: sidecar.node,
        service: sidecar.service,
        labels: sidecar.labels,
        ports: ports
            .map(|(name, port, protocol)| NodePort {
                name,
                port,
                protocol,
            })
            .collect(),
        mode: Mode::Standalone,
    })
}

/// A revision that changes with the content and with nothing else: nobody counts them here. 48 bits
/// of the hash over all sections, so that it reads as a number.
fn content_revision(snapshot: &Snapshot) -> Revision {
    let mut hash = Xxh3::new();
    for (key, section) in snapshot.order() {
        hash.update(key.name.as_bytes());
        hash.update(&section.0.to_le_bytes());
    }
    Revision((hash.digest() >> 16).max(1))
}

/// Whole or not at all: a sidecar may be told to read it at any moment.
fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let beside = path.with_file_name(name);
    let written = std::fs::write(&beside, bytes).and_then(|()| std::fs::rename(&beside, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    written
}
