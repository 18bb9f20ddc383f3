//! Every maximum of the lanes' room. The first two are part of the protocol's version.

/// Lanes of one connection at once. A multiple of what a shard usually has under way towards one
/// endpoint would gather more into a record and a system call, but all of it is served by one shard of
/// the other sidecar.
pub const LANES_MAX: usize = 64;
/// What a lane may have sent that its other end has not taken, bytes. As in HTTP/2: on a host or in a
/// building it does not bound throughput.
pub const WINDOW_BYTES: u32 = 65_536;
/// Taken bytes are told to the sender when there are so many.
pub(super) const TELL_TAKEN_BYTES: u32 = WINDOW_BYTES / 4;
/// What waits for a connection that does not take it, bytes; above, who sends waits.
pub(super) const STAGED_BYTES_MAX: usize = 256 * 1024;
/// Pieces of this size and more go out from where they are; smaller ones are copied together.
pub(super) const SHARED_BYTES_MIN: usize = 8 * 1024;
/// A smaller piece than this is not cut because the rest of a buffer is smaller still.
pub(super) const WHOLE_BYTES_MAX: usize = 2 * 1024;
/// Chunks of received bytes that a lane keeps where they are, each of which may hold a block of 16 KiB
/// for a few bytes; what comes behind them is copied together.
pub(super) const CHUNKS_APART_MAX: usize = 2;
/// Frames a peer may send in a burst that are of no use to it (PING, PONG, bytes for lanes that are gone), and
/// how many it gets back per second.
pub(super) const IDLE_FRAMES_BURST: u32 = 400;
/// See [`IDLE_FRAMES_BURST`].
pub(super) const IDLE_FRAMES_PER_SECOND: u32 = 100;
/// A lane that is given up while its answer is under way counts where it was open for less, milliseconds; the
/// others are at most [`LANES_MAX`] in that time. As for a sidecar's streams in HTTP/2.
pub(super) const RAPID_MS: u64 = 10;
/// How many of those a peer may have in a burst, and how many it gets back per second. What we see late looks
/// rapid: all lanes of a connection each 32 ms.
pub(super) const CANCELS_BURST: u32 = 4_000;
/// See [`CANCELS_BURST`].
pub(super) const CANCELS_PER_SECOND: u32 = 2_000;

const _: () = assert!(LANES_MAX <= u64::BITS as usize, "one bit each");
const _: () = assert!(LANES_MAX <= 256, "a lane's place is one byte of its number");
