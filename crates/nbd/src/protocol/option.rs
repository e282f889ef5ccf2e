//! Options: what a client asks while haggling (spec, "Option types").

use bytes::{BufMut, BytesMut};

use super::{
    Violation,
    constants::{MAGIC_OPTION, MAX_OPTION_DATA},
    cursor::Cursor,
};

/// Option numbers.
pub mod number {
    /// `NBD_OPT_EXPORT_NAME`.
    pub const EXPORT_NAME: u32 = 1;
    /// `NBD_OPT_ABORT`.
    pub const ABORT: u32 = 2;
    /// `NBD_OPT_LIST`.
    pub const LIST: u32 = 3;
    /// `NBD_OPT_STARTTLS`.
    pub const STARTTLS: u32 = 5;
    /// `NBD_OPT_INFO`.
    pub const INFO: u32 = 6;
    /// `NBD_OPT_GO`.
    pub const GO: u32 = 7;
    /// `NBD_OPT_STRUCTURED_REPLY`.
    pub const STRUCTURED_REPLY: u32 = 8;
    /// `NBD_OPT_LIST_META_CONTEXT`.
    pub const LIST_META_CONTEXT: u32 = 9;
    /// `NBD_OPT_SET_META_CONTEXT`.
    pub const SET_META_CONTEXT: u32 = 10;
    /// `NBD_OPT_EXTENDED_HEADERS`.
    pub const EXTENDED_HEADERS: u32 = 11;
}

/// Kinds of information about an export (spec, `NBD_REP_INFO`).
pub mod info {
    /// `NBD_INFO_EXPORT`: size and flags.
    pub const EXPORT: u16 = 0;
    /// `NBD_INFO_NAME`: the canonical name.
    pub const NAME: u16 = 1;
    /// `NBD_INFO_DESCRIPTION`: a sentence for people.
    pub const DESCRIPTION: u16 = 2;
    /// `NBD_INFO_BLOCK_SIZE`: sizes that requests should keep to.
    pub const BLOCK_SIZE: u16 = 3;
}

/// The head of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionHeader {
    /// One of [`number`], or one that we do not know.
    pub number: u32,
    /// Bytes of data that follow; at most [`MAX_OPTION_DATA`].
    pub length: u32,
}

impl OptionHeader {
    /// Bytes on the wire.
    pub const SIZE: usize = 16;

    /// Reads the head of an option; `None` when more bytes are needed.
    ///
    /// # Errors
    /// A wrong magic number, or more data than [`MAX_OPTION_DATA`].
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, Violation> {
        let Some((bytes, _)) = bytes.split_at_checked(Self::SIZE) else {
            return Ok(None);
        };
        let mut cursor = Cursor::new("option", bytes);
        let magic = cursor.u64()?;
        if magic != MAGIC_OPTION {
            return Err(Violation::Magic { what: "option", found: magic });
        }
        let number = cursor.u32()?;
        let length = cursor.u32()?;
        if length > MAX_OPTION_DATA {
            return Err(Violation::TooLong {
                what: "option data",
                length: length.into(),
                limit: MAX_OPTION_DATA.into(),
            });
        }
        Ok(Some(Self { number, length }))
    }
}

/// The data of INFO and GO.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportQuery {
    /// Name of the export; empty means the default.
    pub name: String,
    /// Which of [`info`] the client would like.
    pub wanted: Vec<u16>,
}

/// The data of LIST_META_CONTEXT and SET_META_CONTEXT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaQuery {
    /// Name of the export; empty means the default.
    pub export: String,
    /// Names of contexts, or for LIST also `namespace:`.
    pub queries: Vec<String>,
}

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OptionRequest {
    /// Take this export; no answer is possible but to hang up.
    ExportName(String),
    /// Leave.
    Abort,
    /// Which exports are there?
    List,
    /// Encrypt from here on.
    StartTls,
    /// What is this export like?
    Info(ExportQuery),
    /// Take this export.
    Go(ExportQuery),
    /// Answer in chunks.
    StructuredReply,
    /// Which metadata contexts are there?
    ListMetaContext(MetaQuery),
    /// Choose metadata contexts.
    SetMetaContext(MetaQuery),
    /// Use 64-bit headers.
    ExtendedHeaders,
    /// Something that we do not know.
    Unknown(u32),
}

impl OptionRequest {
    /// Reads the data of option `number`.
    ///
    /// # Errors
    /// A [`Violation`] that a server answers with `NBD_REP_ERR_INVALID`; the
    /// option's end is known, so haggling may go on.
    pub fn decode(number: u32, data: &[u8]) -> Result<Self, Violation> {
        let bare = |what, request| {
            if data.is_empty() { Ok(request) } else { Err(Violation::Length { what }) }
        };
        match number {
            number::EXPORT_NAME => {
                let mut cursor = Cursor::new("EXPORT_NAME", data);
                Ok(Self::ExportName(cursor.rest_as_string()?.to_owned()))
            }
            // The specification wants data here to be ignored.
            number::ABORT => Ok(Self::Abort),
            number::LIST => bare("LIST", Self::List),
            number::STARTTLS => bare("STARTTLS", Self::StartTls),
            number::INFO => ExportQuery::decode("INFO", data).map(Self::Info),
            number::GO => ExportQuery::decode("GO", data).map(Self::Go),
            number::STRUCTURED_REPLY => bare("STRUCTURED_REPLY", Self::StructuredReply),
            number::LIST_META_CONTEXT => {
                MetaQuery::decode("LIST_META_CONTEXT", data).map(Self::ListMetaContext)
            }
            number::SET_META_CONTEXT => {
                MetaQuery::decode("SET_META_CONTEXT", data).map(Self::SetMetaContext)
            }
            number::EXTENDED_HEADERS => bare("EXTENDED_HEADERS", Self::ExtendedHeaders),
            other => Ok(Self::Unknown(other)),
        }
    }

    /// The number on the wire.
    #[must_use]
    pub fn number(&self) -> u32 {
        match self {
            Self::ExportName(_) => number::EXPORT_NAME,
            Self::Abort => number::ABORT,
            Self::List => number::LIST,
            Self::StartTls => number::STARTTLS,
            Self::Info(_) => number::INFO,
            Self::Go(_) => number::GO,
            Self::StructuredReply => number::STRUCTURED_REPLY,
            Self::ListMetaContext(_) => number::LIST_META_CONTEXT,
            Self::SetMetaContext(_) => number::SET_META_CONTEXT,
            Self::ExtendedHeaders => number::EXTENDED_HEADERS,
            Self::Unknown(number) => *number,
        }
    }

    /// Appends head and data.
    pub fn encode(&self, out: &mut BytesMut) {
        let mut data = BytesMut::new();
        match self {
            Self::ExportName(name) => data.put_slice(name.as_bytes()),
            Self::Info(query) | Self::Go(query) => query.encode(&mut data),
            Self::ListMetaContext(query) | Self::SetMetaContext(query) => query.encode(&mut data),
            _ => {}
        }
        out.put_u64(MAGIC_OPTION);
        out.put_u32(self.number());
        out.put_u32(data.len() as u32);
        out.put_slice(&data);
    }
}

impl ExportQuery {
    fn decode(what: &'static str, data: &[u8]) -> Result<Self, Violation> {
        let mut cursor = Cursor::new(what, data);
        let length = cursor.u32()?;
        let name = cursor.string(length as usize)?.to_owned();
        let count = cursor.u16()?;
        if cursor.remaining() != usize::from(count) * 2 {
            return Err(Violation::Length { what });
        }
        let wanted = (0..count).map(|_| cursor.u16()).collect::<Result<_, _>>()?;
        cursor.finish()?;
        Ok(Self { name, wanted })
    }

    fn encode(&self, out: &mut BytesMut) {
        put_string(out, &self.name);
        out.put_u16(self.wanted.len() as u16);
        for kind in &self.wanted {
            out.put_u16(*kind);
        }
    }
}

impl MetaQuery {
    fn decode(what: &'static str, data: &[u8]) -> Result<Self, Violation> {
        let mut cursor = Cursor::new(what, data);
        let length = cursor.u32()?;
        let export = cursor.string(length as usize)?.to_owned();
        let count = cursor.u32()?;
        // Each query takes at least its own length field, so the vector is
        // never larger than the data that did arrive.
        if count as usize > cursor.remaining() / 4 {
            return Err(Violation::Length { what });
        }
        let mut queries = Vec::new();
        for _ in 0..count {
            let length = cursor.u32()?;
            queries.push(cursor.string(length as usize)?.to_owned());
        }
        cursor.finish()?;
        Ok(Self { export, queries })
    }

    fn encode(&self, out: &mut BytesMut) {
        put_string(out, &self.export);
        out.put_u32(self.queries.len() as u32);
        for query in &self.queries {
            put_string(out, query);
        }
    }
}

fn put_string(out: &mut BytesMut, text: &str) {
    out.put_u32(text.len() as u32);
    out.put_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(request: &OptionRequest) -> Vec<u8> {
        let mut out = BytesMut::new();
        request.encode(&mut out);
        out.to_vec()
    }

    fn again(request: &OptionRequest) -> OptionRequest {
        let bytes = wire(request);
        let header = OptionHeader::decode(&bytes).unwrap().unwrap();
        assert_eq!(header.length as usize, bytes.len() - OptionHeader::SIZE);
        OptionRequest::decode(header.number, &bytes[OptionHeader::SIZE..]).unwrap()
    }

    #[test]
    fn go_looks_on_the_wire_as_the_specification_draws_it() {
        let go =
            OptionRequest::Go(ExportQuery { name: "vda".into(), wanted: vec![info::BLOCK_SIZE] });
        assert_eq!(
            wire(&go),
            b"IHAVEOPT\x00\x00\x00\x07\x00\x00\x00\x0b\x00\x00\x00\x03vda\x00\x01\x00\x03"
        );
        assert_eq!(again(&go), go);
    }

    #[test]
    fn set_meta_context_looks_on_the_wire_as_the_specification_draws_it() {
        let set = OptionRequest::SetMetaContext(MetaQuery {
            export: String::new(),
            queries: vec!["base:allocation".into()],
        });
        assert_eq!(
            wire(&set),
            b"IHAVEOPT\x00\x00\x00\x0a\x00\x00\x00\x1b\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x0fbase:allocation"
        );
        assert_eq!(again(&set), set);
    }

    #[test]
    fn bare_options_have_no_data() {
        for request in [
            OptionRequest::Abort,
            OptionRequest::List,
            OptionRequest::StartTls,
            OptionRequest::StructuredReply,
            OptionRequest::ExtendedHeaders,
            OptionRequest::Unknown(4711),
        ] {
            assert_eq!(wire(&request).len(), OptionHeader::SIZE);
            assert_eq!(again(&request), request);
        }
        assert!(OptionRequest::decode(number::LIST, b"x").is_err(), "LIST must not carry data");
        assert!(OptionRequest::decode(number::ABORT, b"x").is_ok(), "ABORT's data is ignored");
    }

    #[test]
    fn a_claimed_count_does_not_allocate() {
        let mut data = BytesMut::new();
        data.put_u32(0);
        data.put_u32(u32::MAX);
        assert_eq!(
            OptionRequest::decode(number::SET_META_CONTEXT, &data),
            Err(Violation::Length { what: "SET_META_CONTEXT" })
        );
    }

    #[test]
    fn names_keep_the_rules_for_strings() {
        for bad in [b"\xff".as_slice(), b"a\0b", &[b'x'; 4097]] {
            assert!(OptionRequest::decode(number::EXPORT_NAME, bad).is_err());
        }
        assert!(OptionRequest::decode(number::EXPORT_NAME, &[b'x'; 4096]).is_ok());
    }

    #[test]
    fn option_data_beyond_the_limit_is_refused_before_it_arrives() {
        let mut head = b"IHAVEOPT\x00\x00\x00\x03".to_vec();
        head.extend((MAX_OPTION_DATA + 1).to_be_bytes());
        assert!(matches!(OptionHeader::decode(&head), Err(Violation::TooLong { .. })));
    }
}
