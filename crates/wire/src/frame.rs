//! Frames: a small fixed header, then a payload.
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 4 | magic, `LBWF` |
//! | 4 | 1 | version of the frame format, 1 |
//! | 5 | 1 | kind of payload, 1 = control message in JSON |
//! | 6 | 2 | reserved, 0 |
//! | 8 | 4 | length of the payload in bytes, little endian |
//!
//! TLS below keeps the bytes whole, so there is no checksum.

use std::marker::PhantomData;

use bytes::{Buf, BufMut, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::codec::{Decoder, Encoder};

/// First bytes of each frame.
pub const MAGIC: [u8; 4] = *b"LBWF";
/// Version of the frame format.
pub const VERSION: u8 = 1;
/// Length of the header in bytes.
pub const HEADER_LENGTH: usize = 12;
/// Longest payload of a control frame, in bytes. The inventory of a host with
/// a thousand machines is about 2 MiB.
pub const CONTROL_LENGTH_MAX: usize = 16 << 20;
/// Longest payload from somebody who has not proved who they are, in bytes:
/// an enrolment is about 2 KiB, and strangers must not fill the memory.
pub const STRANGER_LENGTH_MAX: usize = 64 << 10;

const KIND_CONTROL: u8 = 1;

/// Why bytes are not a frame of ours. The connection is of no use after one.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The connection failed.
    #[error("read or write a frame")]
    Io(#[from] std::io::Error),
    /// The other side speaks something else.
    #[error("not a Lifeboat frame: it begins with {0:02x?}")]
    Magic([u8; 4]),
    /// The other side is newer than we.
    #[error("frame format {0} is not known here, only {VERSION}")]
    Version(u8),
    /// A kind of payload that has no business here.
    #[error("unexpected kind of frame: {0}")]
    Kind(u8),
    /// Longer than any message is.
    #[error("a frame of {length} bytes is longer than the limit of {limit}")]
    TooLong {
        /// The length in the header, or of what was to be sent.
        length: usize,
        /// The longest that is allowed here and now.
        limit: usize,
    },
    /// Shorter than its kind is.
    #[error("a frame of {length} bytes is cut short")]
    TooShort {
        /// The length that it has.
        length: usize,
    },
    /// The payload is not a message.
    #[error("understand a message")]
    Message(#[source] serde_json::Error),
}

/// Turns control messages into frames and back: `Out` is sent, `In` received.
#[derive(Debug)]
pub struct ControlCodec<Out, In> {
    receive_max: usize,
    messages: PhantomData<fn(Out) -> In>,
}

impl<Out, In> Default for ControlCodec<Out, In> {
    fn default() -> Self {
        Self { receive_max: CONTROL_LENGTH_MAX, messages: PhantomData }
    }
}

impl<Out, In> ControlCodec<Out, In> {
    /// For talking to somebody who has not proved who they are.
    #[must_use]
    pub fn for_stranger() -> Self {
        Self { receive_max: STRANGER_LENGTH_MAX, messages: PhantomData }
    }

    /// Once they have.
    pub const fn trust(&mut self) {
        self.receive_max = CONTROL_LENGTH_MAX;
    }
}

impl<Out: Serialize, In> Encoder<&Out> for ControlCodec<Out, In> {
    type Error = FrameError;

    fn encode(&mut self, message: &Out, buffer: &mut BytesMut) -> Result<(), FrameError> {
        let payload = serde_json::to_vec(message).map_err(FrameError::Message)?;
        let length = payload.len();
        let wire_length = u32::try_from(length)
            .ok()
            .filter(|_| length <= CONTROL_LENGTH_MAX)
            .ok_or(FrameError::TooLong { length, limit: CONTROL_LENGTH_MAX })?;
        buffer.reserve(HEADER_LENGTH + length);
        buffer.put_slice(&MAGIC);
        buffer.put_u8(VERSION);
        buffer.put_u8(KIND_CONTROL);
        buffer.put_u16_le(0);
        buffer.put_u32_le(wire_length);
        buffer.put_slice(&payload);
        Ok(())
    }
}

impl<Out, In: DeserializeOwned> Decoder for ControlCodec<Out, In> {
    type Item = In;
    type Error = FrameError;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<In>, FrameError> {
        let Some(header) = buffer.first_chunk::<HEADER_LENGTH>() else { return Ok(None) };
        let [m0, m1, m2, m3, version, kind, _, _, l0, l1, l2, l3] = *header;
        if [m0, m1, m2, m3] != MAGIC {
            return Err(FrameError::Magic([m0, m1, m2, m3]));
        }
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        if kind != KIND_CONTROL {
            return Err(FrameError::Kind(kind));
        }
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if length > self.receive_max {
            return Err(FrameError::TooLong { length, limit: self.receive_max });
        }
        if buffer.len() < HEADER_LENGTH + length {
            // Memory grows with what arrives, not with what is announced.
            return Ok(None);
        }
        buffer.advance(HEADER_LENGTH);
        let payload = buffer.split_to(length);
        serde_json::from_slice(&payload).map(Some).map_err(FrameError::Message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Codec = ControlCodec<String, String>;

    fn frame(message: &str) -> BytesMut {
        let mut buffer = BytesMut::new();
        Codec::default().encode(&message.to_owned(), &mut buffer).unwrap();
        buffer
    }

    #[test]
    fn the_bytes_of_a_frame_do_not_change() {
        assert_eq!(&frame("hi")[..], b"LBWF\x01\x01\x00\x00\x04\x00\x00\x00\"hi\"");
    }

    #[test]
    fn frames_arrive_whole_however_the_bytes_are_cut() {
        let mut bytes = frame("one");
        bytes.extend_from_slice(&frame("two"));
        let mut arrived = BytesMut::new();
        let mut messages = Vec::new();
        for byte in bytes {
            arrived.put_u8(byte);
            messages.extend(Codec::default().decode(&mut arrived).unwrap());
        }
        assert_eq!(messages, ["one", "two"]);
        assert!(arrived.is_empty());
    }

    #[test]
    fn a_stranger_may_not_say_as_much_as_a_host() {
        let mut long = frame(&"x".repeat(STRANGER_LENGTH_MAX));
        let mut codec = Codec::for_stranger();
        assert!(matches!(codec.decode(&mut long), Err(FrameError::TooLong { .. })));
        codec.trust();
        assert!(codec.decode(&mut long).unwrap().is_some());
    }

    #[test]
    fn strangers_are_told_apart() {
        let refused = |change: fn(&mut BytesMut)| {
            let mut bytes = frame("hi");
            change(&mut bytes);
            Codec::default().decode(&mut bytes).unwrap_err().to_string()
        };
        assert_eq!(
            refused(|b| b[..4].copy_from_slice(b"GET ")),
            "not a Lifeboat frame: it begins with [47, 45, 54, 20]"
        );
        assert_eq!(refused(|b| b[4] = 2), "frame format 2 is not known here, only 1");
        assert_eq!(refused(|b| b[5] = 9), "unexpected kind of frame: 9");
        assert_eq!(
            refused(|b| b[8..12].copy_from_slice(&u32::MAX.to_le_bytes())),
            "a frame of 4294967295 bytes is longer than the limit of 16777216"
        );
        assert_eq!(refused(|b| b[12] = b'!'), "understand a message");
    }
}
