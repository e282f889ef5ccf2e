//! Where logs are kept.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use futures::FutureExt as _;
use futures::future::BoxFuture;

use crate::log::{Entry, Event, JobId};

/// A journal that does not do what it is asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// Another entry has that number: somebody else writes this job's log.
    #[error("another entry has this number")]
    NumberTaken,
    /// It may work another time. The entry may be there or not.
    #[error("{0}")]
    Failed(String),
}

/// One job's log, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The job.
    pub job: JobId,
    /// [Encoded](Entry::encode) entries, by number.
    pub lines: Vec<String>,
}

/// Keeps jobs' logs.
pub trait Journal: Send + Sync + 'static {
    /// Adds an entry to a job's log; [`Event::Ordered`] begins one. Durable on
    /// return. Adding the same entry again is no error; another one with its
    /// number is [`JournalError::NumberTaken`].
    fn append<'a>(
        &'a self,
        job: JobId,
        entry: &'a Entry,
    ) -> BoxFuture<'a, Result<(), JournalError>>;

    /// The logs of all jobs without [`Event::Ended`], the oldest first.
    fn unfinished(&self) -> BoxFuture<'_, Result<Vec<Stored>, JournalError>>;

    /// One job's log.
    fn load(&self, job: JobId) -> BoxFuture<'_, Result<Option<Stored>, JournalError>>;
}

/// A journal that is gone with the process, for tests.
#[derive(Debug, Default)]
pub struct MemoryJournal {
    logs: Mutex<Logs>,
}

#[derive(Debug, Default)]
struct Logs {
    by_job: BTreeMap<JobId, (Vec<String>, bool)>,
    in_order: Vec<JobId>,
}

impl MemoryJournal {
    /// All logs, the oldest first.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn logs(&self) -> Vec<Stored> {
        let logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        logs.in_order
            .iter()
            .map(|job| Stored { job: *job, lines: logs.by_job[job].0.clone() })
            .collect()
    }

    fn add(&self, job: JobId, entry: &Entry) -> Result<(), JournalError> {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        if !logs.by_job.contains_key(&job) {
            logs.in_order.push(job);
        }
        let (lines, ended) = logs.by_job.entry(job).or_default();
        let line = entry.encode();
        match lines.get(entry.number as usize) {
            Some(known) if *known == line => Ok(()),
            Some(_) => Err(JournalError::NumberTaken),
            None if entry.number as usize == lines.len() => {
                lines.push(line);
                *ended |= matches!(entry.event, Event::Ended { .. });
                Ok(())
            }
            None => Err(JournalError::Failed(format!("entry {} would leave a gap", entry.number))),
        }
    }
}

impl Journal for MemoryJournal {
    fn append<'a>(
        &'a self,
        job: JobId,
        entry: &'a Entry,
    ) -> BoxFuture<'a, Result<(), JournalError>> {
        async move { self.add(job, entry) }.boxed()
    }

    fn unfinished(&self) -> BoxFuture<'_, Result<Vec<Stored>, JournalError>> {
        async move {
            let logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
            let unfinished = logs.in_order.iter().filter(|job| !logs.by_job[job].1);
            Ok(unfinished
                .map(|job| Stored { job: *job, lines: logs.by_job[job].0.clone() })
                .collect())
        }
        .boxed()
    }

    fn load(&self, job: JobId) -> BoxFuture<'_, Result<Option<Stored>, JournalError>> {
        async move {
            let logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
            Ok(logs.by_job.get(&job).map(|(lines, _)| Stored { job, lines: lines.clone() }))
        }
        .boxed()
    }
}
