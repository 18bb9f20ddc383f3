//! Frames as their bytes pass, whole or in pieces (RFC 9113 section 4.1): what the h2 crate answers by itself and
//! does not tell. Pure.
//!
//! Frames that ask for work and bring nothing (PING, SETTINGS, PRIORITY, empty DATA...) fill a bucket that leaks
//! over time and with every frame or answer that is of use to somebody. An honest peer stays near its bottom,
//! whatever it carries; a flood (CVE-2019-9511 and its kin) is over its brim in no time, whatever it hides behind.

use super::held::Held;
use super::limits;
use crate::time::Mono;

const HEAD_BYTES: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;

/// The frames of one direction, and what they cost.
#[derive(Debug)]
pub(super) struct Frames {
    /// Bytes that pass unlooked at: of the preface, or of a payload.
    skip: u32,
    /// Of the head that is passing; with padding, and the length of that.
    head: [u8; HEAD_BYTES + 1],
    head_len: usize,
    begun: u64,
    /// The first frame was not its sender's SETTINGS (RFC 9113 section 3.4).
    misbegun: bool,
    /// The sender wants no new streams (RFC 9113 section 6.8).
    leaving: bool,
    /// Of WINDOW_UPDATE, which answers what we send.
    updates: u32,
    /// Of everything else.
    chatter: u32,
    /// When time last took from both.
    leaked_at: Mono,
    /// Bytes of answers that frames have had made since we sent last: no credit for them.
    owed_bytes: u32,
    /// Bytes of the header block that is coming, and whether its last frame is.
    block_bytes: u32,
    block_ends: bool,
    /// The stream it begins, if payload may follow; 0 otherwise.
    block_stream: u32,
}

impl Frames {
    /// A direction that begins at `now` with `preface` bytes that are no frame.
    pub(super) fn behind(preface: u32, now: Mono) -> Self {
        Self {
            skip: preface,
            head: [0; HEAD_BYTES + 1],
            head_len: 0,
            begun: 0,
            misbegun: false,
            leaving: false,
            updates: 0,
            chatter: 0,
            leaked_at: now,
            owed_bytes: 0,
            block_bytes: 0,
            block_ends: false,
            block_stream: 0,
        }
    }

    /// Whether a whole frame has passed.
    pub(super) fn have_begun(&self) -> bool {
        self.begun > 1 || self.begun == 1 && self.skip == 0
    }

    /// Whether the first frame was not its sender's SETTINGS.
    pub(super) fn are_misbegun(&self) -> bool {
        self.misbegun
    }

    /// Whether GOAWAY has begun to come.
    pub(super) fn are_last(&self) -> bool {
        self.leaving
    }

    /// Bytes of a header block that is not whole, as far as its frames have begun.
    pub(super) fn block_bytes(&self) -> u32 {
        match self.block_ends && self.skip == 0 {
            true => 0,
            false => self.block_bytes,
        }
    }

    /// Looks at the next bytes; tells `held` of what streams bring.
    pub(super) fn pass(&mut self, mut bytes: &[u8], held: &mut Held) {
        loop {
            let skipped = bytes.len().min(self.skip as usize);
            self.skip -= skipped as u32;
            bytes = &bytes[skipped..];
            if self.skip == 0 && self.block_ends && self.block_stream != 0 {
                // From here on the h2 crate can know it.
                held.head(std::mem::take(&mut self.block_stream));
            }
            if bytes.is_empty() {
                return;
            }
            let wanted = HEAD_BYTES + usize::from(self.head_len >= HEAD_BYTES);
            let taken = bytes.len().min(wanted - self.head_len);
            self.head[self.head_len..][..taken].copy_from_slice(&bytes[..taken]);
            self.head_len += taken;
            bytes = &bytes[taken..];
            if self.head_len == wanted && !(wanted == HEAD_BYTES && self.is_padded_data()) {
                self.begin(held);
            }
        }
    }

    fn length(&self) -> u32 {
        u32::from_be_bytes([0, self.head[0], self.head[1], self.head[2]])
    }

    fn is_padded_data(&self) -> bool {
        self.head[3] == DATA && self.head[4] & PADDED != 0 && self.length() > 0
    }

    fn begin(&mut self, held: &mut Held) {
        let (length, kind, flags) = (self.length(), self.head[3], self.head[4]);
        let beyond_head = (self.head_len - HEAD_BYTES) as u32;
        self.skip = length - beyond_head;
        self.head_len = 0;
        self.begun += 1;
        if self.begun == 1 {
            self.misbegun = kind != SETTINGS || flags & ACK != 0;
        }
        self.leaving |= kind == GOAWAY;
        // Padding is no payload, and its window comes back by itself.
        let padding = beyond_head * (1 + u32::from(self.head[HEAD_BYTES]));
        let [.., a, b, c, d, _] = self.head;
        let stream = u32::from_be_bytes([a & 0x7f, b, c, d]);
        self.block_bytes = match kind {
            HEADERS => length,
            CONTINUATION => self.block_bytes.saturating_add(length),
            _ => 0,
        };
        self.block_ends = flags & END_HEADERS != 0;
        match kind {
            DATA => held.payload(stream, length.saturating_sub(padding) as usize),
            HEADERS if flags & END_STREAM == 0 => self.block_stream = stream,
            _ => {}
        }
        match kind {
            DATA if length > padding || flags & END_STREAM != 0 => self.is_of_use(),
            HEADERS => self.is_of_use(),
            WINDOW_UPDATE => self.updates = self.updates.saturating_add(1),
            _ => {
                let cost = 1 + length / limits::CHATTER_FRAME_BYTES;
                self.chatter = self.chatter.saturating_add(cost);
                if matches!(kind, PING | SETTINGS) && flags & ACK == 0 {
                    let answer = HEAD_BYTES as u32 + if kind == PING { length } else { 0 };
                    self.owed_bytes = self.owed_bytes.saturating_add(answer);
                }
            }
        }
    }

    fn is_of_use(&mut self) {
        self.chatter = self.chatter.saturating_sub(limits::CHATTER_PER_USE);
        self.updates = self.updates.saturating_sub(limits::CHATTER_PER_USE);
    }

    /// We have sent so much at once.
    pub(super) fn sent(&mut self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let of_use = bytes.saturating_sub(self.owed_bytes);
        self.owed_bytes = self.owed_bytes.saturating_sub(bytes);
        if of_use > 0 {
            self.is_of_use();
            let answered = of_use / limits::UPDATE_BYTES;
            self.updates = self.updates.saturating_sub(answered);
        }
    }

    /// Whether the peer has asked for too much that is of no use.
    pub(super) fn is_flood(&mut self, now: Mono) -> bool {
        if self.chatter.max(self.updates) == 0 {
            self.leaked_at = now;
            return false;
        }
        let past_ms = now.since(self.leaked_at).as_millis();
        let leaked = past_ms * u128::from(limits::CHATTER_PER_SECOND) / 1_000;
        if leaked > 0 {
            let leaked = u32::try_from(leaked).unwrap_or(u32::MAX);
            self.chatter = self.chatter.saturating_sub(leaked);
            self.updates = self.updates.saturating_sub(leaked);
            self.leaked_at = now;
        }
        self.chatter.max(self.updates) > limits::CHATTER_BURST
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut bytes = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        bytes.extend_from_slice(payload);
        bytes
    }

    fn now() -> Mono {
        Mono(1_000_000_000)
    }

    fn frames() -> Frames {
        Frames::behind(0, now())
    }

    /// (what, frame, whether a flood of it is one)
    #[test]
    fn what_brings_nothing_is_counted_and_what_brings_something_pays() {
        let padded = [&[3][..], &[0; 3]].concat();
        let padded_payload = [&[3][..], b"x", &[0; 3]].concat();
        for (what, bytes, wanted) in [
            ("PING", frame(PING, 0, &[0; 8]), true),
            ("an answer to PING", frame(PING, ACK, &[0; 8]), true),
            ("SETTINGS", frame(SETTINGS, 0, &[]), true),
            ("PRIORITY", frame(2, 0, &[0; 5]), true),
            ("RST_STREAM", frame(3, 0, &[0; 4]), true),
            ("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, &[0; 4]), true),
            ("a kind nobody knows", frame(0xfe, 0, b"abc"), true),
            ("CONTINUATION", frame(9, 0, &[]), true),
            ("empty DATA", frame(DATA, 0, &[]), true),
            ("DATA of padding alone", frame(DATA, PADDED, &padded), true),
            ("padded DATA", frame(DATA, PADDED, &padded_payload), false),
            ("DATA", frame(DATA, 0, b"x"), false),
            ("the end of a stream", frame(DATA, END_STREAM, &[]), false),
            ("HEADERS", frame(HEADERS, 0, &[0x82]), false),
        ] {
            let mut frames = frames();
            for _ in 0..=limits::CHATTER_BURST {
                frames.pass(&bytes, &mut Held::of_client());
            }
            assert_eq!(frames.is_flood(now()), wanted, "{what}");
        }
    }

    #[test]
    fn the_first_frame_has_to_be_settings() {
        for (bytes, wanted) in [
            (frame(SETTINGS, 0, &[]), false),
            (frame(SETTINGS, 0, &[0; 6]), false),
            (frame(SETTINGS, ACK, &[]), true),
            (frame(PING, 0, &[0; 8]), true),
            (frame(HEADERS, 0, &[0x82]), true),
            (frame(0xfe, 0, &[]), true),
        ] {
            let mut frames = frames();
            frames.pass(&bytes, &mut Held::of_client());
            assert_eq!(frames.are_misbegun(), wanted, "{bytes:?}");
            // Whatever comes later.
            frames.pass(&frame(PING, 0, &[0; 8]), &mut Held::of_client());
            assert_eq!(frames.are_misbegun(), wanted, "{bytes:?}");
        }
    }

    #[test]
    fn answers_to_a_flood_do_not_pay_for_it() {
        let mut frames = frames();
        let ping = frame(PING, 0, &[0; 8]);
        for _ in 0..=limits::CHATTER_BURST {
            frames.pass(&ping, &mut Held::of_client());
            frames.sent(ping.len());
        }
        assert!(frames.is_flood(now()));
    }

    /// A client that reads a long answer says twice a frame that it has room again.
    #[test]
    fn what_we_send_pays_for_window_updates() {
        let mut frames = frames();
        let update = frame(WINDOW_UPDATE, 0, &[0; 4]);
        for _ in 0..10 * limits::CHATTER_BURST {
            frames.sent(1_033);
            frames.pass(&update, &mut Held::of_client());
            frames.pass(&update, &mut Held::of_client());
            assert!(!frames.is_flood(now()));
        }
    }

    #[test]
    fn a_slow_peer_may_go_on_for_ever() {
        let mut frames = frames();
        let ping = frame(PING, 0, &[0; 8]);
        let step = 1_000 / u64::from(limits::CHATTER_PER_SECOND);
        for at in 0..u64::from(3 * limits::CHATTER_BURST) {
            frames.pass(&ping, &mut Held::of_client());
            assert!(!frames.is_flood(now().plus_ms(at * step)));
        }
    }

    proptest! {
        /// However the bytes are cut, they are the same frames.
        #[test]
        fn pieces_do_not_matter(
            list in prop::collection::vec((any::<u8>(), any::<u8>(), prop::collection::vec(any::<u8>(), 0..30)), 0..30),
            cuts in prop::collection::vec(1_usize..20, 1..50),
        ) {
            let bytes: Vec<u8> = list.iter().flat_map(|(kind, flags, payload)| frame(*kind % 12, *flags, payload)).collect();
            let mut whole = frames();
            whole.pass(&bytes, &mut Held::of_client());
            prop_assert_eq!(whole.begun, list.len() as u64);
            let mut pieces = frames();
            let (mut rest, mut cuts) = (&bytes[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
                pieces.pass(piece, &mut Held::of_client());
                rest = after;
            }
            prop_assert_eq!(format!("{whole:?}"), format!("{pieces:?}"));
        }

        #[test]
        fn any_bytes_pass(bytes in prop::collection::vec(any::<u8>(), 0..500), sent in any::<u32>()) {
            let mut frames = frames();
            frames.pass(&bytes, &mut Held::of_client());
            frames.sent(sent as usize);
            let _ = frames.is_flood(now());
        }
    }

    #[test]
    fn a_header_block_counts_until_it_is_whole() {
        let mut frames = frames();
        let mut pass = |bytes: &[u8]| {
            frames.pass(bytes, &mut Held::of_client());
            frames.block_bytes()
        };
        assert_eq!(pass(&frame(HEADERS, 0, &[0; 100])), 100);
        let last = frame(CONTINUATION, END_HEADERS, &[0; 50]);
        assert_eq!(pass(&last[..20]), 150);
        assert_eq!(pass(&last[20..]), 0);
        assert_eq!(pass(&frame(HEADERS, END_HEADERS, &[0; 10])), 0);
        assert_eq!(pass(&frame(PING, 0, &[0; 8])), 0);
    }

    #[test]
    fn payload_of_streams_is_told_without_its_padding() {
        let (mut frames, mut held) = (frames(), Held::of_client());
        frames.pass(&frame(HEADERS, END_HEADERS, &[0; 10]), &mut held);
        frames.pass(&frame(DATA, 0, &[0; 300]), &mut held);
        assert_eq!(held.bytes(), 300);
        // Nine bytes of padding, and the one that says so.
        let padded = [&[9][..], &[0; 299]].concat();
        frames.pass(&frame(DATA, PADDED, &padded), &mut held);
        assert_eq!(held.bytes(), 590);
        held.close(1);
        // Nothing more can come of what has ended with its head.
        let ended = END_HEADERS | END_STREAM;
        let mut frames = Frames::behind(0, now());
        let mut held = Held::of_client();
        frames.pass(&frame(HEADERS, ended, &[0; 10]), &mut held);
        frames.pass(&frame(DATA, 0, &[0; 30]), &mut held);
        assert_eq!(held.bytes(), 0);
    }
}
