//! Heads of replies (spec, "Simple reply message", "Structured reply chunk
//! message", and "Extended reply chunk message").

use bytes::{BufMut, BytesMut};

use super::{
    Violation,
    constants::{
        ChunkFlags, HeaderStyle, MAGIC_EXTENDED_REPLY, MAGIC_SIMPLE_REPLY, MAGIC_STRUCTURED_REPLY,
    },
    cursor::Cursor,
    errno::Errno,
};

/// Chunk type numbers (spec, "Structured reply types").
pub mod kind {
    /// `NBD_REPLY_TYPE_NONE`.
    pub const NONE: u16 = 0;
    /// `NBD_REPLY_TYPE_OFFSET_DATA`.
    pub const OFFSET_DATA: u16 = 1;
    /// `NBD_REPLY_TYPE_OFFSET_HOLE`.
    pub const OFFSET_HOLE: u16 = 2;
    /// `NBD_REPLY_TYPE_BLOCK_STATUS`.
    pub const BLOCK_STATUS: u16 = 5;
    /// `NBD_REPLY_TYPE_BLOCK_STATUS_EXT`.
    pub const BLOCK_STATUS_EXT: u16 = 6;
    /// Set in all error types.
    pub const ERROR_BIT: u16 = 1 << 15;
    /// `NBD_REPLY_TYPE_ERROR`.
    pub const ERROR: u16 = ERROR_BIT | 1;
    /// `NBD_REPLY_TYPE_ERROR_OFFSET`.
    pub const ERROR_OFFSET: u16 = ERROR_BIT | 2;
}

/// A simple reply. For a successful READ the data follows; how much, only
/// the request knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SimpleReply {
    /// The request's cookie.
    pub cookie: u64,
    /// What went wrong; `None` for success.
    pub error: Option<Errno>,
}

/// The head of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkHeader {
    /// Whether more chunks follow.
    pub flags: ChunkFlags,
    /// One of [`kind`], or one that we do not know.
    pub kind: u16,
    /// The request's cookie.
    pub cookie: u64,
    /// The request's offset; on the wire with extended headers only, and
    /// zero otherwise.
    pub offset: u64,
    /// Bytes of body that follow. Check it before allocating.
    pub length: u64,
}

/// The head of any reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyHeader {
    /// A simple reply.
    Simple(SimpleReply),
    /// One chunk of a reply.
    Chunk(ChunkHeader),
}

impl SimpleReply {
    /// Bytes on the wire.
    pub const SIZE: usize = 16;

    /// Appends the reply.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u32(MAGIC_SIMPLE_REPLY);
        out.put_u32(self.error.map_or(0, Errno::to_wire));
        out.put_u64(self.cookie);
    }
}

impl ChunkHeader {
    /// Bytes on the wire.
    #[must_use]
    pub const fn size(style: HeaderStyle) -> usize {
        match style {
            HeaderStyle::Simple | HeaderStyle::Structured => 20,
            HeaderStyle::Extended => 32,
        }
    }

    /// Whether this is the reply's last chunk.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.flags.contains(ChunkFlags::DONE)
    }

    /// Appends the head. Without extended headers the offset is left out and
    /// a length above `u32::MAX` is cut to it.
    pub fn encode(&self, style: HeaderStyle, out: &mut BytesMut) {
        let extended = style == HeaderStyle::Extended;
        out.put_u32(if extended { MAGIC_EXTENDED_REPLY } else { MAGIC_STRUCTURED_REPLY });
        out.put_u16(self.flags.bits());
        out.put_u16(self.kind);
        out.put_u64(self.cookie);
        if extended {
            out.put_u64(self.offset);
            out.put_u64(self.length);
        } else {
            out.put_u32(u32::try_from(self.length).unwrap_or(u32::MAX));
        }
    }
}

impl ReplyHeader {
    /// Reads a head and says how many bytes it took; `None` when more bytes
    /// are needed.
    ///
    /// # Errors
    /// A magic number that the negotiated style does not allow.
    pub fn decode(style: HeaderStyle, bytes: &[u8]) -> Result<Option<(Self, usize)>, Violation> {
        let Some(magic) = bytes.first_chunk().map(|magic| u32::from_be_bytes(*magic)) else {
            return Ok(None);
        };
        match (magic, style) {
            // Structured replies leave simple ones legal for requests other
            // than READ and BLOCK_STATUS; who asked must check that.
            (MAGIC_SIMPLE_REPLY, HeaderStyle::Simple | HeaderStyle::Structured) => {
                let Some((bytes, _)) = bytes.split_at_checked(SimpleReply::SIZE) else {
                    return Ok(None);
                };
                let mut cursor = Cursor::new("simple reply", bytes);
                cursor.u32()?;
                let error = Errno::from_wire(cursor.u32()?);
                let cookie = cursor.u64()?;
                let reply = Self::Simple(SimpleReply { cookie, error });
                Ok(Some((reply, SimpleReply::SIZE)))
            }
            (MAGIC_STRUCTURED_REPLY, HeaderStyle::Structured)
            | (MAGIC_EXTENDED_REPLY, HeaderStyle::Extended) => {
                let size = ChunkHeader::size(style);
                let Some((bytes, _)) = bytes.split_at_checked(size) else {
                    return Ok(None);
                };
                let mut cursor = Cursor::new("reply chunk", bytes);
                cursor.u32()?;
                let flags = ChunkFlags::from_bits_retain(cursor.u16()?);
                let kind = cursor.u16()?;
                let cookie = cursor.u64()?;
                let (offset, length) = if style == HeaderStyle::Extended {
                    (cursor.u64()?, cursor.u64()?)
                } else {
                    (0, cursor.u32()?.into())
                };
                let header = ChunkHeader { flags, kind, cookie, offset, length };
                Ok(Some((Self::Chunk(header), size)))
            }
            _ => Err(Violation::Magic { what: "reply", found: magic.into() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simple_reply_looks_on_the_wire_as_the_specification_draws_it() {
        let mut out = BytesMut::new();
        let reply = SimpleReply { cookie: 7, error: Some(Errno::NoSpace) };
        reply.encode(&mut out);
        assert_eq!(
            out.as_ref(),
            b"\x67\x44\x66\x98\x00\x00\x00\x1c\x00\x00\x00\x00\x00\x00\x00\x07"
        );
        assert_eq!(
            ReplyHeader::decode(HeaderStyle::Structured, &out),
            Ok(Some((ReplyHeader::Simple(reply), 16)))
        );
        assert!(
            ReplyHeader::decode(HeaderStyle::Extended, &out).is_err(),
            "extended headers forbid simple replies"
        );
    }

    #[test]
    fn chunk_heads_look_on_the_wire_as_the_specification_draws_them() {
        let header = ChunkHeader {
            flags: ChunkFlags::DONE,
            kind: kind::OFFSET_DATA,
            cookie: 7,
            offset: 0x2000,
            length: 0x1008,
        };
        let mut out = BytesMut::new();
        header.encode(HeaderStyle::Structured, &mut out);
        assert_eq!(
            out.as_ref(),
            b"\x66\x8e\x33\xef\x00\x01\x00\x01\x00\x00\x00\x00\x00\x00\x00\x07\x00\x00\x10\x08"
        );
        out.clear();
        header.encode(HeaderStyle::Extended, &mut out);
        assert_eq!(
            out.as_ref(),
            b"\x6e\x8a\x27\x8c\x00\x01\x00\x01\x00\x00\x00\x00\x00\x00\x00\x07\
              \x00\x00\x00\x00\x00\x00\x20\x00\x00\x00\x00\x00\x00\x00\x10\x08"
        );
        assert_eq!(
            ReplyHeader::decode(HeaderStyle::Extended, &out),
            Ok(Some((ReplyHeader::Chunk(header), 32)))
        );
    }

    #[test]
    fn chunks_need_negotiation() {
        assert!(ReplyHeader::decode(HeaderStyle::Simple, &[0x66, 0x8e, 0x33, 0xef]).is_err());
        assert_eq!(
            ReplyHeader::decode(HeaderStyle::Simple, &[0x67, 0x44]),
            Ok(None),
            "half a magic number is no violation yet"
        );
    }
}
