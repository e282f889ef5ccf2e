//! Protections, their recovery points and verifications.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{Operation, Reason, Reference, words};

/// Where a protection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProtectionState {
    /// The agents have not begun.
    Enabling,
    /// The first copy is under way; nothing can be recovered yet.
    InitialReplication,
    /// There is a point to recover.
    Protected,
    /// On its way to the target.
    FailingOver,
    /// Synchronised, and waiting to be completed.
    AwaitingCompletion,
    /// On its way back to the source.
    Returning,
    /// It runs at the target, and waits to be committed or undone.
    CommitPending,
    /// It runs at the target for good, and is not protected.
    Committed,
    /// The first point of the reverse direction is being made.
    ReverseReplicating,
    /// It is to end.
    Disabling,
}

impl ProtectionState {
    /// The word as it is sent.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enabling => "enabling",
            Self::InitialReplication => "initial-replication",
            Self::Protected => "protected",
            Self::FailingOver => "failing-over",
            Self::AwaitingCompletion => "awaiting-completion",
            Self::Returning => "returning",
            Self::CommitPending => "commit-pending",
            Self::Committed => "committed",
            Self::ReverseReplicating => "reverse-replicating",
            Self::Disabling => "disabling",
        }
    }
}

impl std::fmt::Display for ProtectionState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl From<domain::failover::State> for ProtectionState {
    fn from(state: domain::failover::State) -> Self {
        use domain::failover::State;
        match state {
            State::Enabling => Self::Enabling,
            State::InitialReplication => Self::InitialReplication,
            State::Protected => Self::Protected,
            State::FailingOver { .. } => Self::FailingOver,
            State::AwaitingCompletion { .. } => Self::AwaitingCompletion,
            State::Returning { .. } => Self::Returning,
            State::CommitPending { .. } => Self::CommitPending,
            State::Committed => Self::Committed,
            State::ReverseReplicating => Self::ReverseReplicating,
            State::Disabling { .. } => Self::Disabling,
        }
    }
}

impl From<domain::protection::State> for ProtectionState {
    fn from(state: domain::protection::State) -> Self {
        use domain::protection::State;
        match state {
            State::Enabling => Self::Enabling,
            State::InitialReplication => Self::InitialReplication,
            State::Protected => Self::Protected,
            State::Disabling => Self::Disabling,
        }
    }
}

words! {
    /// How healthy a protection is.
    HealthLevel = domain::protection_health::Level {
        Normal = "normal",
        Warning = "warning",
        Critical = "critical",
    }
}

words! {
    /// What may be done to a protection.
    ProtectionOperation = domain::protection::Operation {
        Pause = "pause",
        Resume = "resume",
        ImportCopy = "import-copy",
        CopyOverNetwork = "copy-over-network",
        Resynchronise = "resynchronise",
        Verify = "verify",
        ChangePolicy = "change-policy",
        Disable = "disable",
    }
}

/// A protected machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Protection {
    /// Never changes.
    pub id: Uuid,
    /// The machine, by the hypervisor's UUID.
    pub machine: Reference,
    /// The host that it runs on.
    pub source: Reference,
    /// Where that is.
    pub source_site: Reference,
    /// The host that keeps its points.
    pub target: Reference,
    /// Where that is.
    pub target_site: Reference,
    /// The policy that it follows.
    pub policy: Reference,
    /// Disks that are left out.
    pub excluded_disks: Vec<String>,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created: OffsetDateTime,
    /// The initial replication waits for this.
    #[serde(with = "time::serde::rfc3339::option")]
    pub not_before: Option<OffsetDateTime>,
    /// Where it stands.
    pub state: ProtectionState,
    /// How replication goes on.
    pub replication: Replication,
    /// The host that it runs on, or is to run on: that of the current epoch.
    pub active: Reference,
    /// Raised with each change of that.
    pub epoch: u64,
    /// Whether a test runs.
    pub test: TestState,
    /// Whether it is healthy, and if not why.
    pub health: Health,
    /// How old its newest point is, was, and may be.
    pub rpo: Rpo,
    /// The newest point that is durable at the target.
    pub newest: Option<RecoveryPoint>,
    /// What the target keeps; absent until its agent told.
    pub kept: Option<Kept>,
    /// Of the copy that is under way; absent when there is none.
    pub progress: Option<Progress>,
    /// Since the source's agent began with the machine; absent until it told.
    pub totals: Option<Totals>,
    /// The last cycle; absent until there was one.
    pub last_cycle: Option<Cycle>,
    /// When the source's agent last told of it.
    #[serde(with = "time::serde::rfc3339::option")]
    pub source_told: Option<OffsetDateTime>,
    /// When the target's agent last told of it.
    #[serde(with = "time::serde::rfc3339::option")]
    pub target_told: Option<OffsetDateTime>,
    /// The verification that was asked for and is not finished.
    pub verifying: Option<Uuid>,
    /// What may be done to it.
    pub operations: Vec<Operation>,
}

/// How replication goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Replication {
    /// Not begun.
    Waiting,
    /// The first copy.
    Initial,
    /// Changes only.
    Steady,
    /// The first copy, into a folder at the source.
    Exporting {
        /// Where.
        folder: String,
    },
    /// The first copy is in a folder at the source, and is to be carried to the
    /// target.
    Carried {
        /// Where.
        folder: String,
    },
    /// Comparing with the target.
    Resynchronising {
        /// Why.
        reason: String,
        /// It waits until then for the hours of its policy; absent if it is
        /// under way.
        #[serde(with = "time::serde::rfc3339::option")]
        held_until: Option<OffsetDateTime>,
    },
    /// An operator paused it.
    Paused,
    /// Something keeps it from going on; it tries again by itself.
    Broken {
        /// The error's code.
        code: String,
        /// What could not be done, and why.
        reason: String,
        /// What to do about it.
        advice: String,
        /// Since when.
        #[serde(with = "time::serde::rfc3339")]
        since: OffsetDateTime,
    },
}

/// Whether a test runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TestState {
    /// None does.
    None,
    /// At least one does.
    Running,
    /// One is being taken away.
    CleaningUp,
}

/// Whether a protection is healthy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// That of the worst reason.
    pub level: HealthLevel,
    /// Everything that is not as it should be, the worst first.
    pub reasons: Vec<HealthReason>,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HealthReason {
    /// How bad it is.
    pub level: HealthLevel,
    /// What it is.
    pub reason: String,
    /// What to do about it.
    pub advice: String,
}

/// How old the newest point is, was, and may be, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Rpo {
    /// Now, as far as the controller knows; absent before the first point.
    pub now_ms: Option<u64>,
    /// Beyond this, health is a warning.
    pub allowed_ms: u64,
    /// At its worst over the last 24 hours, measured by the controller.
    pub worst_24h_ms: Option<u64>,
    /// In 99 of 100 minutes of the last 24 hours it was no worse.
    pub p99_24h_ms: Option<u64>,
    /// In so many minutes of the last 24 hours it was measured.
    pub measured_minutes: u32,
    /// At its worst over the last 24 hours, measured by the source's agent.
    pub agent_worst_ms: Option<u64>,
    /// 99 of 100 times it was no worse, measured by the source's agent.
    pub agent_p99_ms: Option<u64>,
}

/// All disks of a machine at one instant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RecoveryPoint {
    /// Its number in the store.
    pub point: u32,
    /// When the disks were held still, by the source's clock.
    #[serde(with = "time::serde::rfc3339")]
    pub instant: OffsetDateTime,
    /// Whether applications had written everything down.
    pub app_consistent: bool,
    /// Bytes that it took when it arrived.
    pub stored_bytes: u64,
    /// What holds it, whatever the policy says; absent if nothing does.
    pub hold: Option<Hold>,
}

/// What holds a point until an operator lets it go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Hold {
    /// What does.
    pub by: HoldBy,
    /// Why, in words.
    pub reason: String,
}

/// What can hold a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HoldBy {
    /// An operator.
    Operator,
    /// That its host had it when it was lost, and may never have sent it.
    Lost,
}

/// What a target keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Kept {
    /// The folder of the points.
    pub folder: String,
    /// How many there are.
    pub points: u64,
    /// Bytes that they take.
    pub used_bytes: u64,
    /// Bytes that are free where they lie.
    pub free_bytes: u64,
}

/// How far a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Progress {
    /// Bytes that are at the target or need not go.
    pub done_bytes: u64,
    /// Of so many.
    pub total_bytes: u64,
    /// At the pace so far, the rest takes so many seconds; absent while there is
    /// no telling.
    #[serde(default)]
    pub seconds_left: Option<u64>,
}

/// Sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Totals {
    /// Read from the disks.
    pub read_bytes: u64,
    /// Sent, as it went over the wire.
    pub sent_bytes: u64,
    /// Points sealed.
    pub points: u64,
}

/// One cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Cycle {
    /// Milliseconds from the cut to the seal.
    pub took_ms: u64,
    /// Bytes that had changed.
    pub changed_bytes: u64,
    /// Bytes on the wire.
    pub sent_bytes: u64,
}

/// Protects a machine, or asks whether that would work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Protect {
    /// The machine: name, host/name, site/host/name, UUID or id.
    pub machine: String,
    /// The host that shall keep its points, by name or id; of a cloud or a site,
    /// the connected host with the most room.
    pub target: String,
    /// The policy, by name or id; `default` when absent.
    pub policy: Option<String>,
    /// Disks to leave out, by the hypervisor's names such as `vdb`.
    #[serde(default)]
    pub excluded_disks: Vec<String>,
    /// The initial replication waits for this.
    #[serde(default, with = "time::serde::rfc3339::option")]
    pub not_before: Option<OffsetDateTime>,
    /// The first copy goes into this folder at the source's host, and is
    /// carried; absent for a copy over the network.
    #[serde(default)]
    pub offline_folder: Option<String>,
}

/// Takes in a first copy that was carried to the target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportCopy {
    /// The folder at the target's host.
    pub folder: String,
}

/// What was found before a machine is protected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProtectCheck {
    /// Whether it can be protected so.
    pub possible: bool,
    /// What stands in the way.
    pub obstacles: Vec<Reason>,
    /// What would be better otherwise.
    pub remarks: Vec<Reason>,
}

/// Gives a protection another policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeProtection {
    /// The policy, by name or id.
    pub policy: String,
}

/// What became of a protection that was disabled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Disabled {
    /// Whether it is gone; else it is once both agents have ended it.
    pub finished: bool,
    /// What stays at the hosts.
    pub left_behind: Vec<String>,
}

/// How a verification ended, if it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum VerificationOutcome {
    /// It has not.
    Pending,
    /// Source and replica are the same.
    Same,
    /// They differ.
    Differs,
    /// It could not be done.
    NotDone,
}

/// A comparison of source and replica, to keep as evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Verification {
    /// Never changes.
    pub id: Uuid,
    /// The protection.
    pub protection: Uuid,
    /// The machine, by the hypervisor's UUID and its name at that time.
    pub machine: Reference,
    /// The source's name at that time.
    pub source: String,
    /// The target's name at that time.
    pub target: String,
    /// When it was asked for.
    #[serde(with = "time::serde::rfc3339")]
    pub asked: OffsetDateTime,
    /// By whom.
    pub asked_by: String,
    /// How it ended, if it has.
    pub outcome: VerificationOutcome,
    /// When it was finished, by the source's clock.
    #[serde(with = "time::serde::rfc3339::option")]
    pub finished: Option<OffsetDateTime>,
    /// The point that was compared.
    pub point: Option<RecoveryPoint>,
    /// One for each disk.
    pub disks: Vec<VerifiedDisk>,
    /// Why it could not be done.
    pub trouble: Option<crate::problem::Problem>,
}

/// What was found of a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VerifiedDisk {
    /// The hypervisor's name, such as `vda`.
    pub disk: String,
    /// Bytes of it, all of which were compared by hash.
    pub bytes: u64,
    /// BLAKE3 of the hashes of its blocks of 64 KiB, hexadecimal.
    pub digest: String,
    /// Stretches that differ, the first hundred.
    pub differing: Vec<Stretch>,
}

/// A stretch of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Stretch {
    /// Where it begins, in bytes.
    pub offset_bytes: u64,
    /// How long it is.
    pub length_bytes: u64,
}
