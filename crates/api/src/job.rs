//! Jobs: anything that takes time.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::Operation;
use crate::problem::Problem;

/// A job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Job {
    /// Never changes.
    pub id: Uuid,
    /// What is done, such as `planned-failover`.
    pub operation: String,
    /// What it is done to.
    pub target: String,
    /// Who asked for it.
    pub asked_by: String,
    /// When it was ordered.
    #[serde(with = "time::serde::rfc3339")]
    pub ordered: OffsetDateTime,
    /// When it ended; absent until it has.
    #[serde(with = "time::serde::rfc3339::option")]
    pub ended: Option<OffsetDateTime>,
    /// Where it stands.
    pub state: JobState,
    /// What it waits for an operator to do; absent if for nothing.
    pub waits_for: Option<String>,
    /// When it goes on without that; absent if never.
    #[serde(with = "time::serde::rfc3339::option")]
    pub waits_until: Option<OffsetDateTime>,
    /// What failed, if it needs somebody or has failed.
    pub problem: Option<Problem>,
    /// What it does, step by step.
    pub steps: Vec<JobStep>,
    /// Of all steps, in percent: 100 once it has ended.
    pub percent: u8,
    /// How far the step at hand is.
    pub progress: Option<JobProgress>,
    /// The point that a machine is made of; absent until it is chosen.
    pub point: Option<u32>,
    /// The instant of that point.
    #[serde(with = "time::serde::rfc3339::option")]
    pub point_instant: Option<OffsetDateTime>,
    /// Milliseconds from the start of the machine to its first sign of life.
    pub alive_after_ms: Option<u64>,
    /// Milliseconds from the order to the machine's first sign of life: the RTO.
    pub rto_ms: Option<u64>,
    /// The job that it orders at its end, if it was told to and has done so.
    pub next: Option<Uuid>,
    /// What may be said to it now, and why not.
    pub operations: Vec<Operation>,
    /// What people said about it.
    pub notes: Vec<Note>,
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum JobState {
    /// It goes on by itself.
    Running,
    /// It waits for an operator.
    Waiting,
    /// Something failed that an operator must decide about: retry, cancel, or
    /// abandon.
    NeedsAttention,
    /// What it did is being undone.
    Undoing,
    /// All is done.
    Succeeded,
    /// All is done; something went less well.
    SucceededWithWarnings,
    /// It failed, and all was undone.
    Failed,
    /// It was cancelled, and all was undone.
    Cancelled,
    /// It was given up where it stood.
    Abandoned,
}

impl std::fmt::Display for JobState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::NeedsAttention => "needs attention",
            Self::Undoing => "undoing",
            Self::Succeeded => "succeeded",
            Self::SucceededWithWarnings => "succeeded with warnings",
            Self::Failed => "failed, all undone",
            Self::Cancelled => "cancelled, all undone",
            Self::Abandoned => "abandoned",
        })
    }
}

impl JobState {
    /// Whether nothing more will happen.
    #[must_use]
    pub const fn has_ended(self) -> bool {
        matches!(
            self,
            Self::Succeeded
                | Self::SucceededWithWarnings
                | Self::Failed
                | Self::Cancelled
                | Self::Abandoned
        )
    }
}

/// A step of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobStep {
    /// Its effect, such as `fence-source`.
    pub name: String,
    /// How far it got.
    pub stage: StepStage,
    /// When it was begun first.
    #[serde(with = "time::serde::rfc3339::option")]
    pub begun: Option<OffsetDateTime>,
    /// When it got so far.
    #[serde(with = "time::serde::rfc3339::option")]
    pub since: Option<OffsetDateTime>,
    /// How often it was tried.
    pub attempts: u32,
    /// What failed last.
    pub problem: Option<Problem>,
    /// What went less well.
    pub warnings: Vec<String>,
}

/// How far a step got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StepStage {
    /// Nothing was done.
    NotBegun,
    /// It was begun.
    Begun,
    /// It is done.
    Done,
    /// It failed, and the job went on without it.
    LeftOut,
    /// It was undone.
    Undone,
}

impl std::fmt::Display for StepStage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::NotBegun => "-",
            Self::Begun => "begun",
            Self::Done => "done",
            Self::LeftOut => "left out",
            Self::Undone => "undone",
        })
    }
}

/// How far a step is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobProgress {
    /// What it is doing.
    pub text: String,
    /// So much is done.
    pub done: u64,
    /// Of so much; absent when nobody knows.
    pub total: Option<u64>,
}

/// What somebody said about a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Note {
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Who.
    pub by: String,
    /// What.
    pub text: String,
}

/// Says something to a job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Say {
    /// Kept with the job.
    #[serde(default)]
    pub comment: String,
}
