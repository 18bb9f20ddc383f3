//! The envelope around every message and file.
//!
//! ```text
//! 0        4        6      7      8                16       20                28
//! | "RMSH" | schema | kind | zero | revision (u64) | length | xxh3 of payload | payload ...
//! ```
//! Little endian. The checksum finds damage, not malice: the link is mutually authenticated and
//! the files are 0600.

use xxhash_rust::xxh3::xxh3_64;

use crate::error::WireError;
use crate::ids::Revision;
use crate::limits::FRAME_PAYLOAD_BYTES_MAX;
use crate::{SCHEMA_VERSION, SCHEMA_VERSION_MIN};

/// First bytes of every frame.
pub const MAGIC: [u8; 4] = *b"RMSH";
/// Bytes before the payload.
pub const HEADER_BYTES: usize = 28;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// [`crate::Hello`]: first on a session stream.
    Hello = 1,
    /// [`crate::Welcome`]: the answer to it.
    Welcome = 2,
    /// [`crate::Reject`]: the other answer; the stream ends after it.
    Reject = 3,
    /// [`crate::Push`]: a new configuration.
    Push = 4,
    /// [`crate::Ack`]: it is in force.
    Ack = 5,
    /// [`crate::Nack`]: it is refused; the old one stays.
    Nack = 6,
    /// [`crate::Registration`]: where this workload can be reached.
    Register = 7,
    /// [`crate::AppHealth`]: the local app went up or down.
    AppHealth = 8,
    /// [`crate::Enroll`]: a join token for a first certificate.
    Enroll = 9,
    /// [`crate::Renew`]: a new certificate by an old one.
    Renew = 10,
    /// [`crate::Issued`]: the certificates.
    Issued = 11,
    /// [`crate::LeaseUp`]: sidecar to quota authority.
    LeaseUp = 12,
    /// [`crate::LeaseDown`]: quota authority to sidecar.
    LeaseDown = 13,
    /// [`crate::Report`]: cumulative telemetry.
    Report = 14,
    /// [`crate::LogBatch`]: access log records.
    LogBatch = 15,
    /// [`crate::LogAck`]: they are stored.
    LogAck = 16,
    /// [`crate::Snapshot`]: a whole configuration, as a file.
    Snapshot = 17,
    /// [`crate::Resolved`]: what the names of endpoints lead to. Schema 2.
    Resolved = 18,
}

impl Kind {
    /// The first schema version that has it. A peer of an older one must not get it.
    #[must_use]
    pub const fn since(self) -> u16 {
        match self {
            Self::Resolved => 2,
            _ => SCHEMA_VERSION_MIN,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        const ALL: [Kind; 18] = [
            Kind::Hello,
            Kind::Welcome,
            Kind::Reject,
            Kind::Push,
            Kind::Ack,
            Kind::Nack,
            Kind::Register,
            Kind::AppHealth,
            Kind::Enroll,
            Kind::Renew,
            Kind::Issued,
            Kind::LeaseUp,
            Kind::LeaseDown,
            Kind::Report,
            Kind::LogBatch,
            Kind::LogAck,
            Kind::Snapshot,
            Kind::Resolved,
        ];
        ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// A decoded frame header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Schema version of the payload.
    pub schema: u16,
    /// What the payload is.
    pub kind: Kind,
    /// Configuration revision the message speaks of; 0 where it speaks of none.
    pub revision: Revision,
    /// Payload length in bytes, already checked against the limit.
    pub payload_bytes: usize,
    checksum: u64,
}

/// Wraps an encoded payload, which every version that has its kind can say, into a frame.
///
/// # Errors
/// [`WireError::TooLong`] over [`FRAME_PAYLOAD_BYTES_MAX`].
pub fn seal(kind: Kind, revision: Revision, payload: &[u8]) -> Result<Vec<u8>, WireError> {
    seal_as(kind.since(), kind, revision, payload)
}

/// Wraps an encoded payload of schema version `schema` into a frame.
///
/// # Errors
/// [`WireError::TooLong`] over [`FRAME_PAYLOAD_BYTES_MAX`].
pub fn seal_as(
    schema: u16,
    kind: Kind,
    revision: Revision,
    payload: &[u8],
) -> Result<Vec<u8>, WireError> {
    let too_long = WireError::TooLong {
        what: "frame payload",
        got: payload.len(),
        max: FRAME_PAYLOAD_BYTES_MAX,
    };
    if payload.len() > FRAME_PAYLOAD_BYTES_MAX {
        return Err(too_long);
    }
    let length = u32::try_from(payload.len()).map_err(|_| too_long)?;
    let mut out = Vec::with_capacity(HEADER_BYTES + payload.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&schema.to_le_bytes());
    out.push(kind as u8);
    out.push(0);
    out.extend_from_slice(&revision.0.to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&xxh3_64(payload).to_le_bytes());
    out.extend_from_slice(payload);
    Ok(out)
}

/// Reads a frame header, so that a stream reader knows how much to read next.
///
/// # Errors
/// Refuses wrong magic, versions we do not read, unknown kinds and lengths over the limit.
pub fn open_header(bytes: &[u8; HEADER_BYTES]) -> Result<Header, WireError> {
    let [m0, m1, m2, m3, s0, s1, kind, zero, rest @ ..] = *bytes;
    let [
        r0,
        r1,
        r2,
        r3,
        r4,
        r5,
        r6,
        r7,
        l0,
        l1,
        l2,
        l3,
        checksum @ ..,
    ] = rest;
    if [m0, m1, m2, m3] != MAGIC {
        return Err(WireError::Magic);
    }
    let schema = u16::from_le_bytes([s0, s1]);
    if !(SCHEMA_VERSION_MIN..=SCHEMA_VERSION).contains(&schema) {
        return Err(WireError::Version { got: schema });
    }
    if zero != 0 {
        return Err(WireError::Invalid(
            "the reserved header byte is not zero".into(),
        ));
    }
    let kind = Kind::from_byte(kind).ok_or(WireError::Kind { got: kind })?;
    let payload_bytes = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if payload_bytes > FRAME_PAYLOAD_BYTES_MAX {
        return Err(WireError::TooLong {
            what: "frame payload",
            got: payload_bytes,
            max: FRAME_PAYLOAD_BYTES_MAX,
        });
    }
    Ok(Header {
        schema,
        kind,
        revision: Revision(u64::from_le_bytes([r0, r1, r2, r3, r4, r5, r6, r7])),
        payload_bytes,
        checksum: u64::from_le_bytes(checksum),
    })
}

impl Header {
    /// Checks that `payload` is the one this header announced.
    ///
    /// # Errors
    /// [`WireError::Truncated`], [`WireError::Trailing`] or [`WireError::Checksum`].
    pub fn verify(&self, payload: &[u8]) -> Result<(), WireError> {
        if payload.len() < self.payload_bytes {
            return Err(WireError::Truncated);
        }
        if payload.len() > self.payload_bytes {
            return Err(WireError::Trailing {
                bytes: payload.len() - self.payload_bytes,
            });
        }
        if xxh3_64(payload) != self.checksum {
            return Err(WireError::Checksum);
        }
        Ok(())
    }
}

/// Opens a whole frame held in memory (a file, a datagram).
///
/// # Errors
/// As [`open_header`] and [`Header::verify`].
pub fn open(bytes: &[u8]) -> Result<(Header, &[u8]), WireError> {
    let (head, payload) = bytes.split_first_chunk().ok_or(WireError::Truncated)?;
    let header = open_header(head)?;
    header.verify(payload)?;
    Ok((header, payload))
}
