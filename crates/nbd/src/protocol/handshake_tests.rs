//! Both handshake machines against each other, and against odd peers.

use bytes::{BufMut, BytesMut};

use super::{
    client_handshake::{
        ClientHandshake, ExportInfo, Goal, HandshakeError, ListedExport, Step as ClientStep,
        WishedEncryption,
    },
    constants::{BASE_ALLOCATION, HeaderStyle, MAGIC_INIT, MAGIC_OPTION, TransmissionFlags},
    facts::ExportFacts,
    option::{ExportQuery, MetaQuery, OptionRequest, number},
    option_reply::{OptionError, OptionReply, OptionReplyHeader},
    server_handshake::{Agreement, Directory, Encryption, ServerHandshake, Step as ServerStep},
};

struct OneDisk;

impl Directory for OneDisk {
    type Handle = ();

    fn open(&self, name: &str) -> Option<(ExportFacts, ())> {
        let facts =
            ExportFacts::read_only(1 << 20).described("a disk").context("qemu:dirty-bitmap:b");
        (name == "vda").then_some((facts, ()))
    }

    fn list(&self) -> Vec<(String, String)> {
        vec![("vda".into(), "a disk".into())]
    }
}

#[derive(Debug)]
enum Outcome {
    Connected(ExportInfo, Agreement<()>),
    Exports(Vec<ListedExport>),
    Contexts(Vec<String>),
    Failed(HandshakeError),
}

/// Lets both machines talk until the client has an outcome.
fn haggle(goal: Goal, encryption: (WishedEncryption, Encryption), most: HeaderStyle) -> Outcome {
    let (mut to_client, mut to_server) = (BytesMut::new(), BytesMut::new());
    let mut server = ServerHandshake::new(encryption.1, &mut to_client);
    let mut client = ClientHandshake::new(goal, encryption.0, most);
    let mut agreed = None;
    for _ in 0..100 {
        match client.advance(&mut to_client, &mut to_server) {
            Ok(ClientStep::Connected(info)) => {
                return Outcome::Connected(info, agreed.expect("the server agreed first"));
            }
            Ok(ClientStep::Exports(exports)) => return Outcome::Exports(exports),
            Ok(ClientStep::Contexts(contexts)) => return Outcome::Contexts(contexts),
            Ok(ClientStep::StartTls) => client.encrypted(&mut to_server),
            Ok(ClientStep::Again) => continue,
            Ok(ClientStep::Read) => {}
            Err(error) => return Outcome::Failed(error),
        }
        while agreed.is_none() {
            match server.advance(&OneDisk, &mut to_server, &mut to_client) {
                Ok(ServerStep::Transmit(agreement)) => agreed = Some(agreement),
                Ok(ServerStep::StartTls) => server.encrypted(),
                Ok(ServerStep::Again) => {}
                Ok(ServerStep::Read | ServerStep::Abort) => break,
                Err(violation) => panic!("the server complains: {violation}"),
            }
        }
    }
    panic!("haggling does not end");
}

fn vda(contexts: &[&str]) -> Goal {
    Goal::Connect {
        export: "vda".into(),
        contexts: contexts.iter().map(ToString::to_string).collect(),
    }
}

const CLEAR: (WishedEncryption, Encryption) = (WishedEncryption::None, Encryption::Off);

#[test]
fn both_sides_agree_on_each_style_of_headers() {
    for style in [HeaderStyle::Simple, HeaderStyle::Structured, HeaderStyle::Extended] {
        let wanted = [BASE_ALLOCATION, "x-none:such"];
        let Outcome::Connected(info, agreement) = haggle(vda(&wanted), CLEAR, style) else {
            panic!("{style:?} was not agreed upon");
        };
        assert_eq!((info.style, agreement.style), (style, style));
        assert_eq!((info.size, info.description.as_str()), (1 << 20, "a disk"));
        assert_eq!(info.flags, agreement.flags);
        assert_eq!(
            info.flags.contains(TransmissionFlags::SEND_DF),
            style > HeaderStyle::Simple,
            "DF has a meaning for chunks only"
        );
        let contexts: Vec<_> = info.contexts.into_iter().map(|c| (c.id, c.name)).collect();
        assert_eq!(contexts, agreement.contexts);
        assert_eq!(contexts.len(), usize::from(style > HeaderStyle::Simple));
    }
}

#[test]
fn lists_tell_names_and_contexts() {
    let Outcome::Exports(exports) = haggle(Goal::List, CLEAR, HeaderStyle::Extended) else {
        panic!("no list");
    };
    assert_eq!(exports[0].name, "vda");
    let goal = |queries: &[&str]| Goal::ListContexts {
        export: "vda".into(),
        queries: queries.iter().map(ToString::to_string).collect(),
    };
    for (queries, expected) in [
        ([].as_slice(), [BASE_ALLOCATION, "qemu:dirty-bitmap:b"].as_slice()),
        (&["qemu:"], &["qemu:dirty-bitmap:b"]),
        (&["qemu:dirty-bitmap:"], &["qemu:dirty-bitmap:b"]),
        (&["x-none:"], &[]),
    ] {
        let Outcome::Contexts(found) = haggle(goal(queries), CLEAR, HeaderStyle::Structured) else {
            panic!("no list for {queries:?}");
        };
        assert_eq!(found, expected, "{queries:?}");
    }
}

#[test]
fn an_unknown_export_is_refused_by_name() {
    let goal = Goal::Connect { export: "vdz".into(), contexts: Vec::new() };
    let Outcome::Failed(HandshakeError::Refused { error, message, .. }) =
        haggle(goal, CLEAR, HeaderStyle::Extended)
    else {
        panic!("not refused");
    };
    assert_eq!(error, OptionError::UnknownExport);
    assert!(message.contains("vdz"), "{message}");
}

#[test]
fn tls_is_used_by_both_or_by_nobody() {
    let required = WishedEncryption::Required;
    let outcome = |pair| haggle(vda(&[]), pair, HeaderStyle::Extended);
    assert!(matches!(outcome((required, Encryption::Awaited)), Outcome::Connected(..)));
    for pair in [(required, Encryption::Off), (WishedEncryption::None, Encryption::Awaited)] {
        assert!(
            matches!(outcome(pair), Outcome::Failed(HandshakeError::Refused { .. })),
            "{pair:?}"
        );
    }
}

/// Sends options in the clear to a server and gathers its replies.
fn replies(encryption: Encryption, requests: &[OptionRequest]) -> Vec<OptionReply> {
    let mut out = BytesMut::new();
    let mut server = ServerHandshake::new(encryption, &mut out);
    out.clear();
    let mut input = BytesMut::new();
    input.put_u32(3);
    for request in requests {
        request.encode(&mut input);
    }
    while let Ok(ServerStep::Again | ServerStep::Transmit(_)) =
        server.advance(&OneDisk, &mut input, &mut out)
    {}
    let mut replies = Vec::new();
    while let Some(header) = OptionReplyHeader::decode(&out).unwrap() {
        let _ = out.split_to(OptionReplyHeader::SIZE);
        let data = out.split_to(header.length as usize);
        replies.push(OptionReply::decode(header.kind, &data).unwrap());
    }
    replies
}

#[test]
fn nothing_but_tls_is_answered_before_tls() {
    let answers =
        replies(Encryption::Awaited, &[OptionRequest::List, OptionRequest::StructuredReply]);
    assert_eq!(answers.len(), 2);
    for answer in answers {
        assert!(matches!(answer, OptionReply::Refused { error: OptionError::TlsRequired, .. }));
    }
}

#[test]
fn contexts_of_one_export_are_void_for_another_and_need_chunks() {
    let set = |export: &str| {
        OptionRequest::SetMetaContext(MetaQuery {
            export: export.into(),
            queries: vec![BASE_ALLOCATION.into()],
        })
    };
    let answers = replies(Encryption::Off, &[set("vda")]);
    assert!(
        matches!(answers[0], OptionReply::Refused { error: OptionError::Invalid, .. }),
        "contexts before structured replies"
    );

    // A SET that fails takes the earlier choice away with it.
    let mut out = BytesMut::new();
    let mut server = ServerHandshake::new(Encryption::Off, &mut out);
    let mut input = BytesMut::new();
    input.put_u32(3);
    let go = OptionRequest::Go(ExportQuery { name: "vda".into(), wanted: vec![] });
    for request in [OptionRequest::StructuredReply, set("vda"), set("other"), go] {
        request.encode(&mut input);
    }
    let agreement = loop {
        match server.advance(&OneDisk, &mut input, &mut out).unwrap() {
            ServerStep::Again => {}
            ServerStep::Transmit(agreement) => break agreement,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(agreement.contexts, vec![]);
}

#[test]
fn malformed_options_are_refused_and_haggling_goes_on() {
    let mut out = BytesMut::new();
    let mut server = ServerHandshake::new(Encryption::Off, &mut out);
    let mut input = BytesMut::new();
    input.put_u32(1);
    input.put_u64(MAGIC_OPTION);
    input.put_u32(number::GO);
    input.put_u32(3);
    input.put_slice(b"abc");
    OptionRequest::List.encode(&mut input);
    for _ in 0..3 {
        assert!(matches!(server.advance(&OneDisk, &mut input, &mut out), Ok(ServerStep::Again)));
    }
    assert!(input.is_empty());
}

#[test]
fn unknown_client_flags_end_the_session() {
    let mut out = BytesMut::new();
    let mut server = ServerHandshake::new(Encryption::Off, &mut out);
    let mut input = BytesMut::from([0, 0, 0, 4].as_slice());
    assert!(server.advance(&OneDisk, &mut input, &mut out).is_err());
}

#[test]
fn greeting_is_as_the_specification_draws_it() {
    let mut out = BytesMut::new();
    let _ = ServerHandshake::new(Encryption::Off, &mut out);
    assert_eq!(out.as_ref(), b"NBDMAGICIHAVEOPT\x00\x03");
}

#[test]
fn oldstyle_servers_are_told_apart() {
    let mut input = BytesMut::new();
    input.put_u64(MAGIC_INIT);
    input.put_u64(0x0000_4202_8186_1253);
    input.put_bytes(0, 136);
    let mut client = ClientHandshake::new(Goal::List, WishedEncryption::None, HeaderStyle::Simple);
    assert_eq!(
        client.advance(&mut input, &mut BytesMut::new()).unwrap_err(),
        HandshakeError::OldStyle
    );
}

#[test]
fn go_falls_back_to_export_name_where_it_is_unknown() {
    for (flags, padding) in [(1u16, 124), (3, 0)] {
        let mut client =
            ClientHandshake::new(vda(&[]), WishedEncryption::None, HeaderStyle::Simple);
        let (mut input, mut out) = (BytesMut::new(), BytesMut::new());
        input.put_u64(MAGIC_INIT);
        input.put_u64(MAGIC_OPTION);
        input.put_u16(flags);
        OptionReply::Refused { error: OptionError::Unsupported, message: String::new() }
            .encode(number::GO, &mut input);
        input.put_u64(4096);
        input.put_u16(1);
        input.put_bytes(0, padding);
        let info = loop {
            match client.advance(&mut input, &mut out).unwrap() {
                ClientStep::Again => {}
                ClientStep::Connected(info) => break info,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(info.size, 4096);
        assert!(input.is_empty(), "padding belongs to the handshake");
    }
}
