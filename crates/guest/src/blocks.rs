//! The random overwrite load and its check.
//!
//! A file of blocks is rewritten in an order that looks random but follows from
//! its seed: write *g* goes to block [`target(g)`](Region::target), and is durable before
//! write *g + 1* begins. So from the newest write found, the one right content
//! of every block follows, and a lost, late or misplaced write is found even
//! where the block is whole.
//!
//! ```text
//! block 0      "LBBLOCKS", seed (8 LE), count (4 LE), CRC-32C at the end
//! block 1 + b  "LBBLOCK1", b (4 LE), zero (4), write (8 LE), filler, CRC-32C at the end
//! ```
//! A block that was never written is all zeroes.

use std::io;

use crate::record::{field, fill, mix};
use crate::report::Fault;

/// Bytes of one block.
pub const SIZE: usize = 4096;

const HEADER: [u8; 8] = *b"LBBLOCKS";
const BLOCK: [u8; 8] = *b"LBBLOCK1";
const CHECKSUM: usize = SIZE - 4;

/// A region of blocks, as its first block tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// Fixes the order of writes.
    pub seed: u64,
    /// Blocks that are rewritten, at least one; the header is not among them.
    pub count: u32,
}

/// What stands in one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Zeroes,
    Write { block: u32, write: u64 },
    Damage,
}

impl Region {
    /// The block that write number `write` goes to.
    #[must_use]
    pub fn target(&self, write: u64) -> u32 {
        let pick = mix(self.seed ^ mix(write)) % u64::from(self.count);
        u32::try_from(pick).expect("less than a u32 count")
    }

    /// The bytes of the header.
    #[must_use]
    pub fn encode(&self) -> Box<[u8]> {
        let mut bytes = vec![0; SIZE];
        bytes[0..8].copy_from_slice(&HEADER);
        bytes[8..16].copy_from_slice(&self.seed.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.count.to_le_bytes());
        seal(bytes)
    }

    /// Reads the header; none when the bytes are not one.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let count = (sealed(bytes) && bytes[0..8] == HEADER)
            .then(|| u32::from_le_bytes(field(bytes, 16)))?;
        (count > 0).then(|| Self { seed: u64::from_le_bytes(field(bytes, 8)), count })
    }

    /// The bytes that write number `write` puts into its target.
    #[must_use]
    pub fn content(&self, write: u64) -> Box<[u8]> {
        let block = self.target(write);
        let mut bytes = vec![0; SIZE];
        bytes[0..8].copy_from_slice(&BLOCK);
        bytes[8..12].copy_from_slice(&block.to_le_bytes());
        bytes[16..24].copy_from_slice(&write.to_le_bytes());
        fill(&mut bytes[24..CHECKSUM], write);
        seal(bytes)
    }

    /// Reads every block and says which is the newest write, and what
    /// contradicts it.
    ///
    /// `read` yields the block with an index from 0, without the header.
    ///
    /// # Errors
    /// Only when `read` fails.
    pub fn check(
        &self,
        disk: u16,
        mut read: impl FnMut(u32) -> io::Result<Vec<u8>>,
    ) -> io::Result<(u64, Vec<Fault>)> {
        let mut found = Vec::new();
        for block in 0..self.count {
            found.push(decode(&read(block)?));
        }
        let newest = found
            .iter()
            .map(|found| match found {
                Found::Write { write, .. } => *write,
                Found::Zeroes | Found::Damage => 0,
            })
            .max()
            .unwrap_or(0);

        let mut expected = vec![0; found.len()];
        for write in 1..=newest {
            expected[self.target(write) as usize] = write;
        }
        let in_flight = self.target(newest + 1);
        let mut faults = Vec::new();
        for ((found, expected), block) in found.iter().zip(expected).zip(0..) {
            let what = match *found {
                Found::Damage if block == in_flight => continue,
                Found::Damage => "damaged".to_owned(),
                Found::Zeroes if expected == 0 => continue,
                Found::Zeroes => format!("zeroes in place of write {expected}"),
                Found::Write { block: b, write } if b == block && write == expected => continue,
                Found::Write { block: b, write } if b == block => {
                    format!("holds write {write} in place of {expected}")
                }
                Found::Write { block: b, .. } => format!("holds block {b}"),
            };
            faults.push(Fault::Block { disk, block, what });
        }
        Ok((newest, faults))
    }
}

fn seal(mut bytes: Vec<u8>) -> Box<[u8]> {
    let checksum = crc32c::crc32c(&bytes[..CHECKSUM]);
    bytes[CHECKSUM..].copy_from_slice(&checksum.to_le_bytes());
    bytes.into_boxed_slice()
}

fn sealed(bytes: &[u8]) -> bool {
    bytes.len() == SIZE
        && crc32c::crc32c(&bytes[..CHECKSUM]) == u32::from_le_bytes(field(bytes, CHECKSUM))
}

fn decode(bytes: &[u8]) -> Found {
    if bytes.iter().all(|byte| *byte == 0) {
        return Found::Zeroes;
    }
    if !sealed(bytes) || bytes[0..8] != BLOCK {
        return Found::Damage;
    }
    Found::Write {
        block: u32::from_le_bytes(field(bytes, 8)),
        write: u64::from_le_bytes(field(bytes, 16)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REGION: Region = Region { seed: 5, count: 16 };

    fn written(writes: u64) -> Vec<Vec<u8>> {
        let mut blocks = vec![vec![0; SIZE]; REGION.count as usize];
        for write in 1..=writes {
            blocks[REGION.target(write) as usize] = REGION.content(write).into_vec();
        }
        blocks
    }

    fn check(blocks: &[Vec<u8>]) -> (u64, Vec<Fault>) {
        REGION.check(0, |block| Ok(blocks[block as usize].clone())).unwrap()
    }

    #[test]
    fn the_header_is_read_back() {
        assert_eq!(Region::decode(&REGION.encode()), Some(REGION));
        assert_eq!(Region::decode(&[0; SIZE]), None);
        assert_eq!(Region::decode(&[]), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn every_prefix_is_clean(writes in 0u64..100) {
            prop_assert_eq!(check(&written(writes)), (writes, vec![]));
        }

        #[test]
        fn the_write_in_flight_may_be_torn(writes in 0u64..100, kept in 1usize..SIZE - 4) {
            let mut blocks = written(writes);
            let next = REGION.content(writes + 1);
            blocks[REGION.target(writes + 1) as usize][..kept].copy_from_slice(&next[..kept]);
            let (newest, faults) = check(&blocks);
            // Tearing the block that held the newest write hides that write.
            prop_assert!(newest <= writes);
            if newest == writes {
                prop_assert_eq!(faults, vec![]);
            }
        }

        #[test]
        fn a_lost_write_is_found(writes in 2u64..100, pick: u64) {
            let lost = pick % (writes - 1) + 1;
            let mut blocks = vec![vec![0; SIZE]; REGION.count as usize];
            for write in (1..=writes).filter(|write| *write != lost) {
                blocks[REGION.target(write) as usize] = REGION.content(write).into_vec();
            }
            let overwritten = (lost + 1..=writes).any(|w| REGION.target(w) == REGION.target(lost));
            prop_assert_eq!(check(&blocks).1.is_empty(), overwritten);
        }

        #[test]
        fn a_flipped_bit_is_found(writes in 40u64..100, block in 0..16usize, bit in 0..SIZE * 8) {
            let mut blocks = written(writes);
            prop_assume!(block != REGION.target(writes + 1) as usize);
            prop_assume!(block != REGION.target(writes) as usize);
            blocks[block][bit / 8] ^= 1 << (bit % 8);
            prop_assert!(!check(&blocks).1.is_empty());
        }
    }
}
