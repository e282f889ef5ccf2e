//! Opening a store: the newest manifest that proves itself, and after it the
//! records that arrived since.
//!
//! A tail that was never acknowledged is cut; records that were and are
//! damaged are not passed over in silence: the store then opens for reading
//! only, up to the damage.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    error::{StoreError, StoreResult},
    format::{
        entry::{Content, Entry},
        manifest::{
            Hold, Manifest, NEWEST_VERSION, Next, OpenAttempt, Point, Replay, SegmentFacts,
        },
        record::{Commit, Header, Kind},
        segment::START,
    },
    geometry::{BlockKey, Cycle},
    index::{
        Index,
        run::{DiskRun, MemoryRun, PageCache},
        staging::Staging,
    },
    medium::Medium,
    segment::{self, SegmentFile, Walk, entry_of},
    state::{Received, State},
};

/// A store as it was found.
pub(crate) struct Found {
    pub(crate) state: State,
    /// The attempt that was neither sealed nor given up.
    pub(crate) open: Option<OpenAttempt>,
    /// Its entries that are in no run.
    pub(crate) staging: Staging,
    /// Bytes of unacknowledged records that were cut off.
    pub(crate) cut: u64,
    /// What acknowledged records are missing, if any are.
    pub(crate) damage: Option<String>,
    /// Files that the manifest in use names.
    pub(crate) named: Vec<String>,
}

/// Where a segment's records end, known from a failure in this very process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Poison {
    pub(crate) segment: u32,
    pub(crate) end: u32,
}

pub(crate) fn manifest_name(sequence: u64) -> String {
    format!("man/{sequence:016x}.man")
}

/// What a store is read for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose {
    Reading,
    /// By the process that wrote it, which knows where its sync failed.
    Recovery(Poison),
    /// By a new writer, which will call durable what it finds: so that is made
    /// durable, and what an earlier process failed to sync is not believed.
    Writing,
}

/// Reads what the medium has. Changes nothing.
pub(crate) fn find(
    medium: &dyn Medium,
    pages: &Arc<PageCache>,
    purpose: Purpose,
) -> StoreResult<Found> {
    let (manifest, sequence) = newest_manifest(medium)?;
    let named = manifest.as_ref().map(names).unwrap_or_default();
    let mut replayer = Replayer::new(medium, pages, manifest, sequence)?;
    replayer.run(purpose)?;
    let received = Received {
        cycle: replayer.open.map(|open| open.cycle),
        changes: replayer.open.map_or(0, |open| open.changes),
    };
    let state = State { received, ..replayer.state };
    Ok(Found {
        state,
        open: replayer.open,
        staging: replayer.staging,
        cut: replayer.cut,
        damage: replayer.damage,
        named,
    })
}

/// Files that a manifest names.
fn names(manifest: &Manifest) -> Vec<String> {
    let runs = manifest.runs.iter().map(|run| crate::index::run::file_name(run.id, run.generation));
    let segments = manifest.segments.iter();
    let segments = segments.map(|facts| segment::file_name(facts.id, facts.generation));
    runs.chain(segments).chain([manifest_name(manifest.sequence)]).collect()
}

/// The newest manifest that proves itself, and the greatest number in use. One
/// that a newer program wrote is not passed over.
fn newest_manifest(medium: &dyn Medium) -> StoreResult<(Option<Manifest>, u64)> {
    let files = medium.list("man").map_err(StoreError::io("list the manifests"))?;
    let sequence_of = |name: &str| {
        let stem = name.strip_prefix("man/")?.strip_suffix(".man")?;
        u64::from_str_radix(stem, 16).ok()
    };
    let mut newest = 0;
    for (name, length) in files.iter().rev() {
        let Some(sequence) = sequence_of(name) else { continue };
        newest = newest.max(sequence);
        let read = || -> StoreResult<Manifest> {
            let file = medium.open(name).map_err(StoreError::io(format!("open {name}")))?;
            let mut bytes = vec![0; usize::try_from(*length).unwrap_or(0)];
            file.read_at(&mut bytes, 0).map_err(StoreError::io(format!("read {name}")))?;
            let found = Manifest::version(&bytes).map_err(StoreError::file(name))?;
            if found > NEWEST_VERSION {
                let (name, known) = (name.clone(), NEWEST_VERSION);
                return Err(StoreError::TooNew { name, found, known });
            }
            Manifest::decode(&bytes).map_err(StoreError::file(name))
        };
        match read() {
            Ok(manifest) if manifest.sequence == sequence => {
                return Ok((Some(manifest), newest));
            }
            Err(error @ StoreError::TooNew { .. }) => return Err(error),
            Ok(_) => tracing::warn!(name, "a manifest under another's name is passed over"),
            // It was never published, or an older one has to do.
            Err(error) => {
                tracing::warn!(name, error = error.chain(), "a manifest is passed over");
            }
        }
    }
    Ok((None, newest))
}

struct Replayer<'a> {
    medium: &'a dyn Medium,
    state: State,
    open: Option<OpenAttempt>,
    staging: Staging,
    /// Entries of a change whose last record was not met yet.
    partial: Vec<(Entry, u64)>,
    from: Replay,
    cut: u64,
    damage: Option<String>,
}

impl<'a> Replayer<'a> {
    fn new(
        medium: &'a dyn Medium,
        pages: &Arc<PageCache>,
        manifest: Option<Manifest>,
        sequence: u64,
    ) -> StoreResult<Self> {
        let mut damage = None;
        let mut runs = Vec::new();
        for facts in manifest.iter().flat_map(|manifest| &manifest.runs) {
            runs.push(Arc::new(DiskRun::open(medium, pages, *facts)?));
        }
        let (state, open, from) = match manifest {
            None => {
                let state = State {
                    generation: 0,
                    sequence,
                    next: Next { segment: 0, run: 0, cycle: 1 },
                    points: Vec::new(),
                    segments: BTreeMap::new(),
                    runs,
                    memory: Vec::new(),
                    adopted: Vec::new(),
                    received: Received::default(),
                };
                // The first manifest comes before the first segment.
                let files = medium.list("seg").map_err(StoreError::io("list the segments"))?;
                if !files.is_empty() {
                    damage = Some("no manifest can be read".to_owned());
                }
                (state, None, Replay { segment: 0, offset: START })
            }
            Some(manifest) => {
                let segments = manifest.segments.into_iter().map(|facts| (facts.id, facts));
                let state = State {
                    generation: manifest.generation,
                    sequence,
                    next: manifest.next,
                    points: manifest.points,
                    segments: segments.collect(),
                    runs,
                    memory: Vec::new(),
                    adopted: manifest.adopted,
                    received: Received::default(),
                };
                (state, manifest.open, manifest.replay)
            }
        };
        let staging = Staging::default();
        Ok(Self { medium, state, open, staging, partial: Vec::new(), from, cut: 0, damage })
    }

    fn run(&mut self, purpose: Purpose) -> StoreResult<()> {
        let poison = match purpose {
            Purpose::Recovery(poison) => Some(poison),
            Purpose::Reading | Purpose::Writing => None,
        };
        let mut later: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
        for (name, length) in
            self.medium.list("seg").map_err(StoreError::io("list the segments"))?
        {
            let Some((id, generation)) = segment::parse_name(&name, "seg", ".seg") else {
                continue;
            };
            self.state.next.segment = self.state.next.segment.max(id.saturating_add(1));
            // A writer that was superseded may have left files: not ours.
            let counts = id >= self.from.segment && generation >= self.state.generation;
            if counts && later.get(&id).is_none_or(|(other, _)| *other < generation) {
                later.insert(id, (generation, length));
            }
        }
        // Nor is a run's number used twice, were it of a run that nobody names.
        for (name, _) in self.medium.list("idx").map_err(StoreError::io("list the runs"))? {
            if let Some((id, _)) = segment::parse_name(&name, "idx", ".run") {
                self.state.next.run = self.state.next.run.max(id);
            }
        }
        if self.from.offset > START && !later.contains_key(&self.from.segment) {
            self.lost(format!("segment {} is missing", self.from.segment));
            return Ok(());
        }
        if let Purpose::Writing = purpose {
            for (id, (generation, _)) in &later {
                let name = segment::file_name(*id, *generation);
                let file = self.medium.open(&name).map_err(StoreError::io(format!("open {name}")));
                file?.settle().map_err(StoreError::io(format!("sync {name}")))?;
            }
        }
        while let Some((id, (generation, length))) = later.pop_first() {
            let known = poison.filter(|poison| poison.segment == id);
            if !self.segment(id, generation, length, &later, known)? || known.is_some() {
                break;
            }
        }
        Ok(())
    }

    /// Takes in a segment; whether the next one may follow.
    fn segment(
        &mut self,
        id: u32,
        generation: u64,
        length: u64,
        later: &BTreeMap<u32, (u64, u64)>,
        poison: Option<Poison>,
    ) -> StoreResult<bool> {
        // How much of this one counted when the next was begun.
        let counted = later.first_key_value().and_then(|(id, (generation, _))| {
            let next = SegmentFile::open(self.medium, *id, *generation);
            next.ok().map(|next| next.header.previous_end)
        });
        if counted == Some(0) {
            return Ok(true);
        }
        let file = match SegmentFile::open(self.medium, id, generation) {
            Ok(file) => file,
            Err(StoreError::Io { doing, source })
                if source.kind() != std::io::ErrorKind::UnexpectedEof =>
            {
                return Err(StoreError::Io { doing, source });
            }
            Err(error) => {
                // Its first page never arrived: nothing in it was acknowledged,
                // unless somebody went on after it.
                if self.is_known(id) || self.is_followed(later)? {
                    self.lost(error.chain());
                }
                self.cut += length;
                return Ok(false);
            }
        };
        let limit = poison.map(|poison| poison.end).or(counted).map_or(length, u64::from);
        let bytes = file.read(0, usize::try_from(length.min(limit)).unwrap_or(0))?;
        let start = if id == self.from.segment { self.from.offset } else { START };
        let is_continued = id == self.from.segment && self.from.offset > START;
        if (bytes.len() as u64) < u64::from(start) {
            if self.is_known(id) || is_continued || self.is_followed(later)? {
                self.lost(format!("{} is shorter than it was", file.name));
            }
            self.cut += length;
            return Ok(false);
        }
        let before = self.state.segments.get(&id).copied();
        let mut facts = before.unwrap_or(SegmentFacts {
            id,
            generation,
            end: start,
            dead: 0,
            oldest: Cycle(u32::MAX),
            newest: Cycle(0),
            footer: false,
            punched: false,
        });
        let mut walk = Walk::new(&bytes, start, file.header.salt);
        while let Some((offset, header, payload)) = walk.next() {
            facts.oldest = facts.oldest.min(header.cycle);
            facts.newest = facts.newest.max(header.cycle);
            self.state.segments.insert(id, facts);
            self.record(id, offset, &header, payload)?;
            // Taking in a record may have counted dead bytes here.
            facts = self.state.segments.get(&id).copied().unwrap_or(facts);
        }
        let whole = walk.stopped.is_none() && walk.at as usize >= bytes.len();
        facts.end = walk.at.min(bytes.len() as u32);
        facts.footer = walk.stopped.is_none()
            && facts.end > START
            && crate::format::segment::decode_trailer(
                bytes.get(bytes.len().saturating_sub(32)..).unwrap_or_default(),
                file.header.salt,
            )
            .is_ok();
        self.state.segments.insert(id, facts);
        if whole && (counted.is_none_or(|counted| counted as usize <= bytes.len())) {
            self.cut += length.saturating_sub(bytes.len() as u64);
            return Ok(true);
        }
        self.cut += length.saturating_sub(u64::from(walk.at));
        let acknowledged = walk.durable_beyond() > walk.at || self.is_followed(later)?;
        if acknowledged {
            let why = walk.stopped.map_or("cut short", |why| why.0);
            self.lost(format!("{} at byte {}: {why}", file.name, walk.at));
        }
        Ok(false)
    }

    /// Whether any record in later segments says that all before was durable.
    fn is_followed(&self, later: &BTreeMap<u32, (u64, u64)>) -> StoreResult<bool> {
        for (id, (generation, length)) in later {
            let Ok(file) = SegmentFile::open(self.medium, *id, *generation) else { continue };
            let bytes = file.read(0, usize::try_from(*length).unwrap_or(0))?;
            if Walk::new(&bytes, START, file.header.salt).durable_beyond() > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a manifest knows the segment.
    fn is_known(&self, id: u32) -> bool {
        self.state.segments.contains_key(&id)
    }

    fn lost(&mut self, what: String) {
        self.damage.get_or_insert(what);
    }

    fn record(
        &mut self,
        segment: u32,
        offset: u32,
        header: &Header,
        payload: &[u8],
    ) -> StoreResult<()> {
        let newest = self.state.points.last().map(|point| point.cycle);
        if newest.is_some_and(|newest| header.cycle <= newest) {
            // Moved here from an old segment; the runs know where it lies.
            return Ok(());
        }
        if self.open.is_none_or(|open| open.cycle != header.cycle) {
            self.give_up();
            let cycle = header.cycle;
            self.state.next.cycle = self.state.next.cycle.max(cycle.0.saturating_add(1));
            self.open = Some(OpenAttempt { cycle, changes: 0, stored: 0 });
        }
        if header.kind == Kind::Commit {
            let commit = header
                .open_payload(payload)
                .and_then(|plain| Commit::decode(&plain))
                .map_err(StoreError::file(format!("segment {segment} at {offset}")))?;
            self.seal(header, commit);
            return Ok(());
        }
        let Some(entry) = entry_of(header, segment, offset) else { return Ok(()) };
        self.partial.push((entry, u64::from(header.record_bytes())));
        if header.last {
            let index = self.state.index();
            for (entry, bytes) in std::mem::take(&mut self.partial) {
                if let Some(open) = &mut self.open {
                    open.stored += bytes;
                    open.changes = header.change;
                }
                let segments = &mut self.state.segments;
                stage(&index, &mut self.staging, entry, |dead| count_dead(segments, &dead))?;
            }
        }
        Ok(())
    }

    fn seal(&mut self, header: &Header, commit: Commit) {
        self.partial.clear();
        let cycle = header.cycle;
        self.open = None;
        let entries = self.staging.take();
        if !entries.is_empty() {
            let run = MemoryRun::of_cycle(cycle, entries);
            self.state.memory.push(Arc::new(run));
        }
        let point = point_of(cycle, self.state.generation, commit, self.state.points.last());
        self.state.points.push(point);
    }

    /// Another attempt began: what the last one sent counts for nothing.
    fn give_up(&mut self) {
        self.partial.clear();
        let Some(open) = self.open.take() else { return };
        for dead in self.staging.take() {
            count_dead(&mut self.state.segments, &dead);
        }
        self.state.runs.retain(|run| run.facts.staged != Some(open.cycle));
    }
}

/// The point that a commit record makes. What is as in the point before shares
/// its memory.
pub(crate) fn point_of(
    cycle: Cycle,
    generation: u64,
    commit: Commit,
    before: Option<&Point>,
) -> Point {
    let shared = before.filter(|before| *before.configuration == *commit.configuration);
    let configuration =
        shared.map_or_else(|| commit.configuration.into(), |p| Arc::clone(&p.configuration));
    let shared = before.filter(|before| *before.disks == *commit.disks);
    let disks = shared.map_or_else(|| commit.disks.into(), |point| Arc::clone(&point.disks));
    let shared = before.filter(|before| *before.origin == *commit.origin);
    let origin = shared.map_or_else(|| commit.origin.into(), |point| Arc::clone(&point.origin));
    Point {
        cycle,
        generation,
        instant: commit.instant,
        consistency: commit.consistency,
        origin,
        disks,
        configuration,
        stored: commit.stored,
        hold: Hold::None,
    }
}

/// Counts bytes that no point will ever need.
pub(crate) fn count_dead(segments: &mut BTreeMap<u32, SegmentFacts>, entry: &Entry) {
    let facts = entry.segment().and_then(|id| segments.get_mut(&id));
    if let Some(facts) = facts {
        facts.dead = facts.dead.saturating_add(entry.stored() as u32);
    }
}

/// Lays a record over what is staged. A long run of zeroes becomes an entry
/// for each block that has anything to hide, and none for the others.
pub(crate) fn stage(
    index: &Index,
    staging: &mut Staging,
    entry: Entry,
    mut dead: impl FnMut(Entry),
) -> StoreResult<()> {
    let (span, single) = match entry.content {
        Content::Zero { span } => (span, Content::Zero { span: 1 }),
        Content::Discard { span } => (span, Content::Discard { span: 1 }),
        Content::Data { .. } | Content::Adopted { .. } => {
            staging.insert(entry, dead);
            return Ok(());
        }
    };
    let from = entry.key;
    let to = BlockKey(from.0 + u64::from(span));
    let mut keys = staging.keys(from, to);
    let mut scan = index.scan(from, to)?;
    let mut versions = Vec::new();
    while let Some(key) = scan.next(&mut versions)? {
        keys.push(key);
    }
    keys.sort_unstable();
    keys.dedup();
    for key in keys {
        staging.insert(Entry { key, content: single, ..entry }, &mut dead);
    }
    Ok(())
}
