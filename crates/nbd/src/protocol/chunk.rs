//! Bodies of reply chunks (spec, "Structured reply types").

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{
    Violation,
    constants::{HeaderStyle, MAX_ERROR_BODY, MAX_PAYLOAD, MAX_STATUS_BODY},
    cursor::{Cursor, clip},
    errno::Errno,
    reply::kind,
};

/// One stretch of a block status answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusExtent {
    /// Bytes; never zero.
    pub length: u64,
    /// Flags; what they mean depends on the metadata context.
    pub flags: u64,
}

/// The body of a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chunk {
    /// Nothing more to say.
    None,
    /// What is stored from `offset` on.
    Data {
        /// First byte.
        offset: u64,
        /// The bytes; never empty.
        data: Bytes,
    },
    /// Zeroes from `offset` on.
    Hole {
        /// First byte.
        offset: u64,
        /// Bytes; never zero.
        length: u32,
    },
    /// The state of consecutive stretches, from the request's offset on.
    Status {
        /// The metadata context's number.
        context: u32,
        /// The stretches; never empty.
        extents: Vec<StatusExtent>,
    },
    /// The request failed.
    Error {
        /// How.
        error: Errno,
        /// A sentence for people; may be empty.
        message: String,
        /// Where it failed, if the server knows.
        offset: Option<u64>,
    },
}

/// Bytes of the offset before the data in an `OFFSET_DATA` chunk.
pub const DATA_PREFIX: u64 = 8;

impl Chunk {
    /// The most bytes that the body of a chunk of `kind` may have.
    #[must_use]
    pub fn limit(kind: u16) -> u64 {
        match kind {
            kind::NONE => 0,
            kind::OFFSET_DATA => u64::from(MAX_PAYLOAD) + DATA_PREFIX,
            kind::OFFSET_HOLE => 12,
            kind::BLOCK_STATUS | kind::BLOCK_STATUS_EXT => MAX_STATUS_BODY.into(),
            _ => MAX_ERROR_BODY.into(),
        }
    }

    /// Reads the body of a chunk of `kind`. Data is not copied.
    ///
    /// # Errors
    /// The body does not fit its kind, or the kind is unknown and no error:
    /// the specification asks the client to hang up then.
    pub fn decode(kind: u16, mut body: Bytes) -> Result<Self, Violation> {
        match kind {
            kind::NONE => {
                Cursor::new("NONE chunk", &body).finish()?;
                Ok(Self::None)
            }
            kind::OFFSET_DATA => {
                let offset = Cursor::new("OFFSET_DATA chunk", &body).u64()?;
                body.advance(DATA_PREFIX as usize);
                if body.is_empty() {
                    return Err(Violation::Length { what: "OFFSET_DATA chunk" });
                }
                Ok(Self::Data { offset, data: body })
            }
            kind::OFFSET_HOLE => {
                let mut cursor = Cursor::new("OFFSET_HOLE chunk", &body);
                let offset = cursor.u64()?;
                let length = cursor.u32()?;
                cursor.finish()?;
                if length == 0 {
                    return Err(Violation::Value {
                        what: "OFFSET_HOLE chunk",
                        why: "a hole is empty",
                    });
                }
                Ok(Self::Hole { offset, length })
            }
            kind::BLOCK_STATUS => Self::decode_status(HeaderStyle::Structured, &body),
            kind::BLOCK_STATUS_EXT => Self::decode_status(HeaderStyle::Extended, &body),
            kind if kind & kind::ERROR_BIT != 0 => Self::decode_error(kind, &body),
            _ => Err(Violation::Value { what: "reply chunk", why: "its type is unknown" }),
        }
    }

    fn decode_status(style: HeaderStyle, body: &[u8]) -> Result<Self, Violation> {
        let what = "BLOCK_STATUS chunk";
        let mut cursor = Cursor::new(what, body);
        let context = cursor.u32()?;
        let extended = style == HeaderStyle::Extended;
        let width = if extended { 16 } else { 8 };
        if extended && cursor.u32()? as usize != cursor.remaining() / width {
            return Err(Violation::Value { what, why: "its count and its length disagree" });
        }
        let mut extents = Vec::with_capacity(cursor.remaining() / width);
        while !cursor.is_empty() {
            let extent = if extended {
                StatusExtent { length: cursor.u64()?, flags: cursor.u64()? }
            } else {
                StatusExtent { length: cursor.u32()?.into(), flags: cursor.u32()?.into() }
            };
            if extent.length == 0 {
                return Err(Violation::Value { what, why: "an extent is empty" });
            }
            extents.push(extent);
        }
        if extents.is_empty() {
            return Err(Violation::Value { what, why: "it has no extents" });
        }
        Ok(Self::Status { context, extents })
    }

    fn decode_error(kind: u16, body: &[u8]) -> Result<Self, Violation> {
        let what = "error chunk";
        let mut cursor = Cursor::new(what, body);
        let error = Errno::from_wire(cursor.u32()?)
            .ok_or(Violation::Value { what, why: "its error number is zero" })?;
        let length = cursor.u16()?;
        let message = String::from_utf8_lossy(cursor.take(length.into())?);
        let message = clip(&message).to_owned();
        // An unknown error type may carry fields of its own; it counts as an
        // error all the same.
        let offset = match kind {
            kind::ERROR_OFFSET => Some(cursor.u64()?),
            _ => None,
        };
        Ok(Self::Error { error, message, offset })
    }

    /// The body's kind on the wire.
    #[must_use]
    pub fn kind(&self, style: HeaderStyle) -> u16 {
        match self {
            Self::None => kind::NONE,
            Self::Data { .. } => kind::OFFSET_DATA,
            Self::Hole { .. } => kind::OFFSET_HOLE,
            Self::Status { .. } if style == HeaderStyle::Extended => kind::BLOCK_STATUS_EXT,
            Self::Status { .. } => kind::BLOCK_STATUS,
            Self::Error { offset: None, .. } => kind::ERROR,
            Self::Error { .. } => kind::ERROR_OFFSET,
        }
    }

    /// Appends the body. Without extended headers, lengths and flags of
    /// status extents must fit 32 bits; what does not is cut.
    pub fn encode(&self, style: HeaderStyle, out: &mut BytesMut) {
        match self {
            Self::None => {}
            Self::Data { offset, data } => {
                out.put_u64(*offset);
                out.put_slice(data);
            }
            Self::Hole { offset, length } => {
                out.put_u64(*offset);
                out.put_u32(*length);
            }
            Self::Status { context, extents } => {
                out.put_u32(*context);
                if style == HeaderStyle::Extended {
                    out.put_u32(extents.len() as u32);
                }
                for extent in extents {
                    if style == HeaderStyle::Extended {
                        out.put_u64(extent.length);
                        out.put_u64(extent.flags);
                    } else {
                        out.put_u32(u32::try_from(extent.length).unwrap_or(u32::MAX));
                        out.put_u32(extent.flags as u32);
                    }
                }
            }
            Self::Error { error, message, offset } => {
                let message = clip(message);
                out.put_u32(error.to_wire());
                out.put_u16(message.len() as u16);
                out.put_slice(message.as_bytes());
                if let Some(offset) = offset {
                    out.put_u64(*offset);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(chunk: &Chunk, style: HeaderStyle) -> Bytes {
        let mut out = BytesMut::new();
        chunk.encode(style, &mut out);
        out.freeze()
    }

    fn status() -> Chunk {
        Chunk::Status {
            context: 1,
            extents: vec![
                StatusExtent { length: 0x1000, flags: 0 },
                StatusExtent { length: 0x2000, flags: 3 },
            ],
        }
    }

    #[test]
    fn status_looks_on_the_wire_as_the_specification_draws_it() {
        assert_eq!(
            wire(&status(), HeaderStyle::Structured).as_ref(),
            b"\x00\x00\x00\x01\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00\x20\x00\x00\x00\x00\x03"
        );
        assert_eq!(
            wire(&status(), HeaderStyle::Extended).as_ref(),
            b"\x00\x00\x00\x01\x00\x00\x00\x02\
              \x00\x00\x00\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00\x00\x00\
              \x00\x00\x00\x00\x00\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x03"
        );
    }

    #[test]
    fn hole_and_error_look_on_the_wire_as_the_specification_draws_them() {
        let hole = Chunk::Hole { offset: 0x1000, length: 0x200 };
        assert_eq!(
            wire(&hole, HeaderStyle::Structured).as_ref(),
            b"\x00\x00\x00\x00\x00\x00\x10\x00\x00\x00\x02\x00"
        );
        let error = Chunk::Error { error: Errno::Io, message: "bad".into(), offset: Some(0x1000) };
        assert_eq!(
            wire(&error, HeaderStyle::Structured).as_ref(),
            b"\x00\x00\x00\x05\x00\x03bad\x00\x00\x00\x00\x00\x00\x10\x00"
        );
    }

    #[test]
    fn bodies_come_back_as_they_were() {
        for style in [HeaderStyle::Structured, HeaderStyle::Extended] {
            for chunk in [
                Chunk::None,
                Chunk::Data { offset: 5, data: Bytes::from_static(b"abc") },
                Chunk::Hole { offset: 5, length: 7 },
                status(),
                Chunk::Error { error: Errno::Other(4711), message: "kaputt".into(), offset: None },
                Chunk::Error { error: Errno::Io, message: String::new(), offset: Some(9) },
            ] {
                let body = wire(&chunk, style);
                assert_eq!(Chunk::decode(chunk.kind(style), body), Ok(chunk));
            }
        }
    }

    #[test]
    fn empty_and_contradictory_bodies_are_violations() {
        for (kind, body) in [
            (kind::NONE, b"x".as_slice()),
            (kind::OFFSET_DATA, &[0; 8]),
            (kind::OFFSET_HOLE, &[0; 12]),
            (kind::BLOCK_STATUS, &[0, 0, 0, 1]),
            (kind::BLOCK_STATUS, &[0; 12]),
            (kind::BLOCK_STATUS_EXT, &[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]),
            (kind::ERROR, &[0; 6]),
            (kind::ERROR, &[0, 0, 0, 5, 0xff, 0xff]),
            (4711, b""),
        ] {
            assert!(Chunk::decode(kind, Bytes::copy_from_slice(body)).is_err(), "kind {kind:#x}");
        }
    }
}
