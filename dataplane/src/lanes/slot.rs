//! One place of a connection: its latest lane, what waits of it and which frames it owes.

use std::collections::VecDeque;
use std::io;
use std::task::Waker;

use super::frame::{Frame, LaneId};
use super::limits::{CHUNKS_APART_MAX, TELL_TAKEN_BYTES, WINDOW_BYTES};
use super::staged::{NoBuffer, Staged};
use crate::ring::{Chunk, Ring};
use crate::time::Mono;

/// Above this a place is not used any more.
const USES_MAX: u32 = (1 << 24) - 1;

/// One place and its latest lane.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) id: LaneId,
    /// Not over.
    pub(super) open: bool,
    /// OPEN has not been said.
    pub(super) unopened: bool,
    /// Somebody has the lane's stream.
    pub(super) held: bool,
    pub(super) resting: bool,
    pub(super) incoming: VecDeque<Chunk>,
    /// What the peer may still send.
    pub(super) window: u32,
    /// Taken and not told.
    pub(super) taken: u32,
    /// What may still be sent.
    pub(super) credit: u32,
    pub(super) end_owed: bool,
    pub(super) end_said: bool,
    pub(super) end_heard: bool,
    pub(super) reset_owed: bool,
    pub(super) reset_said: bool,
    pub(super) reset_heard: bool,
    /// A send was given up half-way.
    pub(super) torn: bool,
    /// When the peer opened it.
    pub(super) heard_of_at: Mono,
    pub(super) ended_at: Option<Mono>,
    pub(super) receiver: Option<Waker>,
    pub(super) sender: Option<Waker>,
}

impl Slot {
    pub(super) fn new(id: LaneId) -> Self {
        Self {
            id,
            open: false,
            unopened: false,
            held: false,
            resting: false,
            incoming: VecDeque::new(),
            window: WINDOW_BYTES,
            taken: 0,
            credit: WINDOW_BYTES,
            end_owed: false,
            end_said: false,
            end_heard: false,
            reset_owed: false,
            reset_said: false,
            reset_heard: false,
            torn: false,
            heard_of_at: Mono::default(),
            ended_at: None,
            receiver: None,
            sender: None,
        }
    }

    /// Begins a lane at this place. Lists keep their room.
    pub(super) fn begin(&mut self, id: LaneId) {
        let mut incoming = std::mem::take(&mut self.incoming);
        incoming.clear();
        *self = Self {
            incoming,
            open: true,
            held: true,
            ..Self::new(id)
        };
    }

    /// Whether nothing more may be sent.
    pub(super) fn is_mute(&self) -> bool {
        !self.open || self.end_owed || self.end_said || self.is_reset()
    }

    pub(super) fn is_reset(&self) -> bool {
        self.reset_owed || self.reset_said || self.reset_heard
    }

    pub(super) fn settle(&mut self) {
        if (self.end_said && self.end_heard) || (self.reset_said && self.reset_heard) {
            self.open = false;
        }
    }

    pub(super) fn wake_receiver(&mut self) -> bool {
        let waker = self.receiver.take();
        let woken = waker.is_some();
        if let Some(waker) = waker {
            waker.wake();
        }
        woken
    }

    pub(super) fn wake_sender(&mut self) {
        if let Some(waker) = self.sender.take() {
            waker.wake();
        }
    }

    /// Whether a new lane may begin here.
    pub(super) fn is_free(&self) -> bool {
        !self.open && !self.held && self.id.uses() < USES_MAX
    }

    /// Whether the peer is to be told what was taken.
    pub(super) fn owes_taken(&self) -> bool {
        self.taken >= TELL_TAKEN_BYTES && self.open && !self.end_heard && !self.is_reset()
    }

    /// Stages the frames that are owed of this lane.
    pub(super) fn say_owed(&mut self, staged: &mut Staged, ring: &Ring) -> Result<(), NoBuffer> {
        let lane = self.id;
        if self.owes_taken() {
            let bytes = u16::try_from(self.taken).unwrap_or(u16::MAX);
            staged.frame(Frame::Taken { lane, bytes }, ring)?;
            self.taken -= u32::from(bytes);
            self.window += u32::from(bytes);
        }
        if self.reset_owed {
            staged.frame(Frame::Reset { lane }, ring)?;
            (self.reset_owed, self.end_owed, self.reset_said) = (false, false, true);
            self.settle();
        }
        if self.end_owed {
            let frame = Frame::Data {
                lane,
                open: self.unopened,
                end: true,
                len: 0,
            };
            staged.frame(frame, ring)?;
            (self.end_owed, self.end_said, self.unopened) = (false, true, false);
            self.settle();
        }
        Ok(())
    }

    /// What a lane's reader gets now.
    pub(super) fn take(&mut self, over: bool) -> Option<io::Result<Chunk>> {
        if let Some(chunk) = self.incoming.pop_front() {
            self.taken += u32::try_from(chunk.len()).unwrap_or(u32::MAX);
            return Some(Ok(chunk));
        }
        if self.end_heard {
            return Some(Ok(Chunk::empty()));
        }
        if self.is_reset() {
            return Some(Err(io::ErrorKind::ConnectionReset.into()));
        }
        over.then(|| Err(io::ErrorKind::UnexpectedEof.into()))
    }

    /// Keeps received bytes until they are taken: where they are, or, behind several that wait already,
    /// copied together, so that a few bytes do not hold a block each. `continued`: they belong to a frame
    /// that was cut, and a head is parsed in place only where it is in one piece.
    pub(super) fn keep(&mut self, bytes: Chunk, continued: bool, ring: &Ring) {
        let incoming = &mut self.incoming;
        let gathers = incoming.len() >= CHUNKS_APART_MAX || (continued && !incoming.is_empty());
        let Some(last) = incoming.back_mut().filter(|_| gathers) else {
            return incoming.push_back(bytes);
        };
        if last.append(&bytes) {
            return;
        }
        // Without a buffer they stay where they are.
        let Some(mut buf) = ring.buf() else {
            return incoming.push_back(bytes);
        };
        if continued && last.len() + bytes.len() <= buf.room() {
            let _ = buf.extend_from_slice(last);
            let _ = buf.extend_from_slice(&bytes);
            *last = buf.freeze();
        } else if buf.extend_from_slice(&bytes).is_ok() {
            incoming.push_back(buf.freeze());
        } else {
            incoming.push_back(bytes);
        }
    }
}
