//! What waits to be sent: frames of all lanes, gathered until the connection's task hands them over.
//!
//! So everything that was written in one turn of the ring leaves in as few TLS records as hold it and
//! one system call.

use std::collections::VecDeque;

use super::frame::{Frame, HEAD_BYTES, LaneId};
use super::limits::{SHARED_BYTES_MIN, STAGED_BYTES_MAX, WHOLE_BYTES_MAX};
use crate::ring::{Buf, Chunk, Out, Ring};

/// Frames on their way out, whole ones only.
#[derive(Debug, Default)]
pub(super) struct Staged {
    /// Full buffers and pieces that go out from where they are.
    ready: VecDeque<Chunk>,
    current: Option<Buf>,
    /// Bytes that wait.
    bytes: usize,
    /// Bytes that ever waited.
    total: u64,
}

/// The ring has no buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoBuffer;

/// Bytes of an [`Out`] as a lane sends them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Portion<'o> {
    pub(super) out: &'o Out,
    /// Those that were sent already.
    pub(super) skip: usize,
    /// At most so many now; 1 to 65,535.
    pub(super) most: usize,
}

impl Staged {
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= STAGED_BYTES_MAX
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// A frame without bytes of a lane behind it.
    ///
    /// # Errors
    /// [`NoBuffer`].
    pub(super) fn frame(&mut self, frame: Frame, ring: &Ring) -> Result<(), NoBuffer> {
        let buf = self.room_for(HEAD_BYTES, ring)?;
        let _ = buf.extend_from_slice(&frame.encode());
        self.count(HEAD_BYTES);
        Ok(())
    }

    /// One frame with what fits of a portion; how many of its bytes that were.
    ///
    /// # Errors
    /// [`NoBuffer`]; nothing was staged.
    pub(super) fn portion(
        &mut self,
        lane: LaneId,
        open: bool,
        portion: Portion<'_>,
        ring: &Ring,
    ) -> Result<usize, NoBuffer> {
        let mut skip = portion.skip;
        let rest = portion.out.pieces().iter().filter_map(move |piece| {
            let from = skip.min(piece.len());
            skip -= from;
            (from < piece.len()).then_some((piece, from))
        });
        let mut rest = rest.peekable();
        let Some((piece, from)) = rest.peek().copied() else {
            return Ok(0);
        };
        let data = |len: usize| Frame::Data {
            lane,
            open,
            end: false,
            len: u16::try_from(len).unwrap_or(u16::MAX),
        };
        if piece.len() - from >= SHARED_BYTES_MIN && portion.most >= SHARED_BYTES_MIN {
            let mut shared = piece.share();
            shared.advance(from);
            shared.truncate(portion.most);
            let len = shared.len();
            self.frame(data(len), ring)?;
            self.seal();
            self.count(len);
            self.ready.push_back(shared);
            return Ok(len);
        }
        let small = rest.map(|(piece, from)| &piece[from..]);
        let small = small.take_while(|piece| piece.len() < SHARED_BYTES_MIN);
        let wanted: usize = small.clone().map(<[u8]>::len).sum();
        // The first may be a large one of which little may be sent.
        let wanted = wanted.max(piece.len() - from).min(portion.most);
        let whole = HEAD_BYTES + wanted.min(WHOLE_BYTES_MAX);
        let buf = self.room_for(whole, ring)?;
        let len = wanted.min(buf.room() - HEAD_BYTES);
        let _ = buf.extend_from_slice(&data(len).encode());
        let mut left = len;
        for piece in std::iter::once(&piece[from..]).chain(small.skip(1)) {
            let now = piece.len().min(left);
            let _ = buf.extend_from_slice(&piece[..now]);
            left -= now;
        }
        debug_assert_eq!(left, 0);
        self.count(HEAD_BYTES + len);
        Ok(len)
    }

    /// What leaves next; empty if nothing waits.
    pub(super) fn take(&mut self) -> Out {
        let mut out = Out::new();
        while out.room() > 0 {
            if self.ready.is_empty() {
                self.seal();
            }
            let Some(piece) = self.ready.pop_front() else {
                break;
            };
            self.bytes -= piece.len();
            let _ = out.push(piece);
        }
        out
    }

    /// Nothing of it will leave.
    pub(super) fn clear(&mut self) {
        self.ready = VecDeque::new();
        self.current = None;
        self.bytes = 0;
    }

    fn count(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.total += bytes as u64;
    }

    fn seal(&mut self) {
        if let Some(buf) = self.current.take()
            && !buf.is_empty()
        {
            self.ready.push_back(buf.freeze());
        }
    }

    /// A buffer with room for so many bytes, fewer than one holds.
    fn room_for(&mut self, bytes: usize, ring: &Ring) -> Result<&mut Buf, NoBuffer> {
        if self.current.as_ref().is_none_or(|buf| buf.room() < bytes) {
            let fresh = ring.buf().ok_or(NoBuffer)?;
            self.seal();
            self.current = Some(fresh);
        }
        self.current.as_mut().ok_or(NoBuffer)
    }
}
