//! Change of the recovery point: the machine is made anew at the target, of
//! another point. What the former attempt wrote is dropped.
//!
//! | step | undone by |
//! | --- | --- |
//! | begin | nothing: the former attempt is dropped by the next step |
//! | choose-point | nothing: a choice changes nothing |
//! | discard-former | nothing: it is gone; another point can be chosen again |
//! | define-at-target, start-at-target | with the next change of point |
//! | await-life (best effort) | nothing: looking changes nothing |
//! | finish | nothing |

use domain::failover::{Change, Event, Operation, State};
use jobs::{Context, Failure, Key, OnFailure, Outcome, Runbook, Step, Table};

use super::World;
use super::order::Order;
use super::steps::{
    AwaitLife, Begin, ChoosePoint, Define, DiscardFormer, LOOKING, Start, happen_along, look,
};
use crate::database::failover::Along;

const DROPPED: &str = "the former attempt is dropped; choose a point again, or undo the failover";

/// The operation.
pub struct ChangePoint;

impl Runbook for ChangePoint {
    const NAME: &'static str = "change-point";
    type State = Order;
    type World = dyn World;

    fn table(&self) -> Table<Self> {
        Table::new()
            .step(Begin(Operation::ChangePoint))
            .never_undone(DROPPED)
            .no_return(DROPPED)
            .on_failure(OnFailure::Ask)
            .step(ChoosePoint)
            .never_undone("a choice changes nothing")
            .on_failure(OnFailure::Ask)
            .step(DiscardFormer)
            .never_undone(DROPPED)
            .on_failure(OnFailure::Ask)
            .step(Define)
            .never_undone(DROPPED)
            .on_failure(OnFailure::Ask)
            .step(Start)
            .never_undone(DROPPED)
            .on_failure(OnFailure::Ask)
            .step(AwaitLife)
            .never_undone("looking changes nothing")
            .retry(LOOKING)
            .on_failure(OnFailure::GoOn)
            .step(Finish)
            .never_undone(DROPPED)
            .on_failure(OnFailure::Ask)
    }

    fn keys(&self, order: &Order) -> Vec<Key> {
        order.keys()
    }
}

/// The machine runs from the other point, and waits for its commit.
struct Finish;

impl Step<ChangePoint> for Finish {
    const NAME: &'static str = "finish";

    async fn run(&self, order: &mut Order, cx: &Context<dyn World>) -> Result<Outcome, Failure> {
        let machine = look(order, cx).await?;
        if let State::CommitPending { change: Change::Point, .. } = machine.standing.state {
            let along = Along::Recovery(Some(order.recovery));
            happen_along(order, cx, Event::PointChanged, along).await?;
        }
        Ok(Outcome::Done)
    }
}
