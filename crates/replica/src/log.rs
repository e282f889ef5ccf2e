//! The record log: segment after segment, written from front to back.
//!
//! Records go to the segment that is open; when it is full it is closed and
//! made durable in the background while the next one fills. After an error the
//! log is poisoned where it was last durable ([`Log::durable_end`]); nothing
//! is written behind it and no sync is repeated.

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
};

use crate::{
    behind::Behind,
    error::{StoreError, StoreResult},
    format::{
        entry::Entry,
        manifest::{Replay, SegmentFacts},
        record::Header,
        segment::{self, START},
    },
    medium::{File, Medium},
    replay::Poison,
    segment::{Closed, SegmentWriter, file_name},
    state::Shared,
};

/// Closed segments whose sync may be under way.
const SYNCS: usize = 4;
/// How full a segment is when the next one's file is created.
const PREPARED_FROM: f32 = 0.75;

/// How a log is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogTerms {
    pub(crate) generation: u64,
    /// Where segments end.
    pub(crate) segment_bytes: u32,
    pub(crate) salt: u64,
    /// Whether full segments are synced by threads of their own.
    pub(crate) in_background: bool,
}

#[derive(Debug)]
pub(crate) struct Log {
    shared: Arc<Shared>,
    terms: LogTerms,
    segment: Option<SegmentWriter>,
    syncing: Vec<Syncing>,
    /// The next segment's file.
    prepared: Option<Prepared>,
    behind: Option<Arc<Behind>>,
    /// Segments begun since the last manifest.
    pub(crate) begun: u32,
}

/// A file that is being created, without anything in it.
#[derive(Debug)]
struct Prepared {
    id: u32,
    creation: JoinHandle<StoreResult<Arc<dyn File>>>,
}

fn next_id(shared: &Shared) -> u32 {
    let mut state = shared.state_mut();
    let id = state.next.segment;
    state.next.segment += 1;
    id
}

fn create(medium: &dyn Medium, id: u32, generation: u64) -> StoreResult<Arc<dyn File>> {
    let name = file_name(id, generation);
    medium.create(&name).map_err(StoreError::io(format!("create {name}")))
}

/// A closed segment that is not durable yet.
#[derive(Debug)]
struct Syncing {
    id: u32,
    /// What of it was durable before it was closed.
    durable: u32,
    work: SyncWork,
}

#[derive(Debug)]
enum SyncWork {
    Later(Closed),
    UnderWay(JoinHandle<StoreResult<()>>),
    Failed,
}

impl Log {
    pub(crate) fn new(shared: Arc<Shared>, terms: LogTerms) -> Self {
        Self {
            shared,
            terms,
            segment: None,
            syncing: Vec::new(),
            prepared: None,
            behind: None,
            begun: 0,
        }
    }

    /// Appends a record; its index entry, with the place where it lies. Not
    /// durable before [`sync`](Self::sync).
    pub(crate) fn push(&mut self, header: Header, payload: &[u8]) -> StoreResult<Option<Entry>> {
        let segment = self.room_for(payload.len())?;
        let entry = segment.push(header, payload)?;
        let fullness = segment.fullness();
        if fullness > PREPARED_FROM && self.terms.in_background && self.prepared.is_none() {
            self.prepare();
        }
        Ok(entry)
    }

    /// Creates the next segment's file in the background: making its name
    /// durable takes as long as writing megabytes.
    fn prepare(&mut self) {
        let id = next_id(&self.shared);
        let medium = Arc::clone(&self.shared.medium);
        let generation = self.terms.generation;
        let creation = thread::spawn(move || create(&*medium, id, generation));
        self.prepared = Some(Prepared { id, creation });
    }

    /// The segment that so many bytes go to.
    fn room_for(&mut self, payload: usize) -> StoreResult<&mut SegmentWriter> {
        if self.segment.as_ref().is_some_and(|segment| !segment.has_room_for(payload)) {
            self.close_segment()?;
        }
        match &mut self.segment {
            Some(segment) => Ok(segment),
            none => {
                let (id, file) = match self.prepared.take() {
                    Some(Prepared { id, creation }) => {
                        (id, creation.join().unwrap_or(Err(StoreError::WriterFailed))?)
                    }
                    None => {
                        let id = next_id(&self.shared);
                        (id, create(&*self.shared.medium, id, self.terms.generation)?)
                    }
                };
                let header = {
                    let state = self.shared.state();
                    let previous = state.segments.last_key_value();
                    let previous_end = previous.map_or(0, |(_, facts)| facts.end);
                    let generation = self.terms.generation;
                    let salt = crc32c::crc32c_append(id, &self.terms.salt.to_le_bytes());
                    segment::Header { id, generation, salt, previous_end }
                };
                let behind = self.terms.in_background.then(|| {
                    Arc::clone(self.behind.get_or_insert_with(|| Arc::new(Behind::start())))
                });
                let segment = SegmentWriter::begin(file, &header, self.terms.segment_bytes, behind);
                self.shared.state_mut().segments.insert(segment.id, segment.facts());
                self.begun += 1;
                Ok(none.insert(segment))
            }
        }
    }

    fn close_segment(&mut self) -> StoreResult<()> {
        let Some(mut segment) = self.segment.take() else { return Ok(()) };
        let (id, durable) = (segment.id, segment.durable());
        let closed = segment.close();
        self.note_facts(&segment);
        let closed = match closed {
            Ok(closed) => closed,
            Err(error) => {
                // Poisoned, and `durable_end` must find it.
                self.segment = Some(segment);
                return Err(error);
            }
        };
        self.shared.segments.forget(id);
        let work = match self.terms.in_background {
            false => SyncWork::Later(closed),
            true => SyncWork::UnderWay(thread::spawn(move || closed.sync())),
        };
        self.syncing.push(Syncing { id, durable, work });
        while self.syncing.len() > SYNCS {
            self.finish_sync()?;
        }
        Ok(())
    }

    /// Waits for the oldest closed segment, which stays in the list if that
    /// fails.
    fn finish_sync(&mut self) -> StoreResult<()> {
        let Some(first) = self.syncing.first_mut() else { return Ok(()) };
        match std::mem::replace(&mut first.work, SyncWork::Failed) {
            SyncWork::Later(closed) => closed.sync()?,
            SyncWork::UnderWay(thread) => {
                thread.join().unwrap_or(Err(StoreError::WriterFailed))?;
            }
            SyncWork::Failed => return Err(StoreError::AttemptFailed),
        }
        self.syncing.remove(0);
        Ok(())
    }

    /// Hands everything to the medium, so that it can be read back.
    pub(crate) fn flush(&mut self) -> StoreResult<()> {
        self.segment.as_mut().map_or(Ok(()), SegmentWriter::write_out)
    }

    /// Makes every record durable.
    pub(crate) fn sync(&mut self) -> StoreResult<()> {
        while !self.syncing.is_empty() {
            self.finish_sync()?;
        }
        if let Some(mut segment) = self.segment.take() {
            let result = segment.sync();
            self.note_facts(&segment);
            self.segment = Some(segment);
            result?;
        }
        Ok(())
    }

    /// Lets readers know how long the segment is.
    fn note_facts(&self, segment: &SegmentWriter) {
        let mut state = self.shared.state_mut();
        let dead = state.segments.get(&segment.id).map_or(0, |facts| facts.dead);
        state.segments.insert(segment.id, SegmentFacts { dead, ..segment.facts() });
    }

    /// The segment that is written to.
    pub(crate) fn open_segment(&self) -> Option<u32> {
        self.segment.as_ref().map(|segment| segment.id)
    }

    /// Where the next record will lie, if that is decided.
    pub(crate) fn position(&self) -> Option<Replay> {
        match (&self.segment, &self.prepared) {
            (Some(segment), _) => Some(Replay { segment: segment.id, offset: segment.end() }),
            (None, Some(prepared)) => Some(Replay { segment: prepared.id, offset: START }),
            (None, None) => None,
        }
    }

    /// Up to where everything is durable for sure.
    pub(crate) fn durable_end(&self) -> Poison {
        if let Some(first) = self.syncing.first() {
            return Poison { segment: first.id, end: first.durable };
        }
        if let Some(segment) = &self.segment {
            return Poison { segment: segment.id, end: segment.durable() };
        }
        let state = self.shared.state();
        let last = state.segments.last_key_value();
        last.map_or(Poison { segment: u32::MAX, end: 0 }, |(id, facts)| Poison {
            segment: *id,
            end: facts.end,
        })
    }

    /// Leaves the segments as they are, after an error; waits for syncs that
    /// are under way.
    pub(crate) fn abandon(&mut self) {
        self.segment = None;
        self.drop_prepared();
        for syncing in self.syncing.drain(..) {
            if let SyncWork::UnderWay(thread) = syncing.work {
                let _ = thread.join();
            }
        }
        // Its error was told.
        self.behind = None;
    }

    /// An empty segment helps nobody; if it stays, the next writer removes it.
    fn drop_prepared(&mut self) {
        if let Some(Prepared { id, creation }) = self.prepared.take() {
            let _ = creation.join();
            let _ = self.shared.medium.delete(&file_name(id, self.terms.generation));
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.drop_prepared();
    }
}
