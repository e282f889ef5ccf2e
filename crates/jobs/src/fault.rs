//! What went wrong, as an operator reads it, and what is refused.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Codes of the engine's own faults. A runbook's steps bring codes of their own.
pub mod code {
    /// A step or an undo took longer than its limit and did not stop.
    pub const TOOK_TOO_LONG: &str = "job-step-took-too-long";
    /// A step or an undo panicked.
    pub const PANICKED: &str = "job-step-panicked";
    /// The process ended too often while a step ran.
    pub const INTERRUPTED_TOO_OFTEN: &str = "job-step-interrupted-too-often";
    /// The journal does not take an entry, or cannot be read.
    pub const JOURNAL_FAILED: &str = "job-journal-failed";
    /// The journal's entries of a job make no sense.
    pub const LOG_UNREADABLE: &str = "job-log-unreadable";
    /// No runbook is known that could go on with a job.
    pub const RUNBOOK_UNKNOWN: &str = "job-runbook-unknown";
    /// What a job's steps have put down cannot be read by its runbook.
    pub const STATE_UNREADABLE: &str = "job-state-unreadable";
}

/// An error with what was being done to what, its cause, and a way out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Names the kind of error for good.
    pub code: String,
    /// What was being done to what: `start machine db at host kvm2`.
    pub doing: String,
    /// Why it did not work.
    pub cause: String,
    /// The way out.
    pub advice: String,
}

impl Fault {
    /// An error of this kind.
    pub fn new(
        code: impl Into<String>,
        doing: impl Into<String>,
        cause: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { code: code.into(), doing: doing.into(), cause: cause.into(), advice: advice.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: cannot {}: {}. {}", self.code, self.doing, self.cause, self.advice)
    }
}

impl std::error::Error for Fault {}

/// Why an attempt of a step failed, and whether another may help.
///
/// A [`Fault`] with `?` becomes a failure that is tried again as the step's
/// [`Retry`](crate::Retry) says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// It can pass; the step's retry policy says when to try again.
    Passing(Fault),
    /// Another attempt would fail in the same way.
    ForGood(Fault),
}

impl Failure {
    /// What went wrong.
    #[must_use]
    pub fn fault(&self) -> &Fault {
        match self {
            Self::Passing(fault) | Self::ForGood(fault) => fault,
        }
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Passing(fault)
    }
}

/// Why something may not be done to a job now, and what to do instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// How the job stands, and why that forbids it.
    pub reason: String,
    /// What to do instead.
    pub advice: String,
}

impl Refusal {
    pub(crate) fn new(reason: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { reason: reason.into(), advice: advice.into() }
    }
}
