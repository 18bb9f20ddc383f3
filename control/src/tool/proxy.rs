//! `proxy`: what sidecars hold, as control knows it.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::client::{Client, segment};
use super::failure::Failure;
use super::output::{self, Output};
use crate::admin::api::{Certificate, Name, Proxy};
use crate::time::show_unix_ms;

/// `ringmesh proxy`
#[derive(Args, Debug)]
pub struct ProxyArgs {
    #[command(subcommand)]
    what: What,
    /// How to print.
    #[arg(long, value_enum, global = true)]
    output: Option<Output>,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Every connected sidecar, and whether it holds the newest configuration.
    List,
    /// The whole configuration of a sidecar.
    Config {
        /// Its node.
        node: String,
    },
    /// The endpoints a sidecar may call; those by name with what it found the names to lead to.
    Endpoints {
        /// Its node.
        node: String,
    },
    /// The routes of a sidecar.
    Routes {
        /// Its node.
        node: String,
    },
    /// The certificates of a sidecar.
    Certs {
        /// Its node.
        node: String,
    },
}

pub(super) fn run(client: &Client, args: &ProxyArgs) -> Result<(), Failure> {
    match &args.what {
        What::List => list(client, args.output.unwrap_or_default()),
        What::Config { node } => sections(client, node, None, args.output),
        What::Routes { node } => sections(client, node, Some("routes"), args.output),
        What::Endpoints { node } => endpoints(client, node, args.output.unwrap_or_default()),
        What::Certs { node } => certs(client, node, args.output.unwrap_or_default()),
    }
}

fn list(client: &Client, output: Output) -> Result<(), Failure> {
    let proxies: Vec<Proxy> = client.get("/v1/proxies")?;
    output::print(
        output,
        &proxies,
        &[
            "NODE", "SERVICE", "STATE", "RULES", "CONFIG", "FROM", "SINCE", "BUILD", "WHY",
        ],
        |p| {
            let config = if p.acked == p.wanted {
                p.acked.to_string()
            } else {
                format!("{} of {}", p.acked, p.wanted)
            };
            vec![
                p.node.clone(),
                p.service.clone(),
                p.state.clone(),
                p.rules.to_string(),
                config,
                p.peer.clone(),
                show_unix_ms(p.since_ms),
                p.build.clone(),
                p.why.clone(),
            ]
        },
        "no sidecar is connected",
    )
}

fn all_sections(client: &Client, node: &str) -> Result<Vec<Value>, Failure> {
    client.get(&format!("/v1/proxies/{}/config", segment(node)))
}

fn sections(
    client: &Client,
    node: &str,
    kind: Option<&str>,
    output: Option<Output>,
) -> Result<(), Failure> {
    let mut all = all_sections(client, node)?;
    all.retain(|section| kind.is_none_or(|kind| section["kind"] == kind));
    match output {
        Some(Output::Table) => output::print(
            Output::Table,
            &all,
            &["KIND", "NAME", "BYTES"],
            |s| vec![text(&s["kind"]), text(&s["name"]), text(&s["bytes"])],
            "nothing",
        ),
        other => output::structured(other.unwrap_or(Output::Json), &all),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn endpoints(client: &Client, node: &str, output: Output) -> Result<(), Failure> {
    let all = all_sections(client, node)?;
    let mut rows = Vec::new();
    let names: Vec<Name> = client.get(&format!("/v1/proxies/{}/names", segment(node)))?;
    let listing = |s: &&Value| s["kind"] == "endpoints" || s["kind"] == "names";
    for section in all.iter().filter(listing) {
        for endpoint in section["body"]["endpoints"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let mut row = endpoint.clone();
            row["service"] = section["name"].clone();
            if let Some(found) = names.iter().find(|found| row["name"] == found.name) {
                row["addresses"] = serde_json::json!(found.addresses);
                row["trouble"] = found.trouble.clone().into();
                row["state"] = standing(found).into();
            }
            rows.push(row);
        }
    }
    output::print(
        output,
        &rows,
        &[
            "SERVICE", "NODE", "ADDRESS", "PORTS", "MESH", "STATE", "LABELS",
        ],
        |e| {
            let ports = e["ports"].as_array().into_iter().flatten();
            let ports = ports.map(|p| format!("{}->{}", p["service_port"], p["app_port"]));
            let labels = e["labels"].as_object().into_iter().flatten();
            let labels = labels.map(|(k, v)| format!("{k}={}", text(v)));
            vec![
                text(&e["service"]),
                text(&e["node"]),
                place(e),
                ports.collect::<Vec<_>>().join(","),
                text(&e["mesh_port"]),
                text(&e["state"]),
                labels.collect::<Vec<_>>().join(","),
            ]
        },
        "this sidecar knows no endpoints",
    )
}

/// How a name of endpoints stands, as the metric `ringmesh_dns_names` has it.
fn standing(found: &Name) -> &'static str {
    match (found.addresses.is_empty(), found.trouble.is_empty()) {
        (true, _) => "unresolved",
        (false, true) => "resolved",
        (false, false) => "stale",
    }
}

/// An address, or a name with what it leads to.
fn place(endpoint: &Value) -> String {
    let Value::String(name) = &endpoint["name"] else {
        return text(&endpoint["address"]);
    };
    let addresses = endpoint["addresses"].as_array().into_iter().flatten();
    let addresses: Vec<String> = addresses.map(text).collect();
    let trouble = text(&endpoint["trouble"]);
    match (addresses.is_empty(), trouble.is_empty()) {
        (true, true) => name.clone(),
        (true, false) => format!("{name} ({trouble})"),
        (false, true) => format!("{name} -> {}", addresses.join(",")),
        (false, false) => format!("{name} -> {} ({trouble})", addresses.join(",")),
    }
}

fn certs(client: &Client, node: &str, output: Output) -> Result<(), Failure> {
    let mut all: Vec<Certificate> = client.get("/v1/certs")?;
    all.retain(|cert| cert.node == node);
    super::cert::print(output, &all)
}
