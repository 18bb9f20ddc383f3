//! What a small record costs through each of the two interfaces of rustls: the buffered one that
//! `tls/stream.rs` is built on, and the unbuffered one that encrypts into the caller's buffer.
//!
//! `cargo run --release -p ringmesh-dataplane --example rustls_apis [BYTES]`: nanoseconds and
//! allocations per record of BYTES (200) that one end encrypts and the other decrypts into a buffer
//! of its own, as two sidecars do for a request; the best of 20 rounds each, taken in turns.

use std::error::Error;
use std::hint::black_box;
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Instant;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::ConnectionState;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

const ROUNDS: usize = 20;
const RECORDS: u32 = 20_000;
/// Room for a record and for any flight of a handshake.
const BUFFER_BYTES: usize = 32 * 1024;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let bytes: usize = match std::env::args().nth(1) {
        Some(bytes) => bytes.parse()?,
        None => 200,
    };
    let payload = vec![b'x'; bytes.clamp(1, 16 * 1024)];
    let mut buffered = Buffered::new()?;
    let mut unbuffered = Unbuffered::new()?;
    let (mut best, mut allocations) = ([f64::MAX; 2], [0; 2]);
    for _ in 0..ROUNDS {
        let mut told = Ok(());
        let mut round = |at: usize, record: &mut dyn FnMut() -> Outcome<()>| {
            let begun = Instant::now();
            let counted = allocation_counter::measure(|| {
                for _ in 0..RECORDS {
                    if told.is_ok() {
                        told = record();
                    }
                }
            });
            let took = begun.elapsed().as_secs_f64() * 1e9 / f64::from(RECORDS);
            best[at] = best[at].min(took);
            allocations[at] = counted.count_total;
        };
        round(0, &mut || buffered.record(&payload));
        round(1, &mut || unbuffered.record(&payload));
        told?;
    }
    println!("{} bytes a record  ns  allocations", payload.len());
    for (name, at) in [("buffered", 0), ("unbuffered", 1)] {
        let each = allocations[at] as f64 / f64::from(RECORDS);
        println!("{name:<20} {:>6.0}  {each:>10.1}", best[at]);
    }
    Ok(())
}

fn configs() -> Outcome<(Arc<ClientConfig>, Arc<ServerConfig>)> {
    let key = rcgen::KeyPair::generate()?;
    let cert = rcgen::CertificateParams::new(vec!["a.test".to_owned()])?.self_signed(&key)?;
    let cert: CertificateDer<'static> = cert.der().clone();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut roots = RootCertStore::empty();
    roots.add(cert.clone())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![cert], key)?;
    Ok((Arc::new(client), Arc::new(server)))
}

struct Buffered {
    client: ClientConnection,
    server: ServerConnection,
    cipher: Vec<u8>,
    plain: Vec<u8>,
}

impl Buffered {
    fn new() -> Outcome<Self> {
        let (client, server) = configs()?;
        let mut it = Self {
            client: ClientConnection::new(client, ServerName::try_from("a.test")?)?,
            server: ServerConnection::new(server)?,
            cipher: Vec::with_capacity(BUFFER_BYTES),
            plain: vec![0; BUFFER_BYTES],
        };
        while it.client.is_handshaking() || it.server.is_handshaking() || it.server.wants_write() {
            it.cipher.clear();
            while it.client.wants_write() {
                it.client.write_tls(&mut it.cipher)?;
            }
            it.server.read_tls(&mut &it.cipher[..])?;
            it.server.process_new_packets()?;
            it.cipher.clear();
            while it.server.wants_write() {
                it.server.write_tls(&mut it.cipher)?;
            }
            it.client.read_tls(&mut &it.cipher[..])?;
            it.client.process_new_packets()?;
        }
        Ok(it)
    }

    fn record(&mut self, payload: &[u8]) -> Outcome<()> {
        self.client.writer().write_all(payload)?;
        self.cipher.clear();
        while self.client.wants_write() {
            self.client.write_tls(&mut self.cipher)?;
        }
        let (mut cipher, mut len) = (&self.cipher[..], 0);
        while !cipher.is_empty() {
            self.server.read_tls(&mut cipher)?;
            len = self.server.process_new_packets()?.plaintext_bytes_to_read();
        }
        self.server.reader().read_exact(&mut self.plain[..len])?;
        black_box(&self.plain[..len]);
        if len == payload.len() {
            Ok(())
        } else {
            Err("a record is not what was sent".into())
        }
    }
}

struct Unbuffered {
    client: UnbufferedClientConnection,
    server: UnbufferedServerConnection,
    cipher: Vec<u8>,
    plain: Vec<u8>,
}

/// Drives one end until it wants bytes of the other or is ready; whether it may send payload now.
/// The two ends are types of their own without a common face to drive them by.
macro_rules! drive {
    ($connection:expr, $incoming:expr, $outgoing:expr) => {{
        let mut ready = false;
        loop {
            let status = $connection.process_tls_records($incoming);
            let discard = status.discard;
            let mut go_on = true;
            match status.state? {
                ConnectionState::EncodeTlsData(mut data) => {
                    let from = $outgoing.len();
                    $outgoing.resize(from + BUFFER_BYTES, 0);
                    let len = data.encode(&mut $outgoing[from..])?;
                    $outgoing.truncate(from + len);
                }
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::BlockedHandshake => go_on = false,
                ConnectionState::WriteTraffic(_) => {
                    ready = true;
                    go_on = false;
                }
                _ => return Err("an unexpected turn of the handshake".into()),
            }
            $incoming.drain(..discard);
            if !go_on {
                break;
            }
        }
        ready
    }};
}

impl Unbuffered {
    fn new() -> Outcome<Self> {
        let (client, server) = configs()?;
        let mut it = Self {
            client: UnbufferedClientConnection::new(client, ServerName::try_from("a.test")?)?,
            server: UnbufferedServerConnection::new(server)?,
            cipher: vec![0; BUFFER_BYTES],
            plain: vec![0; BUFFER_BYTES],
        };
        let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
        loop {
            let client_ready = drive!(it.client, &mut to_client, to_server);
            let server_ready = drive!(it.server, &mut to_server, to_client);
            if client_ready && server_ready && to_client.is_empty() && to_server.is_empty() {
                return Ok(it);
            }
        }
    }

    fn record(&mut self, payload: &[u8]) -> Outcome<()> {
        let status = self.client.process_tls_records(&mut []);
        let ConnectionState::WriteTraffic(mut traffic) = status.state? else {
            return Err("the client may not send".into());
        };
        let len = traffic.encrypt(payload, &mut self.cipher)?;
        let status = self.server.process_tls_records(&mut self.cipher[..len]);
        let ConnectionState::ReadTraffic(mut traffic) = status.state? else {
            return Err("the server got no record".into());
        };
        let record = traffic.next_record().ok_or("no record")??;
        let len = record.payload.len();
        self.plain[..len].copy_from_slice(record.payload);
        black_box(&self.plain[..len]);
        if len == payload.len() {
            Ok(())
        } else {
            Err("a record is not what was sent".into())
        }
    }
}
