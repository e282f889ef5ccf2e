//! An immutable sorted run of entries.
//!
//! Of a run on the medium, only the fences (one key per 16 KiB) stay in
//! memory, from its first use on; its pages come through a bounded cache.

use std::sync::{Arc, OnceLock};

use crate::{
    cache::Cache,
    error::{StoreError, StoreResult},
    format::{
        entry::{self, Entry},
        manifest::RunFacts,
        run::{self, INDEX_BLOCK, PER_BLOCK, TRAILER, Trailer},
    },
    geometry::{BlockKey, Cycle},
    medium::{File, Medium},
};

/// Entries in order, as they lie in one block of the file.
pub(crate) type Page = Arc<Vec<Entry>>;
/// Pages of all runs of a machine.
pub(crate) type PageCache = Cache<(u32, usize), Page>;
/// Bytes of index that are written at once.
const WRITE: usize = 1 << 20;

/// The entries of sealed cycles that are in no file yet.
#[derive(Debug)]
pub(crate) struct MemoryRun {
    pub(crate) entries: Page,
    pub(crate) oldest: Cycle,
    pub(crate) newest: Cycle,
}

impl MemoryRun {
    /// A cycle's entries, in order.
    pub(crate) fn of_cycle(cycle: Cycle, entries: Vec<Entry>) -> Self {
        Self { entries: Arc::new(entries), oldest: cycle, newest: cycle }
    }
}

/// A run on the medium.
#[derive(Debug)]
pub(crate) struct DiskRun {
    pub(crate) facts: RunFacts,
    name: String,
    file: Arc<dyn File>,
    cache: Arc<PageCache>,
    fences: OnceLock<Fences>,
}

#[derive(Debug)]
struct Fences {
    first: Vec<(BlockKey, Cycle)>,
    last: BlockKey,
}

/// The name of a run's file.
pub(crate) fn file_name(id: u32, generation: u64) -> String {
    format!("idx/{id:08x}-{generation:08x}.run")
}

impl DiskRun {
    pub(crate) fn open(
        medium: &dyn Medium,
        cache: &Arc<PageCache>,
        facts: RunFacts,
    ) -> StoreResult<Self> {
        let name = file_name(facts.id, facts.generation);
        let file = medium.open(&name).map_err(StoreError::io(format!("open {name}")))?;
        Ok(Self { facts, name, file, cache: Arc::clone(cache), fences: OnceLock::new() })
    }

    fn fences(&self) -> StoreResult<&Fences> {
        if let Some(fences) = self.fences.get() {
            return Ok(fences);
        }
        let read = |buffer: &mut [u8], offset| {
            let doing = || StoreError::io(format!("read {} at {offset}", self.name));
            self.file.read_at(buffer, offset).map_err(doing())
        };
        let length =
            self.file.length().map_err(StoreError::io(format!("measure {}", self.name)))?;
        let Some(end) = length.checked_sub(TRAILER as u64) else {
            return Err(self.malformed(crate::format::Malformed("cut short")));
        };
        let mut trailer = [0; TRAILER];
        read(&mut trailer, end)?;
        let trailer = Trailer::decode(&trailer).map_err(|error| self.malformed(error))?;
        let start = u64::from(trailer.blocks) * INDEX_BLOCK as u64;
        let size = end.checked_sub(start).filter(|size| *size <= u64::from(trailer.blocks) * 12);
        let Some(size) = size.filter(|_| trailer.entries == self.facts.entries) else {
            return Err(self.malformed(crate::format::Malformed("an index run of wrong length")));
        };
        let mut bytes = vec![0; size as usize];
        read(&mut bytes, start)?;
        let first = run::decode_fences(&trailer, &bytes).map_err(|error| self.malformed(error))?;
        Ok(self.fences.get_or_init(|| Fences { first, last: trailer.last }))
    }

    pub(super) fn page_for(&self, key: BlockKey, at: Cycle) -> StoreResult<Option<usize>> {
        let fences = self.fences()?;
        if key > fences.last {
            return Ok(None);
        }
        let sought = (key, std::cmp::Reverse(at));
        let after = fences
            .first
            .partition_point(|(key, cycle)| (*key, std::cmp::Reverse(*cycle)) <= sought);
        Ok(Some(after.saturating_sub(1)))
    }

    pub(super) fn page(&self, number: usize) -> StoreResult<Option<Page>> {
        if number >= self.fences()?.first.len() {
            return Ok(None);
        }
        if let Some(page) = self.cache.get(&(self.facts.id, number)) {
            return Ok(Some(page));
        }
        let mut bytes = vec![0; INDEX_BLOCK];
        let offset = number as u64 * INDEX_BLOCK as u64;
        self.file
            .read_at(&mut bytes, offset)
            .map_err(StoreError::io(format!("read {} at {offset}", self.name)))?;
        let page = Arc::new(run::decode_block(&bytes).map_err(|error| self.malformed(error))?);
        let weight = page.len() * size_of::<Entry>();
        self.cache.put((self.facts.id, number), Arc::clone(&page), weight);
        Ok(Some(page))
    }

    fn malformed(&self, source: crate::format::Malformed) -> StoreError {
        StoreError::File { name: self.name.clone(), source }
    }
}

/// Writes a run from front to back.
#[derive(Debug)]
pub(crate) struct RunWriter {
    name: String,
    file: Arc<dyn File>,
    facts: RunFacts,
    block: Vec<Entry>,
    fences: Vec<(BlockKey, Cycle)>,
    out: Vec<u8>,
    last: BlockKey,
}

impl RunWriter {
    /// Begins the run `id`; its cycles and count are found while writing.
    pub(crate) fn create(
        medium: &dyn Medium,
        id: u32,
        generation: u64,
        level: u8,
        staged: Option<Cycle>,
    ) -> StoreResult<Self> {
        let name = file_name(id, generation);
        let file = medium.create(&name).map_err(StoreError::io(format!("create {name}")))?;
        let facts = RunFacts {
            id,
            generation,
            level,
            staged,
            oldest: Cycle(u32::MAX),
            newest: Cycle(0),
            entries: 0,
        };
        let block = Vec::with_capacity(PER_BLOCK);
        Ok(Self {
            name,
            file,
            facts,
            block,
            fences: Vec::new(),
            out: Vec::new(),
            last: BlockKey(0),
        })
    }

    /// Appends an entry; they come in order.
    pub(crate) fn push(&mut self, entry: &Entry) -> StoreResult<()> {
        if self.block.is_empty() {
            self.fences.push((entry.key, entry.cycle));
        }
        self.block.push(*entry);
        self.last = entry.key;
        self.facts.oldest = self.facts.oldest.min(entry.cycle);
        self.facts.newest = self.facts.newest.max(entry.cycle);
        self.facts.entries += 1;
        if self.block.len() == PER_BLOCK {
            self.end_block()?;
        }
        Ok(())
    }

    fn end_block(&mut self) -> StoreResult<()> {
        self.out.extend_from_slice(&run::encode_block(&self.block));
        self.block.clear();
        if self.out.len() >= WRITE { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> StoreResult<()> {
        let result = self.file.append(&self.out);
        self.out.clear();
        result.map_err(StoreError::io(format!("append to {}", self.name)))
    }

    /// Ends the run: durable on return. `None` if it has no entries.
    pub(crate) fn finish(mut self, medium: &dyn Medium) -> StoreResult<Option<RunFacts>> {
        if self.facts.entries == 0 {
            medium.delete(&self.name).map_err(StoreError::io(format!("delete {}", self.name)))?;
            return Ok(None);
        }
        if !self.block.is_empty() {
            self.end_block()?;
        }
        let fences = run::encode_fences(&self.fences);
        let trailer = Trailer {
            blocks: self.fences.len() as u32,
            entries: self.facts.entries,
            fences_crc: crc32c::crc32c(&fences),
            oldest: self.facts.oldest,
            newest: self.facts.newest,
            last: self.last,
        };
        self.out.extend_from_slice(&fences);
        self.out.extend_from_slice(&trailer.encode());
        self.flush()?;
        self.file.sync().map_err(StoreError::io(format!("sync {}", self.name)))?;
        Ok(Some(self.facts))
    }
}

const _: () = assert!(entry::SIZE * PER_BLOCK + 8 <= INDEX_BLOCK, "a block holds its entries");
