//! Reverse replicate: the side where the machine ran before keeps its points
//! from now on. Where its old disks are still there, only what differs is sent.
//! After an unplanned failover they may have what never arrived: the point that
//! they become is held until an operator lets it go.
//!
//! | step | undone by |
//! | --- | --- |
//! | turn | nothing: a machine is protected one way or the other |
//! | adopt-old-disks (best effort; not at another host) | nothing: they stay as they are |
//! | let-go: shipping begins | nothing |

use std::time::Duration;

use domain::failover::{Event, Operation, State};
use domain::id::HostId;
use jobs::{Context, Failure, Key, OnFailure, Outcome, Retry, Runbook, Step, Table};
use wire::command::{Answer, Work};

use super::World;
use super::order::Order;
use super::steps::{give, happen_along, look};
use crate::database::failover::Along;

const ONE_WAY: &str = "a machine is protected one way or the other; fail it back instead";

/// The operation.
pub struct ReverseReplicate;

impl Runbook for ReverseReplicate {
    const NAME: &'static str = "reverse-replicate";
    type State = Order;
    type World = dyn World;

    fn table(&self) -> Table<Self> {
        Table::new()
            .step(Turn)
            .never_undone(ONE_WAY)
            .no_return(ONE_WAY)
            .on_failure(OnFailure::Ask)
            .step(AdoptOldDisks)
            .never_undone("they stay as they are")
            .retry(Retry::times(8, Duration::from_secs(1), Duration::from_secs(30)))
            .within(Duration::from_secs(24 * 3600))
            .on_failure(OnFailure::GoOn)
            .step(LetGo)
            .never_undone(ONE_WAY)
            .on_failure(OnFailure::Ask)
    }

    fn keys(&self, order: &Order) -> Vec<Key> {
        order.keys()
    }
}

/// Source and target have changed places; nothing is shipped yet.
struct Turn;

impl Step<ReverseReplicate> for Turn {
    const NAME: &'static str = "turn";

    async fn run(&self, order: &mut Order, cx: &Context<dyn World>) -> Result<Outcome, Failure> {
        let machine = look(order, cx).await?;
        if let Some(borrower) = &machine.borrower {
            cx.warn(format!(
                "the points of {} that are left at {} are not kept by {}; remove them when you need them no more",
                machine.name, machine.target.name, borrower.name
            ));
        }
        if machine.standing.state != State::ReverseReplicating {
            let event = Event::Asked(Operation::ReverseReplicate);
            let along = Along::Turn(order.to.map(HostId::new));
            happen_along(order, cx, event, along).await?;
        }
        Ok(Outcome::Done)
    }
}

/// The disks that the machine had are the first point of the way back.
struct AdoptOldDisks;

impl Step<ReverseReplicate> for AdoptOldDisks {
    const NAME: &'static str = "adopt-old-disks";

    async fn run(&self, order: &mut Order, cx: &Context<dyn World>) -> Result<Outcome, Failure> {
        let machine = look(order, cx).await?;
        if order.to.is_some() {
            cx.warn(format!(
                "everything is sent to {}; what the machine left where it was before stays there untouched, and is kept down",
                machine.target.name
            ));
            return Ok(Outcome::Done);
        }
        let (protection, uuid, lost) = (order.protection(), machine.machine, machine.unsent);
        let work = Work::AdoptDisks { protection, machine: uuid, lost };
        let answer = give(cx, &machine.target, work).await?;
        if let (true, Answer::Point { point }) = (lost, answer) {
            let (name, host, point) = (&machine.name, &machine.target.name, point.point);
            cx.warn(format!(
                "point {point} is what {host} had when it was lost; it may hold writes that were never sent, and is held until you let it go. Look at it: lifeboat failover test {name} --point {point}; let it go: lifeboat point release {name} {point}"
            ));
        }
        Ok(Outcome::Done)
    }
}

/// Shipping begins.
struct LetGo;

impl Step<ReverseReplicate> for LetGo {
    const NAME: &'static str = "let-go";

    async fn run(&self, order: &mut Order, cx: &Context<dyn World>) -> Result<Outcome, Failure> {
        cx.world().let_go(order.protection()).await?;
        Ok(Outcome::Done)
    }
}
