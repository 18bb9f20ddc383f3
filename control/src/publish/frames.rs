//! Frames on QUIC streams.

use std::fmt;

use quinn::{ReadExactError, RecvStream, SendStream};
use ringmesh_wire::codec::{self, Validate};
use ringmesh_wire::frame::{self, HEADER_BYTES, Header, Kind};
use ringmesh_wire::{Revision, WireError};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why a stream, and with it the link, ends.
#[derive(Debug)]
pub enum LinkError {
    /// The peer broke the protocol: these bytes.
    Wire(WireError),
    /// The peer broke the protocol: this order.
    Unexpected(&'static str),
    /// The link itself is gone.
    Gone,
}

impl LinkError {
    /// Stable reason code; `None` where nobody is to blame.
    #[must_use]
    pub fn code(&self) -> Option<&'static str> {
        match self {
            Self::Wire(error) => Some(error.code()),
            Self::Unexpected(_) => Some("wire_unexpected"),
            Self::Gone => None,
        }
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wire(error) => error.fmt(f),
            Self::Unexpected(what) => f.write_str(what),
            Self::Gone => f.write_str("the link is gone"),
        }
    }
}

impl From<WireError> for LinkError {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

/// Reads one frame of at most `bytes_max` payload; `None` at a clean end of the stream. Memory
/// grows with what arrives, not with what is announced.
///
/// # Errors
/// [`LinkError::Wire`] for anything that is not a frame, [`LinkError::Gone`] with the link.
pub async fn read_frame(
    stream: &mut RecvStream,
    bytes_max: usize,
) -> Result<Option<(Header, Vec<u8>)>, LinkError> {
    let mut head = [0; HEADER_BYTES];
    match stream.read_exact(&mut head).await {
        Ok(()) => {}
        Err(ReadExactError::FinishedEarly(0)) => return Ok(None),
        Err(ReadExactError::FinishedEarly(_)) => return Err(WireError::Truncated.into()),
        Err(ReadExactError::ReadError(_)) => return Err(LinkError::Gone),
    }
    let header = frame::open_header(&head)?;
    if header.payload_bytes > bytes_max {
        return Err(LinkError::Wire(WireError::TooLong {
            what: "frame payload",
            got: header.payload_bytes,
            max: bytes_max,
        }));
    }
    let mut payload = Vec::new();
    while payload.len() < header.payload_bytes {
        let left = header.payload_bytes - payload.len();
        match stream.read_chunk(left, true).await {
            Ok(Some(chunk)) => payload.extend_from_slice(&chunk.bytes),
            Ok(None) => return Err(WireError::Truncated.into()),
            Err(_) => return Err(LinkError::Gone),
        }
    }
    header.verify(&payload)?;
    Ok(Some((header, payload)))
}

/// Writes one frame.
///
/// # Errors
/// [`LinkError::Gone`] with the link; [`LinkError::Wire`] where the value is over the limit.
pub async fn write_frame<T: Serialize>(
    stream: &mut SendStream,
    kind: Kind,
    revision: Revision,
    value: &T,
) -> Result<(), LinkError> {
    let bytes = frame::seal(kind, revision, &codec::encode(value)?)?;
    stream.write_all(&bytes).await.map_err(|_| LinkError::Gone)
}

/// Decodes a payload that must be of `kind`.
pub(super) fn take<T: DeserializeOwned + Validate>(
    header: &Header,
    kind: Kind,
    payload: &[u8],
) -> Result<T, LinkError> {
    if header.kind != kind {
        return Err(LinkError::Unexpected("a message of another kind"));
    }
    Ok(codec::decode(payload)?)
}
