//! What a server answers to an option (spec, "Option reply types").

use bytes::{BufMut, BytesMut};

use super::{
    Violation,
    constants::{MAGIC_OPTION_REPLY, MAX_OPTION_DATA, TransmissionFlags},
    cursor::{Cursor, clip},
    facts::BlockSizes,
    option::info,
};

const REP_ACK: u32 = 1;
const REP_SERVER: u32 = 2;
const REP_INFO: u32 = 3;
const REP_META_CONTEXT: u32 = 4;
const REP_ERROR_BIT: u32 = 1 << 31;

/// The head of a reply to an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionReplyHeader {
    /// The option that is answered.
    pub option: u32,
    /// The kind of answer on the wire.
    pub kind: u32,
    /// Bytes of data that follow; at most [`MAX_OPTION_DATA`].
    pub length: u32,
}

impl OptionReplyHeader {
    /// Bytes on the wire.
    pub const SIZE: usize = 20;

    /// Reads the head; `None` when more bytes are needed.
    ///
    /// # Errors
    /// A wrong magic number, or more data than [`MAX_OPTION_DATA`].
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, Violation> {
        let Some((bytes, _)) = bytes.split_at_checked(Self::SIZE) else {
            return Ok(None);
        };
        let mut cursor = Cursor::new("option reply", bytes);
        let magic = cursor.u64()?;
        if magic != MAGIC_OPTION_REPLY {
            return Err(Violation::Magic { what: "option reply", found: magic });
        }
        let option = cursor.u32()?;
        let kind = cursor.u32()?;
        let length = cursor.u32()?;
        if length > MAX_OPTION_DATA {
            return Err(Violation::TooLong {
                what: "option reply data",
                length: length.into(),
                limit: MAX_OPTION_DATA.into(),
            });
        }
        Ok(Some(Self { option, kind, length }))
    }
}

/// Why a server refuses an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptionError {
    /// `NBD_REP_ERR_UNSUP`: not known here.
    Unsupported,
    /// `NBD_REP_ERR_POLICY`: known, and forbidden here.
    Policy,
    /// `NBD_REP_ERR_INVALID`: malformed, or not now.
    Invalid,
    /// `NBD_REP_ERR_PLATFORM`: not possible on this machine.
    Platform,
    /// `NBD_REP_ERR_TLS_REQD`: encrypt first.
    TlsRequired,
    /// `NBD_REP_ERR_UNKNOWN`: no such export.
    UnknownExport,
    /// `NBD_REP_ERR_SHUTDOWN`: about to stop.
    Shutdown,
    /// `NBD_REP_ERR_BLOCK_SIZE_REQD`: ask for the block sizes first.
    BlockSizeRequired,
    /// `NBD_REP_ERR_TOO_BIG`: too much data.
    TooBig,
    /// `NBD_REP_ERR_EXT_HEADER_REQD`: only with extended headers.
    ExtendedHeadersRequired,
    /// Any other error number, the error bit cleared.
    Other(u32),
}

impl OptionError {
    fn to_wire(self) -> u32 {
        let low = match self {
            Self::Unsupported => 1,
            Self::Policy => 2,
            Self::Invalid => 3,
            Self::Platform => 4,
            Self::TlsRequired => 5,
            Self::UnknownExport => 6,
            Self::Shutdown => 7,
            Self::BlockSizeRequired => 8,
            Self::TooBig => 9,
            Self::ExtendedHeadersRequired => 10,
            Self::Other(low) => low,
        };
        low | REP_ERROR_BIT
    }

    fn from_wire(kind: u32) -> Self {
        match kind & !REP_ERROR_BIT {
            1 => Self::Unsupported,
            2 => Self::Policy,
            3 => Self::Invalid,
            4 => Self::Platform,
            5 => Self::TlsRequired,
            6 => Self::UnknownExport,
            7 => Self::Shutdown,
            8 => Self::BlockSizeRequired,
            9 => Self::TooBig,
            10 => Self::ExtendedHeadersRequired,
            low => Self::Other(low),
        }
    }
}

/// One piece of information about an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Info {
    /// Size in bytes, and what it can do.
    Export {
        /// Size in bytes.
        size: u64,
        /// Abilities.
        flags: TransmissionFlags,
    },
    /// The canonical name.
    Name(String),
    /// A sentence for people.
    Description(String),
    /// What requests should keep to.
    BlockSize(BlockSizes),
    /// A kind that we do not know, to be ignored.
    Unknown(u16),
}

/// What a server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OptionReply {
    /// Done; also the end of a list.
    Ack,
    /// One export of a list.
    Server {
        /// Its name.
        name: String,
        /// A sentence for people; may be empty.
        details: String,
    },
    /// Something about an export.
    Info(Info),
    /// One metadata context.
    MetaContext {
        /// Its number in block status replies; zero in a mere list.
        id: u32,
        /// Its name.
        name: String,
    },
    /// Refused.
    Refused {
        /// The reason.
        error: OptionError,
        /// A sentence for people; may be empty.
        message: String,
    },
    /// A kind that we do not know, the error bit clear.
    Unknown(u32),
}

impl OptionReply {
    /// Reads the data of a reply of `kind`.
    ///
    /// # Errors
    /// The data does not fit the kind.
    pub fn decode(kind: u32, data: &[u8]) -> Result<Self, Violation> {
        let mut cursor = Cursor::new("option reply", data);
        let reply = match kind {
            REP_ACK => Self::Ack,
            REP_SERVER => {
                let length = cursor.u32()?;
                Self::Server {
                    name: cursor.string(length as usize)?.to_owned(),
                    details: cursor.rest_as_string()?.to_owned(),
                }
            }
            REP_INFO => return Info::decode(cursor).map(Self::Info),
            REP_META_CONTEXT => {
                Self::MetaContext { id: cursor.u32()?, name: cursor.rest_as_string()?.to_owned() }
            }
            kind if kind & REP_ERROR_BIT != 0 => {
                // A server's prose is not worth the connection, so it is
                // taken as well as it can be.
                let message = String::from_utf8_lossy(data);
                return Ok(Self::Refused {
                    error: OptionError::from_wire(kind),
                    message: clip(&message).to_owned(),
                });
            }
            kind => return Ok(Self::Unknown(kind)),
        };
        cursor.finish()?;
        Ok(reply)
    }

    /// Appends head and data as the answer to `option`.
    pub fn encode(&self, option: u32, out: &mut BytesMut) {
        let mut data = BytesMut::new();
        let kind = match self {
            Self::Ack => REP_ACK,
            Self::Server { name, details } => {
                data.put_u32(name.len() as u32);
                data.put_slice(name.as_bytes());
                data.put_slice(clip(details).as_bytes());
                REP_SERVER
            }
            Self::Info(info) => {
                info.encode(&mut data);
                REP_INFO
            }
            Self::MetaContext { id, name } => {
                data.put_u32(*id);
                data.put_slice(name.as_bytes());
                REP_META_CONTEXT
            }
            Self::Refused { error, message } => {
                data.put_slice(clip(message).as_bytes());
                error.to_wire()
            }
            Self::Unknown(kind) => *kind,
        };
        out.put_u64(MAGIC_OPTION_REPLY);
        out.put_u32(option);
        out.put_u32(kind);
        out.put_u32(data.len() as u32);
        out.put_slice(&data);
    }
}

impl Info {
    fn decode(mut cursor: Cursor<'_>) -> Result<Self, Violation> {
        let this = match cursor.u16()? {
            info::EXPORT => Self::Export {
                size: cursor.u64()?,
                flags: TransmissionFlags::from_bits_retain(cursor.u16()?),
            },
            info::NAME => Self::Name(cursor.rest_as_string()?.to_owned()),
            info::DESCRIPTION => Self::Description(cursor.rest_as_string()?.to_owned()),
            info::BLOCK_SIZE => Self::BlockSize(BlockSizes {
                minimum: cursor.u32()?,
                preferred: cursor.u32()?,
                maximum: cursor.u32()?,
            }),
            other => return Ok(Self::Unknown(other)),
        };
        cursor.finish()?;
        Ok(this)
    }

    fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Export { size, flags } => {
                out.put_u16(info::EXPORT);
                out.put_u64(*size);
                out.put_u16(flags.bits());
            }
            Self::Name(name) => {
                out.put_u16(info::NAME);
                out.put_slice(clip(name).as_bytes());
            }
            Self::Description(text) => {
                out.put_u16(info::DESCRIPTION);
                out.put_slice(clip(text).as_bytes());
            }
            Self::BlockSize(sizes) => {
                out.put_u16(info::BLOCK_SIZE);
                out.put_u32(sizes.minimum);
                out.put_u32(sizes.preferred);
                out.put_u32(sizes.maximum);
            }
            Self::Unknown(kind) => out.put_u16(*kind),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::option::number;

    fn wire(reply: &OptionReply, option: u32) -> Vec<u8> {
        let mut out = BytesMut::new();
        reply.encode(option, &mut out);
        out.to_vec()
    }

    fn again(reply: &OptionReply) -> OptionReply {
        let bytes = wire(reply, number::GO);
        let header = OptionReplyHeader::decode(&bytes).unwrap().unwrap();
        assert_eq!(header.option, number::GO);
        assert_eq!(header.length as usize, bytes.len() - OptionReplyHeader::SIZE);
        OptionReply::decode(header.kind, &bytes[OptionReplyHeader::SIZE..]).unwrap()
    }

    #[test]
    fn info_export_looks_on_the_wire_as_the_specification_draws_it() {
        let reply = OptionReply::Info(Info::Export {
            size: 0x1_0000_0000,
            flags: TransmissionFlags::HAS_FLAGS | TransmissionFlags::READ_ONLY,
        });
        assert_eq!(
            wire(&reply, number::GO),
            b"\x00\x03\xe8\x89\x04\x55\x65\xa9\x00\x00\x00\x07\x00\x00\x00\x03\x00\x00\x00\x0c\
              \x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x03"
        );
    }

    #[test]
    fn refusal_looks_on_the_wire_as_the_specification_draws_it() {
        let reply = OptionReply::Refused { error: OptionError::TlsRequired, message: "no".into() };
        assert_eq!(
            wire(&reply, number::LIST),
            b"\x00\x03\xe8\x89\x04\x55\x65\xa9\x00\x00\x00\x03\x80\x00\x00\x05\x00\x00\x00\x02no"
        );
    }

    #[test]
    fn replies_come_back_as_they_were() {
        for reply in [
            OptionReply::Ack,
            OptionReply::Server { name: "vda".into(), details: "a disk".into() },
            OptionReply::Info(Info::Name("vda".into())),
            OptionReply::Info(Info::Description("ein Körper".into())),
            OptionReply::Info(Info::BlockSize(BlockSizes::DEFAULT)),
            OptionReply::Info(Info::Unknown(77)),
            OptionReply::MetaContext { id: 3, name: "qemu:dirty-bitmap:b".into() },
            OptionReply::Refused { error: OptionError::Other(99), message: "because".into() },
            OptionReply::Unknown(42),
        ] {
            assert_eq!(again(&reply), reply);
        }
    }
}
