//! What an operator may do to a protected machine, and if not, why.

use crate::failover::route::Route;
use crate::failover::standing::{Change, Phase, Standing, State};
use crate::protection::Replication;
use crate::site::SiteKind;

/// So many tests of one machine may be open at once.
const TESTS_MAX: u32 = 16;

/// What an operator may do to a protected machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// Start a copy beside production, from a point.
    TestFailover,
    /// End a test and take its copy away.
    CompleteTest,
    /// Bring it to the other side without loss.
    PlannedFailover,
    /// Start it at the other side from what has arrived.
    UnplannedFailover,
    /// Go on with a failover that is synchronised.
    CompleteFailover,
    /// Take a failover back that has not ended.
    Cancel,
    /// Start it at the target from another point.
    ChangePoint,
    /// Return to the source side, and drop what the target wrote.
    Undo,
    /// Make the failover final.
    Commit,
    /// Replicate to the side where it ran before.
    ReverseReplicate,
    /// Take no more points until it is resumed.
    Pause,
    /// Go on.
    Resume,
    /// Compare with the target, and send what differs.
    Resynchronise,
    /// Change its policy, networks or disks.
    ChangeSettings,
    /// End the protection.
    Disable,
}

impl Operation {
    /// All operations, in the order in which they are offered.
    pub const ALL: [Self; 15] = [
        Self::TestFailover,
        Self::CompleteTest,
        Self::PlannedFailover,
        Self::UnplannedFailover,
        Self::CompleteFailover,
        Self::Cancel,
        Self::ChangePoint,
        Self::Undo,
        Self::Commit,
        Self::ReverseReplicate,
        Self::Pause,
        Self::Resume,
        Self::Resynchronise,
        Self::ChangeSettings,
        Self::Disable,
    ];
}

/// Why an operation is not allowed now, and what to do instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The state, as it follows *the machine is*.
    pub state: &'static str,
    /// Why that forbids the operation.
    pub reason: &'static str,
    /// What to do instead.
    pub advice: &'static str,
}

/// An operation, and whether it is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// The operation.
    pub operation: Operation,
    /// Whether it is allowed, and if not, why.
    pub answer: Result<(), Refusal>,
}

/// All operations, each with whether it is allowed now.
#[must_use]
pub fn allowed(standing: &Standing, replication: &Replication, route: Route) -> Vec<Answer> {
    let answer = |operation| permit(operation, standing, replication, route);
    Operation::ALL
        .into_iter()
        .map(|operation| Answer { operation, answer: answer(operation) })
        .collect()
}

/// Whether an operation is allowed now. `route` is that of the direction in which
/// the machine is, or was last, replicated.
///
/// # Errors
/// The state, the reason why not, and what to do instead.
pub fn permit(
    operation: Operation,
    standing: &Standing,
    replication: &Replication,
    route: Route,
) -> Result<(), Refusal> {
    let allowed = match operation {
        Operation::TestFailover => test(standing, route),
        Operation::CompleteTest if standing.tests.running > 0 => Ok(()),
        Operation::CompleteTest => Err(("no test is running", "Nothing is left to do.")),
        Operation::PlannedFailover => planned(standing, replication, route),
        Operation::UnplannedFailover => unplanned(standing, route),
        Operation::CompleteFailover => match standing.state {
            State::AwaitingCompletion { .. } => Ok(()),
            State::FailingOver { phase: Phase::BeforeFence, .. } => {
                Err(("it is not synchronised yet", "Watch the job until it waits for you."))
            }
            _ => Err(("no failover waits to be completed", "Order a planned failover.")),
        },
        Operation::Cancel => cancel(standing),
        Operation::ChangePoint | Operation::Undo | Operation::Commit => {
            after_failover(operation, standing)
        }
        Operation::ReverseReplicate => reverse(standing, route),
        Operation::Pause | Operation::Resume | Operation::Resynchronise => {
            replicating(operation, standing, replication)
        }
        Operation::ChangeSettings => match standing.state {
            State::FailingOver { .. }
            | State::AwaitingCompletion { .. }
            | State::Returning { .. } => {
                Err(("the failover works with the settings that it began with", WATCH))
            }
            State::Disabling { .. } => Err(DISABLING),
            _ => Ok(()),
        },
        Operation::Disable => disable(standing),
    };
    let state = standing.state.name();
    allowed.map_err(|(reason, advice)| Refusal { state, reason, advice })
}

type Permitted = Result<(), (&'static str, &'static str)>;

const WATCH: &str = "Watch the job until it has ended, or cancel it.";
const WATCH_ONLY: &str = "Watch the job until it has ended.";
const RETURNING: &str =
    "Watch the job until it has ended; if the source is lost meanwhile, use an unplanned failover.";
const COMMIT_OR_UNDO: &str = "Commit the failover, or undo it.";
const DISABLING: (&str, &str) =
    ("its protection is ending", "Protect the machine again once it is gone.");
const NO_POINT: (&str, &str) = (
    "there is no recovery point yet",
    "Wait for the first recovery point; its health says what is in the way.",
);
const NOT_PROTECTED: (&str, &str) = (
    "nothing is replicated since its failover was committed",
    "Reverse replicate, and wait for the first recovery point.",
);
const POINTS_BACK: (&str, &str) = (
    "there is no recovery point in this direction yet",
    "Wait for the first recovery point of the reverse direction.",
);

/// What every operation that begins from a point asks of the state.
fn has_point(standing: &Standing) -> Permitted {
    match standing.state {
        State::Protected => Ok(()),
        State::Enabling | State::InitialReplication => Err(NO_POINT),
        State::Returning { .. } => Err(("it is being taken back", RETURNING)),
        State::CommitPending { change: Change::Commit, .. } => {
            Err(("another operation is under way", WATCH_ONLY))
        }
        State::FailingOver { .. } => Err(("a failover is under way", WATCH)),
        State::AwaitingCompletion { .. } => {
            Err(("a failover waits to be completed", "Complete the failover, or cancel it."))
        }
        State::CommitPending { change: Change::Point, .. } => {
            Err(("another point is being made ready", WATCH_ONLY))
        }
        State::CommitPending { .. } => Err(("it has failed over already", COMMIT_OR_UNDO)),
        State::Committed => Err(NOT_PROTECTED),
        State::ReverseReplicating => Err(POINTS_BACK),
        State::Disabling { .. } => Err(DISABLING),
    }
}

fn test(standing: &Standing, route: Route) -> Permitted {
    route.supports(Operation::TestFailover)?;
    has_point(standing)?;
    if standing.tests.running + standing.tests.cleaning >= TESTS_MAX {
        return Err(("too many of its tests are open", "Complete one of them."));
    }
    Ok(())
}

fn planned(standing: &Standing, replication: &Replication, route: Route) -> Permitted {
    if standing.state == State::Committed && route.target == SiteKind::CloudProvider {
        return route.reversed().supports(Operation::PlannedFailover);
    }
    route.supports(Operation::PlannedFailover)?;
    has_point(standing)?;
    if standing.tests.running > 0 {
        return Err(("a test is running", "Complete the test first."));
    }
    if standing.tests.cleaning > 0 {
        return Err(("a test is being cleaned up", WATCH_ONLY));
    }
    match replication {
        Replication::Steady => Ok(()),
        Replication::Paused => Err(("its replication is paused", "Resume it first.")),
        Replication::Resynchronising(_) => Err((
            "its replication is resynchronising, and nothing may be lost",
            "Wait until that is done; if the source is lost, use an unplanned failover.",
        )),
        Replication::Waiting
        | Replication::Initial
        | Replication::Exporting(_)
        | Replication::Carried(_)
        | Replication::Broken { .. } => Err((
            "its replication is not healthy, and nothing may be lost",
            "Mend what its health tells; if the source is lost, use an unplanned failover.",
        )),
    }
}

fn unplanned(standing: &Standing, route: Route) -> Permitted {
    // The source was lost on the way back to it; the target ran, or could have.
    if let State::Returning { .. } = standing.state {
        return Ok(());
    }
    route.supports(Operation::UnplannedFailover)?;
    has_point(standing)
}

fn cancel(standing: &Standing) -> Permitted {
    match standing.state {
        State::Returning { .. } => Err(("it is being taken back already", RETURNING)),
        State::FailingOver { .. } | State::AwaitingCompletion { .. } => Ok(()),
        State::CommitPending { change: Change::Commit, .. } => {
            Err(("a commit has no way back", WATCH_ONLY))
        }
        State::CommitPending { change: Change::Point, .. } => Err((
            "the point that it ran from is dropped already",
            "Watch the job; then choose another point again, or undo the failover.",
        )),
        State::CommitPending { .. } => {
            Err(("its failover is done", "Undo it to return to the source side."))
        }
        _ => Err(("no failover is under way", "Nothing is left to do.")),
    }
}

fn after_failover(operation: Operation, standing: &Standing) -> Permitted {
    match standing.state {
        State::CommitPending { change: Change::None, .. } => {
            if operation == Operation::Commit && !standing.tests.is_none() {
                return Err((
                    "one of its tests still stands on a point",
                    "Complete the test first.",
                ));
            }
            Ok(())
        }
        State::CommitPending { .. } => Err(("another operation is under way", WATCH_ONLY)),
        State::Returning { .. } => Err(("it is being taken back", RETURNING)),
        State::Committed | State::ReverseReplicating => Err((
            "its failover is committed already",
            "Reverse replicate, then fail over in the reverse direction to return.",
        )),
        State::FailingOver { .. } => Err(("the failover has not ended", WATCH)),
        State::AwaitingCompletion { .. } => {
            Err(("the failover waits to be completed", "Complete the failover, or cancel it."))
        }
        State::Disabling { .. } => Err(DISABLING),
        State::Enabling | State::InitialReplication | State::Protected => {
            Err(("it has not failed over", "Order a failover first."))
        }
    }
}

fn reverse(standing: &Standing, route: Route) -> Permitted {
    match standing.state {
        State::Committed => route.supports(Operation::ReverseReplicate),
        State::CommitPending { change: Change::None, .. } => {
            Err(("its failover is not committed", COMMIT_OR_UNDO))
        }
        State::CommitPending { .. } => Err(("another operation is under way", WATCH_ONLY)),
        State::Returning { .. } => Err(("it is being taken back", RETURNING)),
        State::ReverseReplicating => {
            Err(("it is replicated in the reverse direction already", WATCH_ONLY))
        }
        State::Disabling { .. } => Err(DISABLING),
        _ => Err((
            "it has not failed over",
            "Order a failover and commit it; the direction is turned after that.",
        )),
    }
}

fn replicating(operation: Operation, standing: &Standing, replication: &Replication) -> Permitted {
    let paused = *replication == Replication::Paused;
    match (standing.state, operation) {
        (State::Committed | State::CommitPending { .. }, _) => {
            Err(("nothing is replicated after a failover", "Commit it, then reverse replicate."))
        }
        (State::Returning { .. }, _) => Err(("it is being taken back", RETURNING)),
        (State::FailingOver { .. } | State::AwaitingCompletion { .. }, _) => {
            Err(("the failover says what is replicated", WATCH))
        }
        (State::Disabling { .. }, _) => Err(DISABLING),
        (_, Operation::Resume) if !paused => Err((
            "it is not paused",
            "Nothing is left to do; if no points arrive, its health says why.",
        )),
        (_, Operation::Resume) => Ok(()),
        (_, _) if paused => Err(("it is paused", "Resume it first.")),
        (State::Protected, _) | (_, Operation::Pause) => Ok(()),
        (State::ReverseReplicating, _) => Err(POINTS_BACK),
        (_, _) => Err(NO_POINT),
    }
}

fn disable(standing: &Standing) -> Permitted {
    match standing.state {
        State::FailingOver { .. } | State::AwaitingCompletion { .. } => {
            Err(("a failover is under way", WATCH))
        }
        State::Returning { .. } => Err(("it is being taken back", RETURNING)),
        State::CommitPending { change: Change::None, .. } => Err((
            "two sides have its disks, and which of them count is not decided",
            COMMIT_OR_UNDO,
        )),
        State::CommitPending { .. } => Err(("another operation is under way", WATCH_ONLY)),
        State::Disabling { .. } => Err(("its protection is ending already", WATCH_ONLY)),
        _ if standing.tests.running > 0 => Err(("a test is running", "Complete the test first.")),
        _ if standing.tests.cleaning > 0 => Err(("a test is being cleaned up", WATCH_ONLY)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failover::standing::{Kind, Origin, Return, Side, Tests};

    const FROM: Origin = Origin::Protected;

    fn offered(state: State, tests: Tests, replication: &Replication, route: Route) -> String {
        let standing = Standing { state, tests, ..Standing::enabling() };
        let allowed = allowed(&standing, replication, route);
        for Answer { operation, answer } in &allowed {
            if let Err(refusal) = answer {
                let texts = [refusal.state, refusal.reason, refusal.advice];
                assert!(texts.iter().all(|text| !text.is_empty()), "{operation:?} in {state:?}");
            }
        }
        let allowed = allowed.iter().filter(|answer| answer.answer.is_ok());
        allowed.map(|answer| format!("{:?}", answer.operation)).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn each_state_offers_what_the_specification_says() {
        let failing = |phase| State::FailingOver { kind: Kind::Planned, phase, from: FROM };
        let pending = |change| State::CommitPending { kind: Kind::Unplanned, change, from: FROM };
        let steady = |state| offered(state, Tests::default(), &Replication::Steady, Route::SITES);
        let table = [
            (State::Enabling, "Pause ChangeSettings Disable"),
            (State::InitialReplication, "Pause ChangeSettings Disable"),
            (
                State::Protected,
                "TestFailover PlannedFailover UnplannedFailover Pause Resynchronise ChangeSettings Disable",
            ),
            (failing(Phase::BeforeFence), "Cancel"),
            (failing(Phase::Fencing), "Cancel"),
            (failing(Phase::LastSync), "Cancel"),
            (failing(Phase::Starting), "Cancel"),
            (State::Returning { phase: Return::Fencing, from: FROM }, "UnplannedFailover"),
            (State::Returning { phase: Return::Starting, from: FROM }, "UnplannedFailover"),
            (State::AwaitingCompletion { from: FROM }, "CompleteFailover Cancel"),
            (pending(Change::None), "ChangePoint Undo Commit ChangeSettings"),
            (pending(Change::Point), "ChangeSettings"),
            (pending(Change::Commit), "ChangeSettings"),
            (State::Committed, "ReverseReplicate ChangeSettings Disable"),
            (State::ReverseReplicating, "Pause ChangeSettings Disable"),
            (State::Disabling { active: Side::Home }, ""),
        ];
        for (state, expected) in table {
            assert_eq!(steady(state), expected, "{state:?}");
        }
    }

    #[test]
    fn a_disaster_does_not_wait_for_a_drill_nor_for_replication() {
        let running = Tests { running: 1, cleaning: 0 };
        let broken = Replication::Broken { trouble: crate::protection::tests::trouble("a cut") };
        let offers = offered(State::Protected, running, &broken, Route::SITES);
        assert_eq!(
            offers,
            "TestFailover CompleteTest UnplannedFailover Pause Resynchronise ChangeSettings"
        );
    }

    #[test]
    fn from_a_cloud_provider_a_committed_machine_goes_straight_back() {
        let there = Route { source: SiteKind::Managed, target: SiteKind::CloudProvider };
        let offers = offered(State::Committed, Tests::default(), &Replication::Waiting, there);
        assert_eq!(offers, "PlannedFailover ChangeSettings Disable");
    }

    #[test]
    fn a_refusal_names_state_reason_and_advice() {
        let standing = Standing { state: State::Committed, ..Standing::enabling() };
        let refusal =
            permit(Operation::TestFailover, &standing, &Replication::Waiting, Route::SITES);
        let Refusal { state, reason, advice } = refusal.unwrap_err();
        assert_eq!(
            format!("The machine is {state}: {reason}. {advice}"),
            "The machine is committed and not protected: nothing is replicated since its \
             failover was committed. Reverse replicate, and wait for the first recovery point."
        );
    }
}
