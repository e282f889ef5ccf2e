//! What was found the same at source and replica a moment ago, and what of it may
//! have changed since: so that all of a machine is compared while it runs, and
//! only the rest once it was shut down.
//!
//! That a block has not changed since is the word of the dirty bitmap, the same
//! that replication rests on. Whatever leaves it in doubt, such as a disk that had
//! to be gone through whole, makes that everything is compared again.

use std::collections::BTreeSet;
use std::time::Duration;

use domain::fault::Fault;
use replica::geometry::BLOCK;
use tokio::time::Instant;

use super::fault::of_capture;
use crate::capture::{Base, Cut};

/// For so long a comparison counts from its last part on.
const COUNTS: Duration = Duration::from_secs(15 * 60);
/// So many changed blocks of 64 KiB are remembered: 16 GiB.
const REMEMBERED: usize = 1 << 18;

/// How much of each disk was compared, and which blocks of that may have changed
/// since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Proved {
    at: Instant,
    disks: Vec<ProvedDisk>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct ProvedDisk {
    /// Bytes.
    size: u64,
    /// Blocks that were compared, from its beginning.
    reached: u64,
    /// Those among them that may have changed since.
    changed: BTreeSet<u64>,
}

impl ProvedDisk {
    const fn blocks(&self) -> u64 {
        self.size.div_ceil(BLOCK)
    }
}

impl Proved {
    /// Nothing was compared yet.
    pub(super) fn nothing(cut: &Cut) -> Self {
        let disk = |size| ProvedDisk { size, reached: 0, changed: BTreeSet::new() };
        let disks = cut.disks.iter().map(|seen| disk(seen.size)).collect();
        Self { at: Instant::now(), disks }
    }

    /// The same, with what changed up to a later cut; none where that is not known,
    /// or too much.
    pub(super) async fn up_to(mut self, cut: &Cut) -> Result<Option<Self>, Fault> {
        let sizes = self.disks.iter().map(|disk| disk.size);
        let is_told = cut.disks.iter().all(|disk| matches!(disk.base, Base::Since(_)));
        let is_same = sizes.eq(cut.disks.iter().map(|disk| disk.size));
        if !is_told || !is_same || self.at.elapsed() > COUNTS {
            return Ok(None);
        }
        let mut room = REMEMBERED;
        for (seen, disk) in cut.disks.iter().zip(&mut self.disks) {
            let mut changes = seen.reader.changed(0..seen.size.min(disk.reached * BLOCK));
            while let Some(stretch) = changes.next().await.map_err(of_capture)? {
                let end = (stretch.offset + stretch.length).div_ceil(BLOCK);
                let touched = stretch.offset / BLOCK..end;
                let left = room.saturating_sub(disk.changed.len()) as u64;
                if touched.end - touched.start > left {
                    return Ok(None);
                }
                disk.changed.extend(touched);
            }
            let Some(left) = room.checked_sub(disk.changed.len()) else { return Ok(None) };
            room = left;
        }
        Ok(Some(self))
    }

    /// Whether each disk was compared to its end, whatever changed since.
    pub(super) fn is_whole(&self) -> bool {
        self.disks.iter().all(|disk| disk.reached == disk.blocks())
    }

    /// Blocks of a disk that were not compared yet, and with `again` those that may have
    /// changed since, as stretches of at most so many: first and count.
    pub(super) fn stretches(&self, disk: u16, most: u64, again: bool) -> Vec<(u64, u64)> {
        let Some(disk) = self.disks.get(usize::from(disk)) else { return Vec::new() };
        let mut stretches: Vec<(u64, u64)> = Vec::new();
        for block in disk.changed.iter().filter(|_| again) {
            match stretches.last_mut() {
                Some((first, count)) if *first + *count == *block && *count < most => *count += 1,
                _ => stretches.push((*block, 1)),
            }
        }
        let firsts = (disk.reached..disk.blocks()).step_by(most as usize);
        stretches.extend(firsts.map(|first| (first, most.min(disk.blocks() - first))));
        stretches
    }

    /// A stretch was compared now, and found the same.
    pub(super) fn was_compared(&mut self, disk: u16, (first, count): (u64, u64)) {
        self.at = Instant::now();
        let Some(disk) = self.disks.get_mut(usize::from(disk)) else { return };
        for block in first..first + count {
            disk.changed.remove(&block);
        }
        if first == disk.reached {
            disk.reached += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proved(blocks: u64, reached: u64, changed: &[u64]) -> Proved {
        let changed = changed.iter().copied().collect();
        let disk = ProvedDisk { size: blocks * BLOCK - 1, reached, changed };
        Proved { at: Instant::now(), disks: vec![disk] }
    }

    #[test]
    fn what_is_left_is_compared_in_stretches_up_to_a_bound() {
        assert_eq!(proved(9, 9, &[1, 2, 3, 7, 8]).stretches(0, 8, true), [(1, 3), (7, 2)]);
        assert_eq!(proved(9, 9, &[1, 2, 3]).stretches(0, 2, true), [(1, 2), (3, 1)]);
        assert_eq!(proved(9, 4, &[2]).stretches(0, 3, true), [(2, 1), (4, 3), (7, 2)]);
        assert_eq!(proved(9, 4, &[2]).stretches(0, 3, false), [(4, 3), (7, 2)]);
        assert_eq!(proved(9, 9, &[]).stretches(1, 3, true), []);
    }

    #[test]
    fn it_is_whole_once_everything_was_compared() {
        let mut proved = proved(5, 0, &[]);
        while !proved.is_whole() {
            let stretches = proved.stretches(0, 2, true);
            proved.was_compared(0, stretches[0]);
        }
        assert_eq!(proved.stretches(0, 2, true), []);
        proved.disks[0].changed.insert(3);
        assert_eq!(proved.stretches(0, 2, true), [(3, 1)]);
        assert!(proved.is_whole());
        proved.was_compared(0, (3, 1));
        assert_eq!(proved.stretches(0, 2, true), []);
    }
}
