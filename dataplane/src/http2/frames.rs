//! Frames as their bytes pass, whole or in pieces (RFC 9113 section 4.1): what the h2 crate does not tell. Pure.

const HEAD_BYTES: u32 = 9;

/// Where one direction of a connection stands.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// Bytes that pass unlooked at: of the preface, or of a payload.
    skip: u32,
    /// Of the head that is passing.
    head: [u8; HEAD_BYTES as usize],
    head_len: usize,
    whole: u64,
}

impl Frames {
    /// A direction that begins with `preface` bytes that are no frame.
    pub(super) fn behind(preface: u32) -> Self {
        Self {
            skip: preface,
            ..Self::default()
        }
    }

    /// Frames that have begun and been told what they are.
    pub(super) fn begun(&self) -> u64 {
        self.whole
    }

    /// Looks at the next bytes.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        loop {
            let skipped = bytes.len().min(self.skip as usize);
            self.skip -= skipped as u32;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return;
            }
            let taken = bytes.len().min(self.head.len() - self.head_len);
            self.head[self.head_len..][..taken].copy_from_slice(&bytes[..taken]);
            self.head_len += taken;
            bytes = &bytes[taken..];
            if self.head_len == self.head.len() {
                self.head_len = 0;
                self.skip = u32::from_be_bytes([0, self.head[0], self.head[1], self.head[2]]);
                self.whole += 1;
            }
        }
    }
}
