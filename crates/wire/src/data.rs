//! The data connection between two agents: the *shipper*, whose host runs the
//! machine, and the *keeper*, whose host keeps its points.
//!
//! ```text
//! shipper                           keeper
//!   │── Hello(protection, …) ─────────▶│  both certificates name their hosts
//!   │◀───── Welcome(newest, open) ─────│
//!   │── Begin(sizes) ─────────────────▶│  or Resume: goes on with what is open
//!   │◀──────────────── Begun(cycle) ───│
//!   │── Pages, Zero, Discard … ───────▶│  in order, not answered
//!   │── Ask(ranges) ──────────────────▶│  at any time before and between them
//!   │◀──────────────── Answers ────────│
//!   │── Sync ─────────────────────────▶│
//!   │◀───────────── Synced(changes) ───│  all of it is durable
//!   │── Seal(facts) ──────────────────▶│
//!   │◀───────────── Sealed(point) ─────│  durable, and a recovery point
//!   │◀───────────── Refused(why) ──────│  at any time; connection ends
//! ```
//! A host that makes a machine of a point which another one keeps, the *borrower*,
//! reads the point's disks over such a connection too:
//!
//! ```text
//! borrower                          keeper
//!   │── Borrow(recovery) ─────────────▶│  the point was lent to this host before
//!   │◀───── Lent(disks, configuration) │
//!   │◀═══════════ NBD ════════════════▶│  until somebody closes it
//! ```
//!
//! A frame is 12 bytes of header and a body: `LBDF`, version, kind, two zero
//! bytes, length of the body. Kind 1 is a message as JSON; 2 are pages: disk
//! (u16), codec (u8), zero, length on the disk (u32), offset (u64), digest (16
//! bytes), the pages as stored; 3 and 4 are a range of zeroes and a discard:
//! disk (u16), six zero bytes, offset (u64), length (u64). Numbers are
//! little-endian. See `docs/formats/data-protocol.md`.

use std::marker::PhantomData;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use domain::id::{HostId, ProtectionId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio_util::codec::{Decoder, Encoder};
use uuid::Uuid;

use crate::frame::FrameError;
use crate::message::Refused;

/// Version of the frames and messages.
pub const VERSION: u8 = 1;
/// The first bytes of a frame.
pub const MAGIC: [u8; 4] = *b"LBDF";
/// The longest body: a machine's configuration in a message, 1 MiB as text.
pub const BODY_MAX: usize = 8 << 20;
/// How many digests one [`Ask`] may ask for.
pub const DIGESTS_MAX: u64 = 65_536;

const HEADER: usize = 12;
const MESSAGE: u8 = 1;
const PAGES: u8 = 2;
const ZERO: u8 = 3;
const DISCARD: u8 = 4;
const PAGES_HEAD: usize = 32;
const RANGE_BODY: usize = 24;
/// Pages of at most one block come in a frame.
const BLOCK: usize = 64 << 10;

/// From the shipper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShipperFrame {
    /// A message.
    Message(ShipperMessage),
    /// Pages of one block of 64 KiB, as a replica store keeps them.
    Pages(Pages),
    /// A range that is zeroes, because somebody wrote them.
    Zero(Range),
    /// A range that was discarded.
    Discard(Range),
}

/// Pages of one block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pages {
    /// Number of the disk.
    pub disk: u16,
    /// How they are stored: 0 as they are, 1 a zstd frame.
    pub codec: u8,
    /// Where on the disk, in bytes.
    pub offset: u64,
    /// How many bytes of the disk they are.
    pub length: u32,
    /// The first 128 bits of BLAKE3 of the pages, padded with zeroes to 4 KiB.
    pub digest: [u8; 16],
    /// The bytes.
    pub stored: Bytes,
}

/// A range of a disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// Number of the disk.
    pub disk: u16,
    /// Where.
    pub offset: u64,
    /// How many.
    pub length: u64,
}

/// Messages of the shipper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ShipperMessage {
    /// First.
    Hello(Hello),
    /// Begins an attempt; one that is open is given up.
    Begin(Begin),
    /// Goes on with the attempt that is open at the keeper.
    Resume(Begin),
    /// Asks for digests of the newest point.
    Ask(Ask),
    /// Make everything so far durable.
    Sync,
    /// Make a point of everything since `Begin`.
    Seal(Seal),
    /// The shipper is there, and has nothing to say.
    Idle,
    /// First, of a borrower: what was lent to it for a recovery.
    Borrow(Borrow),
}

/// Asks for the disks of a point that was lent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Borrow {
    /// The recovery that it was lent for.
    pub recovery: Uuid,
}

/// Who ships what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The protection.
    pub protection: Uuid,
    /// The shipper's right to write; the keeper refuses an older one than it
    /// knows.
    pub generation: u64,
}

impl Hello {
    /// Which protection.
    #[must_use]
    pub const fn protection(&self) -> ProtectionId {
        ProtectionId::new(self.protection)
    }
}

/// The disks of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// Sizes in bytes, in order.
    pub disks: Vec<u64>,
}

/// Asks for digests of blocks of 64 KiB of the newest point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Number of the disk.
    pub disk: u16,
    /// First node and count, in order; at most [`DIGESTS_MAX`] together.
    pub ranges: Vec<(u64, u64)>,
    /// 0 for blocks; a node of level n covers 64ⁿ blocks.
    pub level: u8,
}

/// What makes a point of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// Milliseconds since 1970 by the shipper's clock.
    pub instant: i64,
    /// Whether applications had written everything down.
    pub app_consistent: bool,
    /// Where it comes from, for people.
    pub origin: String,
    /// The machine's configuration.
    pub configuration: String,
}

/// Messages of the keeper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum KeeperMessage {
    /// The answer to `Hello`.
    Welcome(Welcome),
    /// The answer to `Begin`, and to `Resume` if there is something open.
    Begun(Open),
    /// The answer to `Resume` if nothing is open.
    NothingOpen,
    /// The answer to `Ask`: hexadecimal digests, one after the other; a block of
    /// zeroes has 0.
    Answers {
        /// 32 digits each.
        digests: String,
    },
    /// The answer to `Sync`.
    Synced(Open),
    /// The answer to `Seal`.
    Sealed(Sealed),
    /// The answer to `Idle`.
    Idle,
    /// The answer to `Borrow`. The keeper goes on as an NBD server, whose exports
    /// have the names of the disks.
    Lent(Lent),
    /// The keeper refuses, and ends the connection.
    Refused(Refused),
}

/// A point that was lent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lent {
    /// Bytes of its disks, in order.
    pub disks: Vec<u64>,
    /// The machine's configuration.
    pub configuration: String,
}

/// What the keeper has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The keeper's host.
    pub host: Uuid,
    /// The newest point, if there is any.
    pub newest: Option<Sealed>,
    /// What is open and durable, if anything is.
    pub open: Option<Open>,
}

impl Welcome {
    /// Which host.
    #[must_use]
    pub const fn host(&self) -> HostId {
        HostId::new(self.host)
    }
}

/// An attempt that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// Its number, which the point will have.
    pub cycle: u32,
    /// Its changes that are durable.
    pub changes: u64,
}

/// A point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// Its number.
    pub point: u32,
    /// Milliseconds since 1970.
    pub instant: i64,
    /// Whether applications had written everything down.
    pub app_consistent: bool,
    /// Bytes that it took when it arrived.
    pub stored_bytes: u64,
}

/// Digests as [`KeeperMessage::Answers`] has them.
#[must_use]
pub fn digests_to_text(digests: impl IntoIterator<Item = [u8; 16]>) -> String {
    let digit = |half: u8| char::from_digit(u32::from(half), 16).unwrap_or('0');
    let bytes = digests.into_iter().flatten();
    bytes.flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// Back from [`digests_to_text`]; none if it is something else.
#[must_use]
pub fn digests_from_text(text: &str) -> Option<Vec<[u8; 16]>> {
    let digit = |byte: &u8| (*byte as char).to_digit(16);
    let digests = text.as_bytes().chunks(32).map(|chunk| {
        let mut digest = [0; 16];
        if chunk.len() != 32 {
            return None;
        }
        for (byte, pair) in digest.iter_mut().zip(chunk.chunks(2)) {
            let (high, low) = (pair.first().and_then(digit)?, pair.last().and_then(digit)?);
            *byte = (high << 4 | low) as u8;
        }
        Some(digest)
    });
    digests.collect()
}

/// The shipper's side of the codec.
#[derive(Debug, Default)]
pub struct ShipperCodec(Messages<KeeperMessage>);

/// The keeper's side of the codec.
#[derive(Debug, Default)]
pub struct KeeperCodec(Messages<ShipperMessage>);

#[derive(Debug)]
struct Messages<T>(PhantomData<fn() -> T>);

impl<T> Default for Messages<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: DeserializeOwned> Messages<T> {
    fn message(body: &[u8]) -> Result<T, FrameError> {
        serde_json::from_slice(body).map_err(FrameError::Message)
    }
}

fn put_message(message: &impl Serialize, out: &mut BytesMut) -> Result<(), FrameError> {
    let body = serde_json::to_vec(message).map_err(FrameError::Message)?;
    if body.len() > BODY_MAX {
        return Err(FrameError::TooLong { length: body.len(), limit: BODY_MAX });
    }
    put_header(MESSAGE, body.len(), out);
    out.put_slice(&body);
    Ok(())
}

fn put_header(kind: u8, length: usize, out: &mut BytesMut) {
    out.reserve(HEADER + length);
    out.put_slice(&MAGIC);
    out.put_u8(VERSION);
    out.put_u8(kind);
    out.put_u16_le(0);
    // Bodies are at most BODY_MAX.
    out.put_u32_le(length as u32);
}

/// Kind and body of the next frame, if all of it is there.
fn take_frame(buffer: &mut BytesMut) -> Result<Option<(u8, BytesMut)>, FrameError> {
    let Some(header) = buffer.first_chunk::<HEADER>() else { return Ok(None) };
    let [m0, m1, m2, m3, version, kind, _, _, l0, l1, l2, l3] = *header;
    if [m0, m1, m2, m3] != MAGIC {
        return Err(FrameError::Magic([m0, m1, m2, m3]));
    }
    if version != VERSION {
        return Err(FrameError::Version(version));
    }
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if length > BODY_MAX {
        return Err(FrameError::TooLong { length, limit: BODY_MAX });
    }
    if buffer.len() < HEADER + length {
        return Ok(None);
    }
    buffer.advance(HEADER);
    Ok(Some((kind, buffer.split_to(length))))
}

impl Encoder<ShipperFrame> for ShipperCodec {
    type Error = FrameError;

    fn encode(&mut self, frame: ShipperFrame, out: &mut BytesMut) -> Result<(), FrameError> {
        match frame {
            ShipperFrame::Message(message) => put_message(&message, out)?,
            ShipperFrame::Pages(pages) => {
                put_header(PAGES, PAGES_HEAD + pages.stored.len(), out);
                out.put_u16_le(pages.disk);
                out.put_u8(pages.codec);
                out.put_u8(0);
                out.put_u32_le(pages.length);
                out.put_u64_le(pages.offset);
                out.put_slice(&pages.digest);
                out.put_slice(&pages.stored);
            }
            ShipperFrame::Zero(range) => put_range(ZERO, range, out),
            ShipperFrame::Discard(range) => put_range(DISCARD, range, out),
        }
        Ok(())
    }
}

fn put_range(kind: u8, range: Range, out: &mut BytesMut) {
    put_header(kind, RANGE_BODY, out);
    out.put_u16_le(range.disk);
    out.put_slice(&[0; 6]);
    out.put_u64_le(range.offset);
    out.put_u64_le(range.length);
}

impl Decoder for ShipperCodec {
    type Item = KeeperMessage;
    type Error = FrameError;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<KeeperMessage>, FrameError> {
        match take_frame(buffer)? {
            None => Ok(None),
            Some((MESSAGE, body)) => Messages::message(&body).map(Some),
            Some((kind, _)) => Err(FrameError::Kind(kind)),
        }
    }
}

impl Encoder<&KeeperMessage> for KeeperCodec {
    type Error = FrameError;

    fn encode(&mut self, message: &KeeperMessage, out: &mut BytesMut) -> Result<(), FrameError> {
        put_message(message, out)
    }
}

impl Decoder for KeeperCodec {
    type Item = ShipperFrame;
    type Error = FrameError;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<ShipperFrame>, FrameError> {
        let Some((kind, body)) = take_frame(buffer)? else { return Ok(None) };
        let mut body = body.freeze();
        let short = |wanted| FrameError::TooShort { length: wanted };
        Ok(Some(match kind {
            MESSAGE => ShipperFrame::Message(Messages::message(&body)?),
            PAGES if body.len() < PAGES_HEAD => return Err(short(body.len())),
            PAGES if body.len() > PAGES_HEAD + BLOCK => {
                return Err(FrameError::TooLong { length: body.len(), limit: PAGES_HEAD + BLOCK });
            }
            PAGES => {
                let disk = body.get_u16_le();
                let codec = body.get_u8();
                body.advance(1);
                let length = body.get_u32_le();
                let offset = body.get_u64_le();
                let mut digest = [0; 16];
                body.copy_to_slice(&mut digest);
                ShipperFrame::Pages(Pages { disk, codec, offset, length, digest, stored: body })
            }
            ZERO | DISCARD if body.len() != RANGE_BODY => return Err(short(body.len())),
            ZERO | DISCARD => {
                let disk = body.get_u16_le();
                body.advance(6);
                let (offset, length) = (body.get_u64_le(), body.get_u64_le());
                let range = Range { disk, offset, length };
                match kind {
                    ZERO => ShipperFrame::Zero(range),
                    _ => ShipperFrame::Discard(range),
                }
            }
            other => return Err(FrameError::Kind(other)),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames() -> Vec<ShipperFrame> {
        let range = Range { disk: 1, offset: 65_536, length: 1 << 40 };
        vec![
            ShipperFrame::Message(ShipperMessage::Sync),
            ShipperFrame::Pages(Pages {
                disk: 2,
                codec: 1,
                offset: 4096,
                length: 8192,
                digest: *b"0123456789abcdef",
                stored: Bytes::from_static(b"stored"),
            }),
            ShipperFrame::Zero(range),
            ShipperFrame::Discard(range),
        ]
    }

    #[test]
    fn frames_come_back_from_any_pieces() {
        let mut wire = BytesMut::new();
        for frame in frames() {
            ShipperCodec::default().encode(frame, &mut wire).unwrap();
        }
        let mut arrived = BytesMut::new();
        let mut found = Vec::new();
        for byte in wire {
            arrived.put_u8(byte);
            found.extend(KeeperCodec::default().decode(&mut arrived).unwrap());
        }
        assert_eq!(found, frames());
    }

    /// Changing this breaks agents that are upgraded one after the other.
    #[test]
    fn golden_frames() {
        let mut wire = BytesMut::new();
        for frame in frames() {
            ShipperCodec::default().encode(frame, &mut wire).unwrap();
        }
        let hex: String = wire.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, include_str!("../tests/golden/data-frames-1.hex").trim());
    }

    #[test]
    fn digests_go_as_text() {
        let text = "00ff0000000000000000000000000001".repeat(2);
        let mut digest = [0; 16];
        (digest[1], digest[15]) = (0xff, 1);
        assert_eq!(digests_from_text(&text), Some(vec![digest; 2]));
        assert_eq!(digests_to_text([digest; 2]), text);
        assert_eq!(digests_from_text("0"), None);
        assert_eq!(digests_from_text(&"x".repeat(32)), None);
    }

    #[test]
    fn messages_have_no_more_room_than_they_need() {
        let mut long = BytesMut::from(&b"LBDF\x01\x01\0\0\xff\xff\xff\x7f"[..]);
        assert!(matches!(
            KeeperCodec::default().decode(&mut long),
            Err(FrameError::TooLong { .. })
        ));
        let mut short = BytesMut::from(&b"LBDF\x01\x02\0\0\x01\0\0\0x"[..]);
        assert!(matches!(
            KeeperCodec::default().decode(&mut short),
            Err(FrameError::TooShort { .. })
        ));
    }
}
