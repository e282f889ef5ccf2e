//! A job's log: what happened, in order. This is the persisted format, version
//! 1, which `docs/formats/jobs.md` describes; its golden samples are
//! `crates/jobs/tests/golden/log-1*.jsonl`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::context::Resumed;
use crate::fault::{Fault, code};
use crate::runbook::{Key, Wait};

/// The version of the format that is written.
pub const FORMAT: u32 = 1;

/// A job. Drawn by whoever orders it, so that an order can be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(Uuid);

impl JobId {
    /// Wraps an id that was drawn elsewhere.
    #[must_use]
    pub const fn new(id: Uuid) -> Self {
        Self(id)
    }

    /// The bare id.
    #[must_use]
    pub const fn uuid(self) -> Uuid {
        self.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for JobId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text).map(Self)
    }
}

/// One entry of a job's log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    format: u32,
    /// From zero, without gaps.
    pub number: u32,
    /// When it was written.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// What happened.
    pub event: Event,
}

/// What happened to a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Event {
    /// It was ordered. The first entry of every log, and only that.
    Ordered(Order),
    /// An attempt of a step is about to begin.
    Begun {
        /// The step.
        step: String,
        /// From one.
        attempt: u32,
    },
    /// A step has had its effect.
    Finished {
        /// The step.
        step: String,
        /// What the steps have put down so far.
        state: serde_json::Value,
        /// What went less well.
        warnings: Vec<String>,
    },
    /// A step has had its effect, and all that was made is to be undone.
    TakingBack {
        /// The step.
        step: String,
        /// What the steps have put down so far.
        state: serde_json::Value,
        /// What went less well.
        warnings: Vec<String>,
    },
    /// A step waits, and will be run again.
    Waiting {
        /// The step.
        step: String,
        /// What the steps have put down so far.
        state: serde_json::Value,
        /// For what.
        wait: Wait,
    },
    /// What a step waited for is there.
    Resumed(Resumed),
    /// An attempt of a step failed.
    Failed {
        /// The step.
        step: String,
        /// Why.
        fault: Fault,
        /// What is done about it.
        verdict: Verdict,
    },
    /// A step that was to stop is not gone on with.
    Stopped {
        /// The step.
        step: String,
    },
    /// An operator cancelled the job.
    CancelAsked(Word),
    /// An operator had what failed tried again.
    Retried(Word),
    /// An undo is about to begin.
    UndoBegun {
        /// The step that is undone.
        step: String,
        /// From one.
        attempt: u32,
    },
    /// A step is undone.
    UndoFinished {
        /// The step.
        step: String,
        /// What the steps have put down and not taken back.
        state: serde_json::Value,
        /// What went less well.
        warnings: Vec<String>,
    },
    /// An attempt of an undo failed.
    UndoFailed {
        /// The step that was being undone.
        step: String,
        /// Why.
        fault: Fault,
        /// When it is tried again; an operator decides if nothing is said.
        #[serde(with = "time::serde::rfc3339::option")]
        again: Option<OffsetDateTime>,
    },
    /// Somebody had something to say.
    Noted(Word),
    /// The last entry but for notes.
    Ended {
        /// How.
        end: End,
    },
}

/// What was ordered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// The name of the runbook.
    pub runbook: String,
    /// Its version.
    pub version: u32,
    /// The names of its steps.
    pub steps: Vec<String>,
    /// What it is done to, as an operator reads it.
    pub target: String,
    /// Who asked for it.
    pub by: String,
    /// The job that it is part of.
    pub parent: Option<JobId>,
    /// What it takes for itself.
    pub keys: Vec<Key>,
    /// The state that it begins with.
    pub state: serde_json::Value,
}

/// What is done about a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Verdict {
    /// It is tried again.
    Again {
        /// Not before.
        #[serde(with = "time::serde::rfc3339")]
        at: OffsetDateTime,
    },
    /// What was done is undone.
    Unwind,
    /// An operator decides.
    Ask,
    /// The next step begins.
    GoOn,
}

/// Who said what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Word {
    /// Who.
    pub by: String,
    /// What.
    pub comment: String,
}

impl Word {
    /// Somebody's words.
    pub fn new(by: impl Into<String>, comment: impl Into<String>) -> Self {
        Self { by: by.into(), comment: comment.into() }
    }
}

/// Who resumed a waiting job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Resumer {
    /// An operator.
    Operator {
        /// Who.
        name: String,
    },
    /// The time that the step gave was over.
    Deadline,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum End {
    /// All is done.
    Succeeded,
    /// All is done but for best efforts, or something went less well.
    SucceededWithWarnings,
    /// It failed, and all was undone.
    FailedAndUndone {
        /// Why it failed.
        fault: Fault,
    },
    /// An operator cancelled it, and all was undone.
    CancelledAndUndone,
    /// An operator gave it up where it stood.
    Abandoned {
        /// Who, and why.
        word: Word,
        /// The steps whose effects may be left, the latest first.
        left: Vec<String>,
    },
}

impl Entry {
    /// An entry in the current format.
    #[must_use]
    pub const fn new(number: u32, at: OffsetDateTime, event: Event) -> Self {
        Self { format: FORMAT, number, at, event }
    }

    /// The entry as one line of JSON, without its end.
    ///
    /// # Panics
    /// Never: no map in an entry has keys that JSON does not know.
    #[must_use]
    pub fn encode(&self) -> String {
        serde_json::to_string(self).expect("an entry is plain JSON")
    }

    /// Reads a line.
    ///
    /// # Errors
    /// When it is none, or a newer version wrote it.
    pub fn decode(line: &str) -> Result<Self, Fault> {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let fault = |cause: String| {
            Fault::new(
                code::LOG_UNREADABLE,
                "read an entry of a job's log",
                cause,
                "Run the version of the program that wrote it, or restore the journal.",
            )
        };
        let version: Version = serde_json::from_str(line).map_err(|e| fault(e.to_string()))?;
        if version.format != FORMAT {
            return Err(fault(format!("it has format {}, and {FORMAT} is known", version.format)));
        }
        serde_json::from_str(line).map_err(|e| fault(e.to_string()))
    }
}
