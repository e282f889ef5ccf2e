//! Reading everything, or a sample, to find damage before somebody needs it;
//! and replacing what is damaged by the same bytes from elsewhere.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    error::{Damage, StoreError, StoreResult},
    fetch::{PieceSource, pieces},
    format::{
        Digest,
        entry::{Content, Entry},
        manifest::SegmentFacts,
        record::{Codec, Header, Kind},
    },
    geometry::{BLOCK, BlockKey, Cycle, DiskNumber, PAGE},
    store::Store,
    writer::Writer,
};

/// Damages that a report lists at most; more are counted.
const LISTED: usize = 1000;

/// How thoroughly to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thoroughness {
    /// Everything.
    All,
    /// One record out of so many; with another `round`, others.
    Sample {
        /// One out of this many.
        of: u32,
        /// Which of them.
        round: u32,
    },
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Records that were read and proved.
    pub records: u64,
    /// The bytes that were read.
    pub bytes: u64,
    /// What is damaged, the first thousand.
    pub damages: Vec<Damage>,
    /// How much is damaged.
    pub damaged: u64,
    /// Files that cannot be read at all, and why.
    pub files: Vec<String>,
}

impl Report {
    /// Whether all that was looked at is whole.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.damaged == 0 && self.files.is_empty()
    }
}

/// Waits now and then, so that no more than so many bytes a second are read.
/// For the `pace` of [`Store::verify`].
pub fn at_most(bytes_per_second: u64) -> impl FnMut(u64) {
    let start = Instant::now();
    let mut read = 0_u64;
    move |bytes| {
        read += bytes;
        let due = Duration::from_secs_f64(read as f64 / bytes_per_second.max(1) as f64);
        if let Some(early) = due.checked_sub(start.elapsed()) {
            thread::sleep(early);
        }
    }
}

impl Store {
    /// Proves records that points need, those in adopted files too, and the
    /// whole index. `pace` is told of
    /// bytes as they are read and may wait. Blocks.
    ///
    /// # Errors
    /// The store cannot be read at all; damage is in the report instead.
    pub fn verify(
        &self,
        thoroughness: Thoroughness,
        mut pace: impl FnMut(u64),
    ) -> StoreResult<Report> {
        let mut report = Report::default();
        self.verify_index(&mut report);
        let segments: Vec<SegmentFacts> = self.shared.state().segments.values().copied().collect();
        for facts in segments {
            let medium = &*self.shared.medium;
            let records = self
                .shared
                .segments
                .get(medium, facts.id, facts.generation)
                .and_then(|file| file.records(&facts));
            let records = match records {
                Ok(records) => records,
                Err(error) => {
                    // Reclaimed since?
                    if !self.shared.state().segments.contains_key(&facts.id) {
                        continue;
                    }
                    report.files.push(error.chain());
                    // The index names the records that count.
                    match self.indexed_in(facts.id) {
                        Ok(records) => records,
                        Err(_) => continue,
                    }
                }
            };
            for (number, entry) in (0_u32..).zip(&records) {
                let chosen = match thoroughness {
                    Thoroughness::All => true,
                    Thoroughness::Sample { of, round } => {
                        number.wrapping_add(facts.id).wrapping_add(round) % of.max(1) == 0
                    }
                };
                if chosen && entry.bytes() > 0 {
                    pace(entry.bytes());
                    self.verify_record(entry, &mut report);
                }
            }
        }
        Ok(report)
    }

    /// The records of a segment that the index names.
    fn indexed_in(&self, segment: u32) -> StoreResult<Vec<Entry>> {
        let index = self.shared.index();
        let mut scan = index.scan(BlockKey(0), BlockKey(u64::MAX))?;
        let mut versions: Vec<Entry> = Vec::new();
        let mut found = Vec::new();
        while scan.next(&mut versions)?.is_some() {
            found.extend(versions.iter().filter(|entry| entry.segment() == Some(segment)));
        }
        Ok(found)
    }

    fn verify_index(&self, report: &mut Report) {
        let index = self.shared.index();
        let walk = || -> StoreResult<()> {
            let mut scan = index.scan(BlockKey(0), BlockKey(u64::MAX))?;
            let mut versions = Vec::new();
            while scan.next(&mut versions)?.is_some() {}
            Ok(())
        };
        if let Err(error) = walk() {
            report.files.push(error.chain());
        }
    }

    fn verify_record(&self, entry: &Entry, report: &mut Report) {
        let error = match self.shared.read_proved(entry) {
            Ok(_) => {
                report.records += 1;
                report.bytes += entry.bytes();
                return;
            }
            Err(error) => error,
        };
        // A dead record may be a hole by now, and nobody minds.
        let Some(entry) = self.living_entry(entry) else { return };
        let Some(points) = self.shared.points_that_need(&entry) else { return };
        report.damaged += 1;
        if report.damages.len() < LISTED {
            let start = entry.key.offset() + u64::from(entry.pages.first()) * PAGE;
            let place = self.shared.place_of(&entry);
            report.damages.push(Damage {
                disk: entry.key.disk(),
                range: start..start + entry.pages.bytes() as u64,
                points: Some(points),
                place,
                why: error.chain(),
            });
        }
    }

    /// The index's entry for a record, if it still counts.
    fn living_entry(&self, record: &Entry) -> Option<Entry> {
        let index = self.shared.index();
        let mut scan = index.scan(record.key, BlockKey(record.key.0 + 1)).ok()?;
        let mut versions = Vec::new();
        scan.next(&mut versions).ok()?;
        crate::overlay::trim(&mut versions, &self.shared.state().kept());
        let found = versions.iter().find(|version| version.content == record.content)?;
        (found.mask != 0).then_some(*found)
    }
}

impl Writer {
    /// Replaces damaged records of a block by bytes from elsewhere: `block` is
    /// what the block's 64 KiB are at `point` (shorter at the disk's end).
    /// Only records whose hash the bytes have are replaced, so wrong bytes do
    /// no harm. How many were; durable on return.
    ///
    /// # Errors
    /// [`WrongBytes`](StoreError::WrongBytes) if something is damaged and the
    /// bytes do not mend it.
    pub fn repair(
        &mut self,
        point: Cycle,
        disk: DiskNumber,
        offset: u64,
        block: &[u8],
    ) -> StoreResult<usize> {
        // What is in memory now must not come to lie over what is mended.
        self.guard(Self::checkpoint)?;
        let key = BlockKey::new(disk, (offset / BLOCK) as u32);
        let versions = self.shared.index().versions(key, point)?;
        let mut bytes = block.to_vec();
        bytes.resize(BLOCK as usize, 0);
        let mut mended = Vec::new();
        let mut seen: Vec<Entry> = Vec::new();
        for piece in pieces(&versions) {
            let PieceSource::Bytes(entry) = piece.source else { continue };
            if seen.contains(&entry) || self.shared.read_proved(&entry).is_ok() {
                continue;
            }
            seen.push(entry);
            let start = usize::from(entry.pages.first()) * PAGE as usize;
            let plain = bytes.get(start..start + entry.pages.bytes()).unwrap_or_default();
            let (Content::Data { digest, .. } | Content::Adopted { digest, .. }) = entry.content
            else {
                continue;
            };
            if Digest::of(plain) != digest {
                return Err(StoreError::WrongBytes { disk, offset });
            }
            let header = Header {
                kind: Kind::Data,
                codec: Codec::Plain,
                key,
                span: 1,
                pages: entry.pages,
                cycle: entry.cycle,
                change: 0,
                last: true,
                stored: plain.len() as u32,
                payload_crc: crc32c::crc32c(plain),
                durable: 0,
                digest,
            };
            mended.push(self.guard(|writer| writer.store_again(&entry, header, plain))?);
        }
        let count = mended.len();
        if count > 0 {
            self.guard(|writer| {
                writer.log.sync()?;
                writer.add_moved(mended)?;
                writer.checkpoint()
            })?;
        }
        Ok(count)
    }
}
