//! `cert`: list, inspect, revoke, and the roots above them.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::{Args, Subcommand};
use ringmesh_tuning::outln;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::client::{Client, segment};
use super::failure::Failure;
use super::output::{self, Output};
use crate::admin::api::{Certificate, Root};
use crate::svid::{Peer, Purpose, sha256_hex, unix_ms, verify_chain};
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
    /// Show the certificates of a PEM file (no control service is needed), or those control has issued to a node.
    #[command(alias = "show")]
    Inspect {
        /// A PEM file, or the name of a node.
        what: String,
        /// Check as well that the file's first certificate is good under these roots, as a sidecar would; exit
        /// status 1 if it is not.
        #[arg(long, value_name = "PEM")]
        roots: Option<PathBuf>,
    },
    /// Revoke every certificate of a node; it has to join again with a new token.
    Revoke {
        /// The node.
        node: String,
    },
    /// The roots of the mesh, and what each is good for.
    Roots {
        /// How to print.
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Replace the root: sidecars trust the new one first, then it signs, then the old one is withdrawn when the
    /// last certificate under it has ended. Nobody joins again.
    RotateRoot,
}

pub(super) fn run(client: &Client, args: &CertArgs) -> Result<(), Failure> {
    match &args.what {
        What::List { output } => print(*output, &client.get::<Vec<Certificate>>("/v1/certs")?),
        What::Inspect { what, roots } if Path::new(what).is_file() => {
            inspect(Path::new(what), roots.as_deref())
        }
        What::Inspect { what, .. } => {
            let mut all: Vec<Certificate> = client.get("/v1/certs")?;
            all.retain(|cert| cert.node == *what);
            if all.is_empty() {
                return Err(Failure::failed(format!(
                    "{what} is neither a file nor a node with certificates (ringmesh cert list)"
                )));
            }
            print(Output::Table, &all)
        }
        What::Roots { output } => roots(*output, &client.get::<Vec<Root>>("/v1/roots")?),
        What::RotateRoot => {
            let () = client.post("/v1/roots/rotate", &())?;
            outln!("a new root is announced; `ringmesh cert roots` shows how far it is");
            Ok(())
        }
        What::Revoke { node } => {
            let path = format!("/v1/certs/{}/revoke", segment(node));
            let count: usize = client.post(&path, &())?;
            outln!(
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

fn roots(output: Output, roots: &[Root]) -> Result<(), Failure> {
    let since = |root: &Root| match root.since_ms {
        0 => String::new(),
        since_ms => show_unix_ms(since_ms),
    };
    output::print(
        output,
        roots,
        &["STAGE", "SINCE", "EXPIRES", "SHA256"],
        |root| {
            vec![
                root.stage.clone(),
                since(root),
                show_unix_ms(root.not_after_ms),
                root.sha256.clone(),
            ]
        },
        "no roots",
    )
}

fn read(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let shown = path.display();
    let certs: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .map_err(|e| Failure::failed(format!("{shown}: {e}")))?
        .collect();
    let certs = certs.map_err(|e| Failure::wrong(format!("{shown}: not PEM: {e}")))?;
    match certs.is_empty() {
        true => Err(Failure::wrong(format!("{shown}: holds no certificate"))),
        false => Ok(certs),
    }
}

fn inspect(path: &Path, roots: Option<&Path>) -> Result<(), Failure> {
    let shown = path.display();
    let certs = read(path)?;
    let now = SystemTime::now();
    let now_s = i64::try_from(unix_ms(now) / 1_000).unwrap_or(i64::MAX);
    for (at, der) in certs.iter().enumerate() {
        let (_, cert) = x509_parser::parse_x509_certificate(der)
            .map_err(|e| Failure::wrong(format!("{shown}: certificate {}: {e}", at + 1)))?;
        let ms = |seconds: i64| u64::try_from(seconds).unwrap_or(0) * 1_000;
        let validity = cert.validity();
        outln!("certificate {} of {}", at + 1, certs.len());
        outln!("  subject    {}", cert.subject());
        outln!("  issuer     {}", cert.issuer());
        outln!(
            "  serial     {}",
            crate::svid::serial_hex(cert.raw_serial())
        );
        outln!(
            "  not before {}",
            show_unix_ms(ms(validity.not_before.timestamp()))
        );
        outln!(
            "  not after  {}",
            show_unix_ms(ms(validity.not_after.timestamp()))
        );
        let state = match () {
            () if now_s < validity.not_before.timestamp() => "not valid yet",
            () if now_s > validity.not_after.timestamp() => "expired",
            () => "valid now",
        };
        outln!("  state      {state}");
        outln!("  sha256     {}", sha256_hex(der));
        if cert.is_ca() {
            outln!("  purpose    certificate authority");
        } else if let Ok(peer) = Peer::from_der(der) {
            outln!("  node       {}", peer.node);
            outln!("  identity   {}", peer.id);
            match peer.purpose {
                Purpose::Node => outln!("  purpose    node credential (renews the workload's)"),
                Purpose::Workload { attributes } => {
                    outln!("  service    {}", attributes.service);
                    for (key, value) in attributes.labels {
                        outln!("  label      {key}={value}");
                    }
                }
            }
        } else if let Ok(Some(names)) = cert.subject_alternative_name() {
            for name in &names.value.general_names {
                outln!("  name       {name}");
            }
        }
    }
    let Some(roots) = roots else { return Ok(()) };
    match verify_chain(&certs, &read(roots)?, now) {
        Ok(()) => {
            outln!("good under {}", roots.display());
            Ok(())
        }
        Err(why) => Err(Failure::failed(format!(
            "{shown}: the first certificate is not good under {}: {why}",
            roots.display()
        ))),
    }
}
