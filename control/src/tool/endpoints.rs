//! `endpoints` and `hosts`.

use clap::{Args, Subcommand};
use ringmesh_tuning::outln;

use super::client::{Client, segment};
use super::failure::Failure;
use super::output::{self, Output};
use crate::admin::api::{Endpoint, Host};

/// `ringmesh endpoints`
#[derive(Args, Debug)]
pub struct EndpointsArgs {
    #[command(subcommand)]
    what: Option<What>,
    /// How to print.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Forget the endpoint of a node that is gone for good.
    Forget {
        /// The node.
        node: String,
    },
    /// Remove what a mass expiry has kept (the registry froze because too many went at once).
    Thaw,
}

/// `ringmesh hosts`
#[derive(Args, Debug)]
pub struct HostsArgs {
    /// Namespace of the workload that will use them: short names are those of its neighbours.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// How to print; table gives lines for /etc/hosts.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(client: &Client, args: &EndpointsArgs) -> Result<(), Failure> {
    match &args.what {
        Some(What::Forget { node }) => client.delete(&format!("/v1/endpoints/{}", segment(node))),
        Some(What::Thaw) => client.post("/v1/endpoints/thaw", &()),
        None => {
            let all: Vec<Endpoint> = client.get("/v1/endpoints")?;
            output::print(
                args.output,
                &all,
                &[
                    "SERVICE", "NODE", "ADDRESS", "MESH", "PORTS", "LEASE", "STATE", "LABELS",
                ],
                |e| {
                    let labels = e.labels.iter().map(|(k, v)| format!("{k}={v}"));
                    vec![
                        e.service.clone(),
                        e.node.clone(),
                        e.address.clone(),
                        e.mesh_port.to_string(),
                        e.ports.join(","),
                        e.lease.clone(),
                        e.state.clone(),
                        labels.collect::<Vec<_>>().join(","),
                    ]
                },
                "no endpoints are registered",
            )
        }
    }
}

pub(super) fn hosts(client: &Client, args: &HostsArgs) -> Result<(), Failure> {
    let hosts: Vec<Host> =
        client.get(&format!("/v1/hosts?namespace={}", segment(&args.namespace)))?;
    if args.output != Output::Table {
        return output::structured(args.output, &hosts);
    }
    outln!("# ringmesh hosts, namespace {}", args.namespace);
    for host in hosts {
        outln!("{}\t{}", host.address, host.names.join(" "));
    }
    Ok(())
}
