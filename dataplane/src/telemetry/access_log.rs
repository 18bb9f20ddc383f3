//! Access log: one JSON object per exchange and line, into a fixed buffer.

use std::net::{IpAddr, SocketAddr};

use super::outcome::{Outcome, Party};
use super::recent::Recent;

/// Longest value of one field, bytes; longer ones are cut at a character.
const FIELD_BYTES_MAX: usize = 4_096;

/// Lines waiting to be collected. Never grows: a line that does not fit is dropped and counted.
#[derive(Debug)]
pub struct LogBuf {
    bytes: Vec<u8>,
    capacity: usize,
    ripe_bytes: usize,
    lines: u64,
    dropped: u64,
    clock: Clock,
    named: Recent<Vec<u8>>,
}

/// Share of the room, percent, after which the lines are handed over: each time costs the agent and the
/// writer a wake-up. The rest is for lines that come while no empty buffer is there to go on with.
const RIPE_PERCENT: usize = 90;
/// Longest piece of a line that is kept for the next one, bytes; with 256 of them 128 KiB.
const NAMED_BYTES_MAX: usize = 512;

impl LogBuf {
    /// With room for `capacity` bytes, taken at once.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(capacity),
            capacity,
            ripe_bytes: capacity / 100 * RIPE_PERCENT,
            lines: 0,
            dropped: 0,
            clock: Clock::default(),
            named: Recent::new(),
        }
    }

    /// Appends the line of an exchange; false if there was no room for it.
    pub fn push(&mut self, outcome: &Outcome<'_>) -> bool {
        let start = self.bytes.len();
        if self.bytes.capacity() == 0 {
            self.bytes.reserve_exact(self.capacity);
        }
        let mut line = Line {
            bytes: &mut self.bytes,
            capacity: self.capacity,
            full: false,
        };
        line.write(outcome, &mut self.clock, &mut self.named);
        if line.full {
            self.bytes.truncate(start);
            self.dropped += 1;
            return false;
        }
        self.lines += 1;
        true
    }

    /// The lines, each ended by a line feed.
    #[must_use]
    pub fn lines(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// When to collect: there is not room for many more.
    #[must_use]
    pub fn is_ripe(&self) -> bool {
        self.bytes.len() >= self.ripe_bytes
    }

    /// Gives its room back to the allocator until the next line, if there is none now. For quiet moments.
    pub fn rest(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = Vec::new();
        }
    }

    /// Takes all lines out, for the agent. `spare` becomes the new room, so that two buffers go
    /// back and forth and nothing is allocated: pass an emptied one of earlier.
    #[must_use]
    pub fn take(&mut self, mut spare: Vec<u8>) -> Vec<u8> {
        spare.clear();
        spare.reserve_exact(self.capacity);
        std::mem::replace(&mut self.bytes, spare)
    }

    /// Empties it, after the lines were copied.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// Lines written and dropped since start.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.lines, self.dropped)
    }
}

/// A line being written; once it is full nothing more is written.
struct Line<'b> {
    bytes: &'b mut Vec<u8>,
    capacity: usize,
    full: bool,
}

/// `,"key":` as one literal: pieces are what a line costs, so there are as few as can be.
macro_rules! key {
    ($key:literal) => {
        concat!(",\"", $key, "\":").as_bytes()
    };
    ($key:literal, quoted) => {
        concat!(",\"", $key, "\":\"").as_bytes()
    };
}

impl Line<'_> {
    fn write(&mut self, outcome: &Outcome<'_>, clock: &mut Clock, named: &mut Recent<Vec<u8>>) {
        self.put(b"{\"ts\":\"");
        self.put(clock.text(outcome.start_unix_us));
        self.put(b"\",\"protocol\":\"");
        self.put(outcome.transport.as_str().as_bytes());
        self.put(b"\"");
        self.recent_names(outcome, named);
        self.text(key!("method", quoted), outcome.method);
        self.text(key!("authority", quoted), outcome.authority);
        self.text(key!("path", quoted), outcome.path);
        self.number(key!("status"), outcome.status.into());
        if let Some(status) = outcome.grpc_status {
            self.number(key!("grpc_status"), status.into());
        }
        self.text(key!("reason", quoted), outcome.reason.code());
        self.text(key!("policy", quoted), outcome.policy);
        self.address(key!("endpoint", quoted), outcome.endpoint);
        self.address(key!("peer", quoted), outcome.peer_address);
        self.number(key!("bytes_in"), outcome.bytes_in);
        self.number(key!("bytes_out"), outcome.bytes_out);
        self.number(key!("duration_us"), outcome.total_us);
        if let Some(upstream_us) = outcome.upstream_us {
            self.number(key!("upstream_us"), upstream_us);
        }
        self.number(key!("queue_us"), outcome.queue_us);
        self.number(key!("attempts"), outcome.attempts.into());
        self.text(key!("request_id", quoted), outcome.request_id);
        let flags = &outcome.flags;
        for (set, flag) in [
            (flags.downstream_tls, &b",\"mtls\":true"[..]),
            (flags.upstream_tls, b",\"upstream_mtls\":true"),
            (flags.reused, b",\"reused\":true"),
            (flags.delayed, b",\"delayed\":true"),
            (flags.passthrough, b",\"passthrough\":true"),
        ] {
            if set {
                self.put(flag);
            }
        }
        if let Some((policy, rule)) = outcome.audited {
            self.put(b",\"audited\":true");
            self.text(key!("audit_policy", quoted), policy);
            self.number(key!("audit_rule"), rule.into());
        }
        self.put(b"}\n");
    }

    /// [`Self::names`], as the last line with these names has it.
    fn recent_names(&mut self, outcome: &Outcome<'_>, named: &mut Recent<Vec<u8>>) {
        let Some(names) = &outcome.names else {
            return self.names(outcome);
        };
        if let Some(kept) = named.get(names, 0).filter(|kept| !kept.is_empty()) {
            return self.put(kept);
        }
        let start = self.bytes.len();
        self.names(outcome);
        let kept = named.place(names, 0);
        kept.clear();
        let written = &self.bytes[start..];
        if !self.full && written.len() <= NAMED_BYTES_MAX {
            kept.extend_from_slice(written);
        }
    }

    /// What [`Outcome::names`] stands for.
    fn names(&mut self, outcome: &Outcome<'_>) {
        self.put(b",\"direction\":\"");
        self.put(outcome.direction.as_str().as_bytes());
        self.put(b"\"");
        self.service(key!("source", quoted), &outcome.source);
        self.text(key!("source_version", quoted), outcome.source.version);
        let destination = &outcome.destination;
        self.service(key!("destination", quoted), destination);
        self.text(key!("destination_version", quoted), destination.version);
        self.text(key!("route", quoted), outcome.route);
        self.text(key!("cluster", quoted), outcome.cluster);
        self.text(key!("principal", quoted), outcome.peer_principal);
    }

    /// Always inlined: most pieces are literals, whose copy is then one or two moves.
    #[inline(always)]
    fn put(&mut self, bytes: &[u8]) {
        if self.capacity - self.bytes.len() < bytes.len() {
            self.full = true;
        } else if !self.full {
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// A text field; left out if empty.
    #[inline(always)]
    fn text(&mut self, key: &[u8], value: &str) {
        if value.is_empty() {
            return;
        }
        self.put(key);
        self.escaped(value);
        self.put(b"\"");
    }

    #[inline(always)]
    fn service(&mut self, key: &[u8], party: &Party<'_>) {
        if party.service.is_empty() {
            return;
        }
        self.put(key);
        self.escaped(party.service);
        if !party.namespace.is_empty() {
            self.put(b".");
            self.escaped(party.namespace);
        }
        self.put(b"\"");
    }

    #[inline(always)]
    fn number(&mut self, key: &[u8], value: u64) {
        self.put(key);
        self.digits(value);
    }

    fn address(&mut self, key: &[u8], address: Option<SocketAddr>) {
        let Some(address) = address else {
            return;
        };
        self.put(key);
        match address.ip().to_canonical() {
            IpAddr::V4(v4) => {
                let mut text = [0; 16];
                let mut len = 0;
                for octet in v4.octets() {
                    let (digits, digits_len) = OCTETS[usize::from(octet)];
                    // All four bytes are copied, and the next begins behind those that count.
                    text[len..len + 4].copy_from_slice(&digits);
                    len += usize::from(digits_len);
                }
                self.put(&text[..len - 1]);
            }
            IpAddr::V6(v6) => {
                // All eight groups: shortening is for people, and this is for machines.
                for (at, group) in v6.segments().into_iter().enumerate() {
                    self.put(if at == 0 { b"[" } else { b":" });
                    let hex = |nibble: u16| b"0123456789abcdef"[usize::from(nibble & 15)];
                    let digits = [12, 8, 4, 0].map(|shift| hex(group >> shift));
                    let zeros = digits[..3].iter().take_while(|d| **d == b'0').count();
                    self.put(&digits[zeros..]);
                }
                self.put(b"]");
            }
        }
        self.put(b":");
        self.digits(address.port().into());
        self.put(b"\"");
    }

    fn digits(&mut self, mut value: u64) {
        if value < 10 {
            self.put(&[b'0' + value as u8]);
            return;
        }
        let mut room = [b'0'; 20];
        let mut at = room.len();
        while value > 9 {
            at -= 2;
            [room[at], room[at + 1]] = PAIRS[(value % 100) as usize];
            value /= 100;
        }
        if value > 0 {
            at -= 1;
            room[at] = b'0' + value as u8;
        }
        self.put(&room[at..]);
    }

    /// JSON string contents (RFC 8259 section 7). DEL and U+2028/2029 need no escape in JSON.
    fn escaped(&mut self, value: &str) {
        let value = cut(value);
        // Nearly every value is.
        if is_plain(value.as_bytes()) {
            self.put(value.as_bytes());
            return;
        }
        for byte in value.bytes() {
            match byte {
                b'"' => self.put(b"\\\""),
                b'\\' => self.put(b"\\\\"),
                b'\n' => self.put(b"\\n"),
                b'\r' => self.put(b"\\r"),
                b'\t' => self.put(b"\\t"),
                0..0x20 => {
                    let hex = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
                    self.put(&[b'\\', b'u', b'0', b'0', hex(byte >> 4), hex(byte & 15)]);
                }
                _ => self.put(&[byte]),
            }
        }
    }
}

fn cut(value: &str) -> &str {
    match value.len() {
        0..=FIELD_BYTES_MAX => value,
        _ => &value[..value.floor_char_boundary(FIELD_BYTES_MAX)],
    }
}

/// Whether nothing in it needs an escape.
fn is_plain(value: &[u8]) -> bool {
    let (words, _) = value.as_chunks::<8>();
    let any = words
        .iter()
        .fold(0, |any, word| any | special(u64::from_ne_bytes(*word)));
    (any | special(last_word(value))) & HIGH == 0
}

/// A word with all bytes behind the last whole one: those before may be in it again, and where there
/// are too few some are twice. Made of loads of fixed size, which wait for nothing.
fn last_word(value: &[u8]) -> u64 {
    if let Some(word) = value.last_chunk::<8>() {
        return u64::from_ne_bytes(*word);
    }
    let half = |half: &[u8; 4]| u64::from(u32::from_ne_bytes(*half));
    if let (Some(first), Some(last)) = (value.first_chunk::<4>(), value.last_chunk::<4>()) {
        return half(first) << 32 | half(last);
    }
    match *value {
        [] => u64::from_ne_bytes([b' '; 8]),
        [a] => u64::from_ne_bytes([a; 8]),
        [a, b] => u64::from_ne_bytes([a, b, a, b, a, b, a, b]),
        [a, b, c, ..] => u64::from_ne_bytes([a, b, c, a, a, b, c, a]),
    }
}

const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);

/// Eight bytes at once: a high bit is set if one of them is a control character, `"` or `\`. A
/// borrow out of a byte that is one may set those of the next; only whether any is set counts.
fn special(word: u64) -> u64 {
    const fn each(byte: u8) -> u64 {
        u64::from_ne_bytes([byte; 8])
    }
    let below = |word: u64, bound: u8| word.wrapping_sub(each(bound)) & !word;
    below(word, 0x20) | below(word ^ each(b'"'), 1) | below(word ^ each(b'\\'), 1)
}

/// 00 to 99.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[b'0'; 2]; 100];
    let mut n = 0;
    while n < 100 {
        pairs[n] = [b'0' + (n / 10) as u8, b'0' + (n % 10) as u8];
        n += 1;
    }
    pairs
};

/// 0 to 255, each with a dot behind it, and the length of both.
const OCTETS: [([u8; 4], u8); 256] = {
    let mut octets = [([0; 4], 0); 256];
    let mut n = 0;
    while n < 256 {
        let (hundreds, tens, ones) = (
            b'0' + (n / 100) as u8,
            b'0' + (n / 10 % 10) as u8,
            b'0' + (n % 10) as u8,
        );
        octets[n] = match n {
            0..10 => ([ones, b'.', 0, 0], 2),
            10..100 => ([tens, ones, b'.', 0], 3),
            _ => ([hundreds, tens, ones, b'.'], 4),
        };
        n += 1;
    }
    octets
};

/// The text of the time, most of which stays for a second.
#[derive(Debug, Default)]
struct Clock {
    second: u64,
    text: [u8; TIMESTAMP_BYTES],
}

const TIMESTAMP_BYTES: usize = 27;

impl Clock {
    fn text(&mut self, unix_us: u64) -> &[u8] {
        let (second, us) = (unix_us / 1_000_000, unix_us % 1_000_000);
        if second != self.second || self.text[0] == 0 {
            self.second = second;
            self.text = timestamp(second);
        }
        for (at, value) in [(20, us / 10_000), (22, us / 100 % 100), (24, us % 100)] {
            [self.text[at], self.text[at + 1]] = PAIRS[value as usize];
        }
        &self.text
    }
}

/// RFC 3339, UTC, microseconds (all zero).
fn timestamp(unix_s: u64) -> [u8; TIMESTAMP_BYTES] {
    let (days, second) = (unix_s / 86_400, unix_s % 86_400);
    // Four digits of year: the clock would have to be wrong by 8,000 years for a fifth.
    let (year, month, day) = civil(days);
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    for (at, value) in [
        (0, year / 100 % 100),
        (2, year % 100),
        (5, month),
        (8, day),
        (11, second / 3_600),
        (14, second / 60 % 60),
        (17, second % 60),
    ] {
        [text[at], text[at + 1]] = PAIRS[value as usize];
    }
    text
}

/// Year, month and day of a day counted from 1970-01-01 (Howard Hinnant's `civil_from_days`, for
/// days that are not negative).
fn civil(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}
