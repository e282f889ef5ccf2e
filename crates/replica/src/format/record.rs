//! A record: a header of 64 bytes and what is stored, padded to 16.
//!
//! Records can be read from front to back without an index. The header's
//! checksum starts from the segment's salt, so that a guest's disk which
//! happens to hold a replica store is not mistaken for our own records.

use std::{
    io,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use zstd::bulk::Decompressor;

use super::{Cursor, Digest, Malformed, put_blob};
use crate::geometry::{BLOCK, BlockKey, Cycle, DiskNumber, PageRun};

/// Bytes of a header.
pub const HEADER: usize = 64;
/// The most bytes that the payload of a commit record may have.
pub const MAX_COMMIT: usize = 4 << 20;
/// The first bytes of a header.
pub const MAGIC: [u8; 4] = *b"LBr1";
/// The version of a commit record's payload.
const COMMIT_VERSION: u8 = 1;

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Bytes of pages.
    Data,
    /// Zeroes, without payload.
    Zero,
    /// Discarded, without payload.
    Discard,
    /// The end of a cycle: it is a recovery point from here on.
    Commit,
    /// The last record of a closed segment: its index.
    Footer,
    /// Bytes that lie in an adopted file, without payload.
    Adopted {
        /// Which file, in the manifest's table.
        file: u32,
        /// Where in it, in pages.
        page: u32,
    },
}

/// How a payload is stored. Numbers are for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// As it is.
    Plain,
    /// A zstd frame.
    Zstd,
}

impl Codec {
    /// Its number.
    #[must_use]
    pub fn to_byte(self) -> u8 {
        match self {
            Self::Plain => 0,
            Self::Zstd => 1,
        }
    }

    /// The codec with a number.
    ///
    /// # Errors
    /// There is none yet.
    pub fn from_byte(byte: u8) -> Result<Self, Malformed> {
        match byte {
            0 => Ok(Self::Plain),
            1 => Ok(Self::Zstd),
            _ => Err(Malformed("a codec of a newer version")),
        }
    }
}

/// A record's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the record is.
    pub kind: Kind,
    /// How the payload is stored.
    pub codec: Codec,
    /// The (first) block.
    pub key: BlockKey,
    /// The blocks of a zero or discard record; 1 with others.
    pub span: u32,
    /// The pages in the block.
    pub pages: PageRun,
    /// The cycle.
    pub cycle: Cycle,
    /// Number of the change in its cycle that this is a part of, from 1 on.
    pub change: u64,
    /// Whether the change ends here.
    pub last: bool,
    /// Bytes of payload, without padding.
    pub stored: u32,
    /// CRC-32C of the payload as stored.
    pub payload_crc: u32,
    /// Bytes of this segment that were durable when this was written; more
    /// than 0 says that all earlier segments were, too.
    pub durable: u32,
    /// Of the payload before compression.
    pub digest: Digest,
}

impl Header {
    /// Bytes of the whole record.
    #[must_use]
    pub fn record_bytes(&self) -> u32 {
        HEADER as u32 + padded(self.stored)
    }

    /// Its 64 bytes in a segment with this salt.
    #[must_use]
    pub fn encode(&self, salt: u32) -> [u8; HEADER] {
        let kind = match self.kind {
            Kind::Data => 1,
            Kind::Zero => 2,
            Kind::Discard => 3,
            Kind::Commit => 4,
            Kind::Footer => 5,
            Kind::Adopted { .. } => 6,
        };
        // Adopted blocks never span several and have no payload.
        let (span, payload_crc) = match self.kind {
            Kind::Adopted { file, page } => (file, page),
            _ => (self.span, self.payload_crc),
        };
        let mut body = Vec::with_capacity(HEADER - 8);
        body.extend_from_slice(&[kind, self.codec.to_byte()]);
        body.extend_from_slice(&self.key.disk().0.to_le_bytes());
        body.extend_from_slice(&self.key.block().to_le_bytes());
        body.extend_from_slice(&span.to_le_bytes());
        body.extend_from_slice(&self.cycle.0.to_le_bytes());
        body.extend_from_slice(&self.change.to_le_bytes());
        body.extend_from_slice(&self.stored.to_le_bytes());
        body.extend_from_slice(&payload_crc.to_le_bytes());
        body.extend_from_slice(&self.durable.to_le_bytes());
        let pages = self.pages.first() << 4 | (self.pages.count() - 1);
        body.extend_from_slice(&[pages, u8::from(self.last), 0, 0]);
        body.extend_from_slice(&self.digest.0);
        let crc = crc32c::crc32c_append(salt, &body);
        let mut bytes = [0; HEADER];
        let whole = MAGIC.into_iter().chain(crc.to_le_bytes()).chain(body);
        bytes.iter_mut().zip(whole).for_each(|(to, from)| *to = from);
        bytes
    }

    /// Takes one from the front of `bytes`, in a segment with this salt.
    ///
    /// # Errors
    /// It is none, or of another segment.
    pub fn decode(salt: u32, bytes: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor(bytes.get(..HEADER).ok_or(Malformed("cut short"))?);
        if cursor.array()? != MAGIC {
            return Err(Malformed("no record starts here"));
        }
        let crc = cursor.u32()?;
        if crc != crc32c::crc32c_append(salt, cursor.0) {
            return Err(Malformed("the header's checksum is wrong"));
        }
        let mut kind = match cursor.u8()? {
            1 => Kind::Data,
            2 => Kind::Zero,
            3 => Kind::Discard,
            4 => Kind::Commit,
            5 => Kind::Footer,
            6 => Kind::Adopted { file: 0, page: 0 },
            _ => return Err(Malformed("a record of unknown kind")),
        };
        let codec = Codec::from_byte(cursor.u8()?)?;
        let disk = DiskNumber(cursor.u16()?);
        let key = BlockKey::new(disk, cursor.u32()?);
        let mut span = cursor.u32()?;
        let cycle = Cycle(cursor.u32()?);
        let change = cursor.u64()?;
        let stored = cursor.u32()?;
        let mut payload_crc = cursor.u32()?;
        if matches!(kind, Kind::Adopted { .. }) {
            kind = Kind::Adopted { file: span, page: payload_crc };
            (span, payload_crc) = (1, 0);
        }
        let durable = cursor.u32()?;
        let pages = cursor.u8()?;
        let last = cursor.u8()? != 0;
        cursor.u16()?;
        let digest = Digest(cursor.array()?);
        let pages = PageRun::new(pages >> 4, (pages & 15) + 1).ok_or(Malformed("pages"))?;
        let fits = match kind {
            Kind::Data => stored as usize <= pages.bytes() && span == 1,
            Kind::Zero | Kind::Discard => {
                let end = u64::from(key.block()) + u64::from(span);
                let spans = span == 1 || (span > 1 && pages == PageRun::WHOLE);
                stored == 0 && spans && end <= 1 << 32
            }
            Kind::Commit => stored as usize <= MAX_COMMIT,
            Kind::Footer => true,
            Kind::Adopted { .. } => stored == 0,
        };
        if !fits {
            return Err(Malformed("a record of impossible size"));
        }
        Ok(Self {
            kind,
            codec,
            key,
            span,
            pages,
            cycle,
            change,
            last,
            stored,
            payload_crc,
            durable,
            digest,
        })
    }

    /// The payload as it was before it was stored, proved by its digest.
    ///
    /// # Errors
    /// It is damaged.
    pub fn open_payload(&self, stored: &[u8]) -> Result<Vec<u8>, Malformed> {
        let stored = stored.get(..self.stored as usize).ok_or(Malformed("cut short"))?;
        let plain = match self.codec {
            Codec::Plain => stored.to_vec(),
            Codec::Zstd => self.unpack(stored)?,
        };
        self.prove(&plain)?;
        Ok(plain)
    }

    /// As [`open_payload`](Self::open_payload), of a whole record, header and all.
    /// What was not compressed is not copied.
    ///
    /// # Errors
    /// It is damaged.
    pub fn open_record(&self, record: Vec<u8>) -> Result<Bytes, Malformed> {
        if self.codec == Codec::Zstd {
            let stored = record.get(HEADER..).ok_or(Malformed("cut short"))?;
            return self.open_payload(stored).map(Bytes::from);
        }
        let end = HEADER + self.stored as usize;
        if record.len() < end {
            return Err(Malformed("cut short"));
        }
        let plain = Bytes::from(record).slice(HEADER..end);
        self.prove(&plain)?;
        Ok(plain)
    }

    /// Bytes that the payload has, or at most has, before compression.
    fn expected(&self) -> usize {
        match self.kind {
            Kind::Data => self.pages.bytes(),
            Kind::Commit => MAX_COMMIT,
            Kind::Footer => super::segment::MAX_SEGMENT as usize,
            Kind::Zero | Kind::Discard | Kind::Adopted { .. } => 0,
        }
    }

    fn unpack(&self, stored: &[u8]) -> Result<Vec<u8>, Malformed> {
        unpack(stored, self.expected()).map_err(|_| Malformed("the payload cannot be decompressed"))
    }

    /// What is damaged does not have the digest: the checksum, which proves records
    /// without unpacking them, would say nothing more.
    fn prove(&self, plain: &[u8]) -> Result<(), Malformed> {
        if self.kind == Kind::Data && plain.len() != self.expected() {
            return Err(Malformed("the payload has the wrong length"));
        }
        if Digest::of(plain) != self.digest {
            return Err(Malformed("the payload's hash is wrong"));
        }
        Ok(())
    }
}

/// Decompresses to at most so many bytes. A context costs as much to make as
/// several blocks do to decompress, so a few are kept for later.
fn unpack(stored: &[u8], limit: usize) -> io::Result<Vec<u8>> {
    const SPARES: usize = 16;
    static CONTEXTS: Mutex<Vec<Decompressor<'static>>> = Mutex::new(Vec::new());
    let contexts = || CONTEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    let spare = contexts().pop();
    let mut context = match spare {
        Some(context) => context,
        None => Decompressor::new()?,
    };
    let plain = context.decompress(stored, limit);
    let mut spares = contexts();
    if spares.len() < SPARES {
        spares.push(context);
    }
    plain
}

/// A length with its padding.
#[must_use]
pub const fn padded(length: u32) -> u32 {
    length.div_ceil(16) * 16
}

/// Whether a point's machine was asked to hold still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Consistency {
    /// As after a power failure.
    Crash,
    /// Applications had written everything down.
    App,
}

impl Consistency {
    pub(crate) fn to_byte(self) -> u8 {
        match self {
            Self::Crash => 0,
            Self::App => 1,
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Result<Self, Malformed> {
        match byte {
            0 => Ok(Self::Crash),
            1 => Ok(Self::App),
            _ => Err(Malformed("an unknown consistency")),
        }
    }
}

/// The payload of a commit record: all that a point is besides its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Milliseconds since 1970, by the source's clock. A label: order comes
    /// from cycles.
    pub instant: i64,
    /// How still the machine was.
    pub consistency: Consistency,
    /// Sizes of its disks in bytes, in order.
    pub disks: Vec<u64>,
    /// Where it came from, for people.
    pub origin: String,
    /// The machine's configuration, as the capturing side gave it.
    pub configuration: Vec<u8>,
    /// Bytes that the cycle's records take.
    pub stored: u64,
}

impl Commit {
    /// The payload.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![COMMIT_VERSION, self.consistency.to_byte()];
        out.extend_from_slice(&(self.disks.len() as u16).to_le_bytes());
        out.extend_from_slice(&self.instant.to_le_bytes());
        out.extend_from_slice(&self.stored.to_le_bytes());
        for size in &self.disks {
            out.extend_from_slice(&size.to_le_bytes());
        }
        put_blob(&mut out, self.origin.as_bytes());
        put_blob(&mut out, &self.configuration);
        out
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// It is none, or of a newer version.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor(bytes);
        if cursor.u8()? != COMMIT_VERSION {
            return Err(Malformed("a commit record of a newer version"));
        }
        let consistency = Consistency::from_byte(cursor.u8()?)?;
        let count = cursor.u16()?;
        let instant = cursor.i64()?;
        let stored = cursor.u64()?;
        let mut disks = Vec::new();
        for _ in 0..count {
            disks.push(cursor.u64()?);
        }
        let origin = String::from_utf8_lossy(cursor.blob()?).into_owned();
        let configuration = cursor.blob()?.to_vec();
        cursor.end()?;
        Ok(Self { instant, consistency, disks, origin, configuration, stored })
    }
}

/// The header of a commit or footer record and its payload as stored.
#[must_use]
pub fn seal_payload(kind: Kind, cycle: Cycle, plain: &[u8]) -> (Header, Vec<u8>) {
    let (codec, stored) = match zstd::bulk::compress(plain, 1) {
        Ok(smaller) if smaller.len() < plain.len() => (Codec::Zstd, smaller),
        _ => (Codec::Plain, plain.to_vec()),
    };
    let header = Header {
        kind,
        codec,
        key: BlockKey::new(DiskNumber(0), 0),
        span: 1,
        pages: PageRun::WHOLE,
        cycle,
        change: 0,
        last: true,
        stored: stored.len() as u32,
        payload_crc: crc32c::crc32c(&stored),
        durable: 0,
        digest: Digest::of(plain),
    };
    (header, stored)
}

const _: () = assert!(BLOCK == 1 << 16, "a payload of a block fits what an entry can say");

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Header {
        Header {
            kind: Kind::Data,
            codec: Codec::Plain,
            key: BlockKey::new(DiskNumber(1), 2),
            span: 1,
            pages: PageRun::new(3, 2).unwrap(),
            cycle: Cycle(4),
            change: 5,
            last: true,
            stored: 8192,
            payload_crc: crc32c::crc32c(&[7; 8192]),
            durable: 6,
            digest: Digest::of(&[7; 8192]),
        }
    }

    #[test]
    fn headers_come_back_in_their_own_segment_only() {
        let bytes = sample().encode(1);
        assert_eq!(Header::decode(1, &bytes), Ok(sample()));
        assert_eq!(Header::decode(2, &bytes).unwrap_err().0, "the header's checksum is wrong");
        for bit in 0..HEADER * 8 {
            let mut spoilt = bytes;
            spoilt[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(1, &spoilt).is_err(), "bit {bit}");
        }
    }

    /// Changing this breaks every store in the field.
    #[test]
    fn golden_header() {
        let hex: String = sample().encode(1).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, include_str!("golden/record.hex").trim());
    }

    /// Likewise.
    #[test]
    fn golden_header_of_an_adopted_block() {
        let kind = Kind::Adopted { file: 3, page: 0x0102_0304 };
        let header = Header { kind, stored: 0, payload_crc: 0, ..sample() };
        let bytes = header.encode(1);
        assert_eq!(Header::decode(1, &bytes), Ok(header));
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, include_str!("golden/adopted.hex").trim());
    }

    #[test]
    fn payloads_are_proved() {
        let header = sample();
        assert_eq!(header.open_payload(&[7; 8192]).unwrap(), [7; 8192]);
        let mut spoilt = [7; 8192];
        spoilt[100] = 8;
        assert!(header.open_payload(&spoilt).is_err());
        let liar = Header { payload_crc: crc32c::crc32c(&spoilt), ..header };
        assert_eq!(liar.open_payload(&spoilt).unwrap_err().0, "the payload's hash is wrong");
        let record = |payload: &[u8]| [&header.encode(1), payload, &[0; 16]].concat();
        assert_eq!(header.open_record(record(&[7; 8192])).unwrap(), [7; 8192].as_slice());
        assert!(header.open_record(record(&spoilt)).is_err());
        assert!(header.open_record(record(&[7; 8000])).is_err());
        assert!(header.open_record(vec![0; 10]).is_err());
    }

    #[test]
    fn commits_come_back() {
        let commit = Commit {
            instant: -5,
            consistency: Consistency::App,
            disks: vec![1, 1 << 40],
            origin: "east".into(),
            configuration: b"<domain/>".to_vec(),
            stored: 77,
        };
        assert_eq!(Commit::decode(&commit.encode()), Ok(commit.clone()));
        let (header, stored) = seal_payload(Kind::Commit, Cycle(1), &commit.encode());
        let plain = header.open_payload(&stored).unwrap();
        assert_eq!(Commit::decode(&plain), Ok(commit));
        for end in 0..plain.len() {
            assert!(Commit::decode(&plain[..end]).is_err());
        }
    }
}
