//! `cert`: list, inspect, revoke.

use std::path::Path;

use clap::{Args, Subcommand};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::client::{Client, segment};
use super::failure::Failure;
use super::output::{self, Output};
use crate::admin::api::Certificate;
use crate::svid::{Peer, Purpose, sha256_hex};
use crate::time::show_unix_ms;

/// `ringmesh cert`
#[derive(Args, Debug)]
pub struct CertArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Every certificate that has not expired.
    List {
        /// How to print.
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Show the certificates of a PEM file, or those control has issued to a node.
    #[command(alias = "show")]
    Inspect {
        /// A PEM file, or the name of a node.
        what: String,
    },
    /// Revoke every certificate of a node; it has to join again with a new token.
    Revoke {
        /// The node.
        node: String,
    },
}

pub(super) fn run(client: &Client, args: &CertArgs) -> Result<(), Failure> {
    match &args.what {
        What::List { output } => print(*output, &client.get::<Vec<Certificate>>("/v1/certs")?),
        What::Inspect { what } if Path::new(what).is_file() => inspect(Path::new(what)),
        What::Inspect { what } => {
            let mut all: Vec<Certificate> = client.get("/v1/certs")?;
            all.retain(|cert| cert.node == *what);
            if all.is_empty() {
                return Err(Failure::failed(format!(
                    "{what} is neither a file nor a node with certificates (ringmesh cert list)"
                )));
            }
            print(Output::Table, &all)
        }
        What::Revoke { node } => {
            let path = format!("/v1/certs/{}/revoke", segment(node));
            let count: usize = client.post(&path, &())?;
            println!(
                "{count} certificates of {node} revoked; `ringmesh token create --node {node} ...` \
                 lets it in again"
            );
            Ok(())
        }
    }
}

pub(super) fn print(output: Output, certs: &[Certificate]) -> Result<(), Failure> {
    output::print(
        output,
        certs,
        &["NODE", "PURPOSE", "IDENTITY", "ISSUED", "EXPIRES", "SERIAL"],
        |c| {
            let issued = if c.revoked {
                String::new()
            } else {
                show_unix_ms(c.issued_ms)
            };
            vec![
                c.node.clone(),
                c.purpose.clone(),
                c.identity.clone(),
                issued,
                show_unix_ms(c.not_after_ms),
                c.serial.clone(),
            ]
        },
        "no certificates",
    )
}

fn inspect(path: &Path) -> Result<(), Failure> {
    let shown = path.display();
    let certs: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .map_err(|e| Failure::failed(format!("{shown}: {e}")))?
        .collect();
    let certs = certs.map_err(|e| Failure::wrong(format!("{shown}: not PEM: {e}")))?;
    if certs.is_empty() {
        return Err(Failure::wrong(format!("{shown}: holds no certificate")));
    }
    for (at, der) in certs.iter().enumerate() {
        let (_, cert) = x509_parser::parse_x509_certificate(der)
            .map_err(|e| Failure::wrong(format!("{shown}: certificate {}: {e}", at + 1)))?;
        let ms = |seconds: i64| u64::try_from(seconds).unwrap_or(0) * 1_000;
        let validity = cert.validity();
        println!("certificate {} of {}", at + 1, certs.len());
        println!("  subject    {}", cert.subject());
        println!("  issuer     {}", cert.issuer());
        println!(
            "  serial     {}",
            crate::svid::serial_hex(cert.raw_serial())
        );
        println!(
            "  not before {}",
            show_unix_ms(ms(validity.not_before.timestamp()))
        );
        println!(
            "  not after  {}",
            show_unix_ms(ms(validity.not_after.timestamp()))
        );
        println!("  sha256     {}", sha256_hex(der));
        if cert.is_ca() {
            println!("  purpose    certificate authority");
        } else if let Ok(peer) = Peer::from_der(der) {
            println!("  node       {}", peer.node);
            println!("  identity   {}", peer.id);
            match peer.purpose {
                Purpose::Node => println!("  purpose    node credential (renews the workload's)"),
                Purpose::Workload { attributes } => {
                    println!("  service    {}", attributes.service);
                    for (key, value) in attributes.labels {
                        println!("  label      {key}={value}");
                    }
                }
            }
        }
    }
    Ok(())
}
