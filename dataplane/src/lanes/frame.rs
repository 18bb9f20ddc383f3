//! Frames: eight bytes each, and behind those of one kind the bytes of a lane (docs/lanes.md).
//!
//! Pure: bytes in, frames out. Nothing is gathered but a head that came in pieces.

use std::fmt;

/// Bytes of a frame's head.
pub(super) const HEAD_BYTES: usize = 8;

/// A lane of a connection: its place in the low byte, above it how often the place has been used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneId(pub u32);

impl LaneId {
    /// The `uses`-th lane at a place.
    #[must_use]
    pub fn new(place: u8, uses: u32) -> Self {
        Self((uses << 8) | u32::from(place))
    }

    /// Which of the connection's places it has.
    #[must_use]
    pub fn place(self) -> usize {
        usize::from(self.0.to_be_bytes()[3])
    }

    /// How many lanes had its place before, and itself.
    #[must_use]
    pub fn uses(self) -> u32 {
        self.0 >> 8
    }
}

/// A frame's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// `len` bytes of a lane follow. `open`: it is the lane's first; `end`: nothing follows in this
    /// direction.
    Data {
        /// Whose.
        lane: LaneId,
        /// The lane begins.
        open: bool,
        /// This direction ends behind the bytes.
        end: bool,
        /// Bytes that follow.
        len: u16,
    },
    /// The lane's other end has taken so many bytes: as many more may be sent.
    Taken {
        /// Whose.
        lane: LaneId,
        /// Bytes, not 0.
        bytes: u16,
    },
    /// The lane is over in both directions, and nobody cares for what is under way on it.
    Reset {
        /// Whose.
        lane: LaneId,
    },
    /// Are you there?
    Ping(u32),
    /// Here: the number of the PING.
    Pong(u32),
    /// No lane is opened any more.
    Last,
}

/// What breaks the protocol. The connection is given up: both ends are sidecars, and one is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameFault {
    /// No frame begins like this.
    Malformed,
    /// A lane that may not be opened: its place is taken or is none, or the opener said it was the last.
    Open,
    /// A lane that was never opened.
    Unknown,
    /// More than the lane's window allows, or bytes behind its end.
    Window,
    /// Too many frames of no use.
    Flood,
}

impl fmt::Display for FrameFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "a malformed frame",
            Self::Open => "a lane that may not be opened",
            Self::Unknown => "a frame of a lane that was never opened",
            Self::Window => "bytes above a lane's window or behind its end",
            Self::Flood => "too many frames of no use",
        })
    }
}

impl std::error::Error for FrameFault {}

const DATA: u8 = 0;
const TAKEN: u8 = 1;
const RESET: u8 = 2;
const PING: u8 = 3;
const PONG: u8 = 4;
const LAST: u8 = 5;

const OPEN: u8 = 1;
const END: u8 = 2;

impl Frame {
    /// As it is sent: kind, flags, length (16 bits), lane (32 bits), all big-endian.
    #[must_use]
    pub fn encode(self) -> [u8; HEAD_BYTES] {
        let (kind, flags, len, lane) = match self {
            Self::Data {
                lane,
                open,
                end,
                len,
            } => (
                DATA,
                (u8::from(open) * OPEN) | (u8::from(end) * END),
                len,
                lane.0,
            ),
            Self::Taken { lane, bytes } => (TAKEN, 0, bytes, lane.0),
            Self::Reset { lane } => (RESET, 0, 0, lane.0),
            Self::Ping(number) => (PING, 0, 0, number),
            Self::Pong(number) => (PONG, 0, 0, number),
            Self::Last => (LAST, 0, 0, 0),
        };
        let ([l0, l1], [n0, n1, n2, n3]) = (len.to_be_bytes(), lane.to_be_bytes());
        [kind, flags, l0, l1, n0, n1, n2, n3]
    }

    /// What was sent.
    ///
    /// # Errors
    /// [`FrameFault::Malformed`]: an unknown kind, a bit that has no meaning, a frame that says nothing.
    pub fn decode(bytes: [u8; HEAD_BYTES]) -> Result<Self, FrameFault> {
        let [kind, flags, l0, l1, n0, n1, n2, n3] = bytes;
        let len = u16::from_be_bytes([l0, l1]);
        let number = u32::from_be_bytes([n0, n1, n2, n3]);
        let lane = LaneId(number);
        match (kind, flags, len) {
            (DATA, 0, 0) => Err(FrameFault::Malformed),
            (DATA, flags, len) if flags <= OPEN | END => Ok(Self::Data {
                lane,
                open: flags & OPEN != 0,
                end: flags & END != 0,
                len,
            }),
            (TAKEN, 0, 1..) => Ok(Self::Taken { lane, bytes: len }),
            (RESET, 0, 0) => Ok(Self::Reset { lane }),
            (PING, 0, 0) => Ok(Self::Ping(number)),
            (PONG, 0, 0) => Ok(Self::Pong(number)),
            (LAST, 0, 0) if number == 0 => Ok(Self::Last),
            _ => Err(FrameFault::Malformed),
        }
    }
}

/// Reads frames from bytes that come in any pieces.
#[derive(Debug, Default)]
pub struct Decoder {
    head: [u8; HEAD_BYTES],
    /// Bytes of `head` that are here.
    have: usize,
    /// Bytes of a lane that are still to come.
    left: usize,
}

/// What the next bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// So many bytes of the lane whose [`Frame::Data`] came last; `done`: the last of that frame. They are
    /// for the caller to take.
    Bytes {
        /// How many, not 0.
        len: usize,
        /// The frame ends with them.
        done: bool,
    },
    /// A frame's head; the decoder has taken `len` bytes for it.
    Frame {
        /// Bytes taken.
        len: usize,
        /// The frame.
        frame: Frame,
    },
    /// All bytes were taken, `len` of them, and the frame is not whole.
    More {
        /// Bytes taken.
        len: usize,
    },
}

impl Decoder {
    /// Looks at bytes that follow those taken so far.
    ///
    /// # Errors
    /// [`FrameFault::Malformed`].
    pub fn next(&mut self, bytes: &[u8]) -> Result<Step, FrameFault> {
        if self.left > 0 {
            let len = self.left.min(bytes.len());
            if len == 0 {
                return Ok(Step::More { len });
            }
            self.left -= len;
            let done = self.left == 0;
            return Ok(Step::Bytes { len, done });
        }
        let missing = &mut self.head[self.have..];
        let len = missing.len().min(bytes.len());
        let (now, _) = bytes.split_at(len);
        missing[..len].copy_from_slice(now);
        self.have += len;
        if self.have < HEAD_BYTES {
            return Ok(Step::More { len });
        }
        self.have = 0;
        let frame = Frame::decode(self.head)?;
        if let Frame::Data { len, .. } = frame {
            self.left = usize::from(len);
        }
        Ok(Step::Frame { len, frame })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames() -> impl Strategy<Value = Frame> {
        let lane = any::<u32>().prop_map(LaneId);
        prop_oneof![
            (lane.clone(), any::<bool>(), any::<bool>(), any::<u16>()).prop_map(
                |(lane, open, end, len)| Frame::Data {
                    lane,
                    open,
                    end,
                    len: if open || end { len } else { len.max(1) },
                }
            ),
            (lane.clone(), 1..=u16::MAX).prop_map(|(lane, bytes)| Frame::Taken { lane, bytes }),
            lane.prop_map(|lane| Frame::Reset { lane }),
            any::<u32>().prop_map(Frame::Ping),
            any::<u32>().prop_map(Frame::Pong),
            Just(Frame::Last),
        ]
    }

    /// Frames and bytes of lanes as a decoder tells them, whatever the pieces.
    fn read(pieces: &[&[u8]]) -> Result<(Vec<Frame>, usize), FrameFault> {
        let mut decoder = Decoder::default();
        let (mut seen, mut carried) = (Vec::new(), 0);
        for piece in pieces {
            let mut rest = *piece;
            while !rest.is_empty() {
                let taken = match decoder.next(rest)? {
                    Step::Frame { len, frame } => {
                        seen.push(frame);
                        len
                    }
                    Step::Bytes { len, .. } => {
                        carried += len;
                        len
                    }
                    Step::More { len } => {
                        assert_eq!(len, rest.len());
                        len
                    }
                };
                rest = &rest[taken..];
            }
        }
        Ok((seen, carried))
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(frame in frames()) {
            prop_assert_eq!(Frame::decode(frame.encode()), Ok(frame));
        }

        #[test]
        fn any_bytes_are_a_frame_in_one_spelling_or_a_fault(bytes: [u8; HEAD_BYTES]) {
            if let Ok(frame) = Frame::decode(bytes) {
                prop_assert_eq!(frame.encode(), bytes);
            }
        }

        #[test]
        fn pieces_do_not_matter(
            frames in proptest::collection::vec(frames(), 0..8),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..8),
        ) {
            let mut bytes = Vec::new();
            let mut carried = 0;
            for frame in &frames {
                bytes.extend(frame.encode());
                if let Frame::Data { len, .. } = frame {
                    bytes.resize(bytes.len() + usize::from(*len), 0xff);
                    carried += usize::from(*len);
                }
            }
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            at.extend([0, bytes.len()]);
            at.sort_unstable();
            let pieces: Vec<&[u8]> = at.windows(2).map(|two| &bytes[two[0]..two[1]]).collect();
            prop_assert_eq!(read(&pieces), Ok((frames, carried)));
        }
    }

    #[test]
    fn what_says_nothing_is_no_frame() {
        for bytes in [
            [DATA, 0, 0, 0, 0, 0, 1, 0],
            [DATA, 4, 0, 1, 0, 0, 1, 0],
            [TAKEN, 0, 0, 0, 0, 0, 1, 0],
            [TAKEN, 1, 0, 1, 0, 0, 1, 0],
            [RESET, 0, 0, 1, 0, 0, 1, 0],
            [PING, 0, 1, 0, 0, 0, 0, 0],
            [LAST, 0, 0, 0, 0, 0, 0, 1],
            [6, 0, 0, 0, 0, 0, 0, 0],
            *b"GET / HT",
            *b"PRI * HT",
        ] {
            assert_eq!(
                Frame::decode(bytes),
                Err(FrameFault::Malformed),
                "{bytes:?}"
            );
        }
    }
}
