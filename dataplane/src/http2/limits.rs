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
/// The same of a sidecar: while we hang for a while, all streams it may open time out some times over. They are
/// in what was received in one turn, so their heads are bounded by its bytes.
pub const SIDECAR_PENDING_RESETS_MAX: usize = 1_000;
/// Streams a client may cancel in a burst, and how many it gets back per second. A client that
/// hedges calls stays far below; an attack is above within a tenth of a second.
pub const CANCELS_BURST: u32 = 400;
/// See [`CANCELS_BURST`].
pub const CANCELS_PER_SECOND: u32 = 100;
/// A sidecar's cancel counts where its stream was open for less, milliseconds.
pub const RAPID_MS: u64 = 10;
/// As [`CANCELS_BURST`] of a sidecar: what we see late looks rapid. A tenth of a second of our time.
pub const SIDECAR_CANCELS_BURST: u32 = 4_000;
/// See [`SIDECAR_CANCELS_BURST`]. All streams of a connection each 50 ms; some hundredths of a shard's time.
pub const SIDECAR_CANCELS_PER_SECOND: u32 = 2_000;
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
/// Streams that we have just reset and still know, so that what was under way on them is no fault. The h2
/// crate's 50 are few where one sidecar refuses uploads to another, or clients give up downloads.
pub const JUST_RESET_MAX: usize = 1024;
/// What a DATA frame that waits for its reader costs at least, bytes: the h2 crate's table entry for it.
pub const FRAME_KEPT_BYTES: usize = 256;
/// How much such entries of small frames may come to before the h2 crate ends a connection by itself, bytes.
/// They are charged like payload ([`FRAME_KEPT_BYTES`]), so the shard's budget is what bounds them: small
/// messages for readers that stall must not end the calls of others.
const SMALL_FRAMES_KEPT_BYTES_MAX: usize = 1 << 30;

/// What we serve other sidecars with.
#[must_use]
pub fn server_for_sidecars() -> server::Builder {
    let mut builder = server();
    builder.max_pending_accept_reset_streams(SIDECAR_PENDING_RESETS_MAX);
    builder
}

/// What we serve clients with.
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
        .max_concurrent_reset_streams(JUST_RESET_MAX)
        .data_frame_budget(SMALL_FRAMES_KEPT_BYTES_MAX)
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
        .max_concurrent_reset_streams(JUST_RESET_MAX)
        .data_frame_budget(SMALL_FRAMES_KEPT_BYTES_MAX)
        .max_local_error_reset_streams(Some(FAULT_RESETS_MAX));
    builder
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use h2::client::handshake;

    use super::*;

    /// Many small messages that nobody reads, on many streams, end no other call of their connection.
    #[tokio::test]
    async fn small_messages_for_readers_that_stall_end_nobody() {
        const MESSAGES: usize = 1_200;
        const STREAMS: usize = 20;
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let serving = tokio::spawn(async move {
            let mut connection = server().handshake::<_, Bytes>(ours).await.unwrap();
            let mut stalled = Vec::new();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                if request.uri().path() == "/stall" {
                    stalled.push((request, respond));
                    continue;
                }
                // Everything that was sent before has come.
                respond
                    .send_response(http::Response::new(()), true)
                    .unwrap();
            }
            stalled.len()
        });
        let (mut sender, connection) = handshake(theirs).await.unwrap();
        let connection = tokio::spawn(connection);
        let request = |path: &str| {
            let uri = format!("http://app{path}");
            http::Request::post(uri).body(()).unwrap()
        };
        let mut open = Vec::new();
        for _ in 0..STREAMS {
            sender = sender.ready().await.unwrap();
            let (_, mut stream) = sender.send_request(request("/stall"), false).unwrap();
            for _ in 0..MESSAGES {
                stream
                    .send_data(Bytes::from_static(&[b'x'; 50]), false)
                    .unwrap();
            }
            open.push(stream);
        }
        // The bodies go first where they were written first: ask until the answer is behind all of them.
        for _ in 0..2 * STREAMS {
            sender = sender.ready().await.unwrap();
            let (answer, _) = sender.send_request(request("/"), true).unwrap();
            assert_eq!(answer.await.unwrap().status(), 200);
        }
        drop((open, sender));
        connection.abort();
        assert_eq!(serving.await.unwrap(), STREAMS);
    }
}
