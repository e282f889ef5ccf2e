//! Writing the index down and publishing what there is.
//!
//! ```text
//! records ─sync─▶ index run ─sync─▶ manifest ─▶ files of the manifest before go
//! ```
//! Nothing is deleted before two manifests in a row do without it: should the
//! newest one rot, the one before still finds everything that it names.

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
};

use crate::{
    error::{StoreError, StoreResult},
    format::{
        manifest::{Manifest, Replay, RunFacts},
        segment::START,
    },
    index::{
        Index, Run,
        merge::{self, Terms},
        run::{self, DiskRun, MemoryRun, RunWriter},
    },
    replay::manifest_name,
    segment,
    writer::Writer,
};

/// What is going on beside the ingest.
#[derive(Debug, Default)]
pub(crate) struct Upkeep {
    /// Files that the next manifest does without.
    unneeded: Vec<String>,
    /// Files that the newest manifest does without.
    deletable: Vec<String>,
    merge: Option<Merge>,
}

#[derive(Debug)]
struct Merge {
    inputs: Vec<u32>,
    work: JoinHandle<StoreResult<Option<RunFacts>>>,
}

impl Upkeep {
    pub(crate) fn obsolete_runs<'a>(&mut self, runs: impl Iterator<Item = &'a Arc<DiskRun>>) {
        let names = runs.map(|run| run::file_name(run.facts.id, run.facts.generation));
        self.unneeded.extend(names);
    }

    pub(crate) fn obsolete(&mut self, name: String) {
        self.unneeded.push(name);
    }

    /// Waits for a merge and drops its result: its file belongs to nobody.
    pub(crate) fn wait(&mut self) {
        if let Some(merge) = self.merge.take() {
            let _ = merge.work.join();
        }
    }
}

impl Writer {
    pub(crate) fn replay_is_long(&self) -> bool {
        self.log.begun >= self.options.replay_segments
    }

    /// What follows a seal: the index in memory is written when it has grown.
    pub(crate) fn tidy(&mut self) -> StoreResult<()> {
        let (cycles, entries) = {
            let state = self.shared.state();
            let entries: usize = state.memory.iter().map(|run| run.entries.len()).sum();
            (state.memory.len(), entries)
        };
        let merged = self.collect_merge(false)?;
        if cycles >= self.options.memory_cycles
            || entries >= self.options.memory_entries
            || self.replay_is_long()
            || merged
        {
            self.checkpoint()?;
            self.start_merge()?;
        }
        Ok(())
    }

    /// Writes everything down that opening would otherwise read again, and
    /// publishes it. Durable on return.
    ///
    /// # Errors
    /// What the medium says, or that another writer took over.
    pub fn checkpoint(&mut self) -> StoreResult<()> {
        self.log.sync()?;
        let memory = self.shared.state().memory.clone();
        if !memory.is_empty() {
            let inputs = Index { runs: memory.into_iter().map(Run::Memory).collect() };
            let run = self.write_run(&inputs, 0)?;
            let mut state = self.shared.state_mut();
            state.memory.clear();
            state.runs.extend(run);
        }
        if !self.staging.is_empty()
            && let Some(open) = self.open_attempt()
        {
            let entries = Arc::new(self.staging.take());
            let mut out = self.new_run(0, Some(open.cycle))?;
            for entry in entries.iter() {
                out.push(entry)?;
            }
            let run = self.finish_run(out)?;
            self.shared.state_mut().runs.extend(run);
        }
        self.index_changed();
        self.publish()
    }

    fn new_run(
        &mut self,
        level: u8,
        staged: Option<crate::geometry::Cycle>,
    ) -> StoreResult<RunWriter> {
        let id = {
            let mut state = self.shared.state_mut();
            state.next.run += 1;
            state.next.run
        };
        RunWriter::create(&*self.shared.medium, id, self.options.generation, level, staged)
    }

    fn finish_run(&self, out: RunWriter) -> StoreResult<Option<Arc<DiskRun>>> {
        let facts = out.finish(&*self.shared.medium)?;
        facts.map(|facts| self.open_run(facts)).transpose()
    }

    fn open_run(&self, facts: RunFacts) -> StoreResult<Arc<DiskRun>> {
        Ok(Arc::new(DiskRun::open(&*self.shared.medium, &self.shared.pages, facts)?))
    }

    /// Writes the entries of `inputs` that anybody needs into a run above all
    /// others.
    fn write_run(&mut self, inputs: &Index, level: u8) -> StoreResult<Option<Arc<DiskRun>>> {
        let terms = {
            let state = self.shared.state();
            Terms { kept: state.kept(), bottom: state.runs.is_empty() }
        };
        let out = self.new_run(level, None)?;
        let facts = merge::merge(&*self.shared.medium, inputs, &terms, out)?;
        facts.map(|facts| self.open_run(facts)).transpose()
    }

    /// Adds entries for records that were moved: they count before those that
    /// name the old place.
    pub(crate) fn add_moved(
        &mut self,
        mut entries: Vec<crate::format::entry::Entry>,
    ) -> StoreResult<()> {
        entries.sort_by_key(crate::format::run::order);
        let (Some(oldest), Some(newest)) = (
            entries.iter().map(|entry| entry.cycle).min(),
            entries.iter().map(|entry| entry.cycle).max(),
        ) else {
            return Ok(());
        };
        let memory = MemoryRun { entries: Arc::new(entries), oldest, newest };
        let inputs = Index { runs: vec![Run::Memory(Arc::new(memory))] };
        let mut scan =
            inputs.scan(crate::geometry::BlockKey(0), crate::geometry::BlockKey(u64::MAX))?;
        let mut out = self.new_run(0, None)?;
        let mut versions = Vec::new();
        while scan.next(&mut versions)?.is_some() {
            for entry in &versions {
                out.push(entry)?;
            }
        }
        let run = self.finish_run(out)?;
        self.shared.state_mut().runs.extend(run);
        self.index_changed();
        Ok(())
    }

    fn publish(&mut self) -> StoreResult<()> {
        let open = self.open_attempt();
        let replay = self.log.position();
        let manifest = {
            let state = self.shared.state();
            let replay = replay.unwrap_or(Replay { segment: state.next.segment, offset: START });
            Manifest {
                sequence: state.sequence + 1,
                generation: self.options.generation,
                next: state.next,
                replay,
                open,
                points: state.points.clone(),
                runs: state.runs.iter().map(|run| sealed_facts(&run.facts, open)).collect(),
                segments: state.segments.values().copied().collect(),
                adopted: state.adopted.clone(),
            }
        };
        let medium = Arc::clone(&self.shared.medium);
        let name = manifest_name(manifest.sequence);
        match medium.publish(&name, &manifest.encode()) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let (ours, theirs) = (self.options.generation, u64::MAX);
                return Err(StoreError::Fenced { ours, theirs });
            }
            other => other.map_err(StoreError::io(format!("publish {name}")))?,
        }
        self.shared.state_mut().sequence = manifest.sequence;
        self.log.begun = 0;
        let next = std::mem::take(&mut self.upkeep.unneeded);
        let mut gone = std::mem::replace(&mut self.upkeep.deletable, next);
        gone.extend(manifest.sequence.checked_sub(2).map(manifest_name));
        for name in gone {
            self.delete(&name);
        }
        Ok(())
    }

    /// Deletes a file that nobody needs. A failure costs room only: the next
    /// opening tries again.
    fn delete(&self, name: &str) {
        if let Err(error) = self.shared.medium.delete(name) {
            tracing::warn!(name, %error, "a file that nobody needs could not be deleted");
        }
    }

    /// Begins a merge if one is due; without threads it is done at once.
    /// Whether there was anything to merge.
    fn start_merge(&mut self) -> StoreResult<bool> {
        if self.upkeep.merge.is_some() {
            return Ok(true);
        }
        let open = self.open_attempt();
        let (range, level, inputs, terms) = {
            let state = self.shared.state();
            let facts: Vec<_> =
                state.runs.iter().map(|run| sealed_facts(&run.facts, open)).collect();
            let Some((range, level)) = merge::choose(&facts) else { return Ok(false) };
            let inputs = state.runs.get(range.clone()).unwrap_or_default().to_vec();
            let terms = Terms { kept: state.kept(), bottom: range.start == 0 };
            (range, level, inputs, terms)
        };
        tracing::debug!(?range, level, "merging index runs");
        let ids = inputs.iter().map(|run| run.facts.id).collect();
        let out = self.new_run(level, None)?;
        let medium = Arc::clone(&self.shared.medium);
        let index = Index { runs: inputs.into_iter().map(Run::Disk).collect() };
        let work = move || merge::merge(&*medium, &index, &terms, out);
        if self.options.threads == 0 {
            let facts = work()?;
            self.install_merge(ids, facts)?;
            self.publish()?;
        } else {
            self.upkeep.merge = Some(Merge { inputs: ids, work: thread::spawn(work) });
        }
        Ok(true)
    }

    /// Takes the result of a merge that is done, or waits for it; whether there
    /// was one.
    pub(crate) fn collect_merge(&mut self, wait: bool) -> StoreResult<bool> {
        let done = |merge: &mut Merge| wait || merge.work.is_finished();
        let Some(merge) = self.upkeep.merge.take_if(done) else { return Ok(false) };
        let facts = merge.work.join().unwrap_or(Err(StoreError::WriterFailed))?;
        self.install_merge(merge.inputs, facts)?;
        Ok(true)
    }

    fn install_merge(&mut self, inputs: Vec<u32>, facts: Option<RunFacts>) -> StoreResult<()> {
        let merged = facts.map(|facts| self.open_run(facts)).transpose()?;
        let mut state = self.shared.state_mut();
        let is_input = |run: &Arc<DiskRun>| inputs.contains(&run.facts.id);
        let Some(at) = state.runs.iter().position(is_input) else { return Ok(()) };
        self.upkeep.obsolete_runs(state.runs.iter().filter(|run| is_input(run)));
        state.runs.retain(|run| !is_input(run));
        if let Some(merged) = merged {
            state.runs.insert(at, merged);
        }
        drop(state);
        self.index_changed();
        Ok(())
    }

    /// Merges until nothing is left to merge, and publishes. For whoever wants
    /// reads to be fast from now on, and for tests.
    ///
    /// # Errors
    /// What the medium says.
    pub fn settle(&mut self) -> StoreResult<()> {
        self.guard(|writer| {
            writer.checkpoint()?;
            while writer.start_merge()? {
                writer.collect_merge(true)?;
            }
            writer.checkpoint()
        })
    }

    /// Removes files that neither the manifest in use nor the one before names.
    pub(crate) fn remove_orphans(&mut self, named: &[String]) -> StoreResult<()> {
        let medium = Arc::clone(&self.shared.medium);
        let (current, sequence) = {
            let state = self.shared.state();
            let segments = state.segments.values();
            let segments = segments.map(|facts| segment::file_name(facts.id, facts.generation));
            let runs = state.runs.iter().map(|run| &run.facts);
            let runs = runs.map(|facts| run::file_name(facts.id, facts.generation));
            (segments.chain(runs).collect::<Vec<_>>(), state.sequence)
        };
        let mut kept: Vec<&String> = named.iter().chain(&current).collect();
        kept.sort_unstable();
        for folder in ["seg", "idx"] {
            let files = medium.list(folder).map_err(StoreError::io(format!("list {folder}")))?;
            for (name, _) in files {
                if kept.binary_search(&&name).is_err() {
                    tracing::info!(name, "a file that belongs to nobody is removed");
                    self.delete(&name);
                }
            }
        }
        let newest = manifest_name(sequence);
        for (name, _) in medium.list("man").map_err(StoreError::io("list the manifests"))? {
            if name < newest && !named.contains(&name) {
                self.delete(&name);
            }
        }
        Ok(())
    }
}

/// What the manifest says of a run: it is staged only while its cycle is open.
fn sealed_facts(facts: &RunFacts, open: Option<crate::format::manifest::OpenAttempt>) -> RunFacts {
    let staged = facts.staged.filter(|cycle| open.is_some_and(|open| open.cycle == *cycle));
    RunFacts { staged, ..*facts }
}
