//! The lanes of one connection: what each has received and may send, and which frames are owed.
//!
//! No socket and no clock: received chunks come in, what is to be sent is taken out, time is an
//! argument. Who waits for a lane is woken from here.
//!
//! A lane is over when END has gone both ways or RESET has. Only then its place is used again, so a
//! frame always belongs to whom its number says.

use std::io;
use std::task::{Context, Poll, Waker};

use super::frame::{Decoder, Frame, FrameFault, LaneId, Step};
use super::limits::{
    CANCELS_BURST, CANCELS_PER_SECOND, IDLE_FRAMES_BURST, IDLE_FRAMES_PER_SECOND, LANES_MAX,
    RAPID_MS, WINDOW_BYTES,
};
use super::slot::Slot;
use super::staged::{NoBuffer, Portion, Staged};
use crate::ring::{Chunk, Out, Ring};
use crate::time::Mono;

/// Which end of the connection this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Opens lanes.
    Opener,
    /// Is asked to carry them.
    Answerer,
}

/// All lanes of a connection.
#[derive(Debug)]
pub(super) struct Core {
    side: Side,
    slots: Vec<Slot>,
    decoder: Decoder,
    /// Whose bytes follow, and whether its direction ends with them.
    receiving: Option<(LaneId, bool)>,
    /// So much of the frame that is being received has come.
    begun: bool,
    staged: Staged,
    /// Bytes that left, of all that were staged.
    pushed: u64,
    /// Places that owe frames, a bit each.
    owing: u64,
    /// Places that the peer has opened and nobody has seen yet, a bit each.
    fresh: u64,
    pub(super) ping: Option<u32>,
    pong: Option<u32>,
    last: Last,
    idle_frames: Bucket,
    cancels: Bucket,
    over: bool,
    /// Who waits for the connection to take what is staged, or for a buffer. At most one for each lane.
    waiting: Vec<Waker>,
    starved: bool,
    /// Lanes somebody holds, and of those the ones at rest.
    held: u32,
    resting: u32,
    /// Something ended that nobody waits for.
    unwatched: bool,
    /// Lanes the peer reset while their answer was under way.
    pub(super) cancelled: u32,
}

#[derive(Debug, Default)]
struct Last {
    owed: bool,
    said: bool,
    heard: bool,
}

impl Core {
    pub(super) fn new(side: Side, now: Mono) -> Self {
        Self {
            side,
            slots: Vec::new(),
            decoder: Decoder::default(),
            receiving: None,
            begun: false,
            staged: Staged::default(),
            pushed: 0,
            owing: 0,
            fresh: 0,
            ping: None,
            pong: None,
            last: Last::default(),
            idle_frames: Bucket::new(IDLE_FRAMES_BURST, IDLE_FRAMES_PER_SECOND, now),
            cancels: Bucket::new(CANCELS_BURST, CANCELS_PER_SECOND, now),
            over: false,
            waiting: Vec::new(),
            starved: false,
            held: 0,
            resting: 0,
            unwatched: false,
            cancelled: 0,
        }
    }

    // Lanes come and go.

    /// Places that are free for a lane of ours.
    pub(super) fn room(&self) -> usize {
        if self.over || self.last.heard || self.last.owed || self.last.said {
            return 0;
        }
        let taken = self.slots.iter().filter(|slot| !slot.is_free()).count();
        LANES_MAX - taken
    }

    /// A new lane; the peer hears of it with its first bytes.
    pub(super) fn open(&mut self) -> Option<LaneId> {
        if self.room() == 0 {
            return None;
        }
        let place = match self.slots.iter().position(Slot::is_free) {
            Some(place) => place,
            None => {
                let place = u8::try_from(self.slots.len()).ok()?;
                self.slots.push(Slot::new(LaneId::new(place, 0)));
                usize::from(place)
            }
        };
        let slot = self.slots.get_mut(place)?;
        let id = LaneId::new(u8::try_from(place).ok()?, slot.id.uses() + 1);
        slot.begin(id);
        slot.unopened = true;
        self.held += 1;
        Some(id)
    }

    /// A lane that the peer has opened and nobody has seen yet.
    pub(super) fn accept(&mut self) -> Option<LaneId> {
        let place = self.fresh.trailing_zeros() as usize;
        let slot = self.slots.get(place)?;
        self.fresh &= !(1 << place);
        Some(slot.id)
    }

    /// Nobody holds the lane any more. As a socket that is dropped: what was sent goes out and our
    /// direction ends; who sends to it is told that nobody listens.
    pub(super) fn let_go(&mut self, id: LaneId) {
        self.rest(id, false);
        self.held = self.held.saturating_sub(1);
        let Some(slot) = self.slot(id) else { return };
        slot.held = false;
        let unread = !slot.incoming.is_empty();
        slot.incoming.clear();
        (slot.receiver, slot.sender) = (None, None);
        if slot.unopened {
            // Never said, so the peer does not know of it.
            slot.open = false;
        }
        if slot.open && !slot.is_reset() {
            if (unread && !slot.end_heard) || slot.torn {
                slot.reset_owed = true;
            } else if !slot.end_said {
                slot.end_owed = true;
            }
        }
        self.owe(id);
    }

    /// Lanes at rest are idle in a pool, or wait for a request: nobody misses their peer.
    pub(super) fn rest(&mut self, id: LaneId, resting: bool) {
        let Some(slot) = self.slot(id) else { return };
        match (std::mem::replace(&mut slot.resting, resting), resting) {
            (false, true) => self.resting += 1,
            (true, false) => self.resting = self.resting.saturating_sub(1),
            _ => {}
        }
    }

    /// Whether there are lanes that somebody holds, or whose end is not settled.
    pub(super) fn has_lanes(&self) -> bool {
        self.held > 0 || self.slots.iter().any(|slot| slot.open)
    }

    /// Whether anybody waits for the peer.
    pub(super) fn is_busy(&self) -> bool {
        self.held > self.resting
    }

    /// No lane may be opened any more, and the peer is to hear it; whether that is new.
    pub(super) fn say_last(&mut self) -> bool {
        let is_new = !self.has_said_last();
        self.last.owed |= is_new;
        is_new
    }

    pub(super) fn has_said_last(&self) -> bool {
        self.last.owed || self.last.said
    }

    /// Both have said that they open no more.
    pub(super) fn is_last(&self) -> bool {
        self.last.said && self.last.heard
    }

    pub(super) fn has_heard_last(&self) -> bool {
        self.last.heard
    }

    /// The connection is over: whoever waits hears it.
    pub(super) fn fail(&mut self) {
        self.over = true;
        self.staged.clear();
        for slot in &mut self.slots {
            let watched = slot.wake_receiver();
            slot.wake_sender();
            self.unwatched |= slot.held && !watched;
        }
        self.wake_waiting();
    }

    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// Whether something ended that nobody waited for, since this was asked last.
    pub(super) fn take_unwatched(&mut self) -> bool {
        std::mem::take(&mut self.unwatched)
    }

    // Receiving.

    /// Bytes of the connection.
    ///
    /// # Errors
    /// They break the protocol: the connection is to be given up.
    pub(super) fn receive(
        &mut self,
        mut chunk: Chunk,
        ring: &Ring,
        now: Mono,
    ) -> Result<(), FrameFault> {
        while !chunk.is_empty() {
            match self.decoder.next(&chunk)? {
                Step::More { len } => chunk.advance(len),
                Step::Frame { len, frame } => {
                    chunk.advance(len);
                    self.begun = false;
                    self.hear(frame, now)?;
                }
                Step::Bytes { len, done } => {
                    let bytes = chunk.split_to(len);
                    let continued = std::mem::replace(&mut self.begun, true);
                    self.deliver(bytes, continued, done, ring, now);
                }
            }
        }
        Ok(())
    }

    fn hear(&mut self, frame: Frame, now: Mono) -> Result<(), FrameFault> {
        match frame {
            Frame::Data {
                lane,
                open,
                end,
                len,
            } => {
                if open {
                    self.begin(lane, now)?;
                }
                let slot = self.slot(lane).ok_or(FrameFault::Unknown)?;
                if !slot.open {
                    return Err(FrameFault::Unknown);
                }
                let left = slot.window.checked_sub(u32::from(len));
                slot.window = left.ok_or(FrameFault::Window)?;
                if slot.end_heard {
                    return Err(FrameFault::Window);
                }
                if len == 0 {
                    self.receiving = None;
                    if end {
                        self.hear_end(lane, now);
                    }
                } else {
                    self.receiving = Some((lane, end));
                }
            }
            Frame::Taken { lane, bytes } => {
                self.known(lane)?;
                match self.slot(lane).filter(|slot| slot.open) {
                    Some(slot) => {
                        slot.credit += u32::from(bytes);
                        if slot.credit > WINDOW_BYTES {
                            return Err(FrameFault::Window);
                        }
                        slot.wake_sender();
                    }
                    // Its end and ours have crossed.
                    None => self.idle_frames.count(now)?,
                }
            }
            Frame::Reset { lane } => {
                self.known(lane)?;
                self.hear_reset(lane, now)?;
            }
            Frame::Ping(number) => {
                self.idle_frames.count(now)?;
                self.pong = Some(number);
            }
            Frame::Pong(_) => self.idle_frames.count(now)?,
            Frame::Last => {
                if std::mem::replace(&mut self.last.heard, true) {
                    return Err(FrameFault::Flood);
                }
                // The answer: nothing that opens a lane is under way any more.
                self.say_last();
                self.unwatched = true;
            }
        }
        Ok(())
    }

    /// Whether a lane of this number was ever opened. Frames of an earlier one at its place may be late.
    fn known(&self, lane: LaneId) -> Result<(), FrameFault> {
        let slot = self.slots.get(lane.place());
        let known = slot.is_some_and(|slot| (1..=slot.id.uses()).contains(&lane.uses()));
        known.then_some(()).ok_or(FrameFault::Unknown)
    }

    /// The peer opens a lane.
    fn begin(&mut self, lane: LaneId, now: Mono) -> Result<(), FrameFault> {
        let place = lane.place();
        if self.side == Side::Opener || self.last.heard || place >= LANES_MAX {
            return Err(FrameFault::Open);
        }
        while self.slots.len() <= place {
            let next = u8::try_from(self.slots.len()).map_err(|_| FrameFault::Open)?;
            self.slots.push(Slot::new(LaneId::new(next, 0)));
        }
        let slot = &mut self.slots[place];
        if slot.open || lane.uses() <= slot.id.uses() {
            return Err(FrameFault::Open);
        }
        // Who still holds the lane before it sees that it is over.
        slot.wake_receiver();
        slot.wake_sender();
        let before = slot.id;
        self.rest(before, false);
        self.slots[place].begin(lane);
        self.slots[place].heard_of_at = now;
        // One that nobody has seen, and that is over, is not seen any more.
        if self.fresh & (1 << place) == 0 {
            self.held += 1;
        }
        self.fresh |= 1 << place;
        Ok(())
    }

    fn hear_end(&mut self, lane: LaneId, now: Mono) {
        let Some(slot) = self.slot(lane) else { return };
        slot.end_heard = true;
        slot.ended_at.get_or_insert(now);
        slot.settle();
        let unwatched = slot.held && !slot.wake_receiver();
        self.unwatched |= unwatched;
    }

    fn hear_reset(&mut self, lane: LaneId, now: Mono) -> Result<(), FrameFault> {
        let Some(slot) = self.slot(lane).filter(|slot| slot.open) else {
            return self.idle_frames.count(now);
        };
        let cancels = !slot.end_said && !slot.is_reset();
        let is_rapid = now < slot.heard_of_at.plus_ms(RAPID_MS);
        slot.reset_heard = true;
        slot.ended_at.get_or_insert(now);
        slot.reset_owed = !slot.reset_said;
        slot.end_owed = false;
        slot.settle();
        let unwatched = slot.held && !slot.wake_receiver();
        slot.wake_sender();
        self.unwatched |= unwatched;
        self.owe(lane);
        if cancels && self.side == Side::Answerer {
            self.cancelled += 1;
            if is_rapid {
                self.cancels.count(now)?;
            }
        }
        Ok(())
    }

    fn deliver(&mut self, bytes: Chunk, continued: bool, done: bool, ring: &Ring, now: Mono) {
        let Some((lane, end)) = self.receiving else {
            return;
        };
        let Some(slot) = self.slot(lane) else { return };
        if slot.held && !slot.is_reset() {
            slot.keep(bytes, continued, ring);
            slot.wake_receiver();
        } else if !slot.is_reset() {
            // Nobody listens.
            slot.reset_owed = true;
            slot.end_owed = false;
            self.owe(lane);
        }
        if done {
            self.receiving = None;
            if end {
                self.hear_end(lane, now);
            }
        }
    }

    /// What a lane has received; empty at its end.
    pub(super) fn poll_recv(&mut self, id: LaneId, cx: &Context<'_>) -> Poll<io::Result<Chunk>> {
        let over = self.over;
        let Some(slot) = self.slot(id) else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        if let Some(received) = slot.take(over) {
            self.owe(id);
            return Poll::Ready(received);
        }
        match &mut slot.receiver {
            Some(waker) => waker.clone_from(cx.waker()),
            None => slot.receiver = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// As [`Self::poll_recv`], without waiting.
    pub(super) fn try_recv(&mut self, id: LaneId) -> Option<io::Result<Chunk>> {
        let over = self.over;
        let Some(slot) = self.slot(id) else {
            return Some(Err(io::ErrorKind::ConnectionReset.into()));
        };
        let received = slot.take(over);
        self.owe(id);
        received
    }

    /// Bytes received and not taken, of all lanes.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn kept(&self) -> usize {
        let chunks = self.slots.iter().flat_map(|slot| &slot.incoming);
        chunks.map(|chunk| chunk.len()).sum()
    }

    /// Whether nothing has come on a lane, and nothing speaks against using it.
    pub(super) fn is_quiet(&self, id: LaneId) -> bool {
        let slot = self.slots.get(id.place()).filter(|slot| slot.id == id);
        !self.over
            && !self.last.heard
            && slot.is_some_and(|slot| {
                slot.open && !slot.end_heard && !slot.is_reset() && slot.incoming.is_empty()
            })
    }

    /// When the peer ended a lane.
    pub(super) fn ended_at(&self, id: LaneId) -> Option<Mono> {
        let slot = self.slots.get(id.place()).filter(|slot| slot.id == id);
        slot.and_then(|slot| slot.ended_at)
    }

    // Sending.

    /// Stages what is left of `out` behind its first `sent` bytes, as far as the lane's credit and the
    /// connection allow; ready when that was all.
    pub(super) fn poll_send(
        &mut self,
        id: LaneId,
        out: &Out,
        sent: &mut usize,
        ring: &Ring,
        cx: &Context<'_>,
    ) -> Poll<io::Result<()>> {
        let broken = || Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        let Self {
            slots,
            staged,
            waiting,
            starved,
            over,
            ..
        } = self;
        let slot = slots.get_mut(id.place()).filter(|slot| slot.id == id);
        let Some(slot) = slot else { return broken() };
        if *over || slot.is_mute() || (slot.torn && *sent == 0) {
            return broken();
        }
        let len = out.len();
        while *sent < len {
            let most = (len - *sent).min(slot.credit as usize).min(u16::MAX.into());
            if most == 0 {
                slot.torn = *sent > 0;
                slot.sender = Some(cx.waker().clone());
                return Poll::Pending;
            }
            let portion = Portion {
                out,
                skip: *sent,
                most,
            };
            let now = match staged.is_full() {
                true => Err(NoBuffer),
                false => staged.portion(id, slot.unopened, portion, ring),
            };
            let Ok(now) = now else {
                *starved |= !staged.is_full();
                slot.torn = *sent > 0;
                if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                    waiting.push(cx.waker().clone());
                }
                return Poll::Pending;
            };
            slot.unopened = false;
            slot.credit -= u32::try_from(now).unwrap_or(slot.credit);
            *sent += now;
        }
        slot.torn = false;
        Poll::Ready(Ok(()))
    }

    /// Ends our direction, behind what was sent.
    pub(super) fn end(&mut self, id: LaneId) {
        if let Some(slot) = self.slot(id)
            && !slot.is_mute()
        {
            slot.end_owed = true;
            self.owe(id);
        }
    }

    /// Gives a lane up.
    pub(super) fn reset(&mut self, id: LaneId) {
        if let Some(slot) = self.slot(id)
            && slot.open
            && !slot.unopened
        {
            slot.reset_owed |= !slot.reset_said;
            slot.end_owed = false;
            slot.wake_receiver();
            slot.wake_sender();
            self.owe(id);
        }
    }

    /// Bytes staged so far: they have left when [`Self::pushed`] is as much.
    pub(super) fn staged_total(&self) -> u64 {
        self.staged.total()
    }

    /// Ready when so many bytes have left.
    pub(super) fn poll_pushed(&mut self, total: u64, cx: &Context<'_>) -> Poll<io::Result<()>> {
        if self.pushed >= total {
            return Poll::Ready(Ok(()));
        }
        if self.over {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if !self.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Whether there is anything to send, or somebody who would and found no buffer to say it in.
    pub(super) fn has_output(&self) -> bool {
        self.starved
            || !self.staged.is_empty()
            || self.owing != 0
            || self.ping.is_some()
            || self.pong.is_some()
            || self.last.owed
    }

    /// What leaves next, owed frames behind what was written before them; empty if there is nothing, or
    /// no buffer to say it in.
    pub(super) fn take_output(&mut self, ring: &Ring) -> Out {
        if self.say_owed(ring).is_err() {
            self.starved = true;
        }
        self.staged.take()
    }

    /// So many of the bytes taken have left.
    pub(super) fn pushed(&mut self, bytes: usize) {
        self.pushed += bytes as u64;
        self.wake_waiting();
    }

    /// Whether somebody waits for a buffer of the ring, since this was asked last.
    pub(super) fn take_starved(&mut self) -> bool {
        std::mem::take(&mut self.starved)
    }

    /// Who waits may try again.
    pub(super) fn wake_waiting(&mut self) {
        for waker in self.waiting.drain(..) {
            waker.wake();
        }
    }

    fn say_owed(&mut self, ring: &Ring) -> Result<(), NoBuffer> {
        let staged = &mut self.staged;
        if let Some(number) = self.ping {
            staged.frame(Frame::Ping(number), ring)?;
            self.ping = None;
        }
        if let Some(number) = self.pong {
            staged.frame(Frame::Pong(number), ring)?;
            self.pong = None;
        }
        while self.owing != 0 {
            let place = self.owing.trailing_zeros() as usize;
            if let Some(slot) = self.slots.get_mut(place) {
                slot.say_owed(staged, ring)?;
            }
            self.owing &= !(1 << place);
        }
        // Behind everything that opens a lane.
        if self.last.owed {
            for slot in &mut self.slots {
                if slot.open && slot.unopened {
                    staged.frame(opens(slot.id), ring)?;
                    slot.unopened = false;
                }
            }
            staged.frame(Frame::Last, ring)?;
            (self.last.owed, self.last.said) = (false, true);
        }
        Ok(())
    }

    /// Marks a lane's place if it owes frames.
    fn owe(&mut self, id: LaneId) {
        let slot = self.slots.get(id.place()).filter(|slot| slot.id == id);
        if slot.is_some_and(|slot| slot.reset_owed || slot.end_owed || slot.owes_taken()) {
            self.owing |= 1 << id.place();
        }
    }

    fn slot(&mut self, id: LaneId) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(id.place());
        slot.filter(|slot| slot.id == id)
    }
}

/// Opens a lane of which nothing is to be said yet.
fn opens(lane: LaneId) -> Frame {
    Frame::Data {
        lane,
        open: true,
        end: false,
        len: 0,
    }
}

/// What is of no use, of late: a bucket that fills with each and leaks over time.
#[derive(Debug)]
struct Bucket {
    level: u32,
    at: Mono,
    burst: u32,
    per_second: u32,
}

impl Bucket {
    fn new(burst: u32, per_second: u32, now: Mono) -> Self {
        Self {
            level: 0,
            at: now,
            burst,
            per_second,
        }
    }

    fn count(&mut self, now: Mono) -> Result<(), FrameFault> {
        let leaked = now.since(self.at).as_millis() * u128::from(self.per_second) / 1_000;
        if leaked > 0 {
            let leaked = u32::try_from(leaked).unwrap_or(u32::MAX);
            self.level = self.level.saturating_sub(leaked);
            self.at = now;
        }
        self.level += 1;
        match self.level > self.burst {
            true => Err(FrameFault::Flood),
            false => Ok(()),
        }
    }
}
