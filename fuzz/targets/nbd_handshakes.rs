//! Whole handshakes, against a peer that says anything.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use nbd::protocol::{
    client_handshake::{ClientHandshake, Goal, Step, WishedEncryption},
    constants::HeaderStyle,
    facts::ExportFacts,
    server_handshake::{Directory, Encryption, ServerHandshake, Step as ServerStep},
};

struct OneExport;

impl Directory for OneExport {
    type Handle = ();

    fn open(&self, name: &str) -> Option<(ExportFacts, ())> {
        name.is_empty().then(|| (ExportFacts::read_only(1 << 30), ()))
    }

    fn list(&self) -> Vec<(String, String)> {
        vec![(String::new(), "the only one".into())]
    }
}

fuzz_target!(|input: (u8, &[u8])| {
    let (which, bytes) = input;
    let mut out = BytesMut::new();
    let encryption = [Encryption::Off, Encryption::Awaited, Encryption::On];
    let mut server = ServerHandshake::new(encryption[usize::from(which) % 3], &mut out);
    let mut arrived = BytesMut::from(bytes);
    loop {
        match server.advance(&OneExport, &mut arrived, &mut out) {
            Ok(ServerStep::Again) => {}
            Ok(ServerStep::StartTls) => server.encrypted(),
            _ => break,
        }
        assert!(out.len() < 64 << 20, "answers are bounded");
    }
    let goal = match which / 3 % 3 {
        0 => Goal::List,
        1 => Goal::ListContexts { export: String::new(), queries: Vec::new() },
        _ => Goal::Connect { export: String::new(), contexts: vec!["base:allocation".into()] },
    };
    let wish = match which / 9 % 2 {
        0 => WishedEncryption::None,
        _ => WishedEncryption::Required,
    };
    let mut client = ClientHandshake::new(goal, wish, HeaderStyle::Extended);
    let mut arrived = BytesMut::from(bytes);
    let mut out = BytesMut::new();
    loop {
        match client.advance(&mut arrived, &mut out) {
            Ok(Step::Again) => {}
            Ok(Step::StartTls) => client.encrypted(&mut out),
            _ => break,
        }
    }
});
