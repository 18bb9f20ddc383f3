//! New TLS 1.3 connections, one after the other: handshake, one request, end.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use ringmesh_dataplane::ring::monotonic;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, ClientConnection, HandshakeKind};
use rustls_pki_types::ServerName;

use super::answer::Answer;
use super::http;
use super::tally::{Tally, add};
use super::target::Target;
use super::tls::{Anybody, Identity};
use crate::problem::Problem;

/// A server that says nothing for so long has failed.
const PATIENCE: Duration = Duration::from_secs(5);
const READ_BYTES: usize = 16 * 1024;

/// The server's certificate is not checked: it is measured, not trusted.
#[derive(Debug, Args)]
pub(super) struct Handshakes {
    /// Where the load goes: host:port.
    #[arg(long, value_name = "HOST:PORT")]
    pub(super) to: Target,
    /// Length of the measured window, seconds.
    #[arg(long, short, default_value_t = 10.0, value_parser = super::seconds)]
    pub(super) seconds: f64,
    /// Load before the window, seconds.
    #[arg(long, default_value_t = 1.0, value_parser = super::seconds)]
    pub(super) warmup: f64,
    /// Resume the session of the connection before; only the first handshake is a full one.
    #[arg(long)]
    resume: bool,
    /// What is asked for.
    #[arg(long, default_value = "/", value_parser = super::path)]
    path: String,
    /// The name asked for (SNI).
    #[arg(long, value_name = "NAME", default_value = "localhost")]
    server_name: String,
    /// The application protocol asked for (ALPN).
    #[arg(long, default_value = "http/1.1")]
    alpn: String,
    /// The group of keys offered. A server that wants another asks for a second hello, which is
    /// counted as an error: it is not what is measured.
    #[arg(long, value_enum, default_value_t = Group::X25519)]
    group: Group,
    /// The chain of certificates to show, PEM.
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Its private key, PEM.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Where the result goes as JSON; `-` is standard output instead of the text.
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
    /// Nothing is told meanwhile anyway.
    #[arg(long, short, hide = true)]
    quiet: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Group {
    X25519,
    P256,
}

impl Handshakes {
    /// Connects until the time is over.
    ///
    /// # Errors
    /// The settings are of no use. What fails with the server is counted.
    pub(super) fn run(&self, to: SocketAddr) -> Result<Tally, Problem> {
        let config = self.config()?;
        let name = ServerName::try_from(self.server_name.clone()).map_err(|error| {
            Problem::Yours(format!("--server-name {}: {error}", self.server_name))
        })?;
        let request = http::request(&self.path, &self.to.authority, false);
        let from = monotonic() + Duration::from_secs_f64(self.warmup);
        let tally = Tally::new(from, from + Duration::from_secs_f64(self.seconds));
        let mut first = true;
        loop {
            let begun = monotonic();
            if begun >= tally.until {
                return Ok(tally);
            }
            let wanted = match self.resume && !first {
                true => HandshakeKind::Resumed,
                false => HandshakeKind::Full,
            };
            let tls = ClientConnection::new(Arc::clone(&config), name.clone());
            let tls = tls.map_err(Problem::failed)?;
            match exchange(to, tls, request, wanted, &tally) {
                Ok(()) => {
                    first = false;
                    tally.answered(begun, monotonic());
                }
                Err(why) => {
                    tally.failed(why);
                    // A server that refuses everything must not make us spin.
                    std::thread::park_timeout(Duration::from_millis(10));
                }
            }
        }
    }

    fn config(&self) -> Result<Arc<ClientConfig>, Problem> {
        let group = match self.group {
            Group::X25519 => aws_lc_rs::kx_group::X25519,
            Group::P256 => aws_lc_rs::kx_group::SECP256R1,
        };
        let provider = Arc::new(CryptoProvider {
            kx_groups: vec![group],
            ..aws_lc_rs::default_provider()
        });
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(Problem::failed)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider)));
        let mut config = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Identity::read(cert, key)?.shown_by(builder)?,
            _ => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![self.alpn.clone().into_bytes()];
        if !self.resume {
            config.resumption = Resumption::disabled();
        }
        Ok(Arc::new(config))
    }
}

/// One connection from SYN to the end of its answer.
fn exchange(
    to: SocketAddr,
    mut tls: ClientConnection,
    request: &[u8],
    wanted: HandshakeKind,
    tally: &Tally,
) -> Result<(), String> {
    let failed = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    let mut socket = TcpStream::connect_timeout(&to, PATIENCE).map_err(failed("connect"))?;
    let set = socket
        .set_nodelay(true)
        .and_then(|()| socket.set_read_timeout(Some(PATIENCE)));
    set.map_err(failed("connect"))?;
    let begun = monotonic();
    while tls.is_handshaking() {
        tls.complete_io(&mut socket).map_err(failed("handshake"))?;
    }
    add(&tally.connects, 1);
    tally.handshakes.shaken(&tls, begun, monotonic());
    if tls.handshake_kind() != Some(wanted) {
        let found = tls.handshake_kind();
        return Err(format!("the handshake was {found:?}, not {wanted:?}"));
    }
    let mut stream = rustls::Stream::new(&mut tls, &mut socket);
    stream.write_all(request).map_err(failed("send"))?;
    let (mut answer, mut piece) = (Answer::default(), [0; READ_BYTES]);
    loop {
        let read = stream.read(&mut piece).map_err(failed("receive"))?;
        tally.received(read, monotonic());
        let whole = match read {
            0 if answer.end() => true,
            0 => return Err("the connection ended before the answer did".to_owned()),
            _ => answer
                .feed(&piece[..read])
                .map_err(|bad| format!("answer: {bad}"))?,
        };
        if whole {
            break;
        }
    }
    if !(200..400).contains(&answer.status) {
        add(&tally.refused, 1);
    }
    tls.send_close_notify();
    // A server that has closed already does not want to be told.
    let _ = tls.complete_io(&mut socket);
    Ok(())
}
