//! Entries of the cycle that is arriving, in order at all times. Bounded: the
//! writer spills it into a run when it has grown large.

use std::collections::BTreeMap;

use crate::{format::entry::Entry, geometry::BlockKey};

#[derive(Debug, Default)]
pub(crate) struct Staging {
    entries: BTreeMap<(BlockKey, u64), Entry>,
    arrivals: u64,
}

impl Staging {
    /// Takes an entry, which lies over all earlier ones. Entries that count
    /// for nothing any more go; `dead` is told of them.
    pub(crate) fn insert(&mut self, entry: Entry, mut dead: impl FnMut(Entry)) {
        let mut buried = Vec::new();
        for (place, below) in self.entries.range_mut((entry.key, 0)..=(entry.key, u64::MAX)) {
            below.mask &= !entry.mask;
            if below.mask == 0 {
                buried.push(*place);
                dead(*below);
            }
        }
        for place in buried {
            self.entries.remove(&place);
        }
        self.arrivals += 1;
        self.entries.insert((entry.key, self.arrivals), entry);
    }

    /// The blocks from `from` to before `to` with entries.
    pub(crate) fn keys(&self, from: BlockKey, to: BlockKey) -> Vec<BlockKey> {
        let mut keys: Vec<_> =
            self.entries.range((from, 0)..(to, 0)).map(|((key, _), _)| *key).collect();
        keys.dedup();
        keys
    }

    /// The versions of a block; their masks do not overlap.
    pub(crate) fn versions(&self, key: BlockKey) -> Vec<Entry> {
        self.entries.range((key, 0)..=(key, u64::MAX)).map(|(_, entry)| *entry).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All entries in order; nothing is left.
    pub(crate) fn take(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.entries).into_values().collect()
    }
}
