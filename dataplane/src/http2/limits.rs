//! Every maximum of the HTTP/2 room, and the settings that tell peers of them.

use h2::{client, server};

/// Streams of one connection at once. HAProxy's and nginx' default is 100 and 128; gRPC clients open
/// another connection above it.
pub const STREAMS_MAX: u32 = 100;
/// What one stream may have received and not passed on, bytes. The protocol's own default: on a host
/// or between two in one building it does not bound throughput.
pub const STREAM_WINDOW_BYTES: u32 = 65_535;
/// The same of a whole connection: every stream's window at once, so that streams nobody reads do
/// not hold up the others. Bounds what a connection can make us keep.
pub const CONN_WINDOW_BYTES: u32 = STREAMS_MAX * STREAM_WINDOW_BYTES;
/// What a connection may have sent and not seen passed on, or sent of a header block that is not whole, without a
/// charge to the shard's budget, bytes: one frame of the usual size. Small calls need no more.
pub const KEPT_BYTES_FREE: usize = 16 * 1024;
/// A header list, as RFC 9113 section 6.5.2 counts it; CONTINUATION frames are bounded with it.
pub const HEADER_LIST_BYTES_MAX: u32 = 64 * 1024;
/// What one stream may have ready for a peer that does not take it, bytes.
pub const SEND_BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Streams reset by the peer before we saw them (CVE-2023-44487); above, ENHANCE_YOUR_CALM.
pub const PENDING_RESETS_MAX: usize = 20;
/// Streams a client may cancel in a burst, and how many it gets back per second. A client that
/// hedges calls stays far below; an attack is above within a tenth of a second.
pub const CANCELS_BURST: u32 = 400;
/// See [`CANCELS_BURST`].
pub const CANCELS_PER_SECOND: u32 = 100;
/// Frames that bring nothing (PING, SETTINGS, PRIORITY, empty DATA and the like; WINDOW_UPDATE apart) that a
/// connection may send in a burst, and how many it gets back per second. Keep-alives and the bandwidth probes of
/// gRPC stay far below; a flood is above within some milliseconds.
pub const CHATTER_BURST: u32 = 1_000;
/// See [`CHATTER_BURST`].
pub const CHATTER_PER_SECOND: u32 = 100;
/// A frame that brings nothing counts once more for so many bytes of its payload.
pub const CHATTER_FRAME_BYTES: u32 = 256;
/// How many of them a frame that brings something pays for, or sending something. Probes come with data.
pub const CHATTER_PER_USE: u32 = 4;
/// Bytes we send that pay for a WINDOW_UPDATE beside: the smallest DATA frames are answered by two.
pub const UPDATE_BYTES: u32 = 8;
/// Resets that we send for a peer's faults on one connection (CVE-2025-8671).
pub const FAULT_RESETS_MAX: usize = 1024;

/// What we serve with.
#[must_use]
pub fn server() -> server::Builder {
    let mut builder = server::Builder::new();
    builder
        .max_concurrent_streams(STREAMS_MAX)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONN_WINDOW_BYTES)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .max_send_buffer_size(SEND_BUFFER_BYTES_MAX)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .enable_connect_protocol()
        .max_local_error_reset_streams(Some(FAULT_RESETS_MAX));
    builder
}

/// What we call with.
#[must_use]
pub fn client() -> client::Builder {
    let mut builder = client::Builder::new();
    builder
        .enable_push(false)
        .initial_max_send_streams(STREAMS_MAX as usize)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONN_WINDOW_BYTES)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .max_send_buffer_size(SEND_BUFFER_BYTES_MAX)
        .max_local_error_reset_streams(Some(FAULT_RESETS_MAX));
    builder
}
