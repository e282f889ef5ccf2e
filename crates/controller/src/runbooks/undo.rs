//! Undo: the machine returns to the source side, and what the target wrote is
//! dropped.
//!
//! | step | undone by |
//! | --- | --- |
//! | begin: the epoch is the source's | nothing: a return goes on until it is done |
//! | fence-target (or somebody vouches) | nothing |
//! | discard-at-target (unless somebody vouched) | nothing |
//! | start-at-source | nothing |

use domain::failover::{Event, Fenced, Operation, Return, State};
use jobs::{Context, Failure, Key, OnFailure, Outcome, Runbook, Step, Table};
use wire::command::Work;

use super::order::Order;
use super::steps::{
    Begin, discard, fence_or_vouch, give, happen, happen_along, left_at, look, must_vouch,
};
use super::{NotGiven, World};
use crate::database::failover::Along;

const GOES_ON: &str = "a return goes on until it is done";

/// The operation.
pub struct UndoFailover;

impl Runbook for UndoFailover {
    const NAME: &'static str = "undo-failover";
    type State = Order;
    type World = dyn World;

    fn table(&self) -> Table<Self> {
        Table::new()
            .step(Begin(Operation::Undo))
            .never_undone(GOES_ON)
            .no_return(GOES_ON)
            .on_failure(OnFailure::Ask)
            .step(FenceTarget)
            .never_undone(GOES_ON)
            .on_failure(OnFailure::Ask)
            .step(DiscardAtTarget)
            .never_undone(GOES_ON)
            .on_failure(OnFailure::Ask)
            .step(StartAtSource)
            .never_undone(GOES_ON)
            .on_failure(OnFailure::Ask)
    }

    fn keys(&self, order: &Order) -> Vec<Key> {
        order.keys()
    }
}

/// The target does not run the machine, and will not.
struct FenceTarget;

impl Step<UndoFailover> for FenceTarget {
    const NAME: &'static str = "fence-target";

    async fn run(&self, order: &mut Order, cx: &Context<dyn World>) -> Result<Outcome, Failure> {
        let machine = look(order, cx).await?;
        let State::Returning { phase: Return::Fencing, .. } = machine.standing.state else {
            return Ok(Outcome::Done);
        };
        let there = machine.compute();
        let Some(fenced) = fence_or_vouch((order, cx), &machine, there, false).await? else {
            return Ok(Outcome::Wait(must_vouch(there, &machine)));
        };
        order.vouched = matches!(fenced, Fenced::Vouched { .. });
        happen(order, cx, Event::TargetFenced(fenced)).await?;
        Ok(Outcome::Done)
    }
}

/// What was made at the target is gone.
struct DiscardAtTarget;

impl Step<UndoFailover> for DiscardAtTarget {
    const NAME: &'static str = "discard-at-target";

    async fn run(&self, order: &mut Order, cx: &Context<dyn World>) -> Result<Outcome, Failure> {
        let machine = look(order, cx).await?;
        let Some(recovery) = machine.recovery else { return Ok(Outcome::Done) };
        match discard(cx, &machine, recovery).await {
            Err(NotGiven::NotConnected(_)) if order.vouched => {
                cx.warn(left_at(machine.compute(), recovery));
            }
            done => done?,
        }
        Ok(Outcome::Done)
    }
}

/// The machine runs at the source, and is protected as before.
struct StartAtSource;

impl Step<UndoFailover> for StartAtSource {
    const NAME: &'static str = "start-at-source";

    async fn run(&self, order: &mut Order, cx: &Context<dyn World>) -> Result<Outcome, Failure> {
        let machine = look(order, cx).await?;
        if let State::Returning { phase: Return::Starting, .. } = machine.standing.state {
            let epoch = machine.standing.epoch.number();
            let work = Work::Start { machine: machine.machine, epoch };
            give(cx, &machine.source, work).await?;
            happen_along(order, cx, Event::SourceRuns, Along::Recovery(None)).await?;
        }
        Ok(Outcome::Done)
    }
}
