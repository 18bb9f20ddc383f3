//! The link to control: QUIC with mutual TLS, and whole frames on its streams.
//!
//! Bytes that break the protocol become a [`LinkError::Unreadable`] with the wire's stable code;
//! whoever reads closes the connection with that reason and counts it. No length is believed
//! before its bytes are there.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{
    Connection, ConnectionError, Endpoint, ReadError, RecvStream, SendStream, TransportConfig,
    VarInt, WriteError,
};
use ringmesh_wire::codec::{self, Validate};
use ringmesh_wire::frame::{self, HEADER_BYTES, Header, Kind};
use ringmesh_wire::{ALPN_CONTROL, CONTROL_SERVER_NAME, Reject, Revision, WireError};
use rustls::crypto::aws_lc_rs;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::credentials::Identity;
use super::verify::{Anchor, ControlVerifier};

/// A silent control is gone after this; it sees us gone after the same time.
const IDLE_TIMEOUT: Duration = Duration::from_millis(2_200);
/// Four of these fit into the idle timeout: three may be lost.
const KEEP_ALIVE: Duration = Duration::from_millis(500);
/// Whole handshake, name resolution apart.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A payload grows by at most this much at a time, so an announced length alone costs nothing.
const READ_STEP_BYTES: usize = 64 * 1024;

/// Why there is no link, or not any more.
#[derive(Debug)]
#[non_exhaustive]
pub enum LinkError {
    /// Control's name does not resolve.
    Resolve(String),
    /// No local socket or no usable TLS settings.
    Setup(String),
    /// The handshake failed or took too long.
    Connect(String),
    /// The connection ended.
    Lost(String),
    /// Control closed the connection, with a reason.
    Closed {
        /// Close code.
        code: u32,
        /// `code: text`, as control says it.
        why: String,
    },
    /// What came cannot be read.
    Unreadable(WireError),
    /// What came can be read but does not belong here.
    Unexpected(Kind),
    /// Control said no.
    Rejected(Reject),
}

impl LinkError {
    /// Whether the other side broke the protocol, as opposed to being away.
    #[must_use]
    pub fn is_fault(&self) -> bool {
        matches!(self, Self::Unreadable(_) | Self::Unexpected(_))
    }

    /// What control said when it refused or closed: a code and a text.
    #[must_use]
    pub fn said(&self) -> Option<(&str, &str)> {
        match self {
            Self::Rejected(reject) => Some((&reject.code, &reject.message)),
            Self::Closed { why, .. } => Some(why.split_once(": ").unwrap_or((why, ""))),
            _ => None,
        }
    }

    /// Stable code for logs and counters.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Resolve(_) => "link_resolve",
            Self::Setup(_) => "link_setup",
            Self::Connect(_) => "link_connect",
            Self::Lost(_) => "link_lost",
            Self::Closed { .. } => "link_closed",
            Self::Unreadable(error) => error.code(),
            Self::Unexpected(_) => "link_unexpected",
            Self::Rejected(_) => "link_rejected",
        }
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolve(why) => write!(f, "control's name does not resolve: {why}"),
            Self::Setup(why) => write!(f, "no link can be made: {why}"),
            Self::Connect(why) => write!(f, "cannot connect to control: {why}"),
            Self::Lost(why) => write!(f, "the link to control ended: {why}"),
            Self::Closed { code, why } => {
                write!(f, "control closed the link: {why} (close code {code})")
            }
            Self::Unreadable(error) => write!(f, "unreadable message from control: {error}"),
            Self::Unexpected(kind) => write!(f, "control sent {kind:?} where it has no place"),
            Self::Rejected(reject) => write!(f, "control says {}: {}", reject.code, reject.message),
        }
    }
}

impl std::error::Error for LinkError {}

impl From<WireError> for LinkError {
    fn from(error: WireError) -> Self {
        Self::Unreadable(error)
    }
}

impl From<ConnectionError> for LinkError {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(by_control) => Self::Closed {
                code: u32::try_from(by_control.error_code.into_inner()).unwrap_or(u32::MAX),
                why: String::from_utf8_lossy(&by_control.reason).into_owned(),
            },
            other => Self::Lost(other.to_string()),
        }
    }
}

/// A stream says only that the connection is lost; the connection says why.
impl From<ReadError> for LinkError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::ConnectionLost(error) => error.into(),
            other => Self::Lost(other.to_string()),
        }
    }
}

impl From<WriteError> for LinkError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::ConnectionLost(error) => error.into(),
            other => Self::Lost(other.to_string()),
        }
    }
}

/// A connection to control. The last clone to go closes it.
#[derive(Debug, Clone)]
pub struct Link {
    connection: Arc<Held>,
}

/// Left to itself QUIC closes a forgotten connection with code 0, which says that the sidecar
/// leaves for good and withdraws its endpoint. Forgetting must look like a loss instead.
#[derive(Debug)]
struct Held {
    connection: Connection,
    /// Its own: there is no other connection on it.
    endpoint: Endpoint,
}

impl std::ops::Deref for Held {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // After a close that came before this changes nothing.
        self.connection
            .close(VarInt::from_u32(CLOSE_FORGOTTEN), b"given up");
    }
}

/// Close code of a link that was dropped.
pub const CLOSE_FORGOTTEN: u32 = 4;

impl Link {
    /// Connects, verifying control against `anchor` and showing `identity`.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn connect(
        host: &str,
        port: u16,
        anchor: Anchor,
        identity: Option<&Identity>,
    ) -> Result<Self, LinkError> {
        let resolving =
            tokio::time::timeout(CONNECT_TIMEOUT, tokio::net::lookup_host((host, port)));
        let mut addresses = resolving
            .await
            .map_err(|_| LinkError::Resolve("it took too long".into()))?
            .map_err(|error| LinkError::Resolve(error.to_string()))?;
        let address = addresses
            .next()
            .ok_or_else(|| LinkError::Resolve("no address".into()))?;
        let local: SocketAddr = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let config = client_config(anchor, identity).map_err(LinkError::Setup)?;
        let endpoint =
            Endpoint::client(local).map_err(|error| LinkError::Setup(error.to_string()))?;
        let connecting = endpoint
            .connect_with(config, address, CONTROL_SERVER_NAME)
            .map_err(|error| LinkError::Setup(error.to_string()))?;
        let connection = tokio::time::timeout(CONNECT_TIMEOUT, connecting)
            .await
            .map_err(|_| LinkError::Connect(format!("{address} does not answer")))?
            .map_err(|error| match error {
                ConnectionError::ApplicationClosed(_) => error.into(),
                other => LinkError::Connect(format!("{address}: {other}")),
            })?;
        Ok(Self {
            connection: Arc::new(Held {
                connection,
                endpoint,
            }),
        })
    }

    /// Our address on the link; where the system does not tell, that of control where that is
    /// loopback, else unspecified.
    #[must_use]
    pub fn local(&self) -> IpAddr {
        let remote = self.remote();
        self.connection
            .local_ip()
            .map_or(remote, |address| address.to_canonical())
    }

    /// Control's address.
    #[must_use]
    pub fn remote(&self) -> IpAddr {
        self.connection.remote_address().ip().to_canonical()
    }

    /// Opens a stream both ways.
    ///
    /// # Errors
    /// [`LinkError::Lost`].
    pub async fn open(&self) -> Result<(FrameWriter, FrameReader), LinkError> {
        let (send, recv) = self.connection.open_bi().await?;
        Ok((FrameWriter { send }, FrameReader { recv }))
    }

    /// Opens a stream to control only.
    ///
    /// # Errors
    /// [`LinkError::Lost`].
    pub async fn open_uni(&self) -> Result<FrameWriter, LinkError> {
        let send = self.connection.open_uni().await?;
        Ok(FrameWriter { send })
    }

    /// Closes at once.
    pub fn close(&self, code: u32, why: &str) {
        // QUIC cuts a reason that does not fit a packet; ours are short.
        self.connection
            .close(VarInt::from_u32(code), why.as_bytes());
    }

    /// Resolves when control has been told that the link is closed, as well as QUIC can know (a few round
    /// trips, RFC 9000 section 10.2), at latest after `patience`. A process that ends before may take the
    /// close along.
    pub async fn settled(&self, patience: Duration) {
        let _ = tokio::time::timeout(patience, self.connection.endpoint.wait_idle()).await;
    }

    /// Waits for the end, and says why.
    pub async fn closed(&self) -> LinkError {
        self.connection.closed().await.into()
    }
}

fn client_config(
    anchor: Anchor,
    identity: Option<&Identity>,
) -> Result<quinn::ClientConfig, String> {
    let builder =
        rustls::ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(ControlVerifier::new(anchor)));
    let mut tls = match identity {
        Some(identity) => builder
            .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
            .map_err(|error| error.to_string())?,
        None => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![ALPN_CONTROL.to_vec()];
    // A resumed session would show the identity of its first handshake.
    tls.resumption = rustls::client::Resumption::disabled();
    let tls = QuicClientConfig::try_from(tls).map_err(|error| error.to_string())?;
    let mut config = quinn::ClientConfig::new(Arc::new(tls));
    let mut transport = TransportConfig::default();
    let idle = quinn::IdleTimeout::try_from(IDLE_TIMEOUT).map_err(|error| error.to_string())?;
    transport
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(KEEP_ALIVE))
        // Control opens no streams.
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// The sending half of a stream.
#[derive(Debug)]
pub struct FrameWriter {
    send: SendStream,
}

impl FrameWriter {
    /// Sends one message.
    ///
    /// # Errors
    /// [`LinkError::Unreadable`] where it is too large to be one; [`LinkError::Lost`].
    pub async fn write<T: Serialize>(
        &mut self,
        kind: Kind,
        revision: Revision,
        message: &T,
    ) -> Result<(), LinkError> {
        let bytes = frame::seal(kind, revision, &codec::encode(message)?)?;
        Ok(self.send.write_all(&bytes).await?)
    }

    /// Says that nothing more comes.
    pub fn finish(&mut self) {
        // Fails only where it is finished or reset already.
        let _ = self.send.finish();
    }
}

/// The receiving half of a stream.
#[derive(Debug)]
pub struct FrameReader {
    recv: RecvStream,
}

impl FrameReader {
    /// Reads one frame; `None` at the end of the stream.
    ///
    /// # Errors
    /// [`LinkError`]. After one the stream is of no use any more.
    pub async fn read(&mut self) -> Result<Option<(Header, Vec<u8>)>, LinkError> {
        let mut head = [0; HEADER_BYTES];
        let mut filled = 0;
        while filled < HEADER_BYTES {
            let rest = head.get_mut(filled..).unwrap_or_default();
            match self.recv.read(rest).await {
                Ok(Some(count)) => filled += count,
                Ok(None) if filled == 0 => return Ok(None),
                Ok(None) => return Err(WireError::Truncated.into()),
                Err(error) => return Err(error.into()),
            }
        }
        let header = frame::open_header(&head)?;
        let mut payload = Vec::new();
        while payload.len() < header.payload_bytes {
            let step = (header.payload_bytes - payload.len()).min(READ_STEP_BYTES);
            match self.recv.read_chunk(step, true).await {
                Ok(Some(chunk)) => payload.extend_from_slice(&chunk.bytes),
                Ok(None) => return Err(WireError::Truncated.into()),
                Err(error) => return Err(error.into()),
            }
        }
        header.verify(&payload)?;
        Ok(Some((header, payload)))
    }

    /// Reads one message of a known kind. A Reject becomes an error.
    ///
    /// # Errors
    /// [`LinkError`]; `Lost` at the end of the stream.
    pub async fn expect<T: DeserializeOwned + Validate>(
        &mut self,
        kind: Kind,
    ) -> Result<T, LinkError> {
        let Some((header, payload)) = self.read().await? else {
            return Err(LinkError::Lost("the stream ended without an answer".into()));
        };
        match header.kind {
            got if got == kind => Ok(codec::decode(&payload)?),
            Kind::Reject => Err(LinkError::Rejected(codec::decode(&payload)?)),
            other => Err(LinkError::Unexpected(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use ringmesh_wire::CLOSE_LEAVING;

    use super::super::fake_control::{FakeControl, Seen};
    use super::super::token::JoinToken;
    use super::*;

    /// As a process that ends: nothing is sent by what is behind.
    #[test]
    fn a_close_that_has_settled_is_known_to_control() {
        let control = FakeControl::start();
        let anchor = Anchor::Pin(JoinToken::parse(&control.token()).unwrap().root_pin);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (host, port) = (control.at.ip().to_string(), control.at.port());
            let link = Link::connect(&host, port, anchor, None);
            let link = link.await.unwrap();
            link.close(CLOSE_LEAVING, "leaving");
            link.settled(Duration::from_secs(10)).await;
        });
        drop(runtime);
        let why = control.wait("the end", |seen| match seen {
            Seen::Closed(why) => Some(why),
            _ => None,
        });
        assert!(why.contains("leaving"), "{why}");
    }
}
