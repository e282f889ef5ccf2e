//! A command of the transmission phase (spec, "Request message").

use std::fmt;

use bytes::{BufMut, BytesMut};

use super::{
    Violation,
    constants::{CommandFlags, HeaderStyle, MAGIC_EXTENDED_REQUEST, MAGIC_REQUEST, MAX_PAYLOAD},
    cursor::Cursor,
};

/// Command types (spec, "Request types").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Command {
    /// `NBD_CMD_READ`.
    Read,
    /// `NBD_CMD_WRITE`.
    Write,
    /// `NBD_CMD_DISC`: no more requests; has no reply.
    Disconnect,
    /// `NBD_CMD_FLUSH`.
    Flush,
    /// `NBD_CMD_TRIM`.
    Trim,
    /// `NBD_CMD_CACHE`.
    Cache,
    /// `NBD_CMD_WRITE_ZEROES`.
    WriteZeroes,
    /// `NBD_CMD_BLOCK_STATUS`.
    BlockStatus,
    /// A number that we do not know.
    Unknown(u16),
}

impl Command {
    fn to_wire(self) -> u16 {
        match self {
            Self::Read => 0,
            Self::Write => 1,
            Self::Disconnect => 2,
            Self::Flush => 3,
            Self::Trim => 4,
            Self::Cache => 5,
            Self::WriteZeroes => 6,
            Self::BlockStatus => 7,
            Self::Unknown(number) => number,
        }
    }

    fn from_wire(number: u16) -> Self {
        match number {
            0 => Self::Read,
            1 => Self::Write,
            2 => Self::Disconnect,
            3 => Self::Flush,
            4 => Self::Trim,
            5 => Self::Cache,
            6 => Self::WriteZeroes,
            7 => Self::BlockStatus,
            other => Self::Unknown(other),
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Disconnect => "disconnect",
            Self::Flush => "flush",
            Self::Trim => "trim",
            Self::Cache => "cache",
            Self::WriteZeroes => "write zeroes",
            Self::BlockStatus => "block status",
            Self::Unknown(number) => return write!(f, "command {number}"),
        })
    }
}

/// The head of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// What to do.
    pub command: Command,
    /// How to do it.
    pub flags: CommandFlags,
    /// Comes back in the reply. The specification also calls it "handle".
    pub cookie: u64,
    /// First byte concerned.
    pub offset: u64,
    /// Bytes concerned, or the payload's length (see [`Request::payload`]).
    /// At most `u32::MAX` unless headers are extended.
    pub length: u64,
}

impl Request {
    /// Bytes of the head on the wire.
    #[must_use]
    pub const fn size(style: HeaderStyle) -> usize {
        match style {
            HeaderStyle::Simple | HeaderStyle::Structured => 28,
            HeaderStyle::Extended => 32,
        }
    }

    /// Reads a head; `None` when more bytes are needed.
    ///
    /// # Errors
    /// A wrong magic number, or a payload above [`MAX_PAYLOAD`], which could
    /// only be skipped at the peer's pleasure.
    pub fn decode(style: HeaderStyle, bytes: &[u8]) -> Result<Option<Self>, Violation> {
        let Some((bytes, _)) = bytes.split_at_checked(Self::size(style)) else {
            return Ok(None);
        };
        let extended = style == HeaderStyle::Extended;
        let mut cursor = Cursor::new("request", bytes);
        let magic = cursor.u32()?;
        let wanted = if extended { MAGIC_EXTENDED_REQUEST } else { MAGIC_REQUEST };
        if magic != wanted {
            return Err(Violation::Magic { what: "request", found: magic.into() });
        }
        let request = Self {
            flags: CommandFlags::from_bits_retain(cursor.u16()?),
            command: Command::from_wire(cursor.u16()?),
            cookie: cursor.u64()?,
            offset: cursor.u64()?,
            length: if extended { cursor.u64()? } else { cursor.u32()?.into() },
        };
        if request.payload_claimed(style) > MAX_PAYLOAD.into() {
            return Err(Violation::TooLong {
                what: "request payload",
                length: request.length,
                limit: MAX_PAYLOAD.into(),
            });
        }
        Ok(Some(request))
    }

    /// Bytes of payload that follow the head; at most [`MAX_PAYLOAD`].
    #[must_use]
    pub fn payload(&self, style: HeaderStyle) -> u32 {
        self.payload_claimed(style).min(MAX_PAYLOAD.into()) as u32
    }

    fn payload_claimed(&self, style: HeaderStyle) -> u64 {
        let carries = match self.command {
            // A peer with extended headers must set PAYLOAD_LEN on WRITE; one
            // that forgets still sends the data.
            Command::Write => true,
            _ => style == HeaderStyle::Extended && self.flags.contains(CommandFlags::PAYLOAD_LEN),
        };
        if carries { self.length } else { 0 }
    }

    /// Appends the head. Extended headers set `PAYLOAD_LEN` on WRITE by
    /// themselves; otherwise a length above `u32::MAX` is cut to it.
    pub fn encode(&self, style: HeaderStyle, out: &mut BytesMut) {
        let extended = style == HeaderStyle::Extended;
        let mut flags = self.flags;
        if extended && self.command == Command::Write {
            flags |= CommandFlags::PAYLOAD_LEN;
        }
        out.put_u32(if extended { MAGIC_EXTENDED_REQUEST } else { MAGIC_REQUEST });
        out.put_u16(flags.bits());
        out.put_u16(self.command.to_wire());
        out.put_u64(self.cookie);
        out.put_u64(self.offset);
        if extended {
            out.put_u64(self.length);
        } else {
            out.put_u32(u32::try_from(self.length).unwrap_or(u32::MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(request: &Request, style: HeaderStyle) -> Vec<u8> {
        let mut out = BytesMut::new();
        request.encode(style, &mut out);
        out.to_vec()
    }

    const WRITE: Request = Request {
        command: Command::Write,
        flags: CommandFlags::FUA,
        cookie: 0x0102_0304_0506_0708,
        offset: 0x1000,
        length: 0x200,
    };

    #[test]
    fn compact_write_looks_on_the_wire_as_the_specification_draws_it() {
        assert_eq!(
            wire(&WRITE, HeaderStyle::Structured),
            b"\x25\x60\x95\x13\x00\x01\x00\x01\x01\x02\x03\x04\x05\x06\x07\x08\
              \x00\x00\x00\x00\x00\x00\x10\x00\x00\x00\x02\x00"
        );
    }

    #[test]
    fn extended_write_says_that_its_length_is_a_payload() {
        assert_eq!(
            wire(&WRITE, HeaderStyle::Extended),
            b"\x21\xe4\x1c\x71\x00\x21\x00\x01\x01\x02\x03\x04\x05\x06\x07\x08\
              \x00\x00\x00\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00\x02\x00"
        );
    }

    #[test]
    fn a_monstrous_payload_is_refused_from_its_head() {
        let request = Request { length: u64::from(MAX_PAYLOAD) + 1, ..WRITE };
        for style in [HeaderStyle::Simple, HeaderStyle::Extended] {
            assert!(matches!(
                Request::decode(style, &wire(&request, style)),
                Err(Violation::TooLong { .. })
            ));
        }
    }

    #[test]
    fn only_a_write_carries_a_payload_unless_it_says_so() {
        let read = Request { command: Command::Read, ..WRITE };
        assert_eq!(WRITE.payload(HeaderStyle::Simple), 0x200);
        assert_eq!(read.payload(HeaderStyle::Extended), 0);
        let odd = Request { flags: CommandFlags::PAYLOAD_LEN, ..read };
        assert_eq!(odd.payload(HeaderStyle::Extended), 0x200);
        assert_eq!(odd.payload(HeaderStyle::Structured), 0);
    }
}
