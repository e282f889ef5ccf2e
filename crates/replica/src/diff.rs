//! What differs between two points of one store, in time proportional to what
//! was written between them: the footers of segments are an index by time.

use std::ops::Range;

use crate::{
    error::{StoreError, StoreResult},
    fetch::{PieceSource, pieces},
    format::entry::{Content, Entry},
    geometry::{BLOCK, BlockKey, Cycle, DiskNumber, PAGE},
    store::Store,
};

/// How exact a difference is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exactness {
    /// Every page that was written in between, were it with the same bytes.
    Written,
    /// Pages that were written with the same bytes again are left out where
    /// the index can tell; it reads no data.
    Compared,
}

impl Store {
    /// The stretches of a disk, in bytes, that may differ between two points;
    /// the order of the points does not matter. What lies beyond the end of
    /// the smaller one is not told.
    ///
    /// # Errors
    /// There is no such point or disk, or the index cannot be read.
    pub fn diff(
        &self,
        disk: DiskNumber,
        from: Cycle,
        to: Cycle,
        exactness: Exactness,
    ) -> StoreResult<Vec<Range<u64>>> {
        let (older, newer) = (from.min(to), from.max(to));
        let end = self.size_of(older, disk)?.min(self.size_of(newer, disk)?);
        let mut ranges = Vec::new();
        for entry in self.written_between(older, newer)? {
            if entry.key.disk() != disk {
                continue;
            }
            let start = entry.key.offset() + u64::from(entry.pages.first()) * PAGE;
            let length = match entry.content {
                Content::Zero { span } | Content::Discard { span } if span > 1 => {
                    u64::from(span) * BLOCK
                }
                _ => entry.pages.bytes() as u64,
            };
            ranges.push(start.min(end)..(start + length).min(end));
        }
        let ranges = joined(ranges);
        match exactness {
            Exactness::Written => Ok(ranges),
            Exactness::Compared => self.compared(disk, older, newer, &ranges),
        }
    }

    fn size_of(&self, point: Cycle, disk: DiskNumber) -> StoreResult<u64> {
        let sizes = self.point(point)?.disks;
        let size = sizes.get(usize::from(disk.0)).copied();
        size.ok_or(StoreError::NoSuchDisk { disk, point })
    }

    /// The entries of records of cycles after `older` up to `newer`.
    pub(crate) fn written_between(&self, older: Cycle, newer: Cycle) -> StoreResult<Vec<Entry>> {
        let concerned = |oldest: Cycle, newest: Cycle| oldest <= newer && newest > older;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let result = self.collect_written(&concerned, older, newer);
            match result {
                Err(error) if attempts == 3 => return Err(error),
                Err(_) => self.shared.look_again()?,
                found => return found,
            }
        }
    }

    fn collect_written(
        &self,
        concerned: &dyn Fn(Cycle, Cycle) -> bool,
        older: Cycle,
        newer: Cycle,
    ) -> StoreResult<Vec<Entry>> {
        let (segments, memory) = {
            let state = self.shared.state();
            let segments: Vec<_> = state
                .segments
                .values()
                .filter(|facts| concerned(facts.oldest, facts.newest))
                .copied()
                .collect();
            let memory: Vec<_> = state
                .memory
                .iter()
                .filter(|run| concerned(run.oldest, run.newest))
                .cloned()
                .collect();
            (segments, memory)
        };
        let inside = |entry: &&Entry| entry.cycle > older && entry.cycle <= newer;
        let mut found = Vec::new();
        for facts in segments {
            let medium = &*self.shared.medium;
            let file = self.shared.segments.get(medium, facts.id, facts.generation)?;
            found.extend(file.records(&facts)?.iter().filter(inside));
        }
        for run in memory {
            // Records of the open segment are in its file as well; twice does
            // no harm.
            found.extend(run.entries.iter().filter(inside));
        }
        Ok(found)
    }

    /// Leaves out pages that come from records with the same pages and hash.
    fn compared(
        &self,
        disk: DiskNumber,
        older: Cycle,
        newer: Cycle,
        ranges: &[Range<u64>],
    ) -> StoreResult<Vec<Range<u64>>> {
        let index = self.shared.index();
        let mut differing = Vec::new();
        for range in ranges {
            let from = BlockKey::new(disk, (range.start / BLOCK) as u32);
            let to = BlockKey::new(disk, 0).0 + range.end.div_ceil(BLOCK);
            let mut scan = index.scan(from, BlockKey(to))?;
            let mut versions = Vec::new();
            while let Some(key) = scan.next_at(newer, &mut versions)? {
                let at = versions.partition_point(|version| version.cycle > older);
                let before = sources(versions.get(at..).unwrap_or_default());
                let after = sources(&versions);
                for (page, (before, after)) in (0_u64..).zip(before.into_iter().zip(after)) {
                    let start = key.offset() + page * PAGE;
                    let end = (start + PAGE).min(range.end);
                    if before != after && start >= range.start && start < end {
                        differing.push(start..end);
                    }
                }
            }
        }
        Ok(joined(differing))
    }
}

/// What tells a page from another without its bytes: the hash of the record
/// that it comes from, and its place in there. `None` is zeroes.
type Fingerprint = Option<([u8; 16], u8)>;

fn sources(versions: &[Entry]) -> Vec<Fingerprint> {
    let pages = pieces(versions).into_iter().flat_map(|piece| {
        (piece.first..piece.first + piece.count).map(move |page| match piece.source {
            PieceSource::Hole | PieceSource::Zero => None,
            PieceSource::Bytes(entry) => match entry.content {
                Content::Data { digest, .. } | Content::Adopted { digest, .. } => {
                    Some((digest.0, page - entry.pages.first()))
                }
                Content::Zero { .. } | Content::Discard { .. } => None,
            },
        })
    });
    pages.collect()
}

/// The same stretches, in order and without overlaps.
fn joined(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.retain(|range| range.start < range.end);
    ranges.sort_unstable_by_key(|range| range.start);
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}
