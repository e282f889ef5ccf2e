//! What a store knows while it is open, shared by its writer and its readers.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use crate::{
    cache::Cache,
    error::{StoreError, StoreResult},
    format::manifest::{AdoptedFacts, Next, Point, SegmentFacts},
    geometry::Cycle,
    index::{
        Index, Run,
        run::{DiskRun, MemoryRun, PageCache},
    },
    medium::Medium,
    segment::{SegmentFile, SegmentFiles},
};

/// Limits of memory; all of a machine's views and diffs together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of index pages that are kept.
    pub index_cache: usize,
    /// Bytes of decompressed blocks that are kept, over all views.
    pub block_cache: usize,
    /// Segments that are kept open.
    pub open_segments: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { index_cache: 32 << 20, block_cache: 64 << 20, open_segments: 256 }
    }
}

/// The parts that change, all in memory and quickly copied.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) generation: u64,
    /// Of the newest manifest.
    pub(crate) sequence: u64,
    pub(crate) next: Next,
    pub(crate) points: Vec<Point>,
    pub(crate) segments: BTreeMap<u32, SegmentFacts>,
    /// The oldest first.
    pub(crate) runs: Vec<Arc<DiskRun>>,
    /// Sealed cycles after those in `runs`, the oldest first.
    pub(crate) memory: Vec<Arc<MemoryRun>>,
    pub(crate) adopted: Vec<AdoptedFacts>,
    pub(crate) received: Received,
}

/// How far an attempt has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Received {
    /// The attempt, if one is open.
    pub cycle: Option<Cycle>,
    /// Its changes that are durable.
    pub changes: u64,
}

impl State {
    pub(crate) fn index(&self) -> Index {
        let disk = self.runs.iter().cloned().map(Run::Disk);
        let memory = self.memory.iter().cloned().map(Run::Memory);
        Index { runs: disk.chain(memory).collect() }
    }

    pub(crate) fn point(&self, cycle: Cycle) -> StoreResult<&Point> {
        let found = self.points.binary_search_by_key(&cycle, |point| point.cycle);
        let point = found.ok().and_then(|at| self.points.get(at));
        point.ok_or(StoreError::NoSuchPoint(cycle))
    }

    pub(crate) fn kept(&self) -> Vec<Cycle> {
        self.points.iter().map(|point| point.cycle).collect()
    }

    /// The newest cycle whose entries are in runs on the medium.
    pub(crate) fn indexed(&self) -> Option<Cycle> {
        let unindexed = self.memory.first().map(|run| run.oldest);
        let mut points = self.points.iter().rev().map(|point| point.cycle);
        points.find(|cycle| unindexed.is_none_or(|first| *cycle < first))
    }
}

/// Key of a decompressed record: segment and offset never mean anything else.
pub(crate) type RecordKey = (u32, u32);

/// An open store.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) medium: Arc<dyn Medium>,
    state: RwLock<State>,
    pub(crate) segments: SegmentFiles,
    pub(crate) pages: Arc<PageCache>,
    /// Decompressed records.
    pub(crate) records: Cache<RecordKey, bytes::Bytes>,
    /// Open views by point.
    views: Mutex<BTreeMap<Cycle, usize>>,
    /// Why only reading is possible, where the medium is damaged.
    pub(crate) damage: Option<String>,
    /// Whether the state follows a writer of this process.
    pub(crate) follows: Follows,
}

/// Whose changes a store sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Follows {
    /// Those of the writer that it belongs to.
    Writer,
    /// Those that somebody else published, when it looks again.
    Manifests,
}

impl Shared {
    pub(crate) fn new(
        medium: Arc<dyn Medium>,
        limits: Limits,
        pages: Arc<PageCache>,
        state: State,
        damage: Option<String>,
        follows: Follows,
    ) -> Self {
        Self {
            medium,
            state: RwLock::new(state),
            segments: SegmentFiles::new(limits.open_segments),
            pages,
            records: Cache::new(limits.block_cache),
            views: Mutex::default(),
            damage,
            follows,
        }
    }

    /// Held for moments, never over input or output.
    pub(crate) fn state(&self) -> RwLockReadGuard<'_, State> {
        // Changes to the state are assignments; none can stop half-way.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn index(&self) -> Index {
        self.state().index()
    }

    pub(crate) fn segment(&self, id: u32) -> StoreResult<(Arc<SegmentFile>, SegmentFacts)> {
        let facts = self.state().segments.get(&id).copied();
        let Some(facts) = facts else {
            return Err(StoreError::Io {
                doing: format!("open segment {id}"),
                source: std::io::ErrorKind::NotFound.into(),
            });
        };
        Ok((self.segments.get(&*self.medium, id, facts.generation)?, facts))
    }

    /// Looks again, where somebody else writes.
    pub(crate) fn look_again(&self) -> StoreResult<()> {
        if self.follows == Follows::Manifests {
            let found = crate::replay::find(&*self.medium, &self.pages, None)?;
            *self.state_mut() = found.state;
        }
        Ok(())
    }

    pub(crate) fn pin(&self, point: Cycle) {
        let mut views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        *views.entry(point).or_default() += 1;
    }

    pub(crate) fn unpin(&self, point: Cycle) {
        let mut views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = views.get_mut(&point) {
            *count -= 1;
            if *count == 0 {
                views.remove(&point);
            }
        }
    }

    /// Points with open views.
    pub(crate) fn pinned(&self) -> Vec<Cycle> {
        let views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        views.keys().copied().collect()
    }
}
