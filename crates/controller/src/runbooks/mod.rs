//! What operators have done to a machine: one file per operation, each opening
//! with its table of steps.
//!
//! | operation | file |
//! | --- | --- |
//! | a copy beside production, and its end | [`test`] |
//! | to the other side without loss | [`planned`] |
//! | to the other side from what has arrived | [`unplanned`] |
//! | the same from another point | [`change_point`] |
//! | for good | [`commit`] |
//! | back again, dropping what the target wrote | [`undo`] |
//! | replication the other way round | [`reverse`] |
//!
//! Steps that several of them have are in [`steps`]. They act on a [`World`]:
//! the database and the agents ([`live`]), or a simulated one that rehearses
//! what can go wrong.

use std::any::Any;
use std::sync::{Arc, OnceLock};

use domain::failover::{Event, Standing};
use domain::id::{HostId, MachineUuid, ProtectionId};
use domain::policy::PointsAtCommit;
use domain::units::ByteCount;
use futures::future::BoxFuture;
use jobs::{Engine, Failure, Fault, JobId, Progress, Ticket};
use uuid::Uuid;
use wire::command::{Answer, Work};

pub mod change_point;
pub mod commit;
pub mod live;
pub mod order;
pub mod planned;
pub mod reverse;
#[cfg(test)]
mod simulated;
pub mod steps;
pub mod test;
pub mod undo;
pub mod unplanned;

pub use order::{Order, PointWish};

use crate::agents::{Commands, DutiesChanged};
use crate::database::Database;
use crate::database::failover::Along;

/// A protected machine, as steps see it.
#[derive(Debug, Clone)]
pub struct Protected {
    /// The hypervisor's UUID.
    pub machine: MachineUuid,
    /// Its name.
    pub name: String,
    /// The host that its changes come from.
    pub source: Host,
    /// The host that keeps its points.
    pub target: Host,
    /// Where that one's agent listens for others.
    pub target_address: Option<String>,
    /// The host on which it is made of a point, if that is another one: which is lent
    /// the point then.
    pub borrower: Option<Host>,
    /// Where it stands.
    pub standing: Standing,
    /// What it was made of at the target.
    pub recovery: Option<Uuid>,
    /// What its policy says of a commit: bytes a second for making its disks its own,
    /// and what becomes of its points.
    pub at_commit: (Option<ByteCount>, PointsAtCommit),
    /// Whether the side that it was last failed over from may have what never
    /// arrived.
    pub unsent: bool,
    /// Whether it ran at the source when that was last seen; none if nobody
    /// knows.
    pub ran: Option<bool>,
}

impl Protected {
    /// The host on which the machine is made of a point, and runs then.
    #[must_use]
    pub fn compute(&self) -> &Host {
        self.borrower.as_ref().unwrap_or(&self.target)
    }
}

/// A host, for commands and for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its id.
    pub id: HostId,
    /// Its name.
    pub name: String,
}

/// Why an agent did not do something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotGiven {
    /// It is not connected.
    NotConnected(Fault),
    /// It could not.
    Failed(Fault),
}

impl From<NotGiven> for Failure {
    fn from(error: NotGiven) -> Self {
        match error {
            NotGiven::NotConnected(fault) | NotGiven::Failed(fault) => Self::Passing(fault),
        }
    }
}

/// What runbooks change.
pub trait World: Any + Send + Sync {
    /// A protected machine as it is now; `at` is where a job is to make it, if that
    /// is not for the failover at hand to say.
    fn look(&self, id: ProtectionId, at: Option<HostId>)
    -> BoxFuture<'_, Result<Protected, Fault>>;

    /// Has something happen to it; durable on return.
    fn happen<'a>(
        &'a self,
        id: ProtectionId,
        event: Event,
        along: Along,
        by: &'a str,
    ) -> BoxFuture<'a, Result<Standing, Failure>>;

    /// Lets shipping go on that waited for a job.
    fn let_go(&self, id: ProtectionId) -> BoxFuture<'_, Result<(), Fault>>;

    /// Has a job reverse the replication, as part of the one at hand; once for the same
    /// id.
    fn reverse<'a>(
        &'a self,
        order: &'a Order,
        job: JobId,
        parent: JobId,
    ) -> BoxFuture<'a, Result<(), Fault>>;

    /// Has an agent do something, however long that takes.
    fn give<'a>(
        &'a self,
        host: &'a Host,
        ticket: &'a Ticket,
        work: Work,
        report: &'a (dyn Fn(Progress) + Send + Sync),
    ) -> BoxFuture<'a, Result<Answer, NotGiven>>;
}

/// Starts the engine, which goes on with every job that has not ended.
///
/// # Errors
/// When the database cannot be read.
pub async fn start(
    database: &Database,
    commands: &Commands,
    duties: &DutiesChanged,
) -> Result<Engine, Fault> {
    let journal = Arc::new(database.clone());
    let orders = Arc::new(OnceLock::new());
    let live =
        live::Live::new(database.clone(), commands.clone(), duties.clone(), Arc::clone(&orders));
    let world: Arc<dyn World> = Arc::new(live);
    let engine = Engine::builder(journal, Arc::new(time::OffsetDateTime::now_utc))
        .register(test::TestFailover, Arc::clone(&world))
        .register(planned::PlannedFailover, Arc::clone(&world))
        .register(unplanned::UnplannedFailover, Arc::clone(&world))
        .register(change_point::ChangePoint, Arc::clone(&world))
        .register(commit::Commit, Arc::clone(&world))
        .register(undo::UndoFailover, Arc::clone(&world))
        .register(reverse::ReverseReplicate, world)
        .start()
        .await?;
    // Steps that run already and order jobs are tried again until then.
    orders.get_or_init(|| engine.clone());
    Ok(engine)
}
