//! One record: fixed size, numbered, checksummed.
//!
//! ```text
//! offset  0   8        magic "LBRECORD"
//!         8   8  LE    number, from 1
//!        16   2  LE    disk that it belongs on
//!        18   2  LE    number of disks in the sequence
//!        20   8  LE    when it was written, milliseconds since 1970
//!        28 224        filler derived from the number
//!       252   4  LE    CRC-32C of everything before
//! ```

/// Bytes of one record on disk.
pub const SIZE: usize = 256;

const MAGIC: [u8; 8] = *b"LBRECORD";
const FILLER: std::ops::Range<usize> = 28..252;
const CHECKSUM: std::ops::Range<usize> = 252..256;

/// One entry of the workload's global sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// Its place in the sequence over all disks, from 1.
    pub number: u64,
    /// The disk that it was written to.
    pub disk: u16,
    /// How many disks the sequence goes round.
    pub disks: u16,
    /// When it was written, in milliseconds since 1970 by the guest's clock.
    pub written_at: u64,
}

/// Why some bytes are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotARecord {
    /// Fewer bytes than a record has.
    #[error("only {0} bytes of a record")]
    Short(usize),
    /// All bytes are zero: allocated, never written.
    #[error("zeroes in place of a record")]
    Zeroes,
    /// The magic is missing.
    #[error("something else in place of a record")]
    Foreign,
    /// The checksum does not match.
    #[error("a record with a wrong checksum")]
    Checksum,
}

impl Record {
    /// The bytes to write.
    #[must_use]
    pub fn encode(&self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..16].copy_from_slice(&self.number.to_le_bytes());
        bytes[16..18].copy_from_slice(&self.disk.to_le_bytes());
        bytes[18..20].copy_from_slice(&self.disks.to_le_bytes());
        bytes[20..28].copy_from_slice(&self.written_at.to_le_bytes());
        fill(&mut bytes[FILLER], self.number);
        let checksum = crc32c::crc32c(&bytes[..CHECKSUM.start]);
        bytes[CHECKSUM].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads a record back.
    ///
    /// # Errors
    /// Says what stands there instead when the bytes are not exactly one whole
    /// record.
    pub fn decode(bytes: &[u8]) -> Result<Self, NotARecord> {
        let Ok(bytes) = <&[u8; SIZE]>::try_from(bytes) else {
            return Err(NotARecord::Short(bytes.len()));
        };
        if bytes.iter().all(|byte| *byte == 0) {
            return Err(NotARecord::Zeroes);
        }
        if bytes[0..8] != MAGIC {
            return Err(NotARecord::Foreign);
        }
        let stored = u32::from_le_bytes(field(bytes, CHECKSUM.start));
        if crc32c::crc32c(&bytes[..CHECKSUM.start]) != stored {
            return Err(NotARecord::Checksum);
        }
        Ok(Self {
            number: u64::from_le_bytes(field(bytes, 8)),
            disk: u16::from_le_bytes(field(bytes, 16)),
            disks: u16::from_le_bytes(field(bytes, 18)),
            written_at: u64::from_le_bytes(field(bytes, 20)),
        })
    }
}

/// Fills with bytes that do not compress and that a reader can predict.
pub(crate) fn fill(bytes: &mut [u8], seed: u64) {
    for (word, index) in bytes.chunks_mut(8).zip(0u64..) {
        let mixed = mix(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ index).to_le_bytes();
        word.copy_from_slice(&mixed[..word.len()]);
    }
}

/// SplitMix64: a number that looks random and depends on nothing but `seed`.
pub fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A field of `N` bytes at `offset`; both are constants of a layout.
pub(crate) fn field<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    bytes[offset..offset + N].try_into().expect("the slice was cut to N bytes")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Record {
        Record { number: 7, disk: 1, disks: 2, written_at: 1_700_000_000_123 }
    }

    #[test]
    fn shipped_bytes_stay_as_they_are() {
        let bytes = sample().encode();
        assert_eq!(&bytes[..20], b"LBRECORD\x07\0\0\0\0\0\0\0\x01\0\x02\0");
        assert_eq!(bytes[CHECKSUM], [219, 191, 214, 65], "covers all the rest");
    }

    #[test]
    fn zeroes_and_foreign_bytes_are_told_apart() {
        assert_eq!(Record::decode(&[0; SIZE]), Err(NotARecord::Zeroes));
        assert_eq!(Record::decode(&[7; SIZE]), Err(NotARecord::Foreign));
        assert_eq!(Record::decode(&[7; 3]), Err(NotARecord::Short(3)));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(number: u64, disk: u16, disks: u16, written_at: u64) {
            let record = Record { number, disk, disks, written_at };
            prop_assert_eq!(Record::decode(&record.encode()), Ok(record));
        }

        #[test]
        fn one_flipped_bit_is_found(number: u64, bit in 0..SIZE * 8) {
            let mut bytes = Record { number, ..sample() }.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Record::decode(&bytes).is_err());
        }

        #[test]
        fn a_torn_record_is_found(number: u64, length in 0..SIZE) {
            let mut bytes = Record { number, ..sample() }.encode();
            prop_assert!(Record::decode(&bytes[..length]).is_err());
            bytes[length..].fill(0);
            // The last byte of a checksum may happen to be zero: then nothing was lost.
            let whole = Record { number, ..sample() }.encode();
            prop_assert_eq!(Record::decode(&bytes).is_err(), bytes != whole);
        }
    }
}
