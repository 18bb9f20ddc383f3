//! TLS of a load: what is asked of it, and the client that comes of that.

mod anybody;
mod pem;
mod refusal;
mod roots;

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, SupportedProtocolVersion, version};
use rustls_pki_types::ServerName;

pub(super) use anybody::Anybody;
pub(super) use pem::Identity;
pub(super) use refusal::Refusal;

use super::target::Target;
use crate::problem::Problem;
use roots::Roots;

/// Sessions one connection remembers: those of one server, of which rustls keeps the last few.
const SESSIONS: usize = 1;

#[derive(Debug, Args)]
#[command(next_help_heading = "TLS (--to https://... or tls://...)")]
pub(super) struct Tls {
    /// Whose word is taken for the server: roots, PEM. Otherwise those of this system.
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    ca: Option<PathBuf>,
    /// Any certificate will do: the server is measured, not trusted.
    #[arg(long)]
    insecure: bool,
    /// The chain of certificates to show if the server asks (mutual TLS), PEM, own first.
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Its private key, PEM.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// The name asked for (SNI), and that the certificate has to be for. The host of --to otherwise.
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
    /// An application protocol asked for (ALPN); may be given again, the most wanted first.
    /// http/1.1 otherwise for HTTP, none for ping and bulk.
    #[arg(long, value_name = "PROTOCOL", value_parser = protocol)]
    alpn: Vec<String>,
    /// Every handshake in full. Otherwise each connection's successor resumes its session, as a
    /// browser or a pool does; the result tells both kinds apart.
    #[arg(long)]
    no_resume: bool,
    /// Only this version. Otherwise 1.3, or 1.2 if the server has no other.
    #[arg(long, value_enum, value_name = "VERSION")]
    tls_version: Option<Version>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Version {
    #[value(name = "1.2")]
    Tls12,
    #[value(name = "1.3")]
    Tls13,
}

/// Whom a load's connections are to the server.
#[derive(Debug)]
pub(super) struct Client {
    config: ClientConfig,
    pub(super) name: ServerName<'static>,
    resumes: bool,
    roots: Roots,
    /// Whether it has a certificate to show.
    shows: bool,
}

impl Tls {
    /// The client of a load on `to`; `None` without TLS. `alpn` is what is asked for unless told.
    ///
    /// # Errors
    /// A file is of no use, and where in it; or TLS is asked of a target without.
    pub(super) fn client(
        &self,
        to: &Target,
        alpn: Option<&str>,
    ) -> Result<Option<Client>, Problem> {
        if !to.tls {
            return match self.first_given() {
                Some(flag) => Err(Problem::Yours(format!(
                    "{flag} is for TLS: write --to https://{0} or tls://{0}",
                    to.authority
                ))),
                None => Ok(None),
            };
        }
        let asked = self.server_name.as_ref().unwrap_or(&to.host);
        let name = ServerName::try_from(asked.clone())
            .map_err(|error| Problem::Yours(format!("--server-name {asked}: {error}")))?;
        let identity = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Some(Identity::read(cert, key)?),
            _ => None,
        };
        let roots = Roots::choose(self.ca.as_deref(), self.insecure)?;
        let shows = identity.is_some();
        let mut config = config(&self.versions(), &roots, identity)?;
        config.alpn_protocols = match self.alpn.is_empty() {
            true => alpn.iter().map(|name| name.as_bytes().to_vec()).collect(),
            false => self.alpn.iter().map(|name| name.clone().into()).collect(),
        };
        config.resumption = Resumption::disabled();
        Ok(Some(Client {
            config,
            name,
            resumes: !self.no_resume,
            roots,
            shows,
        }))
    }

    fn versions(&self) -> Vec<&'static SupportedProtocolVersion> {
        match self.tls_version {
            None => vec![&version::TLS13, &version::TLS12],
            Some(Version::Tls12) => vec![&version::TLS12],
            Some(Version::Tls13) => vec![&version::TLS13],
        }
    }

    /// An option of these that was given.
    fn first_given(&self) -> Option<&'static str> {
        let given = [
            (self.ca.is_some(), "--ca"),
            (self.insecure, "--insecure"),
            (self.cert.is_some(), "--cert"),
            (self.server_name.is_some(), "--server-name"),
            (!self.alpn.is_empty(), "--alpn"),
            (self.no_resume, "--no-resume"),
            (self.tls_version.is_some(), "--tls-version"),
        ];
        given.iter().find(|(is, _)| *is).map(|(_, flag)| *flag)
    }
}

fn config(
    versions: &[&'static SupportedProtocolVersion],
    roots: &Roots,
    identity: Option<Identity>,
) -> Result<ClientConfig, Problem> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .map_err(Problem::failed)?;
    let builder = match roots.store() {
        Some(store) => builder.with_root_certificates(store),
        None => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider))),
    };
    match identity {
        Some(identity) => identity.shown_by(builder),
        None => Ok(builder.with_no_client_auth()),
    }
}

impl Client {
    /// What one connection of the load, and those that follow it, shake hands with. Sessions are its
    /// own: of many connections with one memory, some would find another's ticket taken.
    pub(super) fn remembering(&self) -> Arc<ClientConfig> {
        let mut config = self.config.clone();
        if self.resumes {
            config.resumption = Resumption::in_memory_sessions(SESSIONS);
        }
        Arc::new(config)
    }
}

fn protocol(text: &str) -> Result<String, String> {
    match text {
        "h2" => Err("this load speaks HTTP/1.1; for HTTP/2 there is h2load".to_owned()),
        "" => Err("a name, as http/1.1".to_owned()),
        // RFC 7301 section 3.1: one byte says how long it is.
        _ if text.len() > 255 => Err("at most 255 bytes".to_owned()),
        _ => Ok(text.to_owned()),
    }
}
