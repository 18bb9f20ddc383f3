//! Listening, connecting and accepting in the fake world.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};

use socket2::{Domain, Socket, Type};

use super::links::{Link, LinkEnd, Side};
use super::world::{End, Event, MORE, Place, World};

/// What the sender's buffer and the receiver's hold together, bytes. The former takes 16 KiB whatever the
/// receiver does (tcp_wmem).
const WINDOW_BYTES: Range<usize> = 20 * 1024..512 * 1024;
/// Ports of clients begin here.
const FIRST_PORT: u16 = 20_000;

/// A listening socket.
#[derive(Debug)]
pub(super) struct Door {
    at: SocketAddr,
    accepting: Option<u64>,
    /// Links nobody has accepted.
    queue: VecDeque<u64>,
    closed: bool,
}

/// A descriptor that stands for a socket of this world: whatever is asked of it that does not reach a peer
/// (options, for one) is answered by the real kernel.
fn descriptor(of: SocketAddr) -> io::Result<Socket> {
    Socket::new(Domain::for_address(of), Type::STREAM.cloexec(), None)
}

impl World {
    pub(super) fn listen(&mut self, at: SocketAddr) -> io::Result<(Socket, SocketAddr)> {
        let mut at = at;
        if at.port() == 0 {
            self.next_port += 1;
            at.set_port(self.next_port);
        }
        if self
            .doors
            .values()
            .any(|door| door.at == at && !door.closed)
        {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let socket = descriptor(at)?;
        let door = Door {
            at,
            accepting: None,
            queue: VecDeque::new(),
            closed: false,
        };
        // A number that is used again is of a door that was closed.
        self.doors.insert(socket.as_raw_fd(), door);
        Ok((socket, at))
    }

    /// Nobody listens there any more; who waits is refused.
    pub(super) fn unlisten(&mut self, fd: RawFd) {
        let Some(door) = self.doors.get_mut(&fd) else {
            return;
        };
        door.closed = true;
        for link in std::mem::take(&mut door.queue) {
            self.break_off(End {
                link,
                side: Side::Server,
            });
        }
    }

    pub(super) fn accept(&mut self, user_data: u64, fd: RawFd) {
        let door = self.doors.get_mut(&fd).expect("a door of this world");
        let before = door.accepting.replace(user_data);
        assert!(before.is_none(), "two accepts on one socket");
        self.ops.insert(user_data, Place::Accept(fd));
        self.let_in(fd);
    }

    pub(super) fn stop_accept(&mut self, fd: RawFd) {
        if let Some(door) = self.doors.get_mut(&fd) {
            door.accepting = None;
        }
    }

    fn let_in(&mut self, fd: RawFd) {
        loop {
            let door = self.doors.get_mut(&fd).expect("a door of this world");
            let Some(user_data) = door.accepting else {
                return;
            };
            let Some(link) = door.queue.pop_front() else {
                return;
            };
            let at = door.at;
            match descriptor(at) {
                Ok(socket) => {
                    let accepted = socket.into_raw_fd();
                    self.name(
                        accepted,
                        End {
                            link,
                            side: Side::Server,
                        },
                    );
                    self.tell(user_data, accepted, MORE);
                }
                Err(_) => {
                    door.accepting = None;
                    door.queue.push_front(link);
                    return self.finish(user_data, -libc::EMFILE);
                }
            }
        }
    }

    pub(super) fn connect(&mut self, user_data: u64, fd: RawFd, to: SocketAddr) {
        let link = self.next_link;
        self.next_link += 1;
        let port = FIRST_PORT + (link % 40_000) as u16;
        let from = SocketAddr::new(to.ip(), port);
        let window = self.rng.usize(WINDOW_BYTES);
        self.links.insert(
            link,
            Link {
                client: LinkEnd::new(from),
                server: LinkEnd::new(to),
                connecting: Some(user_data),
                window,
            },
        );
        self.name(
            fd,
            End {
                link,
                side: Side::Client,
            },
        );
        self.ops.insert(user_data, Place::Connect(link));
        let way = self.way();
        self.after(way, Event::Knock { link });
    }

    pub(super) fn stop_connect(&mut self, link: u64) {
        if let Some(link) = self.links.get_mut(&link) {
            link.connecting = None;
        }
    }

    pub(super) fn knock(&mut self, link: u64) {
        let Some(it) = self.links.get(&link) else {
            return;
        };
        let to = it.server.address;
        let door = self.doors.iter_mut().find(|(_, door)| {
            let here =
                door.at == to || (door.at.ip().is_unspecified() && door.at.port() == to.port());
            here && !door.closed
        });
        let found = door.map(|(fd, door)| {
            door.queue.push_back(link);
            *fd
        });
        let way = self.way();
        let result = if found.is_some() {
            0
        } else {
            -libc::ECONNREFUSED
        };
        self.after(way, Event::Answer { link, result });
        match found {
            Some(fd) => self.let_in(fd),
            None => self.close_end(End {
                link,
                side: Side::Server,
            }),
        }
    }

    pub(super) fn answer(&mut self, link: u64, result: i32) {
        let Some(it) = self.links.get_mut(&link) else {
            return;
        };
        if let Some(user_data) = it.connecting.take() {
            self.finish(user_data, result);
        }
    }

    /// Gives an end its descriptor.
    ///
    /// # Panics
    /// If the number was closed behind the world's back: its peer would never hear of it.
    fn name(&mut self, fd: RawFd, end: End) {
        let before = self.ends.insert(fd, end);
        assert!(before.is_none(), "closed by a plain call: {before:?}");
    }
}
