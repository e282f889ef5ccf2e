//! Where a protected machine stands, and how one state leads to the next.

use crate::failover::fence::{Epoch, Fenced, Known};
use crate::failover::operation::{Operation, Refusal};
use crate::failover::route::Route;
use crate::protection::Replication;

/// One of the two sides of a protected machine, named for good by where it was
/// when it was protected first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Where it ran when it was protected.
    Home,
    /// Where its points went then.
    Away,
}

impl Side {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Home, Self::Away];

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Home => Self::Away,
            Self::Away => Self::Home,
        }
    }
}

/// Where a protected machine stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Standing {
    /// The direction: from this side to the other.
    pub source: Side,
    /// The current epoch, which belongs to [`active`](Self::active).
    pub epoch: Epoch,
    /// The state.
    pub state: State,
    /// Its tests, which never touch the state.
    pub tests: Tests,
}

/// The state of a protected machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// The agents have not begun.
    Enabling,
    /// The first copy is under way.
    InitialReplication,
    /// There is a point to recover.
    Protected,
    /// On its way to the target.
    FailingOver {
        /// Which kind.
        kind: Kind,
        /// How far.
        phase: Phase,
        /// Where a failure leads back to.
        from: Origin,
    },
    /// Synchronised while the source still runs; an operator says when to go on.
    AwaitingCompletion {
        /// Where a cancel leads back to.
        from: Origin,
    },
    /// Taken back: by a cancel, a failure, or an undo. The epoch is the source's.
    Returning {
        /// How far.
        phase: Return,
        /// Where it leads back to.
        from: Origin,
    },
    /// Runs at the target; the source still has its disks.
    CommitPending {
        /// How it got there.
        kind: Kind,
        /// What is being done about it.
        change: Change,
        /// Where an undo leads back to.
        from: Origin,
    },
    /// Runs at the target for good, and is not protected.
    Committed,
    /// The direction is turned; the first point on the way back is being made.
    ReverseReplicating,
    /// Protection is to end; the machine runs on where it runs.
    Disabling {
        /// Where.
        active: Side,
    },
}

/// How a machine is brought to the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Without loss: the source is shut down first.
    Planned,
    /// From what has arrived: the source may be gone.
    Unplanned,
}

/// How far a failover is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Checks, synchronisation, the source's shutdown. The epoch is the source's.
    BeforeFence,
    /// The epoch is the target's; the source is being fenced, and nothing runs.
    Fencing,
    /// The source is fenced; what it wrote last is brought over, and both are
    /// compared. Of a planned failover only. It comes after the fence, since a
    /// source that is merely shut down may be started again.
    LastSync,
    /// The machine is started at the target.
    Starting,
}

/// How far a return is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Return {
    /// The target is being fenced, and nothing else may run.
    Fencing,
    /// The target is fenced; the machine is started at the source.
    Starting,
}

/// Where a failover began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// From protected.
    Protected,
    /// From committed, with the active side at a cloud provider.
    Committed,
}

/// What is being done to a machine that waits for its commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    /// Nothing; it runs.
    None,
    /// Another point is made ready.
    Point,
    /// Its disks are made independent. There is no way back.
    Commit,
}

/// The tests of a protected machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Tests {
    /// So many are running.
    pub running: u32,
    /// So many are being cleaned up.
    pub cleaning: u32,
}

impl Tests {
    /// Whether there is none.
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.running == 0 && self.cleaning == 0
    }
}

/// What happened to a protected machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An operator's wish was accepted, and its job begins.
    Asked(Operation),
    /// The agents have begun.
    ReplicationBegun,
    /// The first point in this direction is durable.
    FirstPoint,
    /// Source and target agree while the source runs, and an operator wants to
    /// say when to go on.
    Synchronised,
    /// The epoch is raised, for the target. Durable before anybody is told.
    EpochRaised,
    /// The source is fenced.
    SourceFenced(Fenced),
    /// Source and target agree, after the source was fenced.
    SidesAgree,
    /// The machine runs at the target.
    TargetRuns,
    /// A failover has failed or is cancelled. Before the epoch was raised, it was
    /// never the target's, and all is as before; after, the epoch is raised
    /// again, for the source.
    TakingBack,
    /// The target is fenced again.
    TargetFenced(Fenced),
    /// The machine runs at the source.
    SourceRuns,
    /// The machine runs from another point; or, if that failed, from the same.
    PointChanged,
    /// The machine's disks at the target stand for themselves.
    CommitDone,
    /// A test is taken away.
    TestGone,
}

impl Standing {
    /// A machine that is to be protected, and runs at home.
    #[must_use]
    pub const fn enabling() -> Self {
        Self {
            source: Side::Home,
            epoch: Epoch::FIRST,
            state: State::Enabling,
            tests: Tests { running: 0, cleaning: 0 },
        }
    }

    /// The direction: to this side.
    #[must_use]
    pub const fn target(&self) -> Side {
        self.source.other()
    }

    /// The side that the current epoch belongs to: the machine runs there, or
    /// nowhere.
    #[must_use]
    pub const fn active(&self) -> Side {
        match self.state {
            State::Enabling
            | State::InitialReplication
            | State::Protected
            | State::FailingOver { phase: Phase::BeforeFence, .. }
            | State::AwaitingCompletion { .. }
            | State::Returning { .. }
            | State::ReverseReplicating => self.source,
            State::FailingOver {
                phase: Phase::Fencing | Phase::LastSync | Phase::Starting,
                ..
            }
            | State::CommitPending { .. }
            | State::Committed => self.target(),
            State::Disabling { active } => active,
        }
    }

    /// What the controller tells a side's agent, asked or not. Nothing, as long
    /// as the epoch is this side's and it is not yet to start the machine.
    #[must_use]
    pub fn told(&self, side: Side) -> Option<Known> {
        let ours = self.active() == side;
        let not_yet = matches!(
            self.state,
            State::FailingOver { phase: Phase::Fencing | Phase::LastSync, .. }
                | State::Returning { phase: Return::Fencing, .. }
        );
        (!(ours && not_yet)).then_some(Known { epoch: self.epoch, ours })
    }
}

impl State {
    /// The state, as it follows *the machine is*.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Enabling => "enabling",
            Self::InitialReplication => "in its initial replication",
            Self::Protected => "protected",
            Self::FailingOver { .. } => "failing over",
            Self::AwaitingCompletion { .. } => "awaiting completion of its failover",
            Self::CommitPending { change: Change::None, .. } => {
                "failed over, with its commit pending"
            }
            Self::CommitPending { change: Change::Point, .. } => "changing its recovery point",
            Self::Returning { .. } => "returning to its source",
            Self::CommitPending { change: Change::Commit, .. } => "being committed",
            Self::Committed => "committed and not protected",
            Self::ReverseReplicating => "in the first replication of the reverse direction",
            Self::Disabling { .. } => "being disabled",
        }
    }

    const fn back_to(from: Origin) -> Self {
        match from {
            Origin::Protected => Self::Protected,
            Origin::Committed => Self::Committed,
        }
    }
}

/// The standing after an event.
///
/// # Errors
/// When an operator's wish is not allowed now, or when the event cannot happen
/// in this state, which is a defect of whoever tells of it. Nothing is changed.
pub fn apply(
    standing: &Standing,
    event: &Event,
    replication: &Replication,
    route: Route,
) -> Result<Standing, Refusal> {
    if let Event::Asked(operation) = event {
        crate::failover::operation::permit(*operation, standing, replication, route)?;
        return Ok(begin(*operation, standing));
    }
    let next = happen(standing, event);
    next.ok_or_else(|| Refusal {
        state: standing.state.name(),
        reason: "what was told cannot happen in this state",
        advice: "This is a defect of Lifeboat; please report it.",
    })
}

/// What an operation that is allowed leads to.
fn begin(operation: Operation, standing: &Standing) -> Standing {
    let to = |state| Standing { state, ..*standing };
    let fail_over = |kind| match standing.state {
        // The source was lost on the way back to it.
        State::Returning { from, .. } => Standing {
            epoch: standing.epoch.next(),
            state: State::FailingOver { kind, phase: Phase::Fencing, from },
            ..*standing
        },
        // From a cloud provider, straight back: the side that runs is the source now.
        State::Committed => Standing {
            source: standing.target(),
            state: State::FailingOver { kind, phase: Phase::BeforeFence, from: Origin::Committed },
            ..*standing
        },
        _ => to(State::FailingOver { kind, phase: Phase::BeforeFence, from: Origin::Protected }),
    };
    let change = |change| match standing.state {
        State::CommitPending { kind, from, .. } => to(State::CommitPending { kind, change, from }),
        _ => *standing,
    };
    match operation {
        Operation::TestFailover => {
            let tests = Tests { running: standing.tests.running + 1, ..standing.tests };
            Standing { tests, ..*standing }
        }
        Operation::CompleteTest => {
            let Tests { running, cleaning } = standing.tests;
            let tests = Tests { running: running - 1, cleaning: cleaning + 1 };
            Standing { tests, ..*standing }
        }
        Operation::PlannedFailover => fail_over(Kind::Planned),
        Operation::UnplannedFailover => fail_over(Kind::Unplanned),
        Operation::CompleteFailover => match standing.state {
            State::AwaitingCompletion { from } => {
                let (kind, phase) = (Kind::Planned, Phase::BeforeFence);
                to(State::FailingOver { kind, phase, from })
            }
            _ => *standing,
        },
        Operation::ChangePoint => change(Change::Point),
        Operation::Undo => match standing.state {
            State::CommitPending { from, .. } => Standing {
                epoch: standing.epoch.next(),
                state: State::Returning { phase: Return::Fencing, from },
                ..*standing
            },
            _ => *standing,
        },
        Operation::Commit => change(Change::Commit),
        Operation::ReverseReplicate => {
            Standing { source: standing.target(), state: State::ReverseReplicating, ..*standing }
        }
        Operation::Disable => to(State::Disabling { active: standing.active() }),
        // A job hears these, or another axis.
        Operation::Cancel
        | Operation::Pause
        | Operation::Resume
        | Operation::Resynchronise
        | Operation::ChangeSettings => *standing,
    }
}

fn happen(standing: &Standing, event: &Event) -> Option<Standing> {
    let to = |state| Some(Standing { state, ..*standing });
    let raised = |state| Some(Standing { state, epoch: standing.epoch.next(), ..*standing });
    let back = |from| {
        let source = match from {
            Origin::Protected => standing.source,
            Origin::Committed => standing.target(),
        };
        Some(Standing { source, state: State::back_to(from), ..*standing })
    };
    match (standing.state, event) {
        (State::Enabling, Event::ReplicationBegun) => to(State::InitialReplication),
        (
            State::Enabling | State::InitialReplication | State::ReverseReplicating,
            Event::FirstPoint,
        ) => to(State::Protected),
        (
            State::FailingOver { kind: Kind::Planned, phase: Phase::BeforeFence, from },
            Event::Synchronised,
        ) => to(State::AwaitingCompletion { from }),
        (State::FailingOver { kind, phase: Phase::BeforeFence, from }, Event::EpochRaised) => {
            raised(State::FailingOver { kind, phase: Phase::Fencing, from })
        }
        (State::FailingOver { kind, phase: Phase::Fencing, from }, Event::SourceFenced(fenced))
            if fenced.epoch() == standing.epoch =>
        {
            let phase = match kind {
                Kind::Planned => Phase::LastSync,
                Kind::Unplanned => Phase::Starting,
            };
            to(State::FailingOver { kind, phase, from })
        }
        (State::FailingOver { kind, phase: Phase::LastSync, from }, Event::SidesAgree) => {
            to(State::FailingOver { kind, phase: Phase::Starting, from })
        }
        (State::FailingOver { kind, phase: Phase::Starting, from }, Event::TargetRuns) => {
            to(State::CommitPending { kind, change: Change::None, from })
        }
        (
            State::FailingOver { phase: Phase::BeforeFence, from, .. }
            | State::AwaitingCompletion { from },
            Event::TakingBack,
        ) => back(from),
        (
            State::FailingOver {
                phase: Phase::Fencing | Phase::LastSync | Phase::Starting,
                from,
                ..
            },
            Event::TakingBack,
        ) => raised(State::Returning { phase: Return::Fencing, from }),
        (State::Returning { phase: Return::Fencing, from }, Event::TargetFenced(fenced))
            if fenced.epoch() == standing.epoch =>
        {
            to(State::Returning { phase: Return::Starting, from })
        }
        (State::Returning { phase: Return::Starting, from }, Event::SourceRuns) => back(from),
        (State::CommitPending { kind, change: Change::Point, from }, Event::PointChanged) => {
            to(State::CommitPending { kind, change: Change::None, from })
        }
        (State::CommitPending { change: Change::Commit, .. }, Event::CommitDone) => {
            to(State::Committed)
        }
        (_, Event::TestGone) => {
            let cleaning = standing.tests.cleaning.checked_sub(1)?;
            Some(Standing { tests: Tests { cleaning, ..standing.tests }, ..*standing })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn play(events: &[Event]) -> Standing {
        events.iter().fold(Standing::enabling(), |standing, event| {
            match apply(&standing, event, &Replication::Steady, Route::SITES) {
                Ok(standing) => standing,
                Err(refusal) => panic!("{event:?} while {}: {}", refusal.state, refusal.reason),
            }
        })
    }

    fn there(epoch: u64) -> Vec<Event> {
        vec![
            Event::FirstPoint,
            Event::Asked(Operation::PlannedFailover),
            Event::EpochRaised,
            Event::SourceFenced(Fenced::Acknowledged(Epoch::new(epoch))),
            Event::SidesAgree,
            Event::TargetRuns,
        ]
    }

    fn stands(standing: &Standing) -> String {
        let Standing { source, epoch, state, .. } = standing;
        format!("{} from {source:?}, runs at {:?}, epoch {epoch}", state.name(), standing.active())
    }

    #[test]
    fn the_circle_comes_round_with_the_direction_turned_twice() {
        let settle = [
            Event::Asked(Operation::Commit),
            Event::CommitDone,
            Event::Asked(Operation::ReverseReplicate),
        ];
        let mut events = there(2);
        events.extend(settle.clone());
        assert_eq!(
            stands(&play(&events)),
            "in the first replication of the reverse direction from Away, runs at Away, epoch 2"
        );
        events.extend(there(3));
        events.extend(settle);
        events.push(Event::FirstPoint);
        assert_eq!(stands(&play(&events)), "protected from Home, runs at Home, epoch 3");
    }

    #[test]
    fn an_undo_raises_the_epoch_and_proves_that_the_target_is_fenced() {
        let mut events = there(2);
        events.push(Event::Asked(Operation::Undo));
        let returning = play(&events);
        assert_eq!(stands(&returning), "returning to its source from Home, runs at Home, epoch 3");
        let told = Side::BOTH.map(|side| returning.told(side).map(|known| known.ours));
        assert_eq!(told, [None, Some(false)]);
        let stale = Event::TargetFenced(Fenced::Acknowledged(Epoch::new(2)));
        apply(&returning, &stale, &Replication::Steady, Route::SITES).unwrap_err();
        events.push(Event::TargetFenced(Fenced::Acknowledged(Epoch::new(3))));
        events.push(Event::SourceRuns);
        assert_eq!(stands(&play(&events)), "protected from Home, runs at Home, epoch 3");
    }

    #[test]
    fn a_test_changes_neither_state_nor_epoch() {
        let test = [
            Event::FirstPoint,
            Event::Asked(Operation::TestFailover),
            Event::Asked(Operation::UnplannedFailover),
            Event::Asked(Operation::CompleteTest),
            Event::TestGone,
        ];
        let standing = play(&test);
        assert_eq!(stands(&standing), "failing over from Home, runs at Home, epoch 1");
        assert!(standing.tests.is_none());
    }
}
