//! Where a machine stands once the job that was about it is lost, with the
//! controller that it ran on.
//!
//! A standing that waits for nobody is kept. One that only its job could lead on
//! is brought to one from which an operator can go on, by nothing but what a
//! cancel could have done in the same instant.

use crate::failover::operation::Refusal;
use crate::failover::route::Route;
use crate::failover::standing::{Change, Event, Phase, Standing, State, Tests, apply};
use crate::protection::Replication;

/// A standing without its job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Orphan {
    /// Where the machine stands now.
    pub standing: Standing,
    /// What is left to be done about it.
    pub loose: LooseEnd,
}

/// What a lost job has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LooseEnd {
    /// Nothing.
    None,
    /// A failover had not reached its fence: the machine is its source's, and may
    /// have been shut down there.
    MayBeOff,
    /// It runs at the target, or ran until another point was being made ready.
    MayHaveNoDisks,
    /// It is being taken back to its source: a job must go on with that.
    TakeBack,
}

/// What becomes of a standing whose job is lost. Of its tests nobody knows any
/// more.
///
/// # Errors
/// Never: each event that is applied can happen in its state.
pub fn orphan(standing: Standing) -> Result<Orphan, Refusal> {
    let standing = Standing { tests: Tests::default(), ..standing };
    let happen = |event| apply(&standing, &event, &Replication::Steady, Route::SITES);
    let stay = |state, loose| Ok(Orphan { standing: Standing { state, ..standing }, loose });
    match standing.state {
        State::FailingOver { phase: Phase::BeforeFence, .. } | State::AwaitingCompletion { .. } => {
            Ok(Orphan { standing: happen(Event::TakingBack)?, loose: LooseEnd::MayBeOff })
        }
        State::FailingOver { .. } => {
            Ok(Orphan { standing: happen(Event::TakingBack)?, loose: LooseEnd::TakeBack })
        }
        state @ State::Returning { .. } => stay(state, LooseEnd::TakeBack),
        State::CommitPending { kind, change: Change::Point, from } => {
            let change = Change::None;
            stay(State::CommitPending { kind, change, from }, LooseEnd::MayHaveNoDisks)
        }
        // Its disks are made to stand for themselves again from where that was.
        State::CommitPending { kind, change: Change::Commit, from } => {
            let change = Change::None;
            stay(State::CommitPending { kind, change, from }, LooseEnd::None)
        }
        state => stay(state, LooseEnd::None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failover::fence::Epoch;
    use crate::failover::operation::{Operation, permit};
    use crate::failover::standing::{Kind, Origin, Return, Side};

    fn states() -> Vec<State> {
        let from = Origin::Protected;
        let mut states = vec![
            State::Enabling,
            State::InitialReplication,
            State::Protected,
            State::AwaitingCompletion { from },
            State::Returning { phase: Return::Fencing, from },
            State::Returning { phase: Return::Starting, from },
            State::Committed,
            State::ReverseReplicating,
        ];
        for kind in [Kind::Planned, Kind::Unplanned] {
            for phase in [Phase::BeforeFence, Phase::Fencing, Phase::LastSync, Phase::Starting] {
                states.push(State::FailingOver { kind, phase, from });
            }
            for change in [Change::None, Change::Point, Change::Commit] {
                states.push(State::CommitPending { kind, change, from });
            }
        }
        states
    }

    #[test]
    fn an_operator_can_go_on_with_every_orphan() {
        use Operation::{
            ChangePoint, Commit, Disable, PlannedFailover, ReverseReplicate, Undo,
            UnplannedFailover,
        };
        let ways = [
            ChangePoint,
            Commit,
            Disable,
            PlannedFailover,
            ReverseReplicate,
            Undo,
            UnplannedFailover,
        ];
        for state in states() {
            let standing = Standing {
                source: Side::Home,
                epoch: Epoch::new(4),
                state,
                tests: Tests { running: 1, cleaning: 1 },
            };
            let orphan = orphan(standing).unwrap();
            assert!(orphan.standing.tests.is_none());
            let way = |way| permit(way, &orphan.standing, &Replication::Steady, Route::SITES);
            assert!(ways.into_iter().any(|name| way(name).is_ok()), "{state:?}: {orphan:?}");
            // Whoever may run it changes only with a new epoch.
            let same = orphan.standing.epoch == standing.epoch;
            assert_eq!(same, orphan.standing.active() == standing.active(), "{state:?}");
        }
    }
}
