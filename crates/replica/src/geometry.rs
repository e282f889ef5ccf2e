//! How a disk is cut up, and how moments are numbered.

use std::fmt;

/// Bytes of a page: the grain at which writes are kept apart.
pub const PAGE: u64 = 4096;
/// Bytes of a block: the grain of the index, of compression and of digests.
pub const BLOCK: u64 = 64 * 1024;
/// Pages in a block.
pub const PAGES: u8 = 16;
/// The greatest disk, in bytes: its pages are numbered with 32 bits.
pub const MAX_DISK: u64 = 1 << 44;

/// A disk of a machine, by its place in the machine's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiskNumber(pub u16);

impl fmt::Display for DiskNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "disk {}", self.0)
    }
}

/// An attempt to ship a cycle. Numbers only grow, and an attempt that was
/// given up leaves a gap: a recovery point is a *sealed* cycle, and what
/// belongs to a cycle that was never sealed is never seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cycle(pub u32);

impl fmt::Display for Cycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "point {}", self.0)
    }
}

/// A block of a disk; sorts by disk, then by place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockKey(pub(crate) u64);

impl BlockKey {
    /// Block `block` (in units of [`BLOCK`]) of `disk`.
    #[must_use]
    pub const fn new(disk: DiskNumber, block: u32) -> Self {
        Self((disk.0 as u64) << 32 | block as u64)
    }

    /// Its disk.
    #[must_use]
    pub const fn disk(self) -> DiskNumber {
        DiskNumber((self.0 >> 32) as u16)
    }

    /// Its place on the disk, in blocks.
    #[must_use]
    pub const fn block(self) -> u32 {
        self.0 as u32
    }

    /// Its place on the disk, in bytes.
    #[must_use]
    pub const fn offset(self) -> u64 {
        self.block() as u64 * BLOCK
    }
}

impl fmt::Debug for BlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.disk().0, self.block())
    }
}

/// Neighbouring pages of one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRun {
    first: u8,
    count: u8,
}

impl PageRun {
    /// A whole block.
    pub const WHOLE: Self = Self { first: 0, count: PAGES };

    /// `count` pages from `first` on, if they lie in a block and are any.
    #[must_use]
    pub const fn new(first: u8, count: u8) -> Option<Self> {
        if count == 0 || first >= PAGES || count > PAGES - first {
            return None;
        }
        Some(Self { first, count })
    }

    /// The first page.
    #[must_use]
    pub const fn first(self) -> u8 {
        self.first
    }

    /// How many, from 1 to 16.
    #[must_use]
    pub const fn count(self) -> u8 {
        self.count
    }

    /// Bytes of the pages.
    #[must_use]
    pub const fn bytes(self) -> usize {
        self.count as usize * PAGE as usize
    }

    /// One bit per page, the first page lowest.
    #[must_use]
    pub const fn mask(self) -> u16 {
        (((1_u32 << self.count) - 1) << self.first) as u16
    }
}

/// Blocks that a disk of `size` bytes has; the last one may be cut short.
#[must_use]
pub const fn blocks_of(size: u64) -> u32 {
    size.div_ceil(BLOCK) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_have_a_bit_per_page() {
        assert_eq!(PageRun::WHOLE.mask(), 0xffff);
        assert_eq!(PageRun::new(0, 1).unwrap().mask(), 1);
        assert_eq!(PageRun::new(15, 1).unwrap().mask(), 0x8000);
        assert_eq!(PageRun::new(4, 3).unwrap().mask(), 0x70);
        assert_eq!(PageRun::new(15, 2), None);
        assert_eq!(PageRun::new(16, 0), None);
        assert_eq!(PageRun::new(3, 255), None);
    }

    #[test]
    fn keys_sort_by_disk_and_place() {
        let key = BlockKey::new(DiskNumber(3), u32::MAX);
        assert_eq!((key.disk(), key.block()), (DiskNumber(3), u32::MAX));
        assert!(key < BlockKey::new(DiskNumber(4), 0));
    }
}
