//! How long a body is: Content-Length and Transfer-Encoding, strictly (RFC 9112 section 6).

use super::fault::HeadFault;
use super::fields::trim_ows;

/// How long a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Framing {
    /// There is none.
    #[default]
    None,
    /// This many bytes.
    Length(u64),
    /// Chunked coding; its end is in the data.
    Chunked,
    /// Until the peer closes (answers only).
    UntilClose,
}

impl Framing {
    /// Whether not a single body byte can follow.
    #[must_use]
    pub fn is_empty(self) -> bool {
        matches!(self, Self::None | Self::Length(0))
    }
}

/// What the framing fields of one head say, line by line.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Says {
    /// The agreed Content-Length.
    pub(super) length: Option<u64>,
    /// It stood once, as one plain number: can be forwarded as written.
    pub(super) length_plain: bool,
    /// Transfer-Encoding is there.
    pub(super) coded: bool,
    chunked: bool,
    unknown: bool,
    misplaced: bool,
}

impl Says {
    /// Takes one Content-Length line. Equal values may be folded (RFC 9110 section 8.6).
    pub(super) fn length_line(&mut self, value: &[u8]) -> Result<(), HeadFault> {
        self.length_plain = self.length.is_none();
        for (at, part) in value.split(|b| *b == b',').enumerate() {
            if at > 0 {
                self.length_plain = false;
            }
            let number = decimal(trim_ows(part)).ok_or(HeadFault::Length)?;
            if self.length.is_some_and(|before| before != number) {
                return Err(HeadFault::LengthsDiffer);
            }
            self.length = Some(number);
        }
        Ok(())
    }

    /// Takes one Transfer-Encoding line; several lines are one list.
    pub(super) fn coding_line(&mut self, value: &[u8]) {
        self.coded = true;
        for coding in value.split(|b| *b == b',') {
            let coding = trim_ows(coding);
            if self.chunked {
                // Something after chunked, even another chunked.
                self.misplaced = true;
            }
            if coding.eq_ignore_ascii_case(b"chunked") {
                self.chunked = true;
            } else if coding.is_empty() || coding.eq_ignore_ascii_case(b"identity") {
                self.misplaced = true;
            } else {
                self.unknown = true;
            }
        }
    }

    /// The checks that need all lines and the version.
    pub(super) fn check(&self, http10: bool) -> Result<(), HeadFault> {
        if !self.coded {
            return Ok(());
        }
        if http10 {
            return Err(HeadFault::CodingInHttp10);
        }
        if self.length.is_some() {
            return Err(HeadFault::LengthAndCoding);
        }
        if self.misplaced {
            return Err(HeadFault::CodingNotChunked);
        }
        if self.unknown {
            return Err(HeadFault::CodingUnknown);
        }
        Ok(())
    }

    /// The body of a message for which absent means `otherwise`. Only after [`Self::check`].
    pub(super) fn framing(&self, otherwise: Framing) -> Framing {
        match (self.coded, self.length) {
            (true, _) => Framing::Chunked,
            (false, Some(length)) => Framing::Length(length),
            (false, None) => otherwise,
        }
    }
}

/// `1*DIGIT` that fits 64 bits: no sign, no space, no hexadecimal.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}
