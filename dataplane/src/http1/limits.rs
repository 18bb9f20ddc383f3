//! Every maximum of the HTTP/1 room, in one place.

/// Bytes of one head, request or status line included. Offsets fit 16 bits because of it. nginx
/// allows 32 KiB, HAProxy 16, Envoy 60; large cookies and tokens are the reason not to go lower.
pub const HEAD_BYTES_MAX: usize = 65_535;
/// Bytes of a request target (414 above). RFC 9112 section 3 asks for at least 8,000.
pub const TARGET_BYTES_MAX: usize = 16 * 1024;
/// Header fields of one head; as HAProxy and Envoy.
pub const FIELDS_MAX: usize = 100;
/// Empty lines before a request line that are skipped (RFC 9112 section 2.2 asks for one).
pub const LEADING_EMPTY_LINES_MAX: usize = 4;
/// Bytes of the extensions of one chunk. Nobody uses them in earnest; they are dropped on forwarding.
pub const CHUNK_EXTENSION_BYTES_MAX: u32 = 256;
/// Bytes of all chunk extensions of one body: a peer must not be able to send framing only
/// (CVE-2023-39326 is such a case).
pub const CHUNK_EXTENSIONS_BYTES_MAX: u32 = 16 * 1024;
/// Hexadecimal digits of a chunk size, leading zeros included: 64 bits.
pub const CHUNK_SIZE_DIGITS_MAX: u8 = 16;
/// Bytes of a trailer section.
pub const TRAILER_BYTES_MAX: usize = 8 * 1024;
/// Interim (1xx) answers to one request that are forwarded; one more is a fault.
pub const INTERIM_ANSWERS_MAX: u32 = 32;

const _: () = assert!(HEAD_BYTES_MAX <= u16::MAX as usize);
const _: () = assert!(FIELDS_MAX < u8::MAX as usize);
