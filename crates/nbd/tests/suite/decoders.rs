//! Decoders: whatever is encoded comes back, and nothing that arrives makes
//! them panic.

use bytes::{Bytes, BytesMut};
use nbd::protocol::{
    chunk::{Chunk, StatusExtent},
    client_handshake::{ClientHandshake, Goal, Step, WishedEncryption},
    constants::{ChunkFlags, CommandFlags, HeaderStyle, TransmissionFlags},
    errno::Errno,
    facts::{BlockSizes, ExportFacts},
    option::{ExportQuery, MetaQuery, OptionHeader, OptionRequest},
    option_reply::{Info, OptionError, OptionReply, OptionReplyHeader},
    reply::{ChunkHeader, ReplyHeader, SimpleReply},
    request::{Command, Request},
    server_handshake::{Directory, Encryption, ServerHandshake, Step as ServerStep},
};
use proptest::{collection::vec, prelude::*};

fn style() -> impl Strategy<Value = HeaderStyle> {
    prop_oneof![
        Just(HeaderStyle::Simple),
        Just(HeaderStyle::Structured),
        Just(HeaderStyle::Extended),
    ]
}

fn name() -> impl Strategy<Value = String> {
    "[^\\x00]{0,40}"
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        Just(Command::Read),
        Just(Command::Write),
        Just(Command::Disconnect),
        Just(Command::Flush),
        Just(Command::Trim),
        Just(Command::Cache),
        Just(Command::WriteZeroes),
        Just(Command::BlockStatus),
        (8u16..).prop_map(Command::Unknown),
    ]
}

fn export_query() -> impl Strategy<Value = ExportQuery> {
    (name(), vec(any::<u16>(), 0..5)).prop_map(|(name, wanted)| ExportQuery { name, wanted })
}

fn meta_query() -> impl Strategy<Value = MetaQuery> {
    (name(), vec(name(), 0..5)).prop_map(|(export, queries)| MetaQuery { export, queries })
}

fn option_request() -> impl Strategy<Value = OptionRequest> {
    prop_oneof![
        name().prop_map(OptionRequest::ExportName),
        export_query().prop_map(OptionRequest::Info),
        export_query().prop_map(OptionRequest::Go),
        meta_query().prop_map(OptionRequest::ListMetaContext),
        meta_query().prop_map(OptionRequest::SetMetaContext),
        Just(OptionRequest::List),
        Just(OptionRequest::ExtendedHeaders),
        (12u32..).prop_map(OptionRequest::Unknown),
    ]
}

fn option_reply() -> impl Strategy<Value = OptionReply> {
    prop_oneof![
        Just(OptionReply::Ack),
        (name(), name()).prop_map(|(name, details)| OptionReply::Server { name, details }),
        (any::<u64>(), any::<u16>()).prop_map(|(size, flags)| OptionReply::Info(Info::Export {
            size,
            flags: TransmissionFlags::from_bits_retain(flags),
        })),
        name().prop_map(|name| OptionReply::Info(Info::Name(name))),
        name().prop_map(|text| OptionReply::Info(Info::Description(text))),
        any::<[u32; 3]>().prop_map(|[minimum, preferred, maximum]| {
            OptionReply::Info(Info::BlockSize(BlockSizes { minimum, preferred, maximum }))
        }),
        (any::<u32>(), name()).prop_map(|(id, name)| OptionReply::MetaContext { id, name }),
        (11u32..1 << 31, name()).prop_map(|(low, message)| OptionReply::Refused {
            error: OptionError::Other(low),
            message,
        }),
    ]
}

fn chunk(style: HeaderStyle) -> BoxedStrategy<Chunk> {
    let widest = match style {
        HeaderStyle::Extended => u64::MAX,
        _ => u32::MAX.into(),
    };
    let extent =
        (1..=widest, 0..=widest).prop_map(|(length, flags)| StatusExtent { length, flags });
    prop_oneof![
        Just(Chunk::None),
        (any::<u64>(), vec(any::<u8>(), 1..100))
            .prop_map(|(offset, data)| Chunk::Data { offset, data: data.into() }),
        (any::<u64>(), 1..=u32::MAX).prop_map(|(offset, length)| Chunk::Hole { offset, length }),
        (any::<u32>(), vec(extent, 1..20))
            .prop_map(|(context, extents)| Chunk::Status { context, extents }),
        (1..200u32, name(), any::<Option<u64>>()).prop_map(|(errno, message, offset)| {
            Chunk::Error { error: Errno::from_wire(errno).unwrap(), message, offset }
        }),
    ]
    .boxed()
}

struct OneDisk;

impl Directory for OneDisk {
    type Handle = ();

    fn open(&self, name: &str) -> Option<(ExportFacts, ())> {
        (name.len() < 3).then(|| (ExportFacts::writable(1 << 20), ()))
    }

    fn list(&self) -> Vec<(String, String)> {
        vec![("x".into(), String::new())]
    }
}

/// Feeds a server machine until it wants more than there is.
fn drive_server(bytes: &[u8], encryption: Encryption) {
    let mut out = BytesMut::new();
    let mut machine = ServerHandshake::new(encryption, &mut out);
    let mut input = BytesMut::from(bytes);
    while let Ok(ServerStep::Again) = machine.advance(&OneDisk, &mut input, &mut out) {}
}

/// Feeds a client machine until it wants more than there is.
fn drive_client(bytes: &[u8], goal: Goal) {
    let mut out = BytesMut::new();
    let mut machine = ClientHandshake::new(goal, WishedEncryption::None, HeaderStyle::Extended);
    let mut input = BytesMut::from(bytes);
    while let Ok(Step::Again) = machine.advance(&mut input, &mut out) {}
}

proptest! {
    #[test]
    fn requests_come_back(
        style in style(),
        command in command(),
        flags: u16,
        cookie: u64,
        offset: u64,
        length in 0..=32u64 << 20,
        tail in vec(any::<u8>(), 0..10),
    ) {
        let request = Request {
            command,
            flags: CommandFlags::from_bits_retain(flags),
            cookie,
            offset,
            length,
        };
        let mut wire = BytesMut::new();
        request.encode(style, &mut wire);
        prop_assert_eq!(wire.len(), Request::size(style));
        for end in 0..wire.len() {
            prop_assert_eq!(Request::decode(style, &wire[..end]), Ok(None));
        }
        wire.extend_from_slice(&tail);
        let decoded = Request::decode(style, &wire).unwrap().unwrap();
        let mut expected = request;
        if style == HeaderStyle::Extended && command == Command::Write {
            expected.flags |= CommandFlags::PAYLOAD_LEN;
        }
        prop_assert_eq!(decoded, expected);
    }

    #[test]
    fn options_come_back(request in option_request()) {
        let mut wire = BytesMut::new();
        request.encode(&mut wire);
        let header = OptionHeader::decode(&wire).unwrap().unwrap();
        let data = &wire[OptionHeader::SIZE..];
        prop_assert_eq!(header.length as usize, data.len());
        prop_assert_eq!(OptionRequest::decode(header.number, data), Ok(request));
    }

    #[test]
    fn option_replies_come_back(reply in option_reply(), option: u32) {
        let mut wire = BytesMut::new();
        reply.encode(option, &mut wire);
        let header = OptionReplyHeader::decode(&wire).unwrap().unwrap();
        let data = &wire[OptionReplyHeader::SIZE..];
        prop_assert_eq!((header.option, header.length as usize), (option, data.len()));
        prop_assert_eq!(OptionReply::decode(header.kind, data), Ok(reply));
    }

    #[test]
    fn reply_heads_come_back(
        flags: u16, kind: u16, cookie: u64, offset: u64, length: u32, errno in 0..200u32,
    ) {
        let simple = SimpleReply { cookie, error: Errno::from_wire(errno) };
        let mut wire = BytesMut::new();
        simple.encode(&mut wire);
        prop_assert_eq!(
            ReplyHeader::decode(HeaderStyle::Simple, &wire),
            Ok(Some((ReplyHeader::Simple(simple), SimpleReply::SIZE)))
        );
        for style in [HeaderStyle::Structured, HeaderStyle::Extended] {
            let mut header = ChunkHeader {
                flags: ChunkFlags::from_bits_retain(flags),
                kind,
                cookie,
                offset,
                length: length.into(),
            };
            let mut wire = BytesMut::new();
            header.encode(style, &mut wire);
            if style == HeaderStyle::Structured {
                header.offset = 0;
            }
            prop_assert_eq!(
                ReplyHeader::decode(style, &wire),
                Ok(Some((ReplyHeader::Chunk(header), ChunkHeader::size(style))))
            );
        }
    }

    #[test]
    fn chunks_come_back(
        (style, chunk) in prop_oneof![Just(HeaderStyle::Structured), Just(HeaderStyle::Extended)]
            .prop_flat_map(|style| (Just(style), chunk(style)))
    ) {
        let mut wire = BytesMut::new();
        chunk.encode(style, &mut wire);
        prop_assert_eq!(Chunk::decode(chunk.kind(style), wire.freeze()), Ok(chunk));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..200), number in 0..13u32) {
        for style in [HeaderStyle::Simple, HeaderStyle::Structured, HeaderStyle::Extended] {
            let _ = Request::decode(style, &bytes);
            let _ = ReplyHeader::decode(style, &bytes);
        }
        let _ = OptionHeader::decode(&bytes);
        let _ = OptionReplyHeader::decode(&bytes);
        let _ = OptionRequest::decode(number, &bytes);
        for kind in [number, number | 1 << 31] {
            let _ = OptionReply::decode(kind, &bytes);
        }
        let body = Bytes::from(bytes);
        for kind in [number as u16, number as u16 | 1 << 15] {
            let _ = Chunk::decode(kind, body.clone());
        }
    }

    /// Past the magic numbers, which random bytes never hit.
    #[test]
    fn handshakes_never_panic(
        frames in vec((any::<bool>(), 0..13u32, vec(any::<u8>(), 0..60), option_reply()), 0..6),
        flags in 0..5u32,
        list: bool,
    ) {
        let mut to_server = flags.to_be_bytes().to_vec();
        let mut to_client = b"NBDMAGICIHAVEOPT\0\x03".to_vec();
        for (sane, number, data, reply) in frames {
            to_server.extend(b"IHAVEOPT");
            to_server.extend(number.to_be_bytes());
            to_server.extend((data.len() as u32).to_be_bytes());
            to_server.extend(&data);
            let mut wire = BytesMut::new();
            reply.encode(number, &mut wire);
            if !sane && let Some(byte) = wire.last_mut() {
                *byte ^= 0x80;
            }
            to_client.extend(wire);
        }
        for encryption in [Encryption::Off, Encryption::Awaited] {
            drive_server(&to_server, encryption);
        }
        let goal = if list {
            Goal::List
        } else {
            Goal::Connect { export: "x".into(), contexts: vec!["base:allocation".into()] }
        };
        drive_client(&to_client, goal);
    }
}
