//! An index entry: which pages of a block a record holds, and where it lies.
//! Forty bytes, alike in index runs and in the footers of segments.

use super::{Cursor, Digest, Malformed};
use crate::geometry::{BlockKey, Cycle, DiskNumber, PageRun};

/// Encoded size in bytes.
pub const SIZE: usize = 40;

/// What a record did to pages of one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The block; the first one, if the content spans several.
    pub key: BlockKey,
    /// When.
    pub cycle: Cycle,
    /// The pages that the record has.
    pub pages: PageRun,
    /// The pages for which it still counts: the others were written again
    /// later, in the same cycle or before any kept point.
    pub mask: u16,
    /// What the pages are.
    pub content: Content,
}

/// What pages are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Bytes in a record.
    Data {
        /// Where.
        place: Place,
        /// Of the pages' bytes.
        digest: Digest,
    },
    /// Zeroes that somebody wrote, in so many blocks (1 in index runs).
    Zero {
        /// Blocks, from `key` on.
        span: u32,
    },
    /// Zeroes because somebody discarded, in so many blocks.
    Discard {
        /// Blocks, from `key` on.
        span: u32,
    },
    /// Bytes in a file that was adopted.
    Adopted {
        /// Which file, in the manifest's table.
        file: u32,
        /// Where in it, in pages.
        page: u32,
        /// Of the pages' bytes.
        digest: Digest,
    },
}

/// Where a record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The segment.
    pub segment: u32,
    /// Of the record's header in the segment, in bytes.
    pub offset: u32,
    /// Bytes after the header, with padding: a multiple of 16.
    pub stored: u32,
}

const DATA: u8 = 1;
const ZERO: u8 = 2;
const DISCARD: u8 = 3;
const ADOPTED: u8 = 4;

impl Entry {
    /// Appends its forty bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (kind, stored, segment, offset, digest) = match self.content {
            Content::Data { place, digest } => {
                (DATA, (place.stored / 16) as u16, place.segment, place.offset, digest)
            }
            Content::Zero { span } => (ZERO, 0, span, 0, Digest::default()),
            Content::Discard { span } => (DISCARD, 0, span, 0, Digest::default()),
            Content::Adopted { file, page, digest } => (ADOPTED, 0, file, page, digest),
        };
        out.extend_from_slice(&self.key.disk().0.to_le_bytes());
        out.extend_from_slice(&[kind, self.pages.first() << 4 | (self.pages.count() - 1)]);
        out.extend_from_slice(&self.key.block().to_le_bytes());
        out.extend_from_slice(&self.cycle.0.to_le_bytes());
        out.extend_from_slice(&self.mask.to_le_bytes());
        out.extend_from_slice(&stored.to_le_bytes());
        out.extend_from_slice(&segment.to_le_bytes());
        out.extend_from_slice(&offset.to_le_bytes());
        out.extend_from_slice(&digest.0);
    }

    /// Takes one from the front of `bytes`.
    ///
    /// # Errors
    /// It is none.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor(bytes);
        let disk = DiskNumber(cursor.u16()?);
        let kind = cursor.u8()?;
        let pages = cursor.u8()?;
        let pages = PageRun::new(pages >> 4, (pages & 15) + 1).ok_or(Malformed("pages"))?;
        let key = BlockKey::new(disk, cursor.u32()?);
        let cycle = Cycle(cursor.u32()?);
        let mask = cursor.u16()?;
        let stored = u32::from(cursor.u16()?) * 16;
        let first = cursor.u32()?;
        let second = cursor.u32()?;
        let digest = Digest(cursor.array()?);
        if mask & !pages.mask() != 0 {
            return Err(Malformed("an entry counts for pages that it does not have"));
        }
        let spans = |span: u32| match span {
            0 => Err(Malformed("a span of nothing")),
            1 => Ok(1),
            _ if pages == PageRun::WHOLE => Ok(span),
            _ => Err(Malformed("a span of parts of blocks")),
        };
        let content = match kind {
            DATA => {
                let place = Place { segment: first, offset: second, stored };
                Content::Data { place, digest }
            }
            ZERO => Content::Zero { span: spans(first)? },
            DISCARD => Content::Discard { span: spans(first)? },
            ADOPTED => Content::Adopted { file: first, page: second, digest },
            _ => return Err(Malformed("an entry of unknown kind")),
        };
        Ok(Self { key, cycle, pages, mask, content })
    }

    /// Bytes that it keeps alive in a segment.
    #[must_use]
    pub fn stored(&self) -> u64 {
        match self.content {
            Content::Data { place, .. } => u64::from(place.stored) + super::record::HEADER as u64,
            _ => 0,
        }
    }

    /// Bytes that are read to have its pages; zeroes need none.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match self.content {
            Content::Data { .. } => self.stored(),
            Content::Adopted { .. } => self.pages.bytes() as u64,
            Content::Zero { .. } | Content::Discard { .. } => 0,
        }
    }

    /// The segment that its bytes lie in.
    #[must_use]
    pub fn segment(&self) -> Option<u32> {
        match self.content {
            Content::Data { place, .. } => Some(place.segment),
            _ => None,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn samples() -> Vec<Entry> {
        let digest = Digest(*b"0123456789abcdef");
        let place = Place { segment: 7, offset: 4096, stored: 65_536 };
        [
            Content::Data { place, digest },
            Content::Zero { span: 1 },
            Content::Discard { span: 1000 },
            Content::Adopted { file: 1, page: u32::MAX, digest },
        ]
        .map(|content| Entry {
            key: BlockKey::new(DiskNumber(2), 0x0102_0304),
            cycle: Cycle(99),
            pages: PageRun::WHOLE,
            mask: 0x0ff0,
            content,
        })
        .to_vec()
    }

    #[test]
    fn entries_come_back() {
        for entry in samples() {
            let mut bytes = Vec::new();
            entry.encode(&mut bytes);
            assert_eq!(bytes.len(), SIZE);
            assert_eq!(Entry::decode(&bytes), Ok(entry));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let mut bytes = Vec::new();
        let entry = Entry { pages: PageRun::new(0, 4).unwrap(), mask: 1, ..samples()[0] };
        entry.encode(&mut bytes);
        let spoilt = |at: usize, value: u8| {
            let mut bytes = bytes.clone();
            bytes[at] = value;
            Entry::decode(&bytes).unwrap_err().0
        };
        assert_eq!(spoilt(2, 9), "an entry of unknown kind");
        assert_eq!(spoilt(3, 0xff), "pages");
        assert_eq!(spoilt(13, 1), "an entry counts for pages that it does not have");
        assert_eq!(Entry::decode(&bytes[..39]).unwrap_err().0, "cut short");
    }
}
