//! What a step is given besides its state: the world, who it is, and ways to
//! tell how far it is.

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::log::{JobId, Resumer};

/// So many warnings of one attempt are kept.
const WARNINGS_MAX: usize = 100;

/// What one attempt of a step works with.
pub struct Context<W: ?Sized> {
    pub(crate) world: Arc<W>,
    pub(crate) ticket: Ticket,
    pub(crate) now: OffsetDateTime,
    pub(crate) stopping: CancellationToken,
    pub(crate) resumed: Option<Resumed>,
    pub(crate) progress: watch::Sender<Option<Progress>>,
    pub(crate) warnings: Warnings,
}

pub(crate) type Warnings = Arc<Mutex<Vec<String>>>;

/// Names one attempt of one step. A command that carries it can be told from
/// its repetitions, and from commands that came too late.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// The job.
    pub job: JobId,
    /// The step, or the step that is undone.
    pub step: &'static str,
    /// From one; counts on over restarts and retries.
    pub attempt: u32,
}

/// Who resumed a waiting job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resumed {
    /// An operator, or its deadline.
    pub by: Resumer,
    /// What the operator said.
    pub comment: String,
}

/// How far a step is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    /// What it is doing: `copying disk vda`.
    pub text: String,
    /// In bytes or pieces, as `text` says.
    pub done: u64,
    /// The same unit; nothing when nobody knows.
    pub total: Option<u64>,
    /// Throughput.
    pub bytes_per_second: Option<u64>,
}

impl Progress {
    /// How much is done, when the whole is known.
    #[must_use]
    pub fn percent(&self) -> Option<u8> {
        let total = self.total?;
        if total == 0 {
            return Some(100);
        }
        let percent = u128::from(self.done.min(total)) * 100 / u128::from(total);
        u8::try_from(percent).ok()
    }
}

impl<W: ?Sized> Context<W> {
    /// What the step changes.
    #[must_use]
    pub fn world(&self) -> &W {
        &self.world
    }

    /// The world, for a task that outlives a borrow.
    #[must_use]
    pub fn shared_world(&self) -> Arc<W> {
        Arc::clone(&self.world)
    }

    /// Which attempt of which step of which job this is.
    #[must_use]
    pub fn ticket(&self) -> &Ticket {
        &self.ticket
    }

    /// When the attempt began.
    #[must_use]
    pub fn begun(&self) -> OffsetDateTime {
        self.now
    }

    /// Cancelled when the step is to stop: the job was cancelled, or the step
    /// has reached its limit. Returning anything soon after is right; what was
    /// half done is undone.
    #[must_use]
    pub fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    /// Who resumed the job, when this step has waited for that.
    #[must_use]
    pub fn resumed(&self) -> Option<&Resumed> {
        self.resumed.as_ref()
    }

    /// Tells how far the step is. The newest report counts; none is waited for.
    pub fn report(&self, progress: Progress) {
        self.progress.send_replace(Some(progress));
    }

    /// Adds a warning to the job. It counts when the step succeeds.
    pub fn warn(&self, warning: impl Into<String>) {
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        if warnings.len() < WARNINGS_MAX {
            warnings.push(warning.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Progress;

    #[test]
    fn percent_is_known_when_the_whole_is() {
        let of = |done, total| Progress { done, total, ..Progress::default() }.percent();
        assert_eq!(
            [of(1, None), of(0, Some(0)), of(1, Some(3)), of(9, Some(3))],
            [None, Some(100), Some(33), Some(100)]
        );
    }
}
