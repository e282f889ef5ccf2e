//! Commit: the machine stays at the target for good, on disks that stand for
//! themselves.
//!
//! | step | undone by |
//! | --- | --- |
//! | begin | nothing: a commit has no way back |
//! | hydrate | nothing: the machine runs on either way |
//! | finish | nothing |

use std::time::Duration;

use domain::failover::{Change, Event, Operation, State};
use jobs::{Context, Failure, Key, OnFailure, Outcome, Runbook, Step, Table};
use wire::command::Work;

use super::World;
use super::order::Order;
use super::steps::{Begin, give, happen, look};

const NO_WAY_BACK: &str = "a commit has no way back";
/// The most that copying a machine's disks may take.
const HYDRATING: Duration = Duration::from_secs(14 * 24 * 3600);

/// The operation.
pub struct Commit;

impl Runbook for Commit {
    const NAME: &'static str = "commit";
    type State = Order;
    type World = dyn World;

    fn table(&self) -> Table<Self> {
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

    fn keys(&self, order: &Order) -> Vec<Key> {
        order.keys()
    }
}

/// The disks at the target need the points no more.
struct Hydrate;

impl Step<Commit> for Hydrate {
    const NAME: &'static str = "hydrate";

    async fn run(&self, order: &mut Order, cx: &Context<dyn World>) -> Result<Outcome, Failure> {
        let machine = look(order, cx).await?;
        if let Some(recovery) = machine.recovery {
            let work = Work::Hydrate { recovery, bytes_per_second: None };
            give(cx, &machine.target, work).await?;
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
