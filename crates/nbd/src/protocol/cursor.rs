//! Reading big-endian fields from a slice without ever reading past its end.

use super::{Violation, constants::MAX_STRING};

/// A position in one message's body.
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Cursor<'a> {
    /// `what` names the message in errors.
    pub(crate) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { rest: bytes, what }
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Violation> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Violation> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Violation> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], Violation> {
        let (head, tail) =
            self.rest.split_at_checked(length).ok_or(Violation::Length { what: self.what })?;
        self.rest = tail;
        Ok(head)
    }

    /// A string of `length` bytes under the rules of the spec's
    /// "Conventions": UTF-8, no NUL, at most 4096 bytes.
    pub(crate) fn string(&mut self, length: usize) -> Result<&'a str, Violation> {
        text(self.what, self.take(length)?)
    }

    /// All that is left, as a string.
    pub(crate) fn rest_as_string(&mut self) -> Result<&'a str, Violation> {
        self.string(self.rest.len())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The message must end here.
    pub(crate) fn finish(self) -> Result<(), Violation> {
        if self.rest.is_empty() { Ok(()) } else { Err(Violation::Length { what: self.what }) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Violation> {
        let (head, tail) =
            self.rest.split_first_chunk::<N>().ok_or(Violation::Length { what: self.what })?;
        self.rest = tail;
        Ok(*head)
    }
}

fn text<'a>(what: &'static str, bytes: &'a [u8]) -> Result<&'a str, Violation> {
    if bytes.len() > MAX_STRING {
        return Err(Violation::TooLong {
            what,
            length: bytes.len() as u64,
            limit: MAX_STRING as u64,
        });
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|_| Violation::Value { what, why: "a string is not UTF-8" })?;
    if text.contains('\0') {
        return Err(Violation::Value { what, why: "a string contains NUL" });
    }
    Ok(text)
}

/// `text` cut to what a string may have on the wire, at a character's end.
pub(crate) fn clip(text: &str) -> &str {
    let mut end = text.len().min(MAX_STRING);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}
