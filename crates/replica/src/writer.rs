//! The one writer of a machine's store.
//!
//! ```text
//! open ─ begin ─ write, zero, discard … ─ sync ─ … ─ seal ─▶ a recovery point
//!            └─ resume (after a crash)     └ durable acknowledgement
//! ```
//! Changes count in the order in which they are given. [`Writer::sync`]
//! returns when everything before it is durable; [`Writer::seal`] makes a point
//! of it with the same single sync. What was not sealed when the process died
//! can be continued with [`Writer::resume`] or is given up by
//! [`Writer::begin`].
//!
//! After an error of the medium the segment is poisoned: nothing is written to
//! it again and no sync is repeated. The next `begin` or `resume` starts from
//! what is durable, behind a manifest that says where the segment ends.
//!
//! Everything here blocks: async callers use a thread of their own.

use std::{sync::Arc, thread};

use bytes::Bytes;

use crate::{
    cache::Cache,
    checkpoint::Upkeep,
    error::{StoreError, StoreResult},
    fetch::{PieceSource, pieces},
    format::{
        Digest,
        entry::Entry,
        manifest::{OpenAttempt, Point},
        record::{self, Codec, Commit, Consistency, Header, Kind},
        segment::MAX_SEGMENT,
    },
    geometry::{BLOCK, BlockKey, Cycle, DiskNumber, MAX_DISK, PAGE, PageRun, blocks_of},
    index::{Index, run::MemoryRun, staging::Staging},
    log::{Log, LogTerms},
    medium::Medium,
    pipeline::{Batch, Compression, Encoded, Material, Pipeline},
    replay::{self, Found, Poison, Purpose, count_dead, point_of, stage},
    state::{Follows, Limits, Received, Shared},
    store::Store,
};

/// The most bytes of a machine's configuration.
pub const MAX_CONFIGURATION: usize = 1 << 20;
/// Blocks that one record clears at most: 1 GiB.
const MAX_SPAN: u64 = 16 * 1024;

/// How a writer works.
#[derive(Debug, Clone)]
pub struct WriterOptions {
    /// Handed out by the controller; a writer with a greater one takes over.
    pub generation: u64,
    /// How data is compressed.
    pub compression: Compression,
    /// Threads that hash and compress; with none, nothing happens in the
    /// background at all.
    pub threads: usize,
    /// Bounds of memory.
    pub limits: Limits,
    /// A cycle is not begun when less of the medium is free, in percent.
    pub reserve_percent: u8,
    /// Where segments end, at most 64 MiB.
    pub segment_bytes: u32,
    /// Entries that the index keeps in memory before it writes a run; each
    /// takes about 100 bytes.
    pub memory_entries: usize,
    /// Cycles that the index keeps in memory before it writes a run.
    pub memory_cycles: usize,
    /// Segments after which the index is written in any case: opening after a
    /// crash reads no more than these.
    pub replay_segments: u32,
    /// Makes salts; any number that a guest cannot guess.
    pub salt: u64,
}

impl WriterOptions {
    /// What suits a replica host.
    #[must_use]
    pub fn new(generation: u64) -> Self {
        use std::hash::{BuildHasher, RandomState};
        Self {
            generation,
            compression: Compression::Zstd(-3),
            threads: thread::available_parallelism().map_or(1, usize::from).min(16),
            limits: Limits::default(),
            reserve_percent: 5,
            segment_bytes: MAX_SEGMENT,
            memory_entries: 128 * 1024,
            memory_cycles: 16,
            replay_segments: 16,
            salt: RandomState::new().hash_one(generation),
        }
    }
}

/// What makes a cycle a point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealFacts {
    /// Milliseconds since 1970 by the source's clock: a label.
    pub instant: i64,
    /// How still the machine was.
    pub consistency: Consistency,
    /// Where it came from, for people.
    pub origin: String,
    /// The machine's configuration, in whatever form the source gave it.
    pub configuration: Vec<u8>,
}

/// An attempt that is under way.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) cycle: Cycle,
    disks: Vec<u64>,
    /// Changes that were accepted.
    changes: u64,
    /// Changes whose records are all in segments and in the index.
    indexed: u64,
    /// Bytes of its records.
    pub(crate) stored: u64,
}

/// The writer of a machine's store. Dropping it gives the lock back; what was
/// not synced is lost.
#[derive(Debug)]
pub struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) options: WriterOptions,
    pub(crate) log: Log,
    pub(crate) attempt: Option<Attempt>,
    resumable: Option<OpenAttempt>,
    pub(crate) staging: Staging,
    pipeline: Pipeline,
    /// The index that zeroes are compared with; made when needed.
    index: Option<Index>,
    pub(crate) upkeep: Upkeep,
    failure: Failure,
    cut: u64,
    _lock: Lock,
}

struct Lock(#[expect(dead_code, reason = "held for what its drop does")] Box<dyn Send + Sync>);

impl std::fmt::Debug for Lock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lock")
    }
}

/// What an error of the medium left behind.
#[derive(Debug, Clone, Copy)]
enum Failure {
    None,
    /// What the segment has beyond this may be there or not.
    Poisoned(Poison),
    /// Another writer took over.
    Fenced {
        theirs: u64,
    },
}

impl Writer {
    /// Opens a machine's store for writing and claims it for the generation:
    /// cuts unacknowledged tails, writes down where everything ends, and
    /// removes what belongs to nobody.
    ///
    /// # Errors
    /// [`InUse`](StoreError::InUse), [`Fenced`](StoreError::Fenced),
    /// [`LostRecords`](StoreError::LostRecords), [`TooNew`](StoreError::TooNew), and what
    /// the medium says.
    pub fn open(medium: Arc<dyn Medium>, options: WriterOptions) -> StoreResult<Self> {
        let lock = medium.lock().map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => StoreError::InUse,
            _ => StoreError::io("lock the store")(error),
        })?;
        let pages = Arc::new(Cache::new(options.limits.index_cache));
        let found = replay::find(&*medium, &pages, Purpose::Writing)?;
        let (ours, theirs) = (options.generation, found.state.generation);
        if theirs > ours {
            return Err(StoreError::Fenced { ours, theirs });
        }
        if let Some(damage) = found.damage {
            return Err(StoreError::LostRecords(damage));
        }
        let state = found.state.clone();
        let shared =
            Arc::new(Shared::new(medium, options.limits, pages, state, None, Follows::Writer));
        let log = Log::new(
            Arc::clone(&shared),
            LogTerms {
                generation: options.generation,
                segment_bytes: options.segment_bytes,
                salt: options.salt,
                in_background: options.threads > 0,
            },
        );
        let mut writer = Self {
            shared,
            pipeline: Pipeline::new(options.compression, options.threads),
            options,
            log,
            attempt: None,
            resumable: None,
            staging: Staging::default(),
            index: None,
            upkeep: Upkeep::default(),
            failure: Failure::None,
            cut: 0,
            _lock: Lock(lock),
        };
        writer.take_over(found)?;
        Ok(writer)
    }

    /// Starts from what was found: nothing of it is read again at the next
    /// opening, and every segment's end is written down.
    fn take_over(&mut self, found: Found) -> StoreResult<()> {
        self.staging = found.staging;
        self.resumable = found.open;
        self.cut = found.cut;
        self.index = None;
        let mut state = found.state;
        state.generation = self.options.generation;
        *self.shared.state_mut() = state;
        self.checkpoint()?;
        self.remove_orphans(&found.named)
    }

    /// The store, for reading. It stays current.
    #[must_use]
    pub fn store(&self) -> Store {
        Store { shared: Arc::clone(&self.shared) }
    }

    /// Bytes of unacknowledged records that were cut off when it was opened.
    #[must_use]
    pub fn cut(&self) -> u64 {
        self.cut
    }

    /// Begins an attempt with a machine that has disks of these sizes in
    /// bytes. An attempt that is open is given up.
    ///
    /// # Errors
    /// [`Full`](StoreError::Full), and what the medium says.
    pub fn begin(&mut self, disks: &[u64]) -> StoreResult<Cycle> {
        self.recover()?;
        check_disks(disks)?;
        self.check_space()?;
        self.give_up()?;
        let cycle = {
            let mut state = self.shared.state_mut();
            let cycle = Cycle(state.next.cycle);
            state.next.cycle += 1;
            state.received = Received { cycle: Some(cycle), changes: 0 };
            cycle
        };
        self.attempt =
            Some(Attempt { cycle, disks: disks.to_vec(), changes: 0, indexed: 0, stored: 0 });
        self.forget_cut_disks(disks)?;
        Ok(cycle)
    }

    /// Goes on with the attempt that is open, once all of it is durable, or that
    /// was open when the store was last used;
    /// its first so many changes are there. `None` if there is none. Compare
    /// the cycle with what was begun last: of an attempt that had nothing
    /// durable yet, nothing is known, and the one before it is told.
    ///
    /// # Errors
    /// What the medium says.
    pub fn resume(&mut self, disks: &[u64]) -> StoreResult<Option<Received>> {
        self.recover()?;
        check_disks(disks)?;
        if let Some(attempt) = &mut self.attempt {
            attempt.disks = disks.to_vec();
            return self.sync().map(Some);
        }
        let Some(open) = self.resumable.take() else { return Ok(None) };
        let OpenAttempt { cycle, changes, stored } = open;
        let disks_now = disks.to_vec();
        self.attempt = Some(Attempt { cycle, disks: disks_now, changes, indexed: changes, stored });
        let received = Received { cycle: Some(cycle), changes };
        self.shared.state_mut().received = received;
        // The crash may have come before these were durable; once more does
        // no harm.
        self.forget_cut_disks(disks)?;
        Ok(Some(received))
    }

    /// Puts bytes onto a disk; the number of the change. Not durable before
    /// [`sync`](Self::sync). What are no whole pages of 4 KiB are laid over the
    /// page as it was, which costs a wait for the pipeline and a read.
    ///
    /// # Errors
    /// [`BadRange`](StoreError::BadRange), and what the medium says.
    pub fn write(&mut self, disk: DiskNumber, offset: u64, data: &[u8]) -> StoreResult<u64> {
        self.write_shared(disk, offset, Bytes::copy_from_slice(data))
    }

    /// As [`write`](Self::write), without copying: for whoever has the bytes
    /// in memory of their own.
    ///
    /// # Errors
    /// As with `write`.
    pub fn write_shared(&mut self, disk: DiskNumber, offset: u64, data: Bytes) -> StoreResult<u64> {
        match self.whole_pages(disk, offset, &data)? {
            Some((offset, pages)) => self.write_pages(disk, offset, pages.into()),
            None => self.write_pages(disk, offset, data),
        }
    }

    /// The pages that a write touches, with its bytes laid over what they were
    /// before; `None` if it covers its pages, or makes no sense.
    fn whole_pages(
        &mut self,
        disk: DiskNumber,
        offset: u64,
        data: &[u8],
    ) -> StoreResult<Option<(u64, Vec<u8>)>> {
        let size = self.size_of(disk);
        let end = offset.checked_add(data.len() as u64);
        let Some((size, end)) = size.zip(end) else { return Ok(None) };
        let whole = offset.is_multiple_of(PAGE) && (end.is_multiple_of(PAGE) || end == size);
        if whole || end > size || data.is_empty() {
            return Ok(None);
        }
        let start = offset / PAGE * PAGE;
        let last = (end - 1) / PAGE * PAGE;
        let stop = (last + PAGE).min(size);
        let mut pages = vec![0; (stop - start) as usize];
        for at in [start, last] {
            let page = self.current_page(disk, at)?;
            let target = pages.get_mut((at - start) as usize..).unwrap_or_default();
            target.iter_mut().zip(page).for_each(|(to, from)| *to = from);
        }
        let skip = (offset - start) as usize;
        if let Some(target) = pages.get_mut(skip..skip + data.len()) {
            target.copy_from_slice(data);
        }
        Ok(Some((start, pages)))
    }

    /// A page as the changes so far leave it.
    fn current_page(&mut self, disk: DiskNumber, offset: u64) -> StoreResult<Vec<u8>> {
        self.pipeline.submit();
        self.pump(0)?;
        self.guard(|writer| writer.log.flush())?;
        let key = BlockKey::new(disk, (offset / BLOCK) as u32);
        let page = (offset % BLOCK / PAGE) as u8;
        let mut versions = self.staging.versions(key);
        let index = self.index.get_or_insert_with(|| self.shared.index());
        versions.extend(index.versions(key, Cycle(u32::MAX))?);
        let found = pieces(&versions)
            .into_iter()
            .find(|piece| (piece.first..piece.first + piece.count).contains(&page));
        let Some(PieceSource::Bytes(entry)) = found.map(|piece| piece.source) else {
            return Ok(vec![0; PAGE as usize]);
        };
        let bytes = self.shared.bytes_of(&entry)?;
        let skip = usize::from(page - entry.pages.first()) * PAGE as usize;
        Ok(bytes.get(skip..skip + PAGE as usize).unwrap_or_default().to_vec())
    }

    fn write_pages(&mut self, disk: DiskNumber, offset: u64, mut data: Bytes) -> StoreResult<u64> {
        let (cycle, change) = self.accept(disk, offset, data.len() as u64)?;
        if !(data.len() as u64).is_multiple_of(PAGE) {
            // The disk ends here; its last page goes on with zeroes.
            let mut pages = data.to_vec();
            pages.resize(data.len().next_multiple_of(PAGE as usize), 0);
            data = pages.into();
        }
        let mut at = offset;
        while !data.is_empty() {
            let room = (BLOCK - at % BLOCK) as usize;
            let piece = data.split_to(room.min(data.len()));
            let length = piece.len() as u64;
            let header = header(Kind::Data, cycle, disk, at, length, change);
            let header = Header { last: data.is_empty(), ..header };
            self.pipeline.push(header, Material::Plain(piece));
            at += length;
        }
        self.pump(self.options.threads * 2)?;
        Ok(change)
    }

    /// Takes pages of one block as an [`Encoder`](crate::pipeline::Encoder)
    /// made them of `length` bytes, elsewhere: they are stored as they come. One of a few
    /// is proved by its digest before it is stored.
    ///
    /// # Errors
    /// [`BadRange`](StoreError::BadRange) unless they are whole pages of one
    /// block; [`WrongBytes`](StoreError::WrongBytes) if they are not what their
    /// digest says, now or from a later call; and what the medium says.
    pub fn write_encoded(
        &mut self,
        disk: DiskNumber,
        offset: u64,
        length: u64,
        encoded: Encoded,
    ) -> StoreResult<u64> {
        let bad = |why| Err(StoreError::BadRange { disk, offset, length, why });
        if length > BLOCK - offset % BLOCK {
            return bad("more than one block");
        }
        let Encoded { codec, digest, stored } = encoded;
        if stored.len() as u64 > length.next_multiple_of(PAGE) {
            return bad("larger than before it was encoded");
        }
        let (cycle, change) = self.accept(disk, offset, length)?;
        let header = header(Kind::Data, cycle, disk, offset, length, change);
        let header = Header { codec, digest, last: true, ..header };
        self.pipeline.push(header, Material::Stored(stored));
        self.pump(self.options.threads * 2)?;
        Ok(change)
    }

    /// Makes a range of a disk zero: whole pages of 4 KiB, but at its end.
    ///
    /// # Errors
    /// As with `write`.
    pub fn zero(&mut self, disk: DiskNumber, offset: u64, length: u64) -> StoreResult<u64> {
        self.clear_range(Kind::Zero, disk, offset, length)
    }

    /// Discards a range of a disk: it reads as zeroes and counts as a hole.
    ///
    /// # Errors
    /// As with `write`.
    pub fn discard(&mut self, disk: DiskNumber, offset: u64, length: u64) -> StoreResult<u64> {
        self.clear_range(Kind::Discard, disk, offset, length)
    }

    fn clear_range(
        &mut self,
        kind: Kind,
        disk: DiskNumber,
        offset: u64,
        length: u64,
    ) -> StoreResult<u64> {
        let (cycle, change) = self.accept(disk, offset, length)?;
        self.push_clear(kind, cycle, disk, offset..offset + length, change - 1, change);
        self.pump(self.options.threads * 2)?;
        Ok(change)
    }

    /// Cuts a range into records. Parts of a long range count at once, so that
    /// the index need not hold all of it in memory: those before the last
    /// carry the number `parts`.
    pub(crate) fn push_clear(
        &mut self,
        kind: Kind,
        cycle: Cycle,
        disk: DiskNumber,
        range: std::ops::Range<u64>,
        parts: u64,
        change: u64,
    ) {
        let end = range.end.div_ceil(PAGE) * PAGE;
        let mut at = range.start;
        while at < end {
            let in_block = at % BLOCK;
            let whole = (end - at) / BLOCK;
            let (length, span) = match in_block == 0 && whole > 0 {
                true => {
                    let span = whole.min(MAX_SPAN);
                    (span * BLOCK, span as u32)
                }
                false => ((BLOCK - in_block).min(end - at), 1),
            };
            let number = if at + length == end { change } else { parts };
            let header = header(kind, cycle, disk, at, length.min(BLOCK), number);
            at += length;
            let header = Header { span, last: true, ..header };
            self.pipeline.push(header, Material::Plain(Bytes::new()));
        }
    }

    /// Makes every change so far durable, and tells how many there are.
    ///
    /// # Errors
    /// What the medium says; changes since the last success may be lost then.
    pub fn sync(&mut self) -> StoreResult<Received> {
        let attempt = self.attempt.as_ref().ok_or_else(|| self.why_none())?;
        let received = Received { cycle: Some(attempt.cycle), changes: attempt.changes };
        self.pipeline.submit();
        self.pump(0)?;
        self.guard(|writer| writer.log.sync())?;
        self.shared.state_mut().received = received;
        Ok(received)
    }

    /// Makes a point of everything since the last one: durable on return.
    ///
    /// # Errors
    /// What the medium says; the attempt has failed then.
    pub fn seal(&mut self, facts: SealFacts) -> StoreResult<Point> {
        if facts.configuration.len() > MAX_CONFIGURATION || facts.origin.len() > 4096 {
            return Err(StoreError::TooLarge("a configuration has at most 1 MiB"));
        }
        self.pipeline.submit();
        self.pump(0)?;
        let attempt = self.attempt.clone().ok_or_else(|| self.why_none())?;
        let commit = Commit {
            instant: facts.instant,
            consistency: facts.consistency,
            disks: attempt.disks,
            origin: facts.origin,
            configuration: facts.configuration,
            stored: attempt.stored,
        };
        self.guard(|writer| {
            let (header, payload) =
                record::seal_payload(Kind::Commit, attempt.cycle, &commit.encode());
            writer.log.push(header, &payload)?;
            writer.log.sync()
        })?;
        let entries = self.staging.take();
        self.attempt = None;
        self.index = None;
        let point = {
            let mut state = self.shared.state_mut();
            if !entries.is_empty() {
                let run = MemoryRun::of_cycle(attempt.cycle, entries);
                state.memory.push(Arc::new(run));
            }
            let generation = self.options.generation;
            let point = point_of(attempt.cycle, generation, commit, state.points.last());
            state.points.push(point.clone());
            state.received = Received::default();
            point
        };
        // The point is durable. What follows only makes opening and reading
        // faster; if it fails, the next call says so.
        if let Err(error) = self.guard(Self::tidy) {
            tracing::warn!(error = error.chain(), "the index could not be written");
        }
        Ok(point)
    }

    /// Gives up the attempt that is open, if any.
    ///
    /// # Errors
    /// What the medium says.
    pub fn give_up(&mut self) -> StoreResult<()> {
        self.pipeline.clear();
        let open = self.attempt.take().map(|attempt| attempt.cycle);
        let Some(cycle) = open.or(self.resumable.take().map(|open| open.cycle)) else {
            return Ok(());
        };
        self.index = None;
        let mut state = self.shared.state_mut();
        state.received = Received::default();
        for dead in self.staging.take() {
            count_dead(&mut state.segments, &dead);
        }
        let staged = |run: &Arc<_>| {
            let run: &crate::index::run::DiskRun = run;
            run.facts.staged == Some(cycle)
        };
        self.upkeep.obsolete_runs(state.runs.iter().filter(|run| staged(run)));
        state.runs.retain(|run| !staged(run));
        Ok(())
    }

    /// Starts again from what is durable, after an error of the medium.
    fn recover(&mut self) -> StoreResult<()> {
        let poison = match self.failure {
            Failure::None => return Ok(()),
            Failure::Fenced { theirs } => {
                return Err(StoreError::Fenced { ours: self.options.generation, theirs });
            }
            Failure::Poisoned(poison) => poison,
        };
        self.pipeline.clear();
        self.attempt = None;
        self.log.abandon();
        self.upkeep.wait();
        let found =
            replay::find(&*self.shared.medium, &self.shared.pages, Purpose::Recovery(poison))?;
        if let Some(damage) = found.damage {
            return Err(StoreError::LostRecords(damage));
        }
        self.take_over(found)?;
        self.failure = Failure::None;
        Ok(())
    }

    /// Runs what may meet an error of the medium, and takes note of one.
    pub(crate) fn guard<T>(
        &mut self,
        act: impl FnOnce(&mut Self) -> StoreResult<T>,
    ) -> StoreResult<T> {
        match self.failure {
            Failure::None => {}
            Failure::Poisoned(_) => return Err(StoreError::AttemptFailed),
            Failure::Fenced { theirs } => {
                return Err(StoreError::Fenced { ours: self.options.generation, theirs });
            }
        }
        let result = act(self);
        if let Err(error) = &result {
            self.failure = match error {
                StoreError::Fenced { theirs, .. } => Failure::Fenced { theirs: *theirs },
                _ => Failure::Poisoned(self.log.durable_end()),
            };
        }
        result
    }

    fn why_none(&self) -> StoreError {
        match self.failure {
            Failure::None => StoreError::NoAttempt,
            Failure::Poisoned(_) => StoreError::AttemptFailed,
            Failure::Fenced { theirs } => {
                StoreError::Fenced { ours: self.options.generation, theirs }
            }
        }
    }

    /// Hands a record without bytes to the pipeline.
    pub(crate) fn push_record(&mut self, header: Header) -> StoreResult<()> {
        self.pipeline.push(header, Material::Plain(Bytes::new()));
        self.pump(self.options.threads * 2)
    }

    /// Size in bytes of a disk in the attempt that is open.
    pub(crate) fn size_of(&self, disk: DiskNumber) -> Option<u64> {
        self.attempt.as_ref()?.disks.get(usize::from(disk.0)).copied()
    }

    /// Checks a change and numbers it.
    pub(crate) fn accept(
        &mut self,
        disk: DiskNumber,
        offset: u64,
        length: u64,
    ) -> StoreResult<(Cycle, u64)> {
        let none = self.why_none();
        let attempt = self.attempt.as_mut().ok_or(none)?;
        let size = attempt.disks.get(usize::from(disk.0)).copied();
        let size = size.ok_or(StoreError::NoSuchDisk { disk, point: attempt.cycle })?;
        let bad = |why| Err(StoreError::BadRange { disk, offset, length, why });
        let end = offset.checked_add(length).filter(|end| *end <= size);
        let Some(end) = end else { return bad("beyond the end of the disk") };
        if length == 0 {
            return bad("nothing to change");
        }
        if !offset.is_multiple_of(PAGE) || (!end.is_multiple_of(PAGE) && end != size) {
            return bad("not whole pages of 4 KiB");
        }
        attempt.changes += 1;
        Ok((attempt.cycle, attempt.changes))
    }

    /// Takes finished records from the pipeline and writes them, until at most
    /// so many batches are under way.
    fn pump(&mut self, under_way: usize) -> StoreResult<()> {
        while let Some(batch) = self.pipeline.next(under_way) {
            self.guard(|writer| writer.append(&batch))?;
            self.pipeline.give_back(batch);
        }
        Ok(())
    }

    fn append(&mut self, batch: &Batch) -> StoreResult<()> {
        for (header, payload) in batch.records() {
            let Some(payload) = payload else {
                let (disk, offset) = (header.key.disk(), header.key.offset());
                return Err(StoreError::WrongBytes { disk, offset });
            };
            let entry = self.log.push(*header, payload)?;
            if let Some(attempt) = &mut self.attempt {
                attempt.stored += u64::from(header.record_bytes());
            }
            if let Some(entry) = entry {
                self.stage(entry)?;
            }
            if !header.last {
                continue;
            }
            if let Some(attempt) = &mut self.attempt {
                attempt.indexed = header.change;
            }
            if self.staging.len() >= self.options.memory_entries || self.replay_is_long() {
                self.checkpoint()?;
            }
        }
        Ok(())
    }

    fn stage(&mut self, entry: Entry) -> StoreResult<()> {
        let index = self.index.get_or_insert_with(|| self.shared.index());
        let mut dead = Vec::new();
        stage(index, &mut self.staging, entry, |entry| dead.push(entry))?;
        if !dead.is_empty() {
            let segments = &mut self.shared.state_mut().segments;
            dead.iter().for_each(|entry| count_dead(segments, entry));
        }
        Ok(())
    }

    pub(crate) fn index_changed(&mut self) {
        self.index = None;
    }

    pub(crate) fn open_attempt(&self) -> Option<OpenAttempt> {
        let attempt = self.attempt.as_ref();
        let open = attempt.map(|attempt| OpenAttempt {
            cycle: attempt.cycle,
            changes: attempt.indexed,
            stored: attempt.stored,
        });
        open.or(self.resumable)
    }

    fn check_space(&self) -> StoreResult<()> {
        let space = self.shared.medium.space().map_err(StoreError::io("measure free space"))?;
        let reserve = space.total / 100 * u64::from(self.options.reserve_percent);
        match space.free < reserve {
            true => Err(StoreError::Full { free: space.free, reserve }),
            false => Ok(()),
        }
    }

    /// What lies beyond a disk's new end must not come back if it grows again.
    fn forget_cut_disks(&mut self, disks: &[u64]) -> StoreResult<()> {
        let before = self.shared.state().points.last().map(|point| Arc::clone(&point.disks));
        let Some((before, cycle)) = before.zip(self.attempt.as_ref().map(|attempt| attempt.cycle))
        else {
            return Ok(());
        };
        for (number, old) in before.iter().enumerate() {
            let new = disks.get(number).copied().unwrap_or(0).div_ceil(PAGE) * PAGE;
            if new < *old {
                let disk = DiskNumber(number as u16);
                let end = u64::from(blocks_of(*old)) * BLOCK;
                // Change 0: the sender does not know of it, and repeats none.
                self.push_clear(Kind::Discard, cycle, disk, new..end, 0, 0);
            }
        }
        self.pump(self.options.threads * 2)
    }
}

fn check_disks(disks: &[u64]) -> StoreResult<()> {
    if disks.len() > usize::from(u16::MAX) || disks.iter().any(|size| *size > MAX_DISK) {
        return Err(StoreError::TooLarge("a machine has at most 65535 disks of 16 TiB"));
    }
    Ok(())
}

/// The header of a record about a range inside one block; `last` is unset.
pub(crate) fn header(
    kind: Kind,
    cycle: Cycle,
    disk: DiskNumber,
    offset: u64,
    length: u64,
    change: u64,
) -> Header {
    let first = (offset % BLOCK / PAGE) as u8;
    let pages = PageRun::new(first, length.div_ceil(PAGE) as u8);
    Header {
        kind,
        codec: Codec::Plain,
        key: BlockKey::new(disk, (offset / BLOCK) as u32),
        span: 1,
        // Callers cut at blocks.
        pages: pages.unwrap_or(PageRun::WHOLE),
        cycle,
        change,
        last: false,
        stored: 0,
        payload_crc: 0,
        durable: 0,
        digest: Digest::default(),
    }
}
