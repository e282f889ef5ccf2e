//! How records lie over one another: page by page, the newest one at or
//! before a point counts. Plain functions over entries.
//!
//! Throughout, *versions* are the entries of one block with the one that
//! counts first in front: newer cycles before older ones, and of one cycle the
//! one from the later run first.

use crate::{
    format::entry::{Content, Entry},
    geometry::{Cycle, PAGES},
};

/// For each page of a block, the version that it comes from; `None` where
/// nothing was ever written.
pub(crate) fn winners(versions: &[Entry]) -> [Option<usize>; PAGES as usize] {
    let mut winners = [None; PAGES as usize];
    for (number, version) in versions.iter().enumerate() {
        for (page, winner) in winners.iter_mut().enumerate() {
            if winner.is_none() && version.mask & (1 << page) != 0 {
                *winner = Some(number);
            }
        }
    }
    winners
}

/// Takes from the versions the pages that neither a kept point nor any future
/// one reads. `kept` is in order. Versions are left with an empty mask.
pub(crate) fn trim(versions: &mut [Entry], kept: &[Cycle]) {
    const NEVER: u64 = u64::MAX;
    /// Points to come, which see the newest version.
    const FUTURE: u64 = u64::MAX - 1;
    let mut covered_from = [NEVER; PAGES as usize];
    for version in versions {
        let at = kept.partition_point(|point| *point < version.cycle);
        let reader = kept.get(at).map_or(FUTURE, |point| u64::from(point.0));
        let mut mask = version.mask;
        for (page, covered) in covered_from.iter_mut().enumerate() {
            if version.mask & (1 << page) == 0 {
                continue;
            }
            if reader >= *covered {
                mask &= !(1 << page);
            }
            *covered = u64::from(version.cycle.0);
        }
        version.mask = mask;
    }
}

/// Takes away zeroes that lie over nothing, from versions below which there
/// are no others.
pub(crate) fn drop_bottom_zeroes(versions: &mut [Entry]) {
    let mut below = 0;
    for version in versions.iter_mut().rev() {
        match version.content {
            Content::Zero { .. } | Content::Discard { .. } => version.mask &= below,
            Content::Data { .. } | Content::Adopted { .. } => below |= version.mask,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        format::{Digest, entry::Place},
        geometry::{BlockKey, DiskNumber, PageRun},
    };

    fn data(cycle: u32, first: u8, count: u8) -> Entry {
        let pages = PageRun::new(first, count).unwrap();
        let place = Place { segment: 0, offset: 0, stored: 16 };
        Entry {
            key: BlockKey::new(DiskNumber(0), 0),
            cycle: Cycle(cycle),
            pages,
            mask: pages.mask(),
            content: Content::Data { place, digest: Digest::default() },
        }
    }

    fn zero(cycle: u32, first: u8, count: u8) -> Entry {
        Entry { content: Content::Zero { span: 1 }, ..data(cycle, first, count) }
    }

    fn masks(mut versions: Vec<Entry>, kept: &[u32]) -> String {
        let kept: Vec<_> = kept.iter().map(|cycle| Cycle(*cycle)).collect();
        trim(&mut versions, &kept);
        let words: Vec<_> =
            versions.iter().map(|v| format!("{}:{:04x}", v.cycle.0, v.mask)).collect();
        words.join(" ")
    }

    #[test]
    fn the_newest_version_of_each_page_counts() {
        let versions = [data(9, 0, 1), data(5, 0, 4), data(3, 2, 14)];
        let told: Vec<_> = winners(&versions)[..6].iter().map(|w| w.unwrap_or(9)).collect();
        assert_eq!(told, [0, 1, 1, 1, 2, 2]);
    }

    #[test]
    fn versions_live_as_long_as_somebody_reads_them() {
        let versions = || vec![data(9, 0, 2), data(5, 0, 4), data(3, 0, 16)];
        assert_eq!(masks(versions(), &[3, 5, 9]), "9:0003 5:000f 3:ffff");
        assert_eq!(masks(versions(), &[5, 9]), "9:0003 5:000f 3:fff0");
        assert_eq!(masks(versions(), &[9]), "9:0003 5:000c 3:fff0");
        assert_eq!(masks(versions(), &[4]), "9:0003 5:000c 3:ffff", "the future sees the newest");
        assert_eq!(masks(versions(), &[]), "9:0003 5:000c 3:fff0");
    }

    #[test]
    fn of_one_cycle_the_first_counts() {
        assert_eq!(masks(vec![data(5, 0, 2), data(5, 1, 2)], &[5]), "5:0003 5:0004");
    }

    #[test]
    fn zeroes_over_nothing_go() {
        let mut versions = [zero(9, 0, 16), data(5, 0, 4), zero(3, 0, 16)];
        drop_bottom_zeroes(&mut versions);
        assert_eq!(versions.map(|v| v.mask), [0x000f, 0x000f, 0]);
    }
}
