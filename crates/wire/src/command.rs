//! What the controller has an agent do at once, and what the agent answers: from
//! protocol version 3 on.
//!
//! A command is one step of a job. It may be sent again, on another connection
//! or to an agent that has restarted since, and what it asks for is then as good
//! as done once: each names what it makes by an id that the job chose before.
//! A command is only as good as the connection that it came on: an agent begins
//! none of an earlier one.

use domain::id::{HostId, MachineUuid, ProtectionId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::message::Refused;
use crate::replication::{Hold, PointMark, Progress, plain};

/// A step that an agent does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The same each time that it is sent.
    pub id: Uuid,
    /// The job, for messages.
    pub job: Uuid,
    /// What is done.
    pub work: Work,
}

/// What an agent does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "work", rename_all = "snake_case")]
pub enum Work {
    /// Tell all points that are kept of a machine. Answered by
    /// [`Answer::Points`].
    ListPoints {
        /// The protection.
        #[serde(with = "plain::protection")]
        protection: ProtectionId,
    },
    /// Make a point of what the machine's disks are from now on, and with
    /// `compare` compare it with the replica by hash. Answered by
    /// [`Answer::Point`] once it is durable at the target.
    Synchronise {
        /// The protection.
        #[serde(with = "plain::protection")]
        protection: ProtectionId,
        /// Whether source and replica are compared, which must find them the
        /// same.
        compare: bool,
    },
    /// Shut a machine down in order: by its guest agent, else by ACPI. Answered
    /// by [`Answer::Down`].
    ShutDown {
        /// The machine.
        #[serde(with = "plain::machine")]
        machine: MachineUuid,
        /// For so long it may take.
        within_seconds: u32,
        /// Whether it is switched off when it takes longer.
        force: bool,
    },
    /// The machine belongs to another side from this epoch on: write that down,
    /// make sure that it does not run, and that nothing starts it. Answered by
    /// [`Answer::Down`].
    Fence {
        /// The machine.
        #[serde(with = "plain::machine")]
        machine: MachineUuid,
        /// The epoch.
        epoch: u64,
    },
    /// The machine belongs to this side in this epoch: write that down, and start
    /// it from the disks that it has here. Answered by [`Answer::Done`] once it
    /// runs.
    Start {
        /// The machine.
        #[serde(with = "plain::machine")]
        machine: MachineUuid,
        /// The epoch.
        epoch: u64,
    },
    /// Define a machine from a point, with disks that are made as they are used.
    /// Answered by [`Answer::Defined`].
    Define(Box<Recovery>),
    /// Start a machine that was defined from a point. Answered by
    /// [`Answer::Done`] once it runs.
    StartRecovered {
        /// Which recovery.
        recovery: Uuid,
        /// The epoch, which belongs to this side and is written down first; none
        /// for a test.
        epoch: Option<u64>,
    },
    /// Wait until a machine that was started from a point gives a sign of life.
    /// Answered by [`Answer::Alive`]; an error when there is none in time.
    AwaitLife {
        /// Which recovery.
        recovery: Uuid,
        /// For so long it may take.
        within_seconds: u32,
    },
    /// Stop a machine that was started from a point; by force. Answered by
    /// [`Answer::Down`].
    StopRecovered {
        /// Which recovery.
        recovery: Uuid,
    },
    /// Take away everything that was made for a recovery; what is not there is
    /// gone. Never of a machine whose disks stand for themselves. Answered by
    /// [`Answer::Done`].
    Discard {
        /// Which recovery.
        recovery: Uuid,
    },
    /// Make the disks of a recovery stand for themselves. Answered by
    /// [`Answer::Done`] when they do.
    Hydrate {
        /// Which recovery.
        recovery: Uuid,
        /// At most so many bytes a second; no limit without.
        bytes_per_second: Option<u64>,
    },
    /// Make the disks that a machine has here the first point of a protection
    /// in which this host keeps its points: without a copy, where that can be.
    /// Answered by [`Answer::Point`].
    AdoptDisks {
        /// The protection.
        #[serde(with = "plain::protection")]
        protection: ProtectionId,
        /// The machine.
        #[serde(with = "plain::machine")]
        machine: MachineUuid,
        /// Whether they may have what never arrived, because the site was lost: the
        /// point is held then, before it is answered.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        lost: bool,
    },
    /// Tell how much a machine's disks hold here. Answered by
    /// [`Answer::Weight`].
    Weigh {
        /// The machine.
        #[serde(with = "plain::machine")]
        machine: MachineUuid,
        /// What it was made of here; without, the disks count that it has here by
        /// itself.
        recovery: Option<Uuid>,
    },
    /// Drop the points of a machine whose disks stand for themselves here, all but
    /// the newest and those that something holds or needs. Answered by
    /// [`Answer::Dropped`].
    DropPoints {
        /// What the machine was made of.
        recovery: Uuid,
    },
    /// Hold a point whatever the policy says, or let it go. Answered by
    /// [`Answer::Point`].
    HoldPoint {
        /// The protection.
        #[serde(with = "plain::protection")]
        protection: ProtectionId,
        /// The point.
        point: u32,
        /// What holds it from now on; nothing lets it go.
        hold: Option<Hold>,
    },
    /// Keep a point for a machine that another host makes of it, and serve that
    /// host the point's disks, until [`Work::EndLoan`]. From protocol version 5 on.
    /// Answered by [`Answer::Done`].
    Lend(Loan),
    /// What was lent is needed no more; what was not lent is as good as returned.
    /// From protocol version 5 on. Answered by [`Answer::Done`].
    EndLoan {
        /// Which recovery it was lent for.
        recovery: Uuid,
        /// Whether the machine's points are dropped then, all but the newest and
        /// those that something holds or needs: its disks stand for themselves.
        drop_points: bool,
    },
}

/// A point that a machine at another host is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loan {
    /// The recovery at the other host.
    pub recovery: Uuid,
    /// The protection whose points are kept here.
    #[serde(with = "plain::protection")]
    pub protection: ProtectionId,
    /// The point.
    pub point: u32,
    /// The other host, which alone is served.
    #[serde(with = "plain::host")]
    pub to: HostId,
}

/// A machine that is made of a point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// Its id, chosen by the job: what is made for it is found by it again.
    pub id: Uuid,
    /// The protection whose points are kept here.
    #[serde(with = "plain::protection")]
    pub protection: ProtectionId,
    /// The point.
    pub point: u32,
    /// What it is made for.
    pub purpose: Purpose,
    /// What its NICs are connected to, by MAC address.
    pub nics: Vec<NicWish>,
    /// Whether NICs that are not listed are connected to networks of this host with
    /// the names that the point tells; else, and where there are none, they are
    /// disconnected.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub same_networks: bool,
    /// The host that keeps the points and has [lent](Work::Lend) this one; this host
    /// itself when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keeper: Option<Lender>,
}

/// A host that lends a point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lender {
    /// The host, as its certificate says.
    #[serde(with = "plain::host")]
    pub host: HostId,
    /// Its name, for messages.
    pub name: String,
    /// Where its agent listens for others, `HOST:PORT`.
    pub address: String,
}

/// What a machine is made of a point for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "purpose", rename_all = "snake_case")]
pub enum Purpose {
    /// In the place of the machine: with its name and UUID.
    Production,
    /// Beside it: with a name and UUID of its own.
    Test {
        /// The name.
        name: String,
        /// The UUID.
        uuid: Uuid,
    },
}

/// What a NIC is connected to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicWish {
    /// The NIC, by its MAC address as `52:54:00:12:34:56`.
    pub mac: String,
    /// The hypervisor's name of the network.
    pub network: String,
}

/// What an agent answers to a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// The command.
    pub id: Uuid,
    /// What has become of it.
    pub outcome: Outcome,
}

/// What has become of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// It is under way; told again and again.
    Working {
        /// How far, where that is known.
        progress: Option<Progress>,
    },
    /// It is done.
    Done {
        /// What came of it.
        answer: Answer,
    },
    /// It could not be done; what was half-done is found by the command that
    /// takes it back.
    Failed {
        /// Why.
        fault: Refused,
    },
}

impl Outcome {
    /// Whether nothing more becomes of the command.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        !matches!(self, Self::Working { .. })
    }
}

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// Nothing needs to be said.
    Done,
    /// The machine does not run.
    Down {
        /// How it came to that.
        how: Downed,
    },
    /// A machine is defined.
    Defined {
        /// What is otherwise than at the source, in words.
        remarks: Vec<String>,
    },
    /// It gave a sign of life.
    Alive {
        /// By what it was seen.
        by: LifeSign,
        /// Milliseconds since it was started.
        after_ms: u64,
    },
    /// A point.
    Point {
        /// The point.
        point: PointMark,
    },
    /// Points were dropped.
    Dropped {
        /// How many.
        dropped: u64,
        /// How many stay.
        kept: u64,
    },
    /// A machine's disks.
    Weight {
        /// Bytes that the guest sees.
        bytes: u64,
        /// Bytes that they take.
        taken_bytes: u64,
        /// Bytes that the machine wrote since it was made of a point, the same
        /// place twice counted twice; none if that is not known.
        written_bytes: Option<u64>,
        /// Why no point can be made of them; all numbers are 0 then.
        unusable: Option<String>,
    },
    /// Points, the oldest first.
    Points {
        /// All of them.
        points: Vec<PointMark>,
    },
}

/// How it came that a machine does not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Downed {
    /// It did not run.
    WasOff,
    /// It shut down in order.
    InOrder,
    /// It was switched off.
    Forced,
}

/// By what a machine was seen to live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LifeSign {
    /// Its guest agent answers.
    GuestAgent,
    /// It has no guest agent; it has run for a while and reads its disks.
    Disks,
}
