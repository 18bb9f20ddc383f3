//! What a submission asks for, read as the kernel reads it: from its 64 bytes.

use std::net::SocketAddr;
use std::os::fd::RawFd;

use io_uring::opcode::{
    AcceptMulti, AsyncCancel, Close, Connect, PollAdd, RecvMulti, Send, SendMsg, SendMsgZc, SendZc,
};
use io_uring::squeue::{Entry, Flags};

/// `struct io_uring_sqe`, as far as the ring's operations go.
#[repr(C)]
struct Raw {
    opcode: u8,
    flags: u8,
    ioprio: u16,
    fd: i32,
    off: u64,
    addr: u64,
    len: u32,
    op_flags: u32,
    user_data: u64,
    buf_group: u16,
    personality: u16,
    /// `optlen` of a receive: the most bytes it brings, 0 for no bound.
    optlen: u32,
    addr3: u64,
    pad: u64,
}

const _: () = assert!(size_of::<Raw>() == 64 && size_of::<Entry>() == 64);

/// One submission.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) user_data: u64,
    /// IOSQE_CQE_SKIP_SUCCESS: says nothing where it succeeds.
    pub(super) quiet: bool,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    /// Multishot.
    Accept {
        fd: RawFd,
    },
    Connect {
        fd: RawFd,
        to: SocketAddr,
    },
    /// Multishot, into blocks of a group; with a bound where one is said.
    Recv {
        fd: RawFd,
        group: u16,
        limit: Option<u32>,
    },
    Send {
        fd: RawFd,
        memory: Memory,
        /// MSG_WAITALL: not done before all is sent.
        whole: bool,
        /// The bytes are read where they are until the notification.
        lent: bool,
    },
    Poll {
        fd: RawFd,
        events: i32,
        multi: bool,
    },
    Cancel {
        of: u64,
    },
    Close {
        fd: RawFd,
    },
}

/// The bytes of a send, where they lie.
#[derive(Debug)]
pub(super) struct Memory(Vec<(*const u8, usize)>);

impl Memory {
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|(_, len)| len).sum()
    }

    /// What lies there now.
    pub(super) fn read(&self, from: usize, len: usize) -> Vec<u8> {
        let mut skip = from;
        let mut bytes = Vec::with_capacity(len);
        for &(start, piece) in &self.0 {
            let skipped = skip.min(piece);
            skip -= skipped;
            let wanted = (piece - skipped).min(len - bytes.len());
            if wanted == 0 {
                continue;
            }
            // SAFETY: inside a piece of a submission, whose memory stays until its last completion
            // (the promise made to `push`); that has not been posted.
            let start = unsafe { start.add(skipped) };
            // SAFETY: as above.
            let piece = unsafe { std::slice::from_raw_parts(start, wanted) };
            bytes.extend_from_slice(piece);
        }
        bytes
    }
}

impl Asked {
    pub(super) fn read(entry: &Entry) -> Self {
        // SAFETY: an entry is a `repr(C)` io_uring_sqe of 64 bytes; all fields are plain integers.
        let raw = unsafe { &*std::ptr::from_ref(entry).cast::<Raw>() };
        let fd = raw.fd;
        let what = match raw.opcode {
            AcceptMulti::CODE => What::Accept { fd },
            Connect::CODE => What::Connect {
                fd,
                to: address(raw.addr as *const libc::sockaddr),
            },
            RecvMulti::CODE => What::Recv {
                fd,
                group: raw.buf_group,
                limit: (raw.optlen > 0).then_some(raw.optlen),
            },
            Send::CODE | SendZc::CODE => {
                let piece = (raw.addr as *const u8, raw.len as usize);
                send(raw, Memory(vec![piece]))
            }
            SendMsg::CODE | SendMsgZc::CODE => send(raw, gathered(raw.addr as *const _)),
            PollAdd::CODE => What::Poll {
                fd,
                events: raw.op_flags.cast_signed(),
                multi: raw.len & POLL_ADD_MULTI != 0,
            },
            AsyncCancel::CODE => What::Cancel { of: raw.addr },
            Close::CODE => What::Close { fd },
            code => panic!("the fake kernel knows no operation {code}"),
        };
        Self {
            user_data: raw.user_data,
            quiet: raw.flags & Flags::SKIP_SUCCESS.bits() != 0,
            what,
        }
    }
}

/// `IORING_POLL_ADD_MULTI`.
const POLL_ADD_MULTI: u32 = 1;

fn send(raw: &Raw, memory: Memory) -> What {
    What::Send {
        fd: raw.fd,
        memory,
        whole: raw.op_flags.cast_signed() & libc::MSG_WAITALL != 0,
        lent: matches!(raw.opcode, SendZc::CODE | SendMsgZc::CODE),
    }
}

fn gathered(header: *const libc::msghdr) -> Memory {
    // SAFETY: a submission's header and vectors are valid while it is submitted.
    let header = unsafe { &*header };
    // SAFETY: as above.
    let vectors = unsafe { std::slice::from_raw_parts(header.msg_iov, header.msg_iovlen) };
    let pieces = vectors.iter();
    Memory(
        pieces
            .map(|piece| (piece.iov_base.cast_const().cast(), piece.iov_len))
            .collect(),
    )
}

fn address(start: *const libc::sockaddr) -> SocketAddr {
    // SAFETY: a submission's address is valid while it is submitted, and begins with its family.
    let family = unsafe { (*start).sa_family };
    match i32::from(family) {
        libc::AF_INET => {
            // SAFETY: as above, and it is as long as its family says.
            let v4 = unsafe { start.cast::<libc::sockaddr_in>().read_unaligned() };
            let ip = v4.sin_addr.s_addr.to_ne_bytes();
            (ip, u16::from_be(v4.sin_port)).into()
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let v6 = unsafe { start.cast::<libc::sockaddr_in6>().read_unaligned() };
            (v6.sin6_addr.s6_addr, u16::from_be(v6.sin6_port)).into()
        }
        family => panic!("the ring connects to IP only, not to family {family}"),
    }
}
