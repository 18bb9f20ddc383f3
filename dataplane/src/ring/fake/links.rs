//! TCP connections of the fake world: bytes, ends and resets between two ends, and the operations on them.

use std::collections::VecDeque;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use super::entry::Memory;
use super::world::{End, Event, MORE, NOTIFICATION, Place, World, block_flag};
use crate::time::Mono;

/// The most bytes one packet carries: a large segment of a fast network card.
const PACKET_BYTES_MAX: usize = 32 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Server,
}

impl Side {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) client: LinkEnd,
    pub(super) server: LinkEnd,
    /// The connect that was not answered yet.
    pub(super) connecting: Option<u64>,
    /// The most that is sent and not taken, bytes, in each direction.
    pub(super) window: usize,
}

#[derive(Debug)]
pub(super) struct LinkEnd {
    pub(super) address: SocketAddr,
    /// What has arrived and was not taken.
    inbox: VecDeque<u8>,
    /// The peer has said its last, and it has arrived.
    fin_in: bool,
    /// We have.
    fin_out: bool,
    /// Nothing passes any more in either direction.
    dead: bool,
    shut_read: bool,
    reset_on_close: bool,
    pub(super) closed: bool,
    /// Why it failed, until somebody was told.
    error: Option<i32>,
    /// Bytes sent and not arrived.
    on_the_way: usize,
    /// When the last that was sent arrives: nothing overtakes.
    arrives_last: Mono,
    pub(super) recv: Option<Recv>,
    pub(super) send: Option<Sending>,
    pub(super) polls: Vec<Poll>,
}

#[derive(Debug)]
pub(super) struct Recv {
    user_data: u64,
    group: u16,
    left: Option<u32>,
}

#[derive(Debug)]
pub(super) struct Sending {
    user_data: u64,
    memory: Memory,
    sent: usize,
    whole: bool,
    lent: bool,
}

/// Memory that is read until the notification, and what it held.
#[derive(Debug)]
pub(super) struct Lent {
    memory: Memory,
    held: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Poll {
    pub(super) user_data: u64,
    events: i32,
}

impl LinkEnd {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            inbox: VecDeque::new(),
            fin_in: false,
            fin_out: false,
            dead: false,
            shut_read: false,
            reset_on_close: false,
            closed: false,
            error: None,
            on_the_way: 0,
            arrives_last: Mono(0),
            recv: None,
            send: None,
            polls: Vec::new(),
        }
    }
}

impl Link {
    fn end(&mut self, side: Side) -> &mut LinkEnd {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }
}

impl World {
    /// An end that is there.
    pub(super) fn end(&mut self, end: End) -> &mut LinkEnd {
        self.find(end).expect("operations hold their link")
    }

    fn find(&mut self, end: End) -> Option<&mut LinkEnd> {
        Some(self.links.get_mut(&end.link)?.end(end.side))
    }

    /// Sends something behind all that was sent before.
    fn send_off(&mut self, from: End, event: Event) {
        let way = self.way();
        let soonest = Mono(self.now().0 + way);
        let end = self.end(from);
        let at = soonest.max(end.arrives_last);
        end.arrives_last = at;
        self.at(at, event);
    }

    // Receiving.

    pub(super) fn recv(&mut self, user_data: u64, fd: RawFd, group: u16, limit: Option<u32>) {
        let Some(&end) = self.ends.get(&fd) else {
            // The ring tries the operation on a socket of its own whose peer is gone.
            return self.finish(user_data, 0);
        };
        self.ops.insert(user_data, Place::Recv(end));
        let before = self.end(end).recv.replace(Recv {
            user_data,
            group,
            left: limit,
        });
        assert!(before.is_none(), "two receives on one socket");
        self.take(end);
    }

    /// Tells the receive under way what there is to tell.
    fn take(&mut self, end: End) {
        loop {
            let it = self.end(end);
            let Some(recv) = &mut it.recv else { return };
            let (user_data, group) = (recv.user_data, recv.group);
            if it.inbox.is_empty() {
                let result = match it.error.take() {
                    Some(errno) => -errno,
                    None if it.fin_in || it.dead || it.shut_read => 0,
                    None => return,
                };
                it.recv = None;
                return self.finish(user_data, result);
            }
            let blocks = self.groups.get_mut(&group).expect("a registered group");
            let Some(block) = blocks.take() else {
                self.end(end).recv = None;
                return self.finish(user_data, -libc::ENOBUFS);
            };
            let it = self.end(end);
            let recv = it.recv.as_mut().expect("just seen");
            let most = recv
                .left
                .map_or(block.len, |left| block.len.min(left as usize));
            let len = most.min(it.inbox.len());
            let bytes: Vec<u8> = it.inbox.drain(..len).collect();
            recv.left = recv.left.map(|left| left - len as u32);
            let goes_on = recv.left != Some(0);
            block.fill(&bytes);
            let flags = block_flag(block.number);
            if goes_on {
                self.tell(user_data, len as i32, flags | MORE);
            } else {
                it.recv = None;
                self.ops.remove(&user_data);
                self.tell(user_data, len as i32, flags);
            }
            let way = self.way();
            self.after(way, Event::Room { of: end.other() });
        }
    }

    pub(super) fn arrive(&mut self, to: End, bytes: &[u8]) {
        let Some(sender) = self.find(to.other()) else {
            return;
        };
        sender.on_the_way -= bytes.len();
        let it = self.end(to);
        if it.closed {
            let way = self.way();
            return self.after(way, Event::Reset { to: to.other() });
        }
        if !it.dead {
            it.inbox.extend(bytes);
            self.stir(to);
        }
    }

    pub(super) fn hear_fin(&mut self, to: End) {
        if let Some(it) = self.find(to) {
            it.fin_in = true;
            self.stir(to);
        }
    }

    pub(super) fn hear_reset(&mut self, to: End) {
        match self.find(to) {
            Some(it) if !it.dead && !it.closed => self.fail(to, libc::ECONNRESET),
            _ => {}
        }
    }

    fn fail(&mut self, end: End, errno: i32) {
        let it = self.end(end);
        it.dead = true;
        it.error = Some(errno);
        self.stir(end);
    }

    /// Something has changed at an end: whoever waits there looks.
    fn stir(&mut self, end: End) {
        self.take(end);
        self.send_on(end);
        self.tell_polls(end);
    }

    // Sending.

    pub(super) fn send(
        &mut self,
        user_data: u64,
        fd: RawFd,
        memory: Memory,
        whole: bool,
        lent: bool,
    ) {
        let Some(&end) = self.ends.get(&fd) else {
            return self.finish(user_data, -libc::EPIPE);
        };
        self.ops.insert(user_data, Place::Send(end));
        let before = self.end(end).send.replace(Sending {
            user_data,
            memory,
            sent: 0,
            whole,
            lent,
        });
        assert!(before.is_none(), "two sends on one socket");
        self.send_on(end);
    }

    /// Goes on with the send under way.
    pub(super) fn send_on(&mut self, end: End) {
        let Some(link) = self.links.get_mut(&end.link) else {
            return;
        };
        let window = link.window;
        let waiting = link.end(end.side.other()).inbox.len();
        let it = link.end(end.side);
        let Some(send) = &mut it.send else { return };
        let over = match it.error {
            Some(errno) if send.sent == 0 => {
                it.error = None;
                Some(-errno)
            }
            _ if it.dead || it.fin_out => Some(-libc::EPIPE),
            _ => None,
        };
        if let Some(error) = over {
            return self.stop_send(end, error);
        }
        let room = window.saturating_sub(waiting + it.on_the_way);
        let len = room.min(send.memory.len() - send.sent);
        let bytes = send.memory.read(send.sent, len);
        send.sent += len;
        let done = send.sent == send.memory.len() || (!send.whole && send.sent > 0);
        it.on_the_way += len;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let most = rest.len().min(PACKET_BYTES_MAX);
            let len = match self.rng.u8(..4) {
                0 => self.rng.usize(1..=most),
                _ => most,
            };
            let (packet, more) = rest.split_at(len);
            rest = more;
            let (to, bytes) = (end.other(), packet.to_vec());
            self.send_off(end, Event::Bytes { to, bytes });
        }
        if done && let Some(send) = self.end(end).send.take() {
            self.sent(end, send);
        }
        self.tell_polls(end);
    }

    /// Ends a send: with what it had sent, or else with `error`.
    pub(super) fn stop_send(&mut self, end: End, error: i32) {
        match self.end(end).send.take() {
            Some(send) if send.sent > 0 => self.sent(end, send),
            Some(send) => self.finish(send.user_data, error),
            None => {}
        }
    }

    fn sent(&mut self, end: End, send: Sending) {
        let Sending {
            user_data,
            sent,
            memory,
            lent,
            ..
        } = send;
        if !lent {
            return self.finish(user_data, sent as i32);
        }
        self.ops.remove(&user_data);
        self.tell(user_data, sent as i32, MORE);
        let held = memory.read(0, sent);
        let lent = Lent { memory, held };
        // When the last of it has arrived, or soon after.
        let way = self.way();
        let at = self.end(end).arrives_last.max(self.now());
        self.at(Mono(at.0 + way), Event::GivenBack { user_data, lent });
    }

    /// # Panics
    /// If the bytes are not what they were: the ring let somebody write where the kernel reads.
    pub(super) fn give_back(&mut self, user_data: u64, lent: &Lent) {
        let now = lent.memory.read(0, lent.held.len());
        assert!(now == lent.held, "lent memory was written to");
        self.tell(user_data, 0, NOTIFICATION);
    }

    // Readiness.

    pub(super) fn poll(&mut self, user_data: u64, fd: RawFd, events: i32) {
        let end = self.ends[&fd];
        self.ops.insert(user_data, Place::Poll(end));
        self.end(end).polls.push(Poll { user_data, events });
        self.tell_polls(end);
    }

    fn tell_polls(&mut self, end: End) {
        let Some(link) = self.links.get_mut(&end.link) else {
            return;
        };
        let window = link.window;
        let waiting = link.end(end.side.other()).inbox.len();
        let it = link.end(end.side);
        if it.polls.is_empty() {
            return;
        }
        let mut now = 0;
        for (is_so, event) in [
            (
                !it.inbox.is_empty() || it.fin_in || it.dead || it.shut_read,
                libc::POLLIN,
            ),
            (waiting + it.on_the_way < window || it.dead, libc::POLLOUT),
            (it.error.is_some(), libc::POLLERR),
            (it.dead || (it.fin_in && it.fin_out), libc::POLLHUP),
        ] {
            if is_so {
                now |= i32::from(event);
            }
        }
        let always = i32::from(libc::POLLERR | libc::POLLHUP);
        let told: Vec<_> = it
            .polls
            .extract_if(.., |poll| now & (poll.events | always) != 0)
            .collect();
        for poll in told {
            self.finish(poll.user_data, now & (poll.events | always));
        }
    }

    // Plain calls on a descriptor.

    pub(super) fn shutdown(&mut self, fd: RawFd, how: Shutdown) {
        let Some(&end) = self.ends.get(&fd) else {
            return;
        };
        if matches!(how, Shutdown::Read | Shutdown::Both) {
            self.end(end).shut_read = true;
        }
        if matches!(how, Shutdown::Write | Shutdown::Both) {
            self.say_fin(end);
        }
        self.stir(end);
    }

    fn say_fin(&mut self, end: End) {
        let it = self.end(end);
        if !it.dead && !std::mem::replace(&mut it.fin_out, true) {
            self.send_off(end, Event::Fin { to: end.other() });
        }
    }

    pub(super) fn reset_on_close(&mut self, fd: RawFd) {
        if let Some(&end) = self.ends.get(&fd) {
            self.end(end).reset_on_close = true;
        }
    }

    pub(super) fn take_error(&mut self, fd: RawFd) -> Option<i32> {
        let end = *self.ends.get(&fd)?;
        self.end(end).error.take()
    }

    /// Addresses of the peer's end and of our own.
    pub(super) fn addresses(&mut self, fd: RawFd) -> Option<(SocketAddr, SocketAddr)> {
        let end = *self.ends.get(&fd)?;
        let own = self.end(end).address;
        Some((self.end(end.other()).address, own))
    }

    /// # Panics
    /// If an operation on the descriptor is under way.
    pub(super) fn close(&mut self, fd: RawFd) {
        // SAFETY: the submission gave the descriptor up.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
        if let Some(end) = self.ends.remove(&fd) {
            self.close_end(end);
        }
    }

    pub(super) fn break_off(&mut self, end: End) {
        if let Some(it) = self.find(end) {
            it.reset_on_close = true;
            self.close_end(end);
        }
    }

    /// # Panics
    /// As [`close`](Self::close).
    pub(super) fn close_end(&mut self, end: End) {
        let it = self.end(end);
        let idle = it.recv.is_none() && it.send.is_none() && it.polls.is_empty();
        assert!(idle, "closed while an operation names it: {it:?}");
        it.closed = true;
        let breaks_off = it.reset_on_close || !it.inbox.is_empty();
        if it.dead {
            // The peer knows.
        } else if breaks_off {
            it.dead = true;
            self.send_off(end, Event::Reset { to: end.other() });
        } else {
            self.say_fin(end);
        }
        if self.end(end.other()).closed {
            self.links.remove(&end.link);
        }
    }
}
