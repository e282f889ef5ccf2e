//! Dropping points, and getting their room back.
//!
//! Dropping a point costs what was written up to the next one: only records
//! under those can have lost their last reader. Their bytes are counted per
//! segment. A segment without living records is deleted; of one that is less
//! than half alive the living records are moved; in others, holes are punched
//! where the medium can do that.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    error::{StoreError, StoreResult},
    format::{
        Digest,
        entry::{Content, Entry},
        manifest::{Hold, SegmentFacts},
        record::{Codec, HEADER, Header, Kind},
    },
    geometry::{BlockKey, Cycle, PAGE},
    overlay,
    replay::count_dead,
    segment,
    store::Store,
    writer::Writer,
};

/// What a machine's store takes, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Segments.
    pub data: u64,
    /// Of these, bytes that no point needs.
    pub dead: u64,
    /// Index runs.
    pub index: u64,
}

/// What a reclaim did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reclaimed {
    /// Segments that are gone.
    pub deleted: u64,
    /// Segments whose living records were moved first; among the deleted.
    pub rewritten: u64,
    /// Bytes of holes punched.
    pub punched: u64,
    /// Bytes that the deleted segments had, less what was moved.
    pub freed: u64,
}

/// Records of a segment, by who needs them.
struct Contents {
    /// Those with bytes that some point reads, with the pages that are read.
    living: Vec<Entry>,
    /// Those with bytes that nobody reads.
    dead: Vec<Entry>,
    /// Those without bytes here that differences between points need: zeroes,
    /// discards, adopted blocks.
    bare: Vec<Entry>,
}

impl Store {
    /// What the store takes.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let state = self.shared.state();
        let segments = state.segments.values();
        let (data, dead) = segments.fold((0, 0), |(data, dead), facts| {
            (data + u64::from(facts.end), dead + u64::from(facts.dead))
        });
        let entries: u64 = state.runs.iter().map(|run| run.facts.entries).sum();
        Usage { data, dead, index: entries * crate::format::entry::SIZE as u64 }
    }

    /// Bytes that deleting this point alone would free; for the newest one,
    /// which is never deleted, 0.
    ///
    /// # Errors
    /// There is no such point, or the index cannot be read.
    pub fn bytes_freed_by(&self, point: Cycle) -> StoreResult<u64> {
        Ok(self.dying_with(point)?.iter().map(Entry::stored).sum())
    }

    /// Records that only this point reads.
    fn dying_with(&self, point: Cycle) -> StoreResult<Vec<Entry>> {
        let (before, after, index) = {
            let state = self.shared.state();
            state.point(point)?;
            let at = state.points.partition_point(|other| other.cycle < point);
            let before = at.checked_sub(1).and_then(|at| state.points.get(at));
            let after = state.points.get(at + 1).map(|point| point.cycle);
            (before.map(|point| point.cycle), after, state.index())
        };
        let Some(after) = after else { return Ok(Vec::new()) };
        let mut covered: BTreeMap<BlockKey, u16> = BTreeMap::new();
        for entry in self.written_between(point, after)? {
            match entry.content {
                Content::Zero { span } | Content::Discard { span } if span > 1 => {
                    let to = BlockKey(entry.key.0 + u64::from(span));
                    let mut scan = index.scan(entry.key, to)?;
                    let mut versions = Vec::new();
                    while let Some(key) = scan.next(&mut versions)? {
                        covered.insert(key, u16::MAX);
                    }
                }
                _ => *covered.entry(entry.key).or_default() |= entry.pages.mask(),
            }
        }
        let mut dying = Vec::new();
        for (key, mask) in covered {
            let versions = index.versions(key, point)?;
            let mut read = vec![0_u16; versions.len()];
            for (page, winner) in overlay::winners(&versions).into_iter().enumerate() {
                if let Some(read) = winner.and_then(|winner| read.get_mut(winner)) {
                    *read |= 1 << page;
                }
            }
            let own = versions.iter().zip(read).filter(|(entry, read)| {
                *read != 0 && *read & !mask == 0 && before.is_none_or(|b| entry.cycle > b)
            });
            dying.extend(own.map(|(entry, _)| *entry));
        }
        Ok(dying)
    }
}

impl Writer {
    /// Drops points; durable on return. Their room is not free before
    /// [`reclaim`](Self::reclaim).
    ///
    /// # Errors
    /// [`Kept`](StoreError::Kept) for one that must stay (none is dropped
    /// then), and what the medium says. `now` is in milliseconds since 1970.
    pub fn drop_points(&mut self, points: &[Cycle], now: i64) -> StoreResult<()> {
        let medium = Arc::clone(&self.shared.medium);
        // Held until the points are gone for readers of other processes too.
        let (mut pinned, _nobody_pins) =
            medium.pinned().map_err(StoreError::io("look who reads which points"))?;
        pinned.extend(self.shared.pinned());
        for point in points {
            let state = self.shared.state();
            let found = state.point(*point)?;
            let why = if state.points.last().map(|newest| newest.cycle) == Some(*point) {
                Some("it is the newest")
            } else if pinned.contains(point) {
                Some("somebody reads it")
            } else {
                match found.hold {
                    Hold::Operator => Some("an operator holds it"),
                    Hold::Lost => Some("a site had it when it was lost"),
                    Hold::Until(instant) if now < instant => Some("it is write-once"),
                    Hold::Until(_) | Hold::None => None,
                }
            };
            if let Some(why) = why {
                return Err(StoreError::Kept { point: *point, why });
            }
        }
        let store = self.store();
        for point in points {
            let dying = store.dying_with(*point)?;
            let mut state = self.shared.state_mut();
            dying.iter().for_each(|entry| count_dead(&mut state.segments, entry));
            state.points.retain(|other| other.cycle != *point);
        }
        self.guard(Self::checkpoint)
    }

    /// Changes what holds a point; durable on return.
    ///
    /// # Errors
    /// There is no such point; a write-once period is never made shorter.
    pub fn hold(&mut self, point: Cycle, hold: Hold) -> StoreResult<()> {
        {
            let mut state = self.shared.state_mut();
            let found = state.points.iter_mut().find(|other| other.cycle == point);
            let found = found.ok_or(StoreError::NoSuchPoint(point))?;
            if let Hold::Until(promised) = found.hold
                && !matches!(hold, Hold::Until(instant) if instant >= promised)
            {
                return Err(StoreError::Kept { point, why: "it is write-once" });
            }
            found.hold = hold;
        }
        self.guard(Self::checkpoint)
    }

    /// Gives room back, looking at no more than so many segments.
    ///
    /// # Errors
    /// What the medium says. What was done up to then is done.
    pub fn reclaim(&mut self, segments: usize) -> StoreResult<Reclaimed> {
        self.guard(|writer| writer.reclaim_segments(segments))
    }

    fn reclaim_segments(&mut self, limit: usize) -> StoreResult<Reclaimed> {
        // From here on every record that counts is in a run.
        self.checkpoint()?;
        self.collect_merge(true)?;
        let newest = self.shared.state().points.last().map(|point| point.cycle);
        let current = self.log.open_segment();
        let settled = |facts: &&SegmentFacts| {
            Some(facts.id) != current && newest.is_none_or(|newest| facts.newest <= newest)
        };
        let mut candidates: Vec<SegmentFacts> = {
            let state = self.shared.state();
            let wasteful = |facts: &&SegmentFacts| u64::from(facts.dead) * 4 >= facts.end.into();
            state.segments.values().filter(settled).filter(wasteful).copied().collect()
        };
        candidates.sort_by_key(|facts| u64::from(facts.end) - u64::from(facts.dead.min(facts.end)));
        candidates.truncate(limit);
        let mut done = Reclaimed::default();
        let mut moved = Vec::new();
        let mut gone = Vec::new();
        let mut punches = Vec::new();
        for facts in candidates {
            let Contents { living, dead, bare } = self.contents(&facts)?;
            let alive: u64 = living.iter().map(Entry::stored).sum();
            if alive * 2 < u64::from(facts.end) {
                for entry in &living {
                    moved.push(self.move_record(entry)?);
                }
                for entry in &bare {
                    self.move_bare(entry)?;
                }
                done.deleted += 1;
                done.rewritten += u64::from(!living.is_empty());
                done.freed += u64::from(facts.end).saturating_sub(alive);
                gone.push(facts);
            } else if facts.footer && !facts.punched {
                punches.push((facts, dead));
            }
        }
        if !gone.is_empty() {
            self.log.sync()?;
            self.add_moved(moved)?;
            {
                let mut state = self.shared.state_mut();
                for facts in &gone {
                    state.segments.remove(&facts.id);
                }
            }
            for facts in &gone {
                self.upkeep.obsolete(segment::file_name(facts.id, facts.generation));
            }
        }
        for (facts, dead) in punches {
            done.punched += self.punch(&facts, &dead)?;
        }
        self.checkpoint()?;
        Ok(done)
    }

    /// Who needs what of a segment.
    fn contents(&self, facts: &SegmentFacts) -> StoreResult<Contents> {
        let medium = &*self.shared.medium;
        let file = self.shared.segments.get(medium, facts.id, facts.generation)?;
        let records = file.records(facts)?;
        let (index, kept) = {
            let state = self.shared.state();
            (state.index(), state.kept())
        };
        let (mut living, mut dead, mut bare) = (Vec::new(), Vec::new(), Vec::new());
        for record in records {
            let Content::Data { place, .. } = record.content else {
                // The index has it; differences still need the record.
                if kept.first().is_some_and(|oldest| record.cycle > *oldest) {
                    bare.push(record);
                }
                continue;
            };
            let mut scan = index.scan(record.key, BlockKey(record.key.0 + 1))?;
            let mut versions = Vec::new();
            scan.next(&mut versions)?;
            overlay::trim(&mut versions, &kept);
            let here = versions.iter().find(|version| {
                matches!(version.content, Content::Data { place: other, .. } if other == place)
            });
            match here.filter(|version| version.mask != 0) {
                Some(version) => living.push(*version),
                None => dead.push(record),
            }
        }
        Ok(Contents { living, dead, bare })
    }

    /// Copies a record as it is stored to the segment that is being written.
    fn move_record(&mut self, entry: &Entry) -> StoreResult<Entry> {
        let Content::Data { place, .. } = entry.content else { return Ok(*entry) };
        let (file, _) = self.shared.segment(place.segment)?;
        let (header, record) = file.raw(entry, place)?;
        let end = HEADER + header.stored as usize;
        let payload = record.get(HEADER..end).unwrap_or_default();
        // Proved before the old copy goes.
        header.open_payload(payload).map_err(StoreError::file(&file.name))?;
        self.store_again(entry, header, payload)
    }

    /// Writes a record without bytes once more, for the next footer.
    fn move_bare(&mut self, entry: &Entry) -> StoreResult<()> {
        let (kind, span, digest) = match entry.content {
            Content::Zero { span } => (Kind::Zero, span, Digest::default()),
            Content::Discard { span } => (Kind::Discard, span, Digest::default()),
            Content::Adopted { file, page, digest } => (Kind::Adopted { file, page }, 1, digest),
            Content::Data { .. } => return Ok(()),
        };
        let header = Header {
            kind,
            codec: Codec::Plain,
            key: entry.key,
            span,
            pages: entry.pages,
            cycle: entry.cycle,
            change: 0,
            last: true,
            stored: 0,
            payload_crc: 0,
            durable: 0,
            digest,
        };
        self.store_again(entry, header, &[])?;
        Ok(())
    }

    /// Writes a record once more; the entry of its new place.
    pub(crate) fn store_again(
        &mut self,
        entry: &Entry,
        header: Header,
        payload: &[u8],
    ) -> StoreResult<Entry> {
        let stored = self.log.push(Header { change: 0, last: true, ..header }, payload)?;
        Ok(stored.map_or(*entry, |stored| Entry { content: stored.content, ..*entry }))
    }

    fn punch(&mut self, facts: &SegmentFacts, dead: &[Entry]) -> StoreResult<u64> {
        let medium = &*self.shared.medium;
        let file = self.shared.segments.get(medium, facts.id, facts.generation)?;
        let mut punched = 0;
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for entry in dead {
            let Content::Data { place, .. } = entry.content else { continue };
            let start = u64::from(place.offset);
            let end = start + HEADER as u64 + u64::from(place.stored);
            match ranges.last_mut() {
                Some(last) if last.1 == start => last.1 = end,
                _ => ranges.push((start, end)),
            }
        }
        for (start, end) in ranges {
            let (start, end) = (start.div_ceil(PAGE) * PAGE, end / PAGE * PAGE);
            if start >= end {
                continue;
            }
            match file.punch(start as u32, (end - start) as u32) {
                Ok(()) => punched += end - start,
                Err(StoreError::Io { source, .. })
                    if source.kind() == std::io::ErrorKind::Unsupported =>
                {
                    return Ok(0);
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(facts) = self.shared.state_mut().segments.get_mut(&facts.id) {
            facts.punched = true;
        }
        Ok(punched)
    }
}
