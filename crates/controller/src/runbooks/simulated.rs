//! Every runbook, rehearsed against simulated hosts with everything going
//! wrong that can: each step failing, crashing, repeated and cancelled at each
//! of its awaits, each undo too. At no moment does the machine run twice.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use domain::failover::{
    Change, Epoch, Event, Kind, Origin, Return, Route, Side, Standing, State, apply,
};
use domain::id::{HostId, MachineUuid, ProtectionId};
use domain::policy::PointsAtCommit;
use domain::protection::Replication;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use jobs::drills::{Operator, Played, Rehearsal, play, rehearse};
use jobs::{Failure, Fault, JobId, Progress, Runbook, Ticket};
use time::OffsetDateTime;
use tokio::task::yield_now;
use uuid::Uuid;
use wire::command::{Answer, Downed, LifeSign, Purpose, Work};
use wire::replication::PointMark;

use super::order::{FormerHost, Order, TestOrder};
use super::{Host, NotGiven, Protected, World};
use crate::database::failover::Along;
use crate::runbooks::{change_point, commit, planned, reverse, test, undo, unplanned};

const RECOVERY: Uuid = Uuid::from_u128(100);
const FORMER: Uuid = Uuid::from_u128(200);

/// A machine that was made of a point.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Made {
    point: u32,
    test: bool,
    running: bool,
    alone: bool,
}

/// One host, as its agent has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct There {
    /// The highest epoch that it saw, and whether it is its own.
    known: (u64, bool),
    /// Whether the machine runs from the disks that it has there.
    original: bool,
    made: BTreeMap<Uuid, Made>,
    /// Whether its disks became a point, and whether that is held.
    adopted: Option<bool>,
    /// Points that it has lent, by the recovery, and to whom.
    lent: BTreeMap<Uuid, HostId>,
}

/// The third host, which is of the target's site.
const ELSEWHERE: usize = 2;

impl There {
    fn runs(&self) -> bool {
        self.original || self.made.values().any(|made| made.running && !made.test)
    }
}

#[derive(Debug, Clone)]
struct Scene {
    standing: Standing,
    recovery: Option<Uuid>,
    held: bool,
    unsent: bool,
    /// The job that was asked to reverse.
    reversal: Option<JobId>,
    /// The host on which the machine is made, if that is not the target's.
    compute: Option<HostId>,
    /// A host whose agent never answers; nothing runs there.
    gone: Option<HostId>,
    /// Home, away, and elsewhere.
    sides: [There; 3],
}

/// Hosts and what the controller has written down.
struct Simulation(Mutex<Scene>);

impl Simulation {
    fn of(scene: Scene) -> Arc<dyn World> {
        Arc::new(Self(Mutex::new(scene)))
    }

    fn scene(&self) -> MutexGuard<'_, Scene> {
        self.0.lock().unwrap()
    }
}

fn host(side: Side) -> Host {
    let (id, name) = match side {
        Side::Home => (1, "kvm1"),
        Side::Away => (2, "kvm2"),
    };
    Host { id: HostId::new(Uuid::from_u128(id)), name: name.into() }
}

fn elsewhere() -> Host {
    Host { id: HostId::new(Uuid::from_u128(3)), name: "kvm3".into() }
}

fn refused(cause: &str) -> NotGiven {
    NotGiven::Failed(Fault::new("LB9001", "act", cause, "Mend it."))
}

impl Scene {
    /// What an agent does.
    fn act(&mut self, at: usize, work: &Work) -> Result<Answer, NotGiven> {
        let is_lent =
            |id: &Uuid| self.sides[1].lent.get(id).is_some_and(|to| *to == elsewhere().id);
        match work {
            Work::Define(wish) if (at == ELSEWHERE) != wish.keeper.is_some() => {
                return Err(refused("it looks for the point at the wrong host"));
            }
            Work::Define(wish) if wish.keeper.is_some() && !is_lent(&wish.id) => {
                return Err(refused("the point was not lent"));
            }
            _ => {}
        }
        let there = &mut self.sides[at];
        let mut heed = |epoch: u64, ours: bool| {
            if epoch < there.known.0 || (epoch == there.known.0 && ours && !there.known.1) {
                return Err(refused("that epoch is over, or another's"));
            }
            there.known = (epoch, ours);
            Ok(())
        };
        Ok(match work {
            Work::ListPoints { .. } => Answer::Points { points: vec![point(6), point(7)] },
            Work::Synchronise { .. } => Answer::Point { point: point(8) },
            Work::ShutDown { .. } => {
                there.original = false;
                there.made.values_mut().filter(|made| !made.test).for_each(|m| m.running = false);
                Answer::Down { how: Downed::InOrder }
            }
            Work::Fence { epoch, .. } => {
                heed(*epoch, false)?;
                there.original = false;
                there.made.values_mut().filter(|made| !made.test).for_each(|m| m.running = false);
                Answer::Down { how: Downed::WasOff }
            }
            Work::Start { epoch, .. } => {
                heed(*epoch, true)?;
                there.original = true;
                Answer::Done
            }
            Work::Define(wish) => {
                let test = wish.purpose != Purpose::Production;
                let taken = there.made.iter().any(|(id, made)| *id != wish.id && !made.test);
                if taken && !test {
                    return Err(refused("its name is taken"));
                }
                let made = Made { point: wish.point, test, running: false, alone: false };
                there.made.entry(wish.id).or_insert(made);
                Answer::Defined { remarks: vec![] }
            }
            Work::StartRecovered { recovery, epoch } => {
                if let Some(epoch) = epoch {
                    heed(*epoch, true)?;
                }
                let made = there.made.get_mut(recovery).ok_or_else(|| refused("not defined"))?;
                made.running = true;
                Answer::Done
            }
            Work::AwaitLife { .. } => Answer::Alive { by: LifeSign::GuestAgent, after_ms: 4000 },
            Work::StopRecovered { recovery } => {
                there.made.get_mut(recovery).into_iter().for_each(|made| made.running = false);
                Answer::Down { how: Downed::Forced }
            }
            Work::Discard { recovery } => {
                there.made.remove(recovery);
                Answer::Done
            }
            Work::Hydrate { recovery, .. } => {
                there.made.get_mut(recovery).into_iter().for_each(|made| made.alone = true);
                Answer::Done
            }
            Work::AdoptDisks { lost, .. } => {
                there.adopted = Some(*lost);
                Answer::Point { point: point(9) }
            }
            Work::DropPoints { recovery } => {
                let alone = there.made.get(recovery).is_some_and(|made| made.alone);
                if !alone {
                    return Err(refused("its disks need a point"));
                }
                Answer::Dropped { dropped: 1, kept: 1 }
            }
            Work::Weigh { .. } => {
                Answer::Weight { bytes: 1, taken_bytes: 1, written_bytes: None, unusable: None }
            }
            Work::HoldPoint { point: number, .. } => Answer::Point { point: point(*number) },
            Work::Lend(loan) => {
                there.lent.insert(loan.recovery, loan.to);
                Answer::Done
            }
            Work::EndLoan { recovery, .. } => {
                there.lent.remove(recovery);
                Answer::Done
            }
        })
    }
}

fn point(number: u32) -> PointMark {
    let instant = OffsetDateTime::UNIX_EPOCH + time::Duration::seconds(number.into());
    PointMark { point: number, instant, app_consistent: false, stored_bytes: 1, hold: None }
}

impl World for Simulation {
    fn look(&self, _: ProtectionId, at: Option<HostId>) -> BoxFuture<'_, Result<Protected, Fault>> {
        async move {
            yield_now().await;
            let scene = self.scene();
            let target = host(scene.standing.target());
            let borrower = at.or(scene.compute).filter(|at| *at != target.id);
            let borrower = borrower.map(|id| Host { id, ..elsewhere() });
            Ok(Protected {
                machine: MachineUuid::new(Uuid::from_u128(7)),
                name: "web".into(),
                source: host(scene.standing.source),
                target: host(scene.standing.target()),
                target_address: Some("192.0.2.2:7444".into()),
                borrower,
                standing: scene.standing,
                recovery: scene.recovery,
                at_commit: (None, PointsAtCommit::Dropped),
                unsent: scene.unsent,
                ran: Some(true),
            })
        }
        .boxed()
    }

    fn happen<'a>(
        &'a self,
        _: ProtectionId,
        event: Event,
        along: Along,
        _: &'a str,
    ) -> BoxFuture<'a, Result<Standing, Failure>> {
        async move {
            yield_now().await;
            let after = {
                let mut scene = self.scene();
                let after = apply(&scene.standing, &event, &Replication::Steady, Route::SITES);
                let after = after.map_err(|refusal| {
                    let cause = format!("{event:?} while {}", refusal.state);
                    Failure::ForGood(Fault::new("LB4008", "go on", cause, refusal.advice))
                })?;
                scene.standing = after;
                match along {
                    Along::Nothing => {}
                    Along::Recovery(recovery) => scene.recovery = recovery,
                    Along::Compute(there) => {
                        scene.compute = Some(there).filter(|there| *there == elsewhere().id);
                    }
                    Along::Turn(_) => (scene.recovery, scene.held) = (None, true),
                }
                if after.state == State::Protected {
                    scene.compute = None;
                }
                after
            };
            yield_now().await;
            Ok(after)
        }
        .boxed()
    }

    fn let_go(&self, _: ProtectionId) -> BoxFuture<'_, Result<(), Fault>> {
        async move {
            yield_now().await;
            self.scene().held = false;
            yield_now().await;
            Ok(())
        }
        .boxed()
    }

    fn reverse<'a>(
        &'a self,
        _: &'a Order,
        job: JobId,
        _: JobId,
    ) -> BoxFuture<'a, Result<(), Fault>> {
        async move {
            yield_now().await;
            {
                let mut scene = self.scene();
                if scene.standing.state != State::Committed {
                    return Err(Fault::new("LB9001", "reverse", "it is not committed", "Wait."));
                }
                scene.reversal = Some(job);
            }
            yield_now().await;
            Ok(())
        }
        .boxed()
    }

    fn give<'a>(
        &'a self,
        to: &'a Host,
        _: &'a Ticket,
        work: Work,
        _: &'a (dyn Fn(Progress) + Send + Sync),
    ) -> BoxFuture<'a, Result<Answer, NotGiven>> {
        async move {
            yield_now().await;
            if self.scene().gone.as_ref() == Some(&to.id) {
                let cause = "it is gone";
                let fault = Fault::new("LB4006", "reach it", cause, "Bring it back.");
                return Err(NotGiven::NotConnected(fault));
            }
            let at = [host(Side::Home), host(Side::Away), elsewhere()];
            let at = at.iter().position(|known| known == to).expect("a known host");
            let answer = self.scene().act(at, &work)?;
            yield_now().await;
            Ok(answer)
        }
        .boxed()
    }
}

/// A runbook that is rehearsed from a scene.
struct Rehearsed<R> {
    runbook: fn() -> R,
    scene: Scene,
    order: Order,
    /// Whether a job that was given up where it stood is as it must be.
    forward: bool,
}

/// What is to be the same after a job that was disturbed: not the epoch, which
/// each way back raises.
type Seen = (State, Side, Option<Uuid>, bool, Option<JobId>, Option<HostId>, [SeenThere; 3]);

type SeenThere = (bool, BTreeMap<Uuid, Made>, Option<bool>, BTreeMap<Uuid, HostId>);

impl<R: Runbook<State = Order, World = dyn World>> Rehearsal for Rehearsed<R> {
    type Runbook = R;
    type Seen = Seen;

    fn runbook(&self) -> R {
        (self.runbook)()
    }

    fn world(&self) -> Arc<dyn World> {
        Simulation::of(self.scene.clone())
    }

    fn order(&self) -> Order {
        self.order.clone()
    }

    fn see(&self, world: &dyn World) -> Seen {
        let scene = seen(world);
        let sides = scene.sides.map(|there| (there.runs(), there.made, there.adopted, there.lent));
        let Standing { state, source, .. } = scene.standing;
        (state, source, scene.recovery, scene.held, scene.reversal, scene.compute, sides)
    }

    fn holds(&self, world: &dyn World) -> Result<(), String> {
        let scene = seen(world);
        if scene.sides.iter().filter(|there| there.runs()).count() > 1 {
            return Err(format!("the machine runs twice: {:?}", scene.sides));
        }
        if scene.sides.iter().any(|there| there.adopted.is_some_and(|held| held != scene.unsent)) {
            return Err(format!("what a lost side has is not held: {:?}", scene.sides));
        }
        Ok(())
    }

    fn judge(&self, played: &Played<Seen>, done: &Seen) -> Result<(), String> {
        use jobs::End;
        let wanted = match &played.end {
            End::Succeeded => done,
            // What was left out is best effort; the machine is where it shall be.
            End::SucceededWithWarnings => {
                return match played.after.0 == done.0 {
                    true => Ok(()),
                    false => Err(format!("it stands as {:?}", played.after.0)),
                };
            }
            End::FailedAndUndone { .. } | End::CancelledAndUndone => &played.before,
            End::Abandoned { .. } if self.forward => return Ok(()),
            End::Abandoned { .. } => return Err("it was abandoned".into()),
        };
        if played.after == *wanted {
            return Ok(());
        }
        Err(format!("left:   {:?}\nwanted: {wanted:?}", played.after))
    }
}

fn seen(world: &dyn World) -> Scene {
    let world: &dyn Any = world;
    world.downcast_ref::<Simulation>().expect("the only world here").scene().clone()
}

fn order() -> Order {
    Order::new(Uuid::from_u128(1), "admin".into(), RECOVERY)
}

fn protected() -> Scene {
    let standing = Standing { state: State::Protected, ..Standing::enabling() };
    let home = There { known: (1, true), original: true, ..There::default() };
    let away = There { known: (1, false), ..There::default() };
    Scene {
        standing,
        recovery: None,
        held: false,
        unsent: false,
        reversal: None,
        compute: None,
        gone: None,
        sides: [home, away, There::default()],
    }
}

/// Runs at the target, and waits to be committed.
fn failed_over() -> Scene {
    let state =
        State::CommitPending { kind: Kind::Planned, change: Change::None, from: Origin::Protected };
    let standing = Standing { state, epoch: Epoch::new(2), ..Standing::enabling() };
    let made = Made { point: 6, test: false, running: true, alone: false };
    let home = There { known: (2, false), ..There::default() };
    let away =
        There { known: (2, true), made: BTreeMap::from([(FORMER, made)]), ..There::default() };
    Scene {
        standing,
        recovery: Some(FORMER),
        held: false,
        unsent: false,
        reversal: None,
        compute: None,
        gone: None,
        sides: [home, away, There::default()],
    }
}

fn passes<R: Runbook<State = Order, World = dyn World>>(
    runbook: fn() -> R,
    scene: Scene,
    order: Order,
    forward: bool,
) {
    match rehearse(Rehearsed { runbook, scene, order, forward }) {
        Ok(report) => println!("{}: {report:?}", R::NAME),
        Err(broken) => panic!("{broken}"),
    }
}

#[test]
fn a_test_failover_leaves_nothing_behind() {
    let name = "web-test".into();
    let until = OffsetDateTime::UNIX_EPOCH + time::Duration::days(14);
    let test = Some(TestOrder { name, uuid: Uuid::from_u128(9), until });
    passes(|| test::TestFailover, protected(), Order { test, ..order() }, false);
}

#[test]
fn a_planned_failover_never_runs_twice_and_can_always_be_taken_back() {
    let order = Order { shut_down_seconds: Some(300), ..order() };
    passes(|| planned::PlannedFailover, protected(), order, false);
}

#[test]
fn an_unplanned_failover_never_runs_twice_and_can_always_be_taken_back() {
    passes(|| unplanned::UnplannedFailover, protected(), order(), false);
}

#[test]
fn at_another_host_than_its_points_it_is_as_at_theirs() {
    let at = Some(elsewhere().id.uuid());
    let until = OffsetDateTime::UNIX_EPOCH + time::Duration::days(14);
    let test = Some(TestOrder { name: "web-test".into(), uuid: Uuid::from_u128(9), until });
    passes(|| test::TestFailover, protected(), Order { test, at, ..order() }, false);
    let planned = Order { shut_down_seconds: Some(300), at, ..order() };
    passes(|| planned::PlannedFailover, protected(), planned, false);
    passes(|| unplanned::UnplannedFailover, protected(), Order { at, ..order() }, false);
    passes(|| change_point::ChangePoint, failed_over_elsewhere(), order(), true);
    passes(|| commit::Commit, failed_over_elsewhere(), order(), true);
    passes(|| undo::UndoFailover, failed_over_elsewhere(), order(), true);
}

/// It burns down while the machine runs there: with nobody to ask, somebody vouches.
#[test]
fn a_host_elsewhere_that_is_gone_leaves_a_way_home_and_a_way_on() {
    let burnt = |mut scene: Scene| {
        scene.gone = Some(elsewhere().id);
        scene.sides[ELSEWHERE] = There::default();
        scene
    };
    let runbook = || undo::UndoFailover;
    let scene = burnt(failed_over_elsewhere());
    let rehearsed = Arc::new(Rehearsed { runbook, scene, order: order(), forward: false });
    let played = play(&rehearsed, Vec::new(), Operator::default()).unwrap();
    assert_eq!(played.end, jobs::End::SucceededWithWarnings);
    let (state, _, recovery, .., compute, [home, ..]) = played.after;
    assert_eq!((state, recovery, compute, home.0), (State::Protected, None, None, true));

    // The source is lost as well, and the job that returned it was abandoned.
    for phase in [Return::Fencing, Return::Starting] {
        let mut scene = burnt(failed_over_elsewhere());
        scene.standing.state = State::Returning { phase, from: Origin::Protected };
        scene.standing.epoch = Epoch::new(3);
        let at = Some(host(Side::Away).id.uuid());
        let Host { id, name } = elsewhere();
        let former_at = Some(FormerHost { id: id.uuid(), name });
        let order = Order { vouched: true, at, former_at, ..order() };
        let runbook = || unplanned::UnplannedFailover;
        let rehearsed = Arc::new(Rehearsed { runbook, scene, order, forward: false });
        let played = play(&rehearsed, Vec::new(), Operator::default()).unwrap();
        assert_eq!(played.end, jobs::End::SucceededWithWarnings, "{phase:?}");
        let (state, _, recovery, .., compute, [home, away, _]) = played.after;
        assert!(matches!(state, State::CommitPending { .. }), "{state:?}");
        assert_eq!((recovery, compute), (Some(RECOVERY), None));
        assert_eq!((home.0, away.0, away.3.len()), (false, true, 0));
    }
}

/// Runs at another host than its points are at, and waits to be committed.
fn failed_over_elsewhere() -> Scene {
    let mut scene = failed_over();
    scene.sides.swap(1, ELSEWHERE);
    scene.sides[1].known = (1, false);
    scene.sides[1].lent.insert(FORMER, elsewhere().id);
    scene.compute = Some(elsewhere().id);
    scene
}

/// The source was lost while the machine returned to it, and the job was abandoned:
/// before the target was fenced, or after.
fn returning(phase: Return) -> Scene {
    let mut scene = failed_over();
    scene.standing.state = State::Returning { phase, from: Origin::Protected };
    scene.standing.epoch = Epoch::new(3);
    if phase == Return::Starting {
        scene.sides[1].known = (3, false);
        scene.sides[1].made.get_mut(&FORMER).into_iter().for_each(|made| made.running = false);
    }
    scene
}

#[test]
fn a_return_that_lost_its_source_is_given_up_with_what_the_target_wrote_or_from_a_point() {
    for phase in [Return::Fencing, Return::Starting] {
        let with_it = Order { recovery: FORMER, vouched: true, ..order() };
        goes_to_target(returning(phase), with_it, FORMER);
        let from_a_point = Order { vouched: true, ..order() };
        goes_to_target(returning(phase), from_a_point.clone(), RECOVERY);
        // One that fails has ended the return: the machine is its source's.
        let nowhere = Order { point: super::order::PointWish::Number(99), ..from_a_point };
        let runbook = || unplanned::UnplannedFailover;
        let scene = returning(phase);
        let rehearsed = Arc::new(Rehearsed { runbook, scene, order: nowhere, forward: false });
        let played = play(&rehearsed, Vec::new(), Operator::default()).unwrap();
        assert!(matches!(played.end, jobs::End::FailedAndUndone { .. }), "{:?}", played.end);
        let (state, _, recovery, .., [home, away, _]) = played.after;
        assert_eq!((state, recovery), (State::Protected, None));
        assert_eq!((home.0, away.0, away.1.len()), (true, false, 0));
    }
}

/// Plays an unplanned failover once, without disturbance.
fn goes_to_target(scene: Scene, order: Order, wanted: Uuid) {
    let runbook = || unplanned::UnplannedFailover;
    let rehearsed = Arc::new(Rehearsed { runbook, scene, order, forward: false });
    let played = play(&rehearsed, Vec::new(), Operator::default()).unwrap();
    assert_eq!((played.end, played.broken), (jobs::End::Succeeded, None));
    let (state, _, recovery, .., [home, away, _]) = played.after;
    assert!(matches!(state, State::CommitPending { .. }), "{state:?}");
    assert_eq!(recovery, Some(wanted));
    assert_eq!((home.0, away.0), (false, true));
    assert_eq!(away.1.into_keys().collect::<Vec<_>>(), [wanted]);
}

#[test]
fn an_unplanned_failover_may_try_to_save_the_last_data() {
    let order = Order { shut_down_seconds: Some(60), ..order() };
    passes(|| unplanned::UnplannedFailover, protected(), order, false);
}

#[test]
fn a_change_of_point_ends_with_the_machine_at_the_target() {
    passes(|| change_point::ChangePoint, failed_over(), order(), true);
}

#[test]
fn a_commit_makes_the_disks_stand_for_themselves_and_may_ask_for_the_reversal() {
    for reversal in [None, Some(Uuid::from_u128(11))] {
        passes(|| commit::Commit, failed_over(), Order { reversal, ..order() }, true);
    }
}

#[test]
fn an_undo_ends_with_the_machine_at_its_source() {
    passes(|| undo::UndoFailover, failed_over(), order(), true);
}

#[test]
fn a_reversal_turns_the_direction_and_holds_what_a_lost_side_had() {
    for unsent in [false, true] {
        let mut scene = Scene { unsent, ..failed_over() };
        scene.standing.state = State::Committed;
        passes(|| reverse::ReverseReplicate, scene.clone(), order(), true);
        // To another host: nothing there can be used.
        let elsewhere = Order { to: Some(Uuid::from_u128(3)), ..order() };
        passes(|| reverse::ReverseReplicate, scene, elsewhere, true);
    }
}
