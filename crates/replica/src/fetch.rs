//! From an index entry to its bytes, proved; and what to say when they are
//! damaged.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use crate::{
    error::{Damage, StoreError, StoreResult},
    format::{
        Digest, Malformed,
        entry::{Content, Entry},
    },
    geometry::{BLOCK, BlockKey, Cycle, PAGE, PAGES},
    overlay,
    state::{RecordKey, Shared},
};

/// What a record in a cache takes beside its bytes.
const OVERHEAD: usize = 160;
/// Lanes: many more than threads that read at a time.
const LANES: usize = 256;
/// How often files may vanish under a reader before it is an error.
const ATTEMPTS: usize = 3;

/// What part of a block comes from where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The first page of the block.
    pub(crate) first: u8,
    /// Pages.
    pub(crate) count: u8,
    pub(crate) source: PieceSource,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PieceSource {
    /// Nothing was ever written, or it was discarded.
    Hole,
    Zero,
    Bytes(Entry),
}

impl Piece {
    /// Bytes.
    pub(crate) fn length(&self) -> u64 {
        u64::from(self.count) * PAGE
    }
}

/// What a block is made of, from its versions.
pub(crate) fn pieces(versions: &[Entry]) -> Vec<Piece> {
    let winners = overlay::winners(versions);
    let mut pieces: Vec<Piece> = Vec::new();
    for (page, winner) in (0..PAGES).zip(winners) {
        let source = match winner.and_then(|winner| versions.get(winner)) {
            None => PieceSource::Hole,
            Some(entry) => match entry.content {
                Content::Zero { .. } => PieceSource::Zero,
                Content::Discard { .. } => PieceSource::Hole,
                Content::Data { .. } | Content::Adopted { .. } => PieceSource::Bytes(*entry),
            },
        };
        match pieces.last_mut() {
            Some(last) if last.source == source => last.count += 1,
            _ => pieces.push(Piece { first: page, count: 1, source }),
        }
    }
    pieces
}

/// What could not be read, and why.
#[derive(Debug)]
pub(crate) struct Unread {
    error: Box<StoreError>,
    /// Nothing if it is the index.
    entry: Option<Entry>,
}

impl Unread {
    pub(crate) fn index(error: StoreError) -> Self {
        Self { error: Box::new(error), entry: None }
    }

    pub(crate) fn record(entry: Entry) -> impl FnOnce(StoreError) -> Self {
        move |error| Self { error: Box::new(error), entry: Some(entry) }
    }
}

/// Has whoever needs a record that another thread is just reading wait for it instead
/// of doing the same work: each record has a lane, in which one reads at a time.
#[derive(Debug)]
pub(crate) struct Lanes {
    lanes: Vec<Mutex<()>>,
    hasher: RandomState,
}

impl Default for Lanes {
    fn default() -> Self {
        let lanes = std::iter::repeat_with(Mutex::default).take(LANES).collect();
        Self { lanes, hasher: RandomState::new() }
    }
}

impl Lanes {
    /// Waits until nobody reads in the lane of this record. Nobody holds two.
    fn enter(&self, key: &RecordKey) -> Option<MutexGuard<'_, ()>> {
        let lane = self.hasher.hash_one(key) as usize % LANES;
        Some(self.lanes.get(lane)?.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Shared {
    /// Whether a record's bytes are at hand, or none are needed.
    pub(crate) fn is_at_hand(&self, entry: &Entry) -> bool {
        record_key(entry).is_none_or(|key| self.records.holds(&key))
    }

    /// A record's bytes if they are at hand.
    pub(crate) fn cached(&self, entry: &Entry) -> Option<Bytes> {
        self.records.get(&record_key(entry)?)
    }

    /// A record's bytes, all pages of it, proved by its hash.
    pub(crate) fn bytes_of(&self, entry: &Entry) -> StoreResult<Bytes> {
        let Some(key) = record_key(entry) else {
            return self.read_proved(entry);
        };
        if let Some(bytes) = self.records.get(&key) {
            return Ok(bytes);
        }
        let _alone = self.lanes.enter(&key);
        if let Some(bytes) = self.records.get(&key) {
            return Ok(bytes);
        }
        let bytes = self.read_proved(entry)?;
        self.records.put(key, bytes.clone(), bytes.len() + OVERHEAD);
        Ok(bytes)
    }

    /// As [`bytes_of`](Self::bytes_of), always from the medium.
    pub(crate) fn read_proved(&self, entry: &Entry) -> StoreResult<Bytes> {
        match entry.content {
            Content::Data { place, .. } => {
                let (file, _) = self.segment(place.segment)?;
                file.payload(entry, place)
            }
            Content::Adopted { file, page, digest } => {
                let (facts, handle) = self.adopted(file)?;
                let mut bytes = vec![0; entry.pages.bytes()];
                let start = u64::from(page) * PAGE;
                // The last page may go beyond the end.
                let there = facts.size.saturating_sub(start).min(bytes.len() as u64) as usize;
                handle
                    .read_at(bytes.get_mut(..there).unwrap_or_default(), start)
                    .map_err(StoreError::io(format!("read {} at byte {start}", facts.path)))?;
                if Digest::of(&bytes) != digest {
                    let why = Malformed("these bytes are not those that were adopted");
                    return Err(StoreError::file(facts.path)(why));
                }
                Ok(bytes.into())
            }
            Content::Zero { .. } | Content::Discard { .. } => {
                Ok(vec![0; entry.pages.bytes()].into())
            }
        }
    }

    /// Does something that reads block `key`, again with a fresh look at the
    /// index if files vanished meanwhile; what stays wrong is damage.
    pub(crate) fn reading<T>(
        &self,
        key: BlockKey,
        at: Cycle,
        mut act: impl FnMut() -> Result<T, Unread>,
    ) -> StoreResult<T> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let Unread { error, entry } = match act() {
                Ok(value) => return Ok(value),
                Err(failed) => failed,
            };
            if attempt < ATTEMPTS {
                if let Some(segment) = entry.and_then(|entry| entry.segment()) {
                    self.segments.forget(segment);
                }
                self.look_again()?;
                continue;
            }
            return Err(self.damage_of(key, at, &error, entry));
        }
    }

    fn damage_of(
        &self,
        key: BlockKey,
        at: Cycle,
        error: &StoreError,
        entry: Option<Entry>,
    ) -> StoreError {
        let range = match entry {
            Some(entry) => {
                let start = key.offset() + u64::from(entry.pages.first()) * PAGE;
                start..start + entry.pages.bytes() as u64
            }
            None => key.offset()..key.offset() + BLOCK,
        };
        let points = entry.and_then(|entry| self.points_that_need(&entry));
        let place = entry.map_or_else(|| "the index".to_owned(), |entry| self.place_of(&entry));
        let points = points.or(Some((at, at)));
        let why = error.chain();
        StoreError::Damaged(Damage { disk: key.disk(), range, points, place, why })
    }

    /// The first and the last point that read anything from the entry's record.
    pub(crate) fn points_that_need(&self, entry: &Entry) -> Option<(Cycle, Cycle)> {
        let (index, kept) = {
            let state = self.state();
            (state.index(), state.kept())
        };
        let mut scan = index.scan(entry.key, BlockKey(entry.key.0 + 1)).ok()?;
        let mut versions = Vec::new();
        scan.next(&mut versions).ok()??;
        let mut until = 0;
        for page in 0..PAGES {
            if entry.mask & (1 << page) == 0 {
                continue;
            }
            let newer = versions.iter().filter(|version| version.cycle > entry.cycle);
            let next = newer.filter(|version| version.mask & (1 << page) != 0);
            let next = next.map(|version| u64::from(version.cycle.0)).min();
            until = until.max(next.unwrap_or(u64::MAX));
        }
        let mut readers =
            kept.iter().filter(|point| **point >= entry.cycle && u64::from(point.0) < until);
        let first = *readers.next()?;
        Some((first, readers.next_back().copied().unwrap_or(first)))
    }
}

fn record_key(entry: &Entry) -> Option<RecordKey> {
    match entry.content {
        Content::Data { place, .. } => {
            Some(RecordKey::Record { segment: place.segment, offset: place.offset })
        }
        Content::Adopted { file, page, .. } => {
            Some(RecordKey::Adopted { file, page, pages: entry.pages.count() })
        }
        Content::Zero { .. } | Content::Discard { .. } => None,
    }
}
