//! What a connection has sent and nobody has passed on: payload of streams that are open. Pure.
//!
//! The h2 crate keeps it, within the windows it was given, and does not tell; its frames do. What comes
//! for a stream that is given up is thrown away there, and counts for nothing here.

use super::limits;

/// Bytes of each open stream.
#[derive(Debug)]
pub(super) struct Held {
    /// Those that are open and have not ended, by number: most are younger than all others when they come.
    streams: Vec<Kept>,
    bytes: usize,
    /// The highest stream the peer has begun; `None` where we begin them.
    highest: Option<u32>,
    /// Streams that the peer has begun and that were not opened yet.
    waiting: usize,
}

#[derive(Debug)]
struct Kept {
    id: u32,
    bytes: usize,
    is_open: bool,
}

/// Streams looked after: more than a connection may have open, so that those which wait to be opened
/// find room beside others that have just ended.
const STREAMS_MAX: usize = 2 * limits::STREAMS_MAX as usize;

impl Held {
    /// Of a client's connection.
    pub(super) fn of_client() -> Self {
        Self {
            streams: Vec::new(),
            bytes: 0,
            highest: Some(0),
            waiting: 0,
        }
    }

    /// Of a server's connection.
    pub(super) fn of_server() -> Self {
        Self {
            highest: None,
            ..Self::of_client()
        }
    }

    /// All that is held, bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// A head has begun to come on a stream, and payload may follow.
    pub(super) fn head(&mut self, id: u32) {
        let is_new = self.highest.is_some_and(|highest| id > highest);
        if !is_new || self.streams.len() >= STREAMS_MAX {
            return;
        }
        self.highest = Some(id);
        self.waiting += 1;
        self.streams.push(Kept {
            id,
            bytes: 0,
            is_open: false,
        });
    }

    /// A frame of payload has begun to come.
    pub(super) fn payload(&mut self, id: u32, bytes: usize) {
        if let Ok(at) = self.place(id) {
            let bytes = bytes.max(limits::FRAME_KEPT_BYTES);
            self.streams[at].bytes += bytes;
            self.bytes += bytes;
        }
    }

    /// Somebody takes care of a stream from now on.
    pub(super) fn open(&mut self, id: u32) {
        match self.place(id) {
            Ok(at) => {
                let was_open = std::mem::replace(&mut self.streams[at].is_open, true);
                self.waiting -= usize::from(!was_open);
            }
            Err(at) => {
                let stream = Kept {
                    id,
                    bytes: 0,
                    is_open: true,
                };
                self.streams.insert(at, stream);
            }
        }
    }

    /// Every stream that was to be opened has been: the h2 crate has refused what still waits.
    pub(super) fn settle(&mut self) {
        if self.waiting > 0 {
            self.waiting = 0;
            self.streams.retain(|stream| stream.is_open);
            self.bytes = self.streams.iter().map(|stream| stream.bytes).sum();
        }
    }

    /// So much was passed on: a frame, or the most of one.
    pub(super) fn pass_on(&mut self, id: u32, bytes: usize) {
        if let Ok(at) = self.place(id) {
            let stream = &mut self.streams[at];
            let bytes = bytes.max(limits::FRAME_KEPT_BYTES).min(stream.bytes);
            stream.bytes -= bytes;
            self.bytes -= bytes;
        }
    }

    /// Nobody takes care of a stream any more: nothing is kept of it.
    pub(super) fn close(&mut self, id: u32) {
        if let Ok(at) = self.place(id) {
            let stream = self.streams.remove(at);
            self.bytes -= stream.bytes;
            self.waiting -= usize::from(!stream.is_open);
        }
    }

    /// Where a stream is, or else would be.
    fn place(&self, id: u32) -> Result<usize, usize> {
        self.streams.binary_search_by_key(&id, |stream| stream.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_is_held_until_it_is_passed_on_or_its_stream_ends() {
        let mut held = Held::of_client();
        held.head(1);
        held.payload(1, 1_000);
        held.open(1);
        held.payload(1, 500);
        assert_eq!(held.bytes(), 1_500);
        held.pass_on(1, 1_200);
        assert_eq!(held.bytes(), 300);
        held.close(1);
        assert_eq!(held.bytes(), 0);
        // Late, and trailers of it.
        held.payload(1, 10);
        held.head(1);
        held.payload(1, 10);
        held.pass_on(1, 10);
        held.close(1);
        assert_eq!((held.bytes(), held.streams.len()), (0, 0));
    }

    #[test]
    fn what_is_refused_before_it_is_opened_is_not_held() {
        let mut held = Held::of_client();
        for id in [1, 3, 5] {
            held.head(id);
            held.payload(id, 7);
        }
        held.open(3);
        held.settle();
        // A small one costs what the h2 crate keeps beside it.
        let one = limits::FRAME_KEPT_BYTES;
        assert_eq!((held.bytes(), held.streams.len()), (one, 1));
        held.settle();
        assert_eq!(held.bytes(), one);
    }

    #[test]
    fn a_flood_of_heads_is_not_followed() {
        let mut held = Held::of_client();
        for at in 0..10_000 {
            held.head(2 * at + 1);
            held.payload(2 * at + 1, 1);
        }
        assert_eq!(held.streams.len(), STREAMS_MAX);
        assert_eq!(held.bytes(), STREAMS_MAX * limits::FRAME_KEPT_BYTES);
    }

    #[test]
    fn a_servers_streams_are_those_we_opened() {
        let mut held = Held::of_server();
        held.head(1);
        held.payload(1, 5);
        assert_eq!(held.bytes(), 0);
        held.open(1);
        held.head(1);
        held.payload(1, 500);
        assert_eq!(held.bytes(), 500);
        held.settle();
        assert_eq!(held.bytes(), 500);
    }
}
