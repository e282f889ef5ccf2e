//! A walk over many runs at once, block by block.

use super::{Run, run::Page};
use crate::{
    error::StoreResult,
    format::entry::Entry,
    geometry::{BlockKey, Cycle},
};

/// A walk in order of blocks. It holds one page of each run.
#[derive(Debug)]
pub(crate) struct Scan {
    /// The latest run first.
    walkers: Vec<Walker>,
    to: BlockKey,
}

#[derive(Debug)]
struct Walker {
    run: Run,
    page: Page,
    number: usize,
    at: usize,
}

impl Scan {
    pub(super) fn new(runs: &[Run], from: BlockKey, to: BlockKey) -> StoreResult<Self> {
        let mut walkers = Vec::with_capacity(runs.len());
        for run in runs.iter().rev() {
            if let Some(walker) = Walker::new(run, from)? {
                walkers.push(walker);
            }
        }
        Ok(Self { walkers, to })
    }

    /// The next block, with all its versions in `versions`.
    pub(crate) fn next(&mut self, versions: &mut Vec<Entry>) -> StoreResult<Option<BlockKey>> {
        versions.clear();
        let Some(key) = self.walkers.iter().filter_map(Walker::key).min() else {
            return Ok(None);
        };
        if key >= self.to {
            return Ok(None);
        }
        let mut sources = 0;
        let mut index = 0;
        while let Some(walker) = self.walkers.get_mut(index) {
            let before = versions.len();
            while let Some(entry) = walker.entry().filter(|entry| entry.key == key) {
                versions.push(entry);
                walker.step()?;
            }
            sources += usize::from(versions.len() > before);
            // A walker at its end goes, so that nobody asks it again.
            if walker.key().is_none() {
                self.walkers.remove(index);
            } else {
                index += 1;
            }
        }
        if sources > 1 {
            // Stable: of one cycle, later runs stay in front.
            versions.sort_by_key(|entry| std::cmp::Reverse(entry.cycle));
        }
        Ok(Some(key))
    }

    /// As [`next`](Self::next), without the versions after `at`.
    pub(crate) fn next_at(
        &mut self,
        at: Cycle,
        versions: &mut Vec<Entry>,
    ) -> StoreResult<Option<BlockKey>> {
        let key = self.next(versions)?;
        let newer = versions.partition_point(|entry| entry.cycle > at);
        versions.drain(..newer);
        Ok(key)
    }
}

impl Walker {
    fn new(run: &Run, from: BlockKey) -> StoreResult<Option<Self>> {
        let Some(number) = run.page_for(from, Cycle(u32::MAX))? else { return Ok(None) };
        let Some(page) = run.page(number)? else { return Ok(None) };
        let at = page.partition_point(|entry| entry.key < from);
        let mut walker = Self { run: run.clone(), page, number, at };
        walker.turn()?;
        Ok(walker.key().is_some().then_some(walker))
    }

    fn entry(&self) -> Option<Entry> {
        self.page.get(self.at).copied()
    }

    fn key(&self) -> Option<BlockKey> {
        self.entry().map(|entry| entry.key)
    }

    fn step(&mut self) -> StoreResult<()> {
        self.at += 1;
        self.turn()
    }

    /// Goes on to the next page at the end of one.
    fn turn(&mut self) -> StoreResult<()> {
        if self.at < self.page.len() {
            return Ok(());
        }
        if let Some(page) = self.run.page(self.number + 1)? {
            self.number += 1;
            self.page = page;
            self.at = 0;
        }
        Ok(())
    }
}
