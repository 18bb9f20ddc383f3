//! Pipes for splicing, and the plain system calls on them. None of the calls blocks: the pipes are
//! non-blocking, and so are the sockets for as long as they are spliced.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::rc::Rc;

/// Asked of the kernel for each pipe: 256 slots. One slot holds one piece of a received segment, so
/// with Ethernet's segments this is about 370 KB; with the default of 16 slots it would be 23 KB.
pub const PIPE_BYTES: i32 = 1024 * 1024;
/// A pipe smaller than this does not pay. The kernel makes them of two pages for a user who has
/// many (`fs.pipe-user-pages-soft`).
const PIPE_BYTES_MIN: i32 = 64 * 1024;

/// A ring's pipes.
#[derive(Debug)]
pub(super) struct Pipes {
    idle: RefCell<Vec<Ends>>,
    /// Made and not closed, idle ones included.
    alive: Cell<u32>,
    max: u32,
}

#[derive(Debug)]
struct Ends {
    read: OwnedFd,
    write: OwnedFd,
    bytes: u32,
}

impl Pipes {
    pub(super) fn new(max: u32) -> Rc<Self> {
        Rc::new(Self {
            idle: RefCell::new(Vec::new()),
            alive: Cell::new(0),
            max,
        })
    }

    /// An empty pipe; `None` at the bound or where the system gives none worth having.
    pub(super) fn take(self: &Rc<Self>) -> Option<Pipe> {
        let idle = self.idle.borrow_mut().pop();
        let ends = match idle {
            Some(ends) => ends,
            None if self.alive.get() >= self.max => return None,
            None => {
                let ends = Ends::make().ok()?;
                self.alive.set(self.alive.get() + 1);
                ends
            }
        };
        Some(Pipe {
            ends: Some(ends),
            held: 0,
            home: Rc::clone(self),
        })
    }

    /// Closes idle pipes.
    pub(super) fn trim(&self) {
        let mut idle = self.idle.borrow_mut();
        self.alive.set(self.alive.get() - idle.len() as u32);
        *idle = Vec::new();
    }
}

impl Ends {
    fn make() -> io::Result<Self> {
        let mut fds = [-1; 2];
        // SAFETY: the kernel writes two descriptors into an array of two.
        let made = unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) };
        if made < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just made, and nobody else knows it.
        let read = unsafe { OwnedFd::from_raw_fd(fds[0]) };
        // SAFETY: as above.
        let write = unsafe { OwnedFd::from_raw_fd(fds[1]) };
        // SAFETY: an open descriptor and integers.
        let grown = unsafe { libc::fcntl(write.as_raw_fd(), libc::F_SETPIPE_SZ, PIPE_BYTES) };
        let bytes = match grown {
            // Over the user's limit: perhaps it is large enough as it is.
            // SAFETY: an open descriptor and an integer.
            ..0 => unsafe { libc::fcntl(write.as_raw_fd(), libc::F_GETPIPE_SZ) },
            bytes => bytes,
        };
        if bytes < PIPE_BYTES_MIN {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        Ok(Self {
            read,
            write,
            bytes: bytes.cast_unsigned(),
        })
    }
}

/// A pipe on loan. Goes home when dropped empty; with bytes in it, it is closed.
pub(super) struct Pipe {
    /// `None` only while it is being dropped.
    ends: Option<Ends>,
    held: u32,
    home: Rc<Pipes>,
}

impl Pipe {
    /// Bytes in it.
    pub(super) fn held(&self) -> u32 {
        self.held
    }

    /// Most bytes it can ever hold.
    pub(super) fn bytes_max(&self) -> u32 {
        self.ends().bytes
    }

    fn ends(&self) -> &Ends {
        self.ends.as_ref().expect("there until dropped")
    }

    /// Fills the empty pipe with at most `bytes` of what `socket` has received; 0 is its end.
    pub(super) fn fill(&mut self, socket: BorrowedFd<'_>, bytes: u32) -> io::Result<u32> {
        debug_assert_eq!(
            self.held, 0,
            "a full pipe looks like a socket without bytes"
        );
        let moved = splice(socket, self.ends().write.as_fd(), bytes)?;
        self.held += moved;
        Ok(moved)
    }

    /// Sends at most `bytes` of what the pipe holds.
    pub(super) fn drain(&mut self, socket: BorrowedFd<'_>, bytes: u32) -> io::Result<u32> {
        let moved = splice(self.ends().read.as_fd(), socket, bytes.min(self.held))?;
        self.held -= moved;
        Ok(moved)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let Some(ends) = self.ends.take() else { return };
        if self.held == 0 {
            self.home.idle.borrow_mut().push(ends);
        } else {
            self.home.alive.set(self.home.alive.get() - 1);
        }
    }
}

impl fmt::Debug for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pipe({} bytes)", self.held)
    }
}

/// Moves bytes without copying them into this process. (Sending to a peer that is gone raises
/// SIGPIPE, which Rust's runtime ignores from the start: it is an error here.)
fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, bytes: u32) -> io::Result<u32> {
    let flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK;
    let (from, to) = (from.as_raw_fd(), to.as_raw_fd());
    let none = std::ptr::null_mut();
    // SAFETY: two open descriptors, no offsets: the call touches no memory of ours.
    let moved = unsafe { libc::splice(from, none, to, none, bytes as usize, flags) };
    u32::try_from(moved).map_err(|_| io::Error::last_os_error())
}
