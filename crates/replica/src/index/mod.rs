//! Where every page lies at every point: sorted runs, some in memory, most
//! on the medium, which are laid over one another when read.
//!
//! | module | idea |
//! | --- | --- |
//! | [`staging`] | entries of the cycle that is arriving |
//! | [`run`] | an immutable sorted run, and how one is written |
//! | [`scan`] | walks over many runs at once, block by block |
//! | [`merge`] | which runs to merge, and how |

pub(crate) mod merge;
pub(crate) mod run;
pub(crate) mod scan;
pub(crate) mod staging;

use std::sync::Arc;

use crate::{
    error::StoreResult,
    format::entry::Entry,
    geometry::{BlockKey, Cycle},
};
use run::{DiskRun, MemoryRun, Page};
use scan::Scan;

/// A run, wherever it lies.
#[derive(Debug, Clone)]
pub(crate) enum Run {
    Memory(Arc<MemoryRun>),
    Disk(Arc<DiskRun>),
}

impl Run {
    fn oldest(&self) -> Cycle {
        match self {
            Self::Memory(run) => run.oldest,
            Self::Disk(run) => run.facts.oldest,
        }
    }

    /// The page that an entry for `key` at `at` would be in, if any.
    fn page_for(&self, key: BlockKey, at: Cycle) -> StoreResult<Option<usize>> {
        match self {
            Self::Memory(_) => Ok(Some(0)),
            Self::Disk(run) => run.page_for(key, at),
        }
    }

    fn page(&self, number: usize) -> StoreResult<Option<Page>> {
        match self {
            Self::Memory(run) => Ok((number == 0).then(|| Arc::clone(&run.entries))),
            Self::Disk(run) => run.page(number),
        }
    }

    /// Appends the entries of `key` from `at` back in time, until they cover
    /// the block: what is older in this run counts for nothing.
    fn visible(&self, key: BlockKey, at: Cycle, found: &mut Vec<Entry>) -> StoreResult<()> {
        let Some(mut number) = self.page_for(key, at)? else { return Ok(()) };
        let mut covered = 0_u16;
        while let Some(page) = self.page(number)? {
            let sought = (key, std::cmp::Reverse(at));
            let start = page.partition_point(|entry| crate::format::run::order(entry) < sought);
            for entry in page.get(start..).unwrap_or_default() {
                if entry.key != key || covered == u16::MAX {
                    return Ok(());
                }
                found.push(*entry);
                covered |= entry.mask;
            }
            number += 1;
        }
        Ok(())
    }
}

/// A state of the index. Cheap to clone; what it refers to never changes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Index {
    /// The oldest first.
    pub(crate) runs: Vec<Run>,
}

impl Index {
    /// What `key` is at `at`: versions as in [`overlay`](crate::overlay).
    pub(crate) fn versions(&self, key: BlockKey, at: Cycle) -> StoreResult<Vec<Entry>> {
        let mut found = Vec::new();
        for run in self.runs.iter().rev().filter(|run| run.oldest() <= at) {
            run.visible(key, at, &mut found)?;
        }
        // Stable: of one cycle, later runs stay in front.
        found.sort_by_key(|entry| std::cmp::Reverse(entry.cycle));
        Ok(found)
    }

    /// Walks over the blocks from `from` to before `to` that any record is
    /// about.
    pub(crate) fn scan(&self, from: BlockKey, to: BlockKey) -> StoreResult<Scan> {
        Scan::new(&self.runs, from, to)
    }
}
