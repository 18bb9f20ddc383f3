//! Where encoders write to: the ring's pooled buffers, and plain vectors in tests.

pub use crate::ring::Full;

/// Takes bytes in order.
pub trait Sink {
    /// Takes all of `bytes`.
    ///
    /// # Errors
    /// [`Full`] if they do not fit; then none of them was taken.
    fn put(&mut self, bytes: &[u8]) -> Result<(), Full>;
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Full> {
        self.extend_from_slice(bytes);
        Ok(())
    }
}

impl Sink for crate::ring::Buf {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Full> {
        self.extend_from_slice(bytes)
    }
}

/// A fixed slice.
#[derive(Debug)]
pub struct SliceSink<'a> {
    space: &'a mut [u8],
    len: usize,
}

impl<'a> SliceSink<'a> {
    /// Writes from the start of `space`.
    pub fn new(space: &'a mut [u8]) -> Self {
        Self { space, len: 0 }
    }

    /// What was written.
    #[must_use]
    pub fn written(&self) -> &[u8] {
        &self.space[..self.len]
    }
}

impl Sink for SliceSink<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Full> {
        let rest = self.space.get_mut(self.len..).ok_or(Full)?;
        rest.get_mut(..bytes.len())
            .ok_or(Full)?
            .copy_from_slice(bytes);
        self.len += bytes.len();
        Ok(())
    }
}

/// Decimal digits of a number, without allocation.
pub(super) fn put_number<S: Sink>(sink: &mut S, mut number: u64) -> Result<(), Full> {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        if number == 0 {
            return sink.put(&digits[at..]);
        }
    }
}

/// Hexadecimal digits of a number, without allocation.
pub(super) fn put_hex<S: Sink>(sink: &mut S, mut number: u64) -> Result<(), Full> {
    let mut digits = [0_u8; 16];
    let mut at = digits.len();
    loop {
        at -= 1;
        let digit = u8::try_from(number % 16).unwrap_or(0);
        digits[at] = if digit < 10 {
            b'0' + digit
        } else {
            b'a' + digit - 10
        };
        number /= 16;
        if number == 0 {
            return sink.put(&digits[at..]);
        }
    }
}
