//! Reading a head: in place where one receive brought all of it, gathered where it came in pieces.
//!
//! A piece that is no whole head does not stay in the buffer it was received in: those who send a byte and no
//! more would hold all of the shard's. What is gathered counts against the shard's budget.

use std::ops::Deref;
use std::rc::Rc;

use crate::budget::{Budget, Kept};
use crate::http1::{Parsed, Refusal, RequestHead, ResponseHead};
use crate::ring::{ByteStream, Chunk};

/// A parser that can be asked again with more bytes.
pub(super) trait HeadParser {
    /// Forgets what an earlier head, perhaps of another connection, left half-read: parsers skip
    /// attempts that cannot have become possible since the last.
    fn reset(&mut self);

    /// Parses the head at the start of `bytes`.
    fn parse(&mut self, bytes: &[u8]) -> Parsed;
}

impl HeadParser for RequestHead {
    fn reset(&mut self) {
        Self::reset(self);
    }

    fn parse(&mut self, bytes: &[u8]) -> Parsed {
        Self::parse(self, bytes)
    }
}

impl HeadParser for ResponseHead {
    fn reset(&mut self) {
        Self::reset(self);
    }

    fn parse(&mut self, bytes: &[u8]) -> Parsed {
        Self::parse(self, bytes)
    }
}

/// The bytes of one head, alive while its exchange needs them.
#[derive(Debug)]
pub(super) enum HeadBytes {
    /// Where the kernel put them.
    InPlace(Chunk),
    /// Copied together.
    Gathered(Kept),
}

impl Deref for HeadBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::InPlace(chunk) => chunk,
            Self::Gathered(bytes) => bytes,
        }
    }
}

/// What reading came to.
#[derive(Debug)]
pub(super) enum HeadRead {
    /// A head; what follows it is in the reader's `pending`.
    Head(HeadBytes),
    /// Not acceptable.
    Refuse(Refusal),
    /// The shard keeps too much already.
    NoRoom,
    /// The peer says that it did not process the request.
    NotProcessed,
    /// The peer ended; `begun` says whether in the middle of a head.
    End {
        /// Some bytes had come.
        begun: bool,
    },
    /// The connection failed.
    Failed {
        /// Some bytes had come.
        begun: bool,
    },
}

/// Bytes received and not yet understood, of one direction of one connection.
#[derive(Debug, Default)]
pub(super) struct HeadReader {
    /// What follows the last head that was read: body, or the next message.
    pub pending: Chunk,
    gathered: Kept,
}

impl HeadReader {
    /// A reader that begins with bytes already received.
    #[must_use]
    pub(super) fn new(pending: Chunk) -> Self {
        Self {
            pending,
            gathered: Kept::default(),
        }
    }

    /// Whether some bytes of a head are here.
    #[must_use]
    pub(super) fn has_begun(&self) -> bool {
        !self.pending.is_empty() || !self.gathered.is_empty()
    }

    /// Reads one head. Safe to drop while it waits: what came so far stays in the reader.
    pub(super) async fn read<P: HeadParser, S: ByteStream>(
        &mut self,
        parser: &mut P,
        stream: &S,
        budget: &Rc<Budget>,
    ) -> HeadRead {
        loop {
            if let Some(read) = self.try_parse(parser, budget) {
                return read;
            }
            let chunk = match stream.recv().await {
                Ok(chunk) if chunk.is_empty() => {
                    return HeadRead::End {
                        begun: self.has_begun(),
                    };
                }
                Ok(chunk) => chunk,
                Err(_) => {
                    return HeadRead::Failed {
                        begun: self.has_begun(),
                    };
                }
            };
            self.pending = chunk;
        }
    }

    /// Looks at `pending`, which is the newest chunk and not yet in `gathered`.
    fn try_parse<P: HeadParser>(
        &mut self,
        parser: &mut P,
        budget: &Rc<Budget>,
    ) -> Option<HeadRead> {
        if self.pending.is_empty() {
            return None;
        }
        if self.gathered.is_empty() {
            parser.reset();
            return match parser.parse(&self.pending) {
                Parsed::Head(len) => Some(HeadRead::Head(HeadBytes::InPlace(
                    self.pending.split_to(len),
                ))),
                Parsed::Refuse(refusal) => Some(HeadRead::Refuse(refusal)),
                Parsed::Partial => self.gather(budget).err(),
            };
        }
        let before = self.gathered.len();
        if self.gathered.extend(budget, &self.pending).is_err() {
            return Some(HeadRead::NoRoom);
        }
        match parser.parse(&self.gathered) {
            Parsed::Head(len) => {
                // The head ends in the newest chunk: it did not end before it.
                self.pending.advance(len.saturating_sub(before));
                self.gathered.truncate(len);
                Some(HeadRead::Head(HeadBytes::Gathered(std::mem::take(
                    &mut self.gathered,
                ))))
            }
            Parsed::Refuse(refusal) => Some(HeadRead::Refuse(refusal)),
            Parsed::Partial => {
                self.pending = Chunk::empty();
                None
            }
        }
    }

    /// Takes the first piece of a head out of the buffer it was received in.
    fn gather(&mut self, budget: &Rc<Budget>) -> Result<(), HeadRead> {
        let piece = std::mem::take(&mut self.pending);
        let gathered = self.gathered.extend(budget, &piece);
        gathered.map_err(|_| HeadRead::NoRoom)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::{Future, ready};
    use std::io;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::ring::Out;

    /// Hands out its pieces, then ends.
    struct Script(RefCell<Vec<&'static [u8]>>);

    impl ByteStream for Script {
        fn recv(&self) -> impl Future<Output = io::Result<Chunk>> {
            let mut rest = self.0.borrow_mut();
            let next = if rest.is_empty() {
                &b""[..]
            } else {
                rest.remove(0)
            };
            ready(Ok(Chunk::from_static(next)))
        }

        fn send(&self, _: Out) -> impl Future<Output = io::Result<()>> {
            ready(Ok(()))
        }

        fn flush(&self) -> impl Future<Output = io::Result<()>> {
            ready(Ok(()))
        }

        fn shutdown_write(&self) -> impl Future<Output = io::Result<()>> {
            ready(Ok(()))
        }

        fn reset(&self) {}
    }

    fn read(
        reader: &mut HeadReader,
        parser: &mut ResponseHead,
        pieces: &[&'static [u8]],
    ) -> HeadRead {
        let script = Script(RefCell::new(pieces.to_vec()));
        let budget = Budget::new(64 * 1024);
        let read = pin!(reader.read(parser, &script, &budget));
        match read.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(read) => read,
            Poll::Pending => panic!("nothing to wait for"),
        }
    }

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";

    #[test]
    fn a_head_in_pieces_is_the_same_head() {
        for cut in 1..ANSWER.len() {
            let mut reader = HeadReader::default();
            let mut parser = ResponseHead::new();
            let pieces = [&ANSWER[..cut], &ANSWER[cut..]];
            let HeadRead::Head(head) = read(&mut reader, &mut parser, &pieces) else {
                panic!("cut at {cut}");
            };
            assert_eq!(&head[..], &ANSWER[..ANSWER.len() - 3], "cut at {cut}");
            // The rest of the body is not read yet where the cut lies inside it.
            let here = ANSWER.len().min(cut.max(ANSWER.len() - 3));
            let want = if cut < ANSWER.len() - 3 {
                &b"abc"[..]
            } else {
                &ANSWER[ANSWER.len() - 3..here]
            };
            assert_eq!(&reader.pending[..], want, "cut at {cut}");
        }
    }

    /// A connection that died in the middle of its answer leaves nothing behind for the next one.
    #[test]
    fn the_next_connection_begins_anew() {
        let mut parser = ResponseHead::new();
        let half: &[u8] = b"HTTP/1.1 200 OK\r\nX: yyyyyyyyyyyyyyyyyyyy";
        let end = read(&mut HeadReader::default(), &mut parser, &[half]);
        assert!(matches!(end, HeadRead::End { begun: true }));
        let mut reader = HeadReader::default();
        let HeadRead::Head(_) = read(&mut reader, &mut parser, &[ANSWER]) else {
            panic!("the answer was not seen");
        };
        assert_eq!(&reader.pending[..], b"abc");
    }

    #[test]
    fn above_the_shards_budget_a_head_in_pieces_is_refused_and_one_in_one_piece_is_not() {
        let budget = Budget::new(1_000);
        let run = |reader: &mut HeadReader, pieces: &[&'static [u8]]| {
            let script = Script(RefCell::new(pieces.to_vec()));
            let mut parser = ResponseHead::new();
            let read = pin!(reader.read(&mut parser, &script, &budget));
            match read.poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(read) => read,
                Poll::Pending => panic!("nothing to wait for"),
            }
        };
        let (first, second): (&[u8], &[u8]) = (&ANSWER[..10], &ANSWER[10..]);
        let mut one = HeadReader::default();
        let HeadRead::Head(head) = run(&mut one, &[first, second]) else {
            panic!("there was room");
        };
        assert!(budget.kept() > 0, "the head still lives");
        let other = run(&mut HeadReader::default(), &[first, second]);
        assert!(matches!(other, HeadRead::NoRoom), "{other:?}");
        let whole = run(&mut HeadReader::default(), &[ANSWER]);
        assert!(matches!(whole, HeadRead::Head(HeadBytes::InPlace(_))));
        drop(head);
        assert_eq!(budget.kept(), 0);
    }
}
