//! Planned failover: to the other side without loss, proved by hash.
//!
//! | step | undone by |
//! | --- | --- |
//! | begin | the machine runs at the source, protected as before |
//! | synchronise, and compare by hash (while it runs) | nothing: points do no harm |
//! | shut-down-source | with the first |
//! | raise-epoch | the epoch is the source's again, and the target knows |
//! | fence-source | with the former |
//! | last-synchronisation: source and target agree | nothing: points do no harm |
//! | define-at-target | what was made is discarded |
//! | start-at-target | it is stopped |
//! | await-life (best effort) | nothing: looking changes nothing |
//! | await-commit | an undo of its own |
//!
//! Everything is compared while the machine still runs; after its shutdown only what
//! changed since. The last synchronisation comes after the fence (ADR 15): a source that is
//! merely shut down might be started again.

use std::time::Duration;

use domain::failover::{Event, Operation, Phase, State};
use domain::fault::Code;
use jobs::{Context, Failure, Key, Outcome, Retry, Runbook, Step, Table};
use wire::command::{Answer, Work};

use super::order::{Chosen, Order};
use super::steps::{
    Begin, FenceSource, HandEpochBack, RaiseEpoch, RunAtSource, ShutDownSource, await_commit, give,
    happen, look, nonsense, run_at_target,
};
use super::{NotGiven, World};

/// The most that bringing a machine's last changes over may take.
const SYNCHRONISING: Duration = Duration::from_secs(24 * 3600);

/// The machine must run again somewhere: so long, about half an hour, an agent is
/// waited for before somebody is asked.
const PATIENT: Retry = Retry::times(120, Duration::from_secs(1), Duration::from_secs(15));

/// The operation.
pub struct PlannedFailover;

impl Runbook for PlannedFailover {
    const NAME: &'static str = "planned-failover";
    type State = Order;
    type World = dyn World;

    fn table(&self) -> Table<Self> {
        let to_target = Table::new()
            .step(Begin(Operation::PlannedFailover))
            .undone_by(RunAtSource)
            .retry_undo(PATIENT)
            .step(Synchronise)
            .never_undone("another point does no harm")
            .within(SYNCHRONISING)
            .step(ShutDownSource)
            .never_undone("the first step's undo starts it again")
            .retry(Retry::times(4, Duration::from_secs(2), Duration::from_secs(15)))
            .within(Duration::from_secs(3600))
            .step(RaiseEpoch)
            .undone_by(HandEpochBack)
            .retry_undo(PATIENT)
            .step(FenceSource { may_vouch: false })
            .never_undone("the epoch that is handed back ends the fence")
            .step(LastSynchronisation)
            .never_undone("another point does no harm")
            .within(SYNCHRONISING);
        await_commit(run_at_target(to_target))
    }

    fn keys(&self, order: &Order) -> Vec<Key> {
        order.keys()
    }
}

/// Almost everything is at the target while the source still runs, and proved to be
/// the same there: if it is not, the machine need not be shut down to find out.
struct Synchronise;

impl Step<PlannedFailover> for Synchronise {
    const NAME: &'static str = "synchronise";

    async fn run(&self, order: &mut Order, cx: &Context<dyn World>) -> Result<Outcome, Failure> {
        let machine = look(order, cx).await?;
        let work = |compare| Work::Synchronise { protection: order.protection(), compare };
        match give(cx, &machine.source, work(true)).await {
            Ok(_) => {}
            // It is compared at the end in any case.
            Err(NotGiven::Failed(fault)) if fault.code == Code::NotVerified.as_str() => {
                cx.warn(format!(
                    "it could not be compared while it runs, so that is done while it is down: {}",
                    fault.cause
                ));
                give(cx, &machine.source, work(false)).await?;
            }
            Err(failed) => return Err(failed.into()),
        }
        Ok(Outcome::Done)
    }
}

/// Everything is at the target, and both sides agree by hash.
struct LastSynchronisation;

impl Step<PlannedFailover> for LastSynchronisation {
    const NAME: &'static str = "last-synchronisation";

    async fn run(&self, order: &mut Order, cx: &Context<dyn World>) -> Result<Outcome, Failure> {
        let machine = look(order, cx).await?;
        let work = Work::Synchronise { protection: order.protection(), compare: true };
        let point = match give(cx, &machine.source, work).await? {
            Answer::Point { point } => point,
            other => return Err(nonsense(&machine.source, &other)),
        };
        order.chosen = Some(Chosen { point: point.point, instant: point.instant });
        if let State::FailingOver { phase: Phase::LastSync, .. } = machine.standing.state {
            happen(order, cx, Event::SidesAgree).await?;
        }
        Ok(Outcome::Done)
    }
}
