//! What a store knows while it is open, shared by its writer and its readers.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use crate::{
    ahead::Ahead,
    cache::Cache,
    error::{StoreError, StoreResult},
    fetch::{Lanes, Piece},
    format::{
        entry::{Content, Entry},
        manifest::{AdoptedFacts, Next, Point, SegmentFacts},
    },
    geometry::{BlockKey, Cycle, PAGE},
    index::{
        Index, Run,
        run::{DiskRun, MemoryRun, PageCache},
    },
    medium::{File, Medium},
    replay::Purpose,
    segment::{SegmentFile, SegmentFiles},
    view,
};

/// Bytes of decompressed blocks for each byte that says what blocks are made of. A
/// block of 64 KiB from one record takes 250 bytes, one from sixteen takes 1 KiB.
const MAKEUP_SHARE: usize = 32;
/// The least that is kept of what blocks are made of.
const LEAST_MAKEUP: usize = 1 << 20;

/// Limits of memory; all of a machine's views and diffs together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of index pages that are kept.
    pub index_cache: usize,
    /// Bytes of decompressed blocks that are kept, over all views. What is kept of
    /// what blocks are made of takes up to a 32nd of it besides, or 1 MiB.
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

/// Where proved bytes came from, which never means anything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum RecordKey {
    Record { segment: u32, offset: u32 },
    Adopted { file: u32, page: u32, pages: u8 },
}

/// A point that is looked at.
#[derive(Default)]
struct Viewed {
    views: usize,
    /// What keeps it where another process may write.
    pin: Option<Box<dyn Send + Sync>>,
}

impl std::fmt::Debug for Viewed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Viewed").field("views", &self.views).finish_non_exhaustive()
    }
}

/// An open store.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) medium: Arc<dyn Medium>,
    state: RwLock<State>,
    pub(crate) segments: SegmentFiles,
    pub(crate) pages: Arc<PageCache>,
    /// Decompressed records.
    pub(crate) records: Cache<RecordKey, bytes::Bytes>,
    /// Who reads which of them from the medium.
    pub(crate) lanes: Lanes,
    /// What blocks are made of at points that are looked at.
    pub(crate) makeups: Cache<(Cycle, BlockKey), Arc<[Piece]>>,
    /// What is read before it is asked for.
    pub(crate) ahead: Ahead<view::Inner>,
    /// Open views by point.
    views: Mutex<BTreeMap<Cycle, Viewed>>,
    /// Adopted files that are open.
    adopted: Cache<u32, Arc<dyn File>>,
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
            lanes: Lanes::default(),
            makeups: Cache::new((limits.block_cache / MAKEUP_SHARE).max(LEAST_MAKEUP)),
            ahead: Ahead::new(limits.block_cache),
            views: Mutex::default(),
            adopted: Cache::new(limits.open_segments),
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
            let found = crate::replay::find(&*self.medium, &self.pages, Purpose::Reading)?;
            *self.state_mut() = found.state;
        }
        Ok(())
    }

    /// The file that a number stands for in entries.
    pub(crate) fn adopted(&self, number: u32) -> StoreResult<(AdoptedFacts, Arc<dyn File>)> {
        let facts = {
            let state = self.state();
            let found = state.adopted.iter().find(|facts| facts.id == number);
            found.cloned().ok_or_else(|| StoreError::Io {
                doing: format!("open adopted file {number}"),
                source: std::io::ErrorKind::NotFound.into(),
            })?
        };
        if let Some(file) = self.adopted.get(&number) {
            return Ok((facts, file));
        }
        let doing = StoreError::io(format!("open {}", facts.path));
        let file = self.medium.adopted(&facts.path).map_err(doing)?;
        self.adopted.put(number, Arc::clone(&file), 1);
        Ok((facts, file))
    }

    /// Where an entry's bytes lie, for people.
    pub(crate) fn place_of(&self, entry: &Entry) -> String {
        match entry.content {
            Content::Data { place, .. } => {
                format!("segment {} at byte {}", place.segment, place.offset)
            }
            Content::Adopted { file, page, .. } => {
                let state = self.state();
                let path = state.adopted.iter().find(|facts| facts.id == file);
                let path = path.map_or("an adopted file that is not known", |facts| &facts.path);
                format!("{path} at byte {}", u64::from(page) * PAGE)
            }
            Content::Zero { .. } | Content::Discard { .. } => "the index".to_owned(),
        }
    }

    /// Keeps a point while it is looked at. Where another process may write,
    /// what that process did up to now is known on return.
    pub(crate) fn pin(&self, point: Cycle) -> StoreResult<()> {
        let mut views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        let viewed = views.entry(point).or_default();
        viewed.views += 1;
        if self.follows == Follows::Writer || viewed.pin.is_some() {
            return Ok(());
        }
        match self.medium.pin(point) {
            Ok(pin) => viewed.pin = Some(pin),
            // Who may only read can still look at it.
            Err(error) => tracing::warn!(
                %error, point = point.0, "a writer does not know that this point is read"
            ),
        }
        drop(views);
        self.look_again().inspect_err(|_| self.unpin(point))
    }

    pub(crate) fn unpin(&self, point: Cycle) {
        let mut views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(viewed) = views.get_mut(&point) {
            viewed.views -= 1;
            if viewed.views == 0 {
                views.remove(&point);
            }
        }
    }

    /// Points with open views of this process.
    pub(crate) fn pinned(&self) -> Vec<Cycle> {
        let views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        views.keys().copied().collect()
    }
}
