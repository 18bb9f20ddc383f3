//! `token`: what lets a new node in.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Args, Subcommand};
use ringmesh_tuning::outln;

use super::client::Client;
use super::failure::Failure;
use super::output::{self, Output};
use crate::admin::api::{MadeToken, NewToken, Token};
use crate::time::{parse_life, show_unix_ms};

/// `ringmesh token`
#[derive(Args, Debug)]
pub struct TokenArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Make a token for one node and print it. It is bound to what is given here, and used once.
    Create {
        /// Name of the node, as in its sidecar.yaml.
        #[arg(long)]
        node: String,
        /// Service the workload belongs to.
        #[arg(long)]
        service: String,
        /// Namespace.
        #[arg(long, default_value = "default")]
        namespace: String,
        /// Service account [default: the service's name].
        #[arg(long)]
        service_account: Option<String>,
        /// Label, KEY=VALUE; may be given several times.
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
        labels: Vec<(String, String)>,
        /// How long it may be used.
        #[arg(long, value_name = "TIME", value_parser = parse_life, default_value = "24h")]
        expires: Duration,
        /// How to print.
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// List tokens (never their secrets).
    List {
        /// How to print.
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("a label is KEY=VALUE".to_owned()),
    }
}

pub(super) fn run(client: &Client, args: &TokenArgs) -> Result<(), Failure> {
    match &args.what {
        What::Create {
            node,
            service,
            namespace,
            service_account,
            labels,
            expires,
            output,
        } => {
            let by_key: BTreeMap<String, String> = labels.iter().cloned().collect();
            if by_key.len() != labels.len() {
                return Err(Failure::wrong("--label: a key is given twice"));
            }
            let body = NewToken {
                node: node.clone(),
                namespace: namespace.clone(),
                service: service.clone(),
                service_account: service_account.as_ref().unwrap_or(service).clone(),
                labels: by_key,
                life_s: expires.as_secs().max(1),
            };
            let made: MadeToken = client.post("/v1/tokens", &body)?;
            if *output == Output::Table {
                outln!("{}", made.token);
                return Ok(());
            }
            output::structured(*output, &made)
        }
        What::List { output } => {
            let tokens: Vec<Token> = client.get("/v1/tokens")?;
            output::print(
                *output,
                &tokens,
                &["ID", "NODE", "SERVICE", "ACCOUNT", "STATE", "EXPIRES", "BY"],
                |t| {
                    vec![
                        t.id.clone(),
                        t.node.clone(),
                        t.service.clone(),
                        t.service_account.clone(),
                        t.state.clone(),
                        show_unix_ms(t.expires_ms),
                        t.created_by.clone(),
                    ]
                },
                "no tokens; `ringmesh token create --node NODE --service SERVICE` makes one",
            )
        }
    }
}
