//! An index run: entries in order, in blocks of 16 KiB, and the first key of
//! every block at the end.
//!
//! ```text
//! block │ block │ … │ fences │ trailer (64 bytes)
//! block: crc32c │ count u16 │ 0 u16 │ entries │ zeroes
//! ```
//! Order: by block; of one block, the newest cycle first.

use super::{
    Cursor, Malformed,
    entry::{self, Entry},
};
use crate::geometry::{BlockKey, Cycle};

/// Bytes of a block.
pub const INDEX_BLOCK: usize = 16 * 1024;
/// Entries that a block has room for.
pub const PER_BLOCK: usize = (INDEX_BLOCK - 8) / entry::SIZE;
/// Bytes of the trailer.
pub const TRAILER: usize = 64;
const MAGIC: [u8; 8] = *b"LBIDXRN1";

/// The sort key of entries.
#[must_use]
pub fn order(entry: &Entry) -> (BlockKey, std::cmp::Reverse<Cycle>) {
    (entry.key, std::cmp::Reverse(entry.cycle))
}

/// A block with these entries, at most [`PER_BLOCK`].
#[must_use]
pub fn encode_block(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::with_capacity(INDEX_BLOCK);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(entries.len() as u16).to_le_bytes());
    out.extend_from_slice(&[0; 2]);
    entries.iter().for_each(|entry| entry.encode(&mut out));
    out.resize(INDEX_BLOCK, 0);
    let crc = crc32c::crc32c(out.get(4..).unwrap_or_default());
    out.iter_mut().zip(crc.to_le_bytes()).for_each(|(to, from)| *to = from);
    out
}

/// The entries of a block.
///
/// # Errors
/// It is damaged.
pub fn decode_block(bytes: &[u8]) -> Result<Vec<Entry>, Malformed> {
    let mut cursor = Cursor(bytes);
    if cursor.u32()? != crc32c::crc32c(cursor.0) {
        return Err(Malformed("the index block's checksum is wrong"));
    }
    let count = usize::from(cursor.u16()?);
    cursor.u16()?;
    if count == 0 || count > PER_BLOCK {
        return Err(Malformed("an index block of impossible size"));
    }
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        entries.push(Entry::decode(cursor.slice(entry::SIZE)?)?);
    }
    if !entries.is_sorted_by_key(order) {
        return Err(Malformed("an index block out of order"));
    }
    Ok(entries)
}

/// The end of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    /// Blocks before the fences.
    pub blocks: u32,
    /// Entries in them.
    pub entries: u64,
    /// Checksum of the fences.
    pub fences_crc: u32,
    /// The oldest cycle.
    pub oldest: Cycle,
    /// The newest cycle.
    pub newest: Cycle,
    /// The greatest block.
    pub last: BlockKey,
}

impl Trailer {
    /// Its 64 bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&self.blocks.to_le_bytes());
        out.extend_from_slice(&self.entries.to_le_bytes());
        out.extend_from_slice(&self.fences_crc.to_le_bytes());
        out.extend_from_slice(&self.oldest.0.to_le_bytes());
        out.extend_from_slice(&self.newest.0.to_le_bytes());
        out.extend_from_slice(&self.last.0.to_le_bytes());
        out.resize(TRAILER - 4, 0);
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        out
    }

    /// Reads the last 64 bytes of a run.
    ///
    /// # Errors
    /// They are damaged, or of a newer version.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor(bytes);
        if cursor.array()? != MAGIC {
            return Err(Malformed("this is no index run"));
        }
        let trailer = Self {
            blocks: cursor.u32()?,
            entries: cursor.u64()?,
            fences_crc: cursor.u32()?,
            oldest: Cycle(cursor.u32()?),
            newest: Cycle(cursor.u32()?),
            last: BlockKey(cursor.u64()?),
        };
        let (body, crc) = bytes.split_at_checked(TRAILER - 4).ok_or(Malformed("cut short"))?;
        if Cursor(crc).u32()? != crc32c::crc32c(body) {
            return Err(Malformed("the index trailer's checksum is wrong"));
        }
        Ok(trailer)
    }
}

/// The fences: for each block its first key and cycle.
#[must_use]
pub fn encode_fences(fences: &[(BlockKey, Cycle)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(fences.len() * 12);
    for (key, cycle) in fences {
        out.extend_from_slice(&key.0.to_le_bytes());
        out.extend_from_slice(&cycle.0.to_le_bytes());
    }
    out
}

/// Reads the fences of a run with this trailer.
///
/// # Errors
/// They are damaged.
pub fn decode_fences(trailer: &Trailer, bytes: &[u8]) -> Result<Vec<(BlockKey, Cycle)>, Malformed> {
    if crc32c::crc32c(bytes) != trailer.fences_crc {
        return Err(Malformed("the index fences' checksum is wrong"));
    }
    let mut cursor = Cursor(bytes);
    let mut fences = Vec::with_capacity(bytes.len() / 12);
    for _ in 0..trailer.blocks {
        fences.push((BlockKey(cursor.u64()?), Cycle(cursor.u32()?)));
    }
    cursor.end()?;
    Ok(fences)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_come_back() {
        let entries = super::super::entry::tests::samples();
        let bytes = encode_block(&entries);
        assert_eq!(bytes.len(), INDEX_BLOCK);
        assert_eq!(decode_block(&bytes), Ok(entries));
        let mut spoilt = bytes;
        spoilt[9000] ^= 1;
        assert!(decode_block(&spoilt).is_err());
    }

    #[test]
    fn trailers_and_fences_come_back() {
        let fences = [(BlockKey(1), Cycle(2)), (BlockKey(3), Cycle(4))];
        let bytes = encode_fences(&fences);
        let trailer = Trailer {
            blocks: 2,
            entries: 500,
            fences_crc: crc32c::crc32c(&bytes),
            oldest: Cycle(1),
            newest: Cycle(9),
            last: BlockKey(8),
        };
        assert_eq!(Trailer::decode(&trailer.encode()), Ok(trailer));
        assert_eq!(decode_fences(&trailer, &bytes).unwrap(), fences);
        assert!(decode_fences(&trailer, &bytes[1..]).is_err());
    }

    /// Changing this breaks every store in the field.
    #[test]
    fn golden_run() {
        let block = encode_block(&super::super::entry::tests::samples());
        let trailer = Trailer {
            blocks: 1,
            entries: 4,
            fences_crc: 5,
            oldest: Cycle(1),
            newest: Cycle(9),
            last: BlockKey(8),
        };
        let bytes = block[..168].iter().copied().chain(trailer.encode());
        let hex: String = bytes.map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, include_str!("golden/run.hex").trim());
    }
}
