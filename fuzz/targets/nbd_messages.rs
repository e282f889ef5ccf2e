//! Single messages of the NBD protocol, of both sides. What is decoded is
//! encoded and comes back.
#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use nbd::protocol::{
    chunk::Chunk,
    constants::HeaderStyle,
    option::{OptionHeader, OptionRequest},
    option_reply::{OptionReply, OptionReplyHeader},
    reply::ReplyHeader,
    request::Request,
};

fuzz_target!(|input: (u8, u32, &[u8])| {
    let (which, number, bytes) = input;
    let style = [HeaderStyle::Simple, HeaderStyle::Structured, HeaderStyle::Extended];
    let style = style[usize::from(which) % 3];
    if let Ok(Some(request)) = Request::decode(style, bytes) {
        let mut out = BytesMut::new();
        request.encode(style, &mut out);
        // Once encoded, a flag that must be there is.
        let again = Request::decode(style, &out).ok().flatten().expect("what we send");
        let mut twice = BytesMut::new();
        again.encode(style, &mut twice);
        assert_eq!(out, twice);
    }
    if let Ok(option) = OptionRequest::decode(number % 12, bytes) {
        let mut out = BytesMut::new();
        option.encode(&mut out);
        assert!(OptionHeader::decode(&out).is_ok());
    }
    let _ = OptionHeader::decode(bytes);
    let _ = OptionReplyHeader::decode(bytes);
    let kind = if number & 1 == 0 { number & 0xff } else { number | 1 << 31 };
    if let Ok(reply) = OptionReply::decode(kind, bytes) {
        let mut out = BytesMut::new();
        reply.encode(1, &mut out);
        assert!(OptionReplyHeader::decode(&out).is_ok());
    }
    let _ = ReplyHeader::decode(style, bytes);
    let body = Bytes::copy_from_slice(bytes);
    for kind in [number as u16, number as u16 % 8, 1 << 15 | number as u16 % 4] {
        if let Ok(chunk) = Chunk::decode(kind, body.clone()) {
            let mut out = BytesMut::new();
            chunk.encode(style, &mut out);
        }
    }
});
