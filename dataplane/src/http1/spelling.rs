//! Heads that did not come as text: their fields are written and indexed in one pass, so that nobody looks
//! again for what has just been put.

use super::fault::HeadFault;
use super::fields::{Fields, Span, trim_ows};
use super::limits::{FIELDS_MAX, HEAD_BYTES_MAX};

/// Takes the fields of a head, in order.
#[derive(Debug)]
pub struct Spelling<'s> {
    out: &'s mut Vec<u8>,
    fields: &'s mut Fields,
    /// The first that was found.
    fault: Option<HeadFault>,
}

impl<'s> Spelling<'s> {
    /// Behind a first line: all fields, and the empty line.
    pub(super) fn all(
        out: &'s mut Vec<u8>,
        fields: &'s mut Fields,
        tell: impl FnOnce(&mut Self),
    ) -> Result<(), HeadFault> {
        fields.begin();
        let mut spelling = Self {
            out,
            fields,
            fault: None,
        };
        tell(&mut spelling);
        spelling.out.extend_from_slice(b"\r\n");
        if spelling.out.len() > HEAD_BYTES_MAX {
            return Err(HeadFault::TooLarge);
        }
        spelling.fault.map_or(Ok(()), Err)
    }

    /// One field.
    pub fn field(&mut self, name: &[u8], value: &[u8]) {
        self.joined(name, std::iter::once(value), b"");
    }

    /// One field of several values with `between` them.
    pub fn joined<'v>(
        &mut self,
        name: &[u8],
        values: impl Iterator<Item = &'v [u8]>,
        between: &[u8],
    ) {
        if self.fields.list().len() >= FIELDS_MAX {
            self.fault = Some(HeadFault::TooManyFields);
        }
        if self.fault.is_some() || self.out.len() > HEAD_BYTES_MAX {
            return;
        }
        let begin = self.out.len();
        self.out.extend_from_slice(name);
        self.out.extend_from_slice(b": ");
        let value_begin = self.out.len();
        for (at, value) in values.enumerate() {
            if at > 0 {
                self.out.extend_from_slice(between);
            }
            self.out.extend_from_slice(value);
        }
        let value = Span::from_range(value_begin..self.out.len());
        self.index(Span::from_range(begin..begin + name.len()), name, value);
        self.out.extend_from_slice(b"\r\n");
    }

    /// Indexes the field that was written last.
    #[inline]
    fn index(&mut self, name_span: Span, name: &[u8], written: Span) {
        let bytes = written.bytes(self.out);
        // Outer space is no part of a value; hardly any has some.
        let has_space = |byte: Option<&u8>| byte.is_some_and(|byte| *byte <= b' ');
        let (value, tidy) = match has_space(bytes.first()) || has_space(bytes.last()) {
            false => (written, true),
            true => {
                let value = Span::of(self.out, trim_ows(bytes));
                (value, value == written)
            }
        };
        let value_bytes = value.bytes(self.out);
        let added = self.fields.add(name_span, name, value, value_bytes, tidy);
        self.fault = added.err();
    }
}
