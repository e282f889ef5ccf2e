//! Failovers of one machine.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::words;

words! {
    /// What may be done to a protected machine in a failover.
    FailoverOperation = domain::failover::Operation {
        TestFailover = "test-failover",
        CompleteTest = "complete-test",
        PlannedFailover = "planned-failover",
        UnplannedFailover = "unplanned-failover",
        CompleteFailover = "complete-failover",
        Cancel = "cancel",
        ChangePoint = "change-point",
        Undo = "undo",
        Commit = "commit",
        ReverseReplicate = "reverse-replicate",
        Pause = "pause",
        Resume = "resume",
        Resynchronise = "resynchronise",
        ChangeSettings = "change-settings",
        Disable = "disable",
    }
}

/// Which kind of failover.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FailoverKind {
    /// A copy beside production.
    Test,
    /// Without loss: the source is shut down first.
    Planned,
    /// From what has arrived at the target.
    Unplanned,
}

/// Orders a failover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderFailover {
    /// Which kind.
    pub kind: FailoverKind,
    /// `latest`, `latest-app`, or a point's number; the latest when absent. Not
    /// for a planned failover, which makes its own.
    #[serde(default)]
    pub point: Option<String>,
    /// What NICs are connected to; those that are not listed are disconnected.
    /// When absent, those of a failover are connected to the networks of the
    /// same name, and those of a test to none.
    #[serde(default)]
    pub nics: Option<Vec<NicChoice>>,
    /// For a test: the name of the copy; the machine's with `-test` when absent.
    #[serde(default)]
    pub name: Option<String>,
    /// For a test: it is completed by force after so many hours; 336, which is 14
    /// days, when absent.
    #[serde(default)]
    pub hours: Option<u32>,
    /// Seconds that the source may take to shut down: 300 in a planned failover
    /// when absent. In an unplanned one, the source is only shut down and its
    /// last data brought over if this is given.
    #[serde(default)]
    pub shut_down_seconds: Option<u32>,
    /// Whether the source is switched off if it takes longer.
    #[serde(default)]
    pub force: bool,
    /// Whether you vouch that the source is without power: for an unplanned
    /// failover whose source does not answer.
    #[serde(default)]
    pub source_is_down: bool,
    /// The host on which the machine is made: another one of the site where its
    /// points are kept. When absent, the one that keeps them.
    #[serde(default)]
    pub to: Option<String>,
    /// Only tell what would be done.
    #[serde(default)]
    pub plan_only: bool,
}

/// What a NIC is connected to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NicChoice {
    /// The NIC, by its MAC address.
    pub mac: String,
    /// The network at the target's host.
    pub network: String,
}

/// Chooses another point for a machine that was failed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangePoint {
    /// `latest`, `latest-app`, or a point's number.
    pub point: String,
}

/// Commits a failover.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderCommit {
    /// Kept with the job.
    #[serde(default)]
    pub comment: String,
    /// Whether the replication is reversed at once after, by a job of its own.
    #[serde(default)]
    pub reverse: bool,
}

/// Reverses a replication.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderReversal {
    /// Kept with the job.
    #[serde(default)]
    pub comment: String,
    /// The host, cloud or site where the points go; where the machine ran before,
    /// when absent. Another one is sent everything.
    #[serde(default)]
    pub to: Option<String>,
}

/// What a failover would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Plan {
    /// Which kind.
    pub kind: FailoverKind,
    /// Where the machine runs now.
    pub from: String,
    /// Where it would run.
    pub to: String,
    /// The steps, in order.
    pub steps: Vec<String>,
    /// The instant of the point that it would be made of, as far as is known;
    /// absent for a planned failover, which loses nothing.
    #[serde(with = "time::serde::rfc3339::option")]
    pub point_instant: Option<OffsetDateTime>,
    /// Milliseconds of the machine's work that would be lost, as far as is known.
    pub lost_ms: u64,
    /// Bytes that changed in the last cycle: about what is left to be sent.
    pub bytes: u64,
    /// Milliseconds that the machine is expected to be down, by what was measured of
    /// it before; absent for a test, and if a part of it was never measured.
    pub downtime_ms: Option<u64>,
    /// On what that rests, sentence by sentence.
    pub downtime_basis: Vec<String>,
    /// What to know before.
    pub remarks: Vec<String>,
}

/// What a reversal would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReversePlan {
    /// Where the machine runs.
    pub from: String,
    /// Where its points would go.
    pub to: String,
    /// The steps, in order.
    pub steps: Vec<String>,
    /// About so many bytes are expected to be sent, before compression; absent if
    /// nobody knows.
    pub about_bytes: Option<u64>,
    /// No more than so many; absent if nobody knows.
    pub at_most_bytes: Option<u64>,
    /// On what that rests, sentence by sentence.
    pub basis: Vec<String>,
}

/// What came of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Ordered {
    /// A job.
    Job {
        /// The job.
        job: Box<crate::job::Job>,
    },
    /// Only a plan was asked for.
    Plan {
        /// The plan.
        plan: Plan,
    },
}
