//! Unplanned failover: the machine is started at the target from what has
//! arrived there. Works with the source's site gone.
//!
//! | step | undone by |
//! | --- | --- |
//! | begin | the machine runs at the source, protected as before |
//! | shut-down-source (best effort, if asked for) | with the former |
//! | bring-over-last-data (best effort, if asked for) | nothing: points do no harm |
//! | choose-point | nothing: a choice changes nothing |
//! | raise-epoch | the epoch is the source's again, and the target knows |
//! | fence-source (or somebody vouches) | with the former |
//! | discard-former (of a return that lost its source) | nothing: it was being dropped |
//! | define-at-target | what was made is discarded |
//! | start-at-target | it is stopped |
//! | await-life (best effort) | nothing: looking changes nothing |
//! | await-commit | an undo of its own |

use std::time::Duration;

use domain::failover::Operation;
use jobs::{Context, Failure, Key, OnFailure, Outcome, Retry, Runbook, Step, Table};
use wire::command::Work;

use super::World;
use super::order::Order;
use super::steps::{
    Begin, ChoosePoint, DiscardFormer, FenceSource, HandEpochBack, RaiseEpoch, RunAtSource,
    ShutDownSource, await_commit, give, look, run_at_target,
};

/// An attempt to bring over last data takes no longer.
const LAST_DATA: Duration = Duration::from_secs(300);

/// The operation.
pub struct UnplannedFailover;

impl Runbook for UnplannedFailover {
    const NAME: &'static str = "unplanned-failover";
    type State = Order;
    type World = dyn World;

    fn table(&self) -> Table<Self> {
        let to_target = Table::new()
            .step(Begin(Operation::UnplannedFailover))
            .undone_by(RunAtSource)
            .step(ShutDownSource)
            .never_undone("the first step's undo starts it again")
            .retry(Retry::NEVER)
            .on_failure(OnFailure::GoOn)
            .step(BringOverLastData)
            .never_undone("another point does no harm")
            .retry(Retry::NEVER)
            .within(LAST_DATA)
            .on_failure(OnFailure::GoOn)
            .step(ChoosePoint)
            .never_undone("a choice changes nothing")
            .step(RaiseEpoch)
            .undone_by(HandEpochBack)
            .step(FenceSource { may_vouch: true })
            .never_undone("the epoch that is handed back ends the fence")
            .step(DiscardFormer)
            .never_undone("what the return was to drop is dropped");
        await_commit(run_at_target(to_target))
    }

    fn keys(&self, order: &Order) -> Vec<Key> {
        order.keys()
    }
}

/// What the source wrote last is at the target, if that can be had.
struct BringOverLastData;

impl Step<UnplannedFailover> for BringOverLastData {
    const NAME: &'static str = "bring-over-last-data";

    async fn run(&self, order: &mut Order, cx: &Context<dyn World>) -> Result<Outcome, Failure> {
        if order.shut_down_seconds.is_some() {
            let machine = look(order, cx).await?;
            let work = Work::Synchronise { protection: order.protection(), compare: false };
            give(cx, &machine.source, work).await?;
        }
        Ok(Outcome::Done)
    }
}
