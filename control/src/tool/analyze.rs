//! `ringmesh analyze`: what rules would do, without applying them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use ringmesh_tuning::{errln, out, outln};
use ringmesh_wire::{Revision, ServiceId};
use serde_json::json;

use super::files::read_objects;
use super::statuses;
use crate::model::{Effective, Model, RegisteredService, RegistryView, Status, mesh_name};
use crate::rules::traffic::RuleAction;
use crate::rules::{Object, Spec};

/// Check rules without applying them: faults, missing references, conflicts, defaults taken.
///
/// Services that rules name are taken to exist unless --service lists those that do.
///
/// Exit status: 0 nothing is wrong (there may be notes); 1 a file could not be read; 2 the rules are
/// wrong, or --strict and something is missing.
#[derive(Args, Debug)]
pub struct AnalyzeArgs {
    /// Files or folders of rules; - is standard input.
    #[arg(short = 'f', long = "file", required = true, num_args = 1.., value_name = "RULES")]
    files: Vec<PathBuf>,
    /// A service that exists: NAME or NAME.NAMESPACE. May be given several times.
    #[arg(long, value_name = "SERVICE")]
    service: Vec<String>,
    /// Missing references are an error.
    #[arg(long)]
    strict: bool,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Format {
    /// One line per object, what is to be said below.
    #[default]
    Table,
    /// A list of objects.
    Json,
}

/// Runs it.
#[must_use]
pub fn run(args: &AnalyzeArgs) -> ExitCode {
    let objects = match read_objects(&args.files) {
        Ok(objects) => objects,
        Err(error) => {
            errln!("{error}");
            return error.exit_code();
        }
    };
    let registry = if args.service.is_empty() {
        everything_named(&objects)
    } else {
        let names = args.service.iter();
        registry_of(names.filter_map(|name| mesh_name(name, crate::rules::DEFAULT_NAMESPACE)))
    };
    let resolution = Model::new(Revision(1), objects).resolve(&registry, &Effective::default());
    match args.output {
        Format::Table => out!("{}", table(&resolution.statuses)),
        Format::Json => outln!("{:#}", list(&resolution.statuses)),
    }
    if args.strict && !resolution.all_active() {
        for line in statuses::inactive(&resolution.statuses) {
            errln!("{line}");
        }
        return ExitCode::from(2);
    }
    ExitCode::SUCCESS
}

fn registry_of(ids: impl IntoIterator<Item = ServiceId>) -> RegistryView {
    let mut registry = RegistryView::default();
    for id in ids {
        registry.services.insert(id, RegisteredService::default());
    }
    registry
}

/// Every mesh service that a destination or a DestinationRule names, but for declared ones.
fn everything_named(objects: &[Object]) -> RegistryView {
    let mut declared = BTreeSet::new();
    for object in objects {
        if let Spec::ServiceEntry(entry) = &object.spec {
            declared.extend(entry.hosts.iter().map(|host| host.value.as_str()));
        }
    }
    let mut named = BTreeSet::new();
    for object in objects {
        let mut hosts = Vec::new();
        match &object.spec {
            Spec::DestinationRule(rule) => hosts.push(&rule.host.value),
            Spec::VirtualService(service) => {
                for rule in &service.http {
                    if let RuleAction::Forward(to) = &rule.action {
                        hosts.extend(to.iter().map(|to| &to.host.value));
                    }
                }
                for rule in &service.tcp {
                    hosts.extend(rule.to.iter().map(|to| &to.host.value));
                }
            }
            _ => {}
        }
        hosts.retain(|host| !declared.contains(host.as_str()));
        named.extend(
            hosts
                .into_iter()
                .filter_map(|host| mesh_name(host, &object.key.namespace)),
        );
    }
    registry_of(named)
}

fn table(statuses: &[Status]) -> String {
    let mut out = String::new();
    for status in statuses {
        let line = format!(
            "{:<8} {} ({})\n",
            status.state.word(),
            status.key,
            status.file
        );
        out.push_str(&line);
        for line in status.state.why() {
            out.push_str(&format!("         {}:{line}\n", status.file));
        }
        for note in &status.notes {
            out.push_str(&format!("         note: {note}\n"));
        }
    }
    out
}

fn list(statuses: &[Status]) -> serde_json::Value {
    let objects: Vec<serde_json::Value> = statuses
        .iter()
        .map(|status| {
            json!({
                "kind": status.key.kind.name(),
                "name": status.key.name,
                "namespace": status.key.namespace,
                "file": status.file,
                "state": status.state.word(),
                "missing": status.state.why(),
                "notes": status.notes,
            })
        })
        .collect();
    json!(objects)
}
