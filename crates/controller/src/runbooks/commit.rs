//! Commit: the machine stays at the target for good, on disks that stand for
//! themselves.
//!
//! | step | undone by |
//! | --- | --- |
//! | begin | nothing: a commit has no way back |
//! | hydrate | nothing: the machine runs on either way |
//! | finish | nothing |
//! | drop-points (best effort, if the policy says so; what was lent is returned) | nothing: what is dropped is gone |
//! | ask-for-reversal (if asked for) | nothing: it is a job of its own |

use std::time::Duration;

use domain::failover::{Change, Event, Operation, State};
use domain::policy::PointsAtCommit;
use domain::units::ByteCount;
use jobs::{Context, Failure, JobId, Key, OnFailure, Outcome, Retry, Runbook, Step, Table};
use wire::command::Work;

use super::World;
use super::order::Order;
use super::steps::{Begin, give, happen, look};

/// The step after which the reversal is a job of its own.
pub const ASK_FOR_REVERSAL: &str = "ask-for-reversal";
const NO_WAY_BACK: &str = "a commit has no way back";
/// The most that copying a machine's disks may take.
const HYDRATING: Duration = Duration::from_secs(14 * 24 * 3600);
/// The most that dropping points may take.
const DROPPING: Duration = Duration::from_secs(3600);

/// The operation.
pub struct Commit;

impl Runbook for Commit {
    const NAME: &'static str = "commit";
    /// Version 1 ended when the machine was committed.
    const VERSION: u32 = 2;
    type State = Order;
    type World = dyn World;

    fn table(&self) -> Table<Self> {
        until_committed()
            .step(DropPoints)
            .never_undone("what is dropped is gone")
            .retry(Retry::times(8, Duration::from_secs(1), Duration::from_secs(30)))
            .within(DROPPING)
            .on_failure(OnFailure::GoOn)
            .step(AskForReversal)
            .never_undone("it is a job of its own")
            .on_failure(OnFailure::Ask)
    }

    fn older_table(&self, version: u32) -> Option<Table<Self>> {
        (version == 1).then(until_committed)
    }

    fn keys(&self, order: &Order) -> Vec<Key> {
        order.keys()
    }
}

fn until_committed() -> Table<Commit> {
    Table::new()
        .step(Begin(Operation::Commit))
        .never_undone(NO_WAY_BACK)
        .no_return(NO_WAY_BACK)
        .on_failure(OnFailure::Ask)
        .step(Hydrate)
        .never_undone("the machine runs on either way")
        .within(HYDRATING)
        .on_failure(OnFailure::Ask)
        .step(Finish)
        .never_undone(NO_WAY_BACK)
        .on_failure(OnFailure::Ask)
}

/// The disks at the target need the points no more.
struct Hydrate;

impl Step<Commit> for Hydrate {
    const NAME: &'static str = "hydrate";

    async fn run(&self, order: &mut Order, cx: &Context<dyn World>) -> Result<Outcome, Failure> {
        let machine = look(order, cx).await?;
        if let Some(recovery) = machine.recovery {
            let bytes_per_second = machine.at_commit.0.map(ByteCount::bytes);
            let work = Work::Hydrate { recovery, bytes_per_second };
            give(cx, machine.compute(), work).await?;
        }
        Ok(Outcome::Done)
    }
}

/// The machine is committed.
struct Finish;

impl Step<Commit> for Finish {
    const NAME: &'static str = "finish";

    async fn run(&self, order: &mut Order, cx: &Context<dyn World>) -> Result<Outcome, Failure> {
        let machine = look(order, cx).await?;
        if let State::CommitPending { change: Change::Commit, .. } = machine.standing.state {
            happen(order, cx, Event::CommitDone).await?;
        }
        Ok(Outcome::Done)
    }
}

/// Points that nothing holds are gone, but for the newest; if the policy says so.
struct DropPoints;

impl Step<Commit> for DropPoints {
    const NAME: &'static str = "drop-points";

    async fn run(&self, order: &mut Order, cx: &Context<dyn World>) -> Result<Outcome, Failure> {
        let machine = look(order, cx).await?;
        let Some(recovery) = machine.recovery else { return Ok(Outcome::Done) };
        let drop_points = machine.at_commit.1 == PointsAtCommit::Dropped;
        if machine.borrower.is_some() {
            let work = Work::EndLoan { recovery, drop_points };
            give(cx, &machine.target, work).await?;
        } else if drop_points {
            give(cx, &machine.target, Work::DropPoints { recovery }).await?;
        }
        Ok(Outcome::Done)
    }
}

/// A job that reverses the replication is ordered.
struct AskForReversal;

impl Step<Commit> for AskForReversal {
    const NAME: &'static str = ASK_FOR_REVERSAL;

    async fn run(&self, order: &mut Order, cx: &Context<dyn World>) -> Result<Outcome, Failure> {
        if let Some(reversal) = order.reversal {
            cx.world().reverse(order, JobId::new(reversal), cx.ticket().job).await?;
        }
        Ok(Outcome::Done)
    }
}
