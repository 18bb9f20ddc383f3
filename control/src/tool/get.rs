//! `get`: objects and whether they are in force.

use clap::Args;
use ringmesh_tuning::outln;

use super::client::Client;
use super::failure::Failure;
use super::output::{self, Output};
use crate::admin::api::Object;
use crate::rules::Kind;

/// `ringmesh get`
#[derive(Args, Debug)]
pub struct GetArgs {
    /// Kind, e.g. virtualservice or virtualservices; all if left out.
    kind: Option<String>,
    /// Name; shows the object whole.
    name: Option<String>,
    /// Only this namespace.
    #[arg(short, long)]
    namespace: Option<String>,
    /// How to print; yaml gives the objects as they were written, ready to apply.
    #[arg(long, value_enum)]
    output: Option<Output>,
}

pub(super) fn run(client: &Client, args: &GetArgs) -> Result<(), Failure> {
    let kind = match &args.kind {
        Some(text) => Some(Kind::by_name(text).ok_or_else(|| {
            let kinds: Vec<&str> = Kind::ALL.iter().map(|k| k.name()).collect();
            Failure::wrong(format!(
                "there is no kind {text}; kinds are {}",
                kinds.join(", ")
            ))
        })?),
        None => None,
    };
    let objects: Vec<Object> = client.get("/v1/objects")?;
    let none = match objects.len() {
        0 => "no objects; `ringmesh apply -f FILE` adds some",
        _ => "no such objects; `ringmesh get` lists what there is",
    };
    let wanted = objects.into_iter().filter(|object| {
        kind.is_none_or(|kind| object.name.kind == kind.name())
            && args
                .name
                .as_ref()
                .is_none_or(|name| object.name.name == *name)
            && args
                .namespace
                .as_ref()
                .is_none_or(|ns| object.name.namespace == *ns)
    });
    let objects: Vec<Object> = wanted.collect();
    if let (Some(name), true) = (&args.name, objects.is_empty()) {
        return Err(Failure::failed(format!(
            "no {} {name}; `ringmesh get` lists what there is",
            kind.map_or("object", Kind::name)
        )));
    }
    let default = if args.name.is_some() {
        Output::Yaml
    } else {
        Output::Table
    };
    match args.output.unwrap_or(default) {
        Output::Yaml => {
            for (at, object) in objects.iter().enumerate() {
                if at > 0 {
                    outln!("---");
                }
                if let Some(status) = &object.status {
                    outln!(
                        "# {} (revision {}, from {})",
                        status.state,
                        object.revision,
                        object.file
                    );
                    for line in status.missing.iter().chain(&status.notes) {
                        outln!("#   {line}");
                    }
                }
                outln!("{}", object.yaml.trim_end());
            }
            Ok(())
        }
        output => output::print(
            output,
            &objects,
            &["KIND", "NAMESPACE", "NAME", "REVISION", "STATUS", "WHY"],
            row,
            none,
        ),
    }
}

fn row(object: &Object) -> Vec<String> {
    let status = object.status.as_ref();
    vec![
        object.name.kind.clone(),
        object.name.namespace.clone(),
        object.name.name.clone(),
        object.revision.to_string(),
        status.map_or_else(String::new, |s| s.state.clone()),
        status.map_or_else(String::new, |s| {
            let lines: Vec<&str> = s
                .missing
                .iter()
                .chain(&s.notes)
                .map(String::as_str)
                .collect();
            lines.join(" | ")
        }),
    ]
}
