//! Steps that several operations have. Each looks at how things stand first, so
//! that it may run again.

use std::time::Duration;

use domain::failover::{Event, Fenced, Kind, Operation, Phase, Return, Standing, State};
use domain::fault::Code;
use domain::id::HostId;
use jobs::{
    Context, Failure, Fault, OnFailure, Outcome, Resumer, Retry, Runbook, Step, Table, Undo, Wait,
};
use uuid::Uuid;
use wire::command::{Answer, Lender, Loan, Purpose, Recovery, Work};
use wire::replication::PointMark;

use super::order::{Alive, Chosen, FormerHost, Order, PointWish};
use super::{Host, NotGiven, Protected, World};
use crate::database::failover::Along;

/// The rows by which every operation makes a machine of the chosen point, and has
/// it run at the target.
pub fn run_at_target<R: OfMachine>(table: Table<R>) -> Table<R> {
    table
        .step(Define)
        .undone_by(Discard)
        .step(Start)
        .undone_by(Stop)
        .step(AwaitLife)
        .never_undone("looking changes nothing")
        .retry(LOOKING)
        .on_failure(OnFailure::GoOn)
}

/// The row that ends a failover.
pub fn await_commit<R: OfMachine>(table: Table<R>) -> Table<R> {
    table
        .step(AwaitCommit)
        .never_undone("it is undone by an operation of its own")
        .no_return("it runs at the target; undo the failover instead")
}

/// An agent that goes away while it looks for a sign of life is waited for.
pub(super) const LOOKING: Retry = Retry::times(8, Duration::from_secs(1), Duration::from_secs(15));

/// What a sign of life may take, in seconds.
const LIFE_SECONDS: u32 = 300;

/// A runbook about one machine.
pub trait OfMachine: Runbook<State = Order, World = dyn World> {}

impl<R: Runbook<State = Order, World = dyn World>> OfMachine for R {}

type Cx = Context<dyn World>;

/// Has an agent do something, and tells how far it is.
pub(super) async fn give(cx: &Cx, host: &Host, work: Work) -> Result<Answer, NotGiven> {
    let report = |progress| cx.report(progress);
    tokio::select! {
        answer = cx.world().give(host, cx.ticket(), work, &report) => answer,
        () = cx.stopping().cancelled() => Err(NotGiven::Failed(Fault::new(
            Code::Interrupted.as_str(),
            format!("wait for host {}", host.name),
            "the job is to stop",
            "What was begun there is taken back.",
        ))),
    }
}

pub(super) async fn look(order: &Order, cx: &Cx) -> Result<Protected, Failure> {
    let mut machine = cx.world().look(order.protection(), order.at()).await?;
    if order.test.is_some() && order.at.is_none() {
        // A failover elsewhere, which may come meanwhile, moves no test.
        machine.borrower = None;
    }
    Ok(machine)
}

pub(super) async fn happen(order: &Order, cx: &Cx, event: Event) -> Result<Standing, Failure> {
    happen_along(order, cx, event, Along::Nothing).await
}

pub(super) async fn happen_along(
    order: &Order,
    cx: &Cx,
    event: Event,
    along: Along,
) -> Result<Standing, Failure> {
    cx.world().happen(order.protection(), event, along, &order.by).await
}

/// An agent that answers something else is of another version.
pub(super) fn nonsense(host: &Host, answer: &Answer) -> Failure {
    Failure::ForGood(Fault::new(
        Code::ProtocolViolated.as_str(),
        format!("understand host {}", host.name),
        format!("it answered {answer:?}"),
        "Check that the agent is a released version of Lifeboat.",
    ))
}

/// The operation is taken up; nothing has changed but that.
pub struct Begin(pub Operation);

impl<R: OfMachine> Step<R> for Begin {
    const NAME: &'static str = "begin";

    async fn run(&self, order: &mut Order, cx: &Cx) -> Result<Outcome, Failure> {
        let machine = look(order, cx).await?;
        // A machine that nobody has seen is better started in vain.
        order.ran = machine.ran.unwrap_or(true);
        order.former = machine.recovery;
        if !is_under_way(self.0, machine.standing.state) {
            let along = match order.at() {
                Some(host) if order.test.is_none() => Along::Compute(host),
                _ => Along::Nothing,
            };
            happen_along(order, cx, Event::Asked(self.0), along).await?;
        }
        Ok(Outcome::Done)
    }
}

/// Whether the operation was taken up already: the job alone may do that.
fn is_under_way(operation: Operation, state: State) -> bool {
    use domain::failover::Change;
    match operation {
        Operation::PlannedFailover => {
            matches!(state, State::FailingOver { kind: Kind::Planned, .. })
        }
        Operation::UnplannedFailover => {
            matches!(state, State::FailingOver { kind: Kind::Unplanned, .. })
        }
        Operation::ChangePoint => {
            matches!(state, State::CommitPending { change: Change::Point, .. })
        }
        Operation::Commit => matches!(state, State::CommitPending { change: Change::Commit, .. }),
        Operation::Undo => matches!(state, State::Returning { .. }),
        Operation::ReverseReplicate => state == State::ReverseReplicating,
        _ => false,
    }
}

/// The machine runs at the source again, protected as before.
pub struct RunAtSource;

impl<R: OfMachine> Undo<R> for RunAtSource {
    const NAME: &'static str = "run-at-source";

    async fn undo(&self, order: &mut Order, cx: &Cx) -> Result<(), Failure> {
        // A failover that followed on a return was past its fence from the beginning.
        hand_epoch_back(order, cx).await?;
        let machine = look(order, cx).await?;
        let epoch = machine.standing.epoch.number();
        let start = Work::Start { machine: machine.machine, epoch };
        let is_unplanned =
            matches!(machine.standing.state, State::FailingOver { kind: Kind::Unplanned, .. });
        match machine.standing.state {
            State::FailingOver { phase: Phase::BeforeFence, .. }
            | State::AwaitingCompletion { .. } => {
                // It was the source's all the time; it may have been shut down.
                if order.ran && order.shut_down_seconds.is_some() {
                    match give(cx, &machine.source, start).await {
                        Ok(_) => {}
                        // The site may be gone; then nothing can be done there.
                        Err(NotGiven::NotConnected(fault)) if is_unplanned => {
                            cx.warn(format!("{} Whether it runs is not known.", fault.cause));
                        }
                        Err(failed) => return Err(failed.into()),
                    }
                }
                happen(order, cx, Event::TakingBack).await?;
            }
            State::Returning { phase: Return::Starting, .. } => {
                if order.ran {
                    give(cx, &machine.source, start).await?;
                }
                // What a return was to drop.
                if let Some(recovery) = machine.recovery {
                    discard(cx, &machine, recovery).await?;
                }
                happen_along(order, cx, Event::SourceRuns, Along::Recovery(None)).await?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// A point is chosen.
pub struct ChoosePoint;

impl<R: OfMachine> Step<R> for ChoosePoint {
    const NAME: &'static str = "choose-point";

    async fn run(&self, order: &mut Order, cx: &Cx) -> Result<Outcome, Failure> {
        if order.goes_on_with_former() {
            return Ok(Outcome::Done);
        }
        let machine = look(order, cx).await?;
        let work = Work::ListPoints { protection: order.protection() };
        let points = match give(cx, &machine.target, work).await? {
            Answer::Points { points } => points,
            other => return Err(nonsense(&machine.target, &other)),
        };
        let chosen = choose(&points, order.point).ok_or_else(|| {
            Failure::ForGood(Fault::new(
                Code::PointUnknown.as_str(),
                format!("choose a recovery point of machine {}", machine.name),
                match order.point {
                    PointWish::Latest => "there is none".to_owned(),
                    PointWish::LatestApp => "none is app-consistent".to_owned(),
                    PointWish::Number(number) => format!("there is no point {number}"),
                },
                format!("Choose another: lifeboat point list {}", machine.name),
            ))
        })?;
        order.chosen = Some(Chosen { point: chosen.point, instant: chosen.instant });
        Ok(Outcome::Done)
    }
}

fn choose(points: &[PointMark], wish: PointWish) -> Option<PointMark> {
    let mut newest_first = points.iter().rev().copied();
    match wish {
        PointWish::Latest => newest_first.next(),
        PointWish::LatestApp => newest_first.find(|point| point.app_consistent),
        PointWish::Number(number) => newest_first.find(|point| point.point == number),
    }
}

/// The source is shut down in order.
pub struct ShutDownSource;

impl<R: OfMachine> Step<R> for ShutDownSource {
    const NAME: &'static str = "shut-down-source";

    async fn run(&self, order: &mut Order, cx: &Cx) -> Result<Outcome, Failure> {
        let Some(within_seconds) = order.shut_down_seconds else { return Ok(Outcome::Done) };
        let machine = look(order, cx).await?;
        let force = order.force;
        let work = Work::ShutDown { machine: machine.machine, within_seconds, force };
        match give(cx, &machine.source, work).await {
            Ok(_) => Ok(Outcome::Done),
            // A guest that did not go in its time would not go in another.
            Err(NotGiven::Failed(fault)) => Err(Failure::ForGood(fault)),
            Err(away) => Err(away.into()),
        }
    }
}

/// The epoch is the target's from now on.
pub struct RaiseEpoch;

impl<R: OfMachine> Step<R> for RaiseEpoch {
    const NAME: &'static str = "raise-epoch";

    async fn run(&self, order: &mut Order, cx: &Cx) -> Result<Outcome, Failure> {
        let machine = look(order, cx).await?;
        if let State::FailingOver { phase: Phase::BeforeFence, .. } = machine.standing.state {
            happen(order, cx, Event::EpochRaised).await?;
        }
        Ok(Outcome::Done)
    }
}

/// The epoch is the source's again, and the target knows.
pub struct HandEpochBack;

impl<R: OfMachine> Undo<R> for HandEpochBack {
    const NAME: &'static str = "hand-epoch-back";

    async fn undo(&self, order: &mut Order, cx: &Cx) -> Result<(), Failure> {
        hand_epoch_back(order, cx).await
    }
}

async fn hand_epoch_back(order: &Order, cx: &Cx) -> Result<(), Failure> {
    let machine = look(order, cx).await?;
    if let State::FailingOver {
        phase: Phase::Fencing | Phase::LastSync | Phase::Starting, ..
    } = machine.standing.state
    {
        happen(order, cx, Event::TakingBack).await?;
    }
    fence_target(order, cx).await
}

/// Proves that the target will not run a machine that returns to its source.
pub(super) async fn fence_target(order: &Order, cx: &Cx) -> Result<(), Failure> {
    let machine = look(order, cx).await?;
    let State::Returning { phase: Return::Fencing, .. } = machine.standing.state else {
        return Ok(());
    };
    let fenced = fence(cx, &machine, machine.compute()).await?;
    happen(order, cx, Event::TargetFenced(fenced)).await?;
    Ok(())
}

/// Has a host's agent make sure that the machine does not run there, in the current
/// epoch.
async fn fence(cx: &Cx, machine: &Protected, host: &Host) -> Result<Fenced, NotGiven> {
    let epoch = machine.standing.epoch;
    let work = Work::Fence { machine: machine.machine, epoch: epoch.number() };
    give(cx, host, work).await.map(|_| Fenced::Acknowledged(epoch))
}

/// The same, or somebody vouches for a host whose agent does not answer: `vouched` says
/// that it was done with the order. None while that is waited for.
pub(super) async fn fence_or_vouch(
    (order, cx): (&Order, &Cx),
    machine: &Protected,
    host: &Host,
    vouched: bool,
) -> Result<Option<Fenced>, Failure> {
    match fence(cx, machine, host).await {
        Err(NotGiven::NotConnected(_)) if !vouched && cx.resumed().is_none() => Ok(None),
        Err(NotGiven::NotConnected(_)) => {
            cx.warn(format!(
                "host {} did not acknowledge; somebody vouched that it does not run {}",
                host.name, machine.name
            ));
            let by = match cx.resumed().map(|resumed| &resumed.by) {
                Some(Resumer::Operator { name }) => name.clone(),
                Some(Resumer::Deadline) | None => order.by.clone(),
            };
            Ok(Some(Fenced::Vouched { epoch: machine.standing.epoch, by }))
        }
        fenced => Ok(Some(fenced?)),
    }
}

/// The source will not run the machine any more.
pub struct FenceSource {
    /// Whether somebody may vouch for it, if its agent does not answer.
    pub may_vouch: bool,
}

impl<R: OfMachine> Step<R> for FenceSource {
    const NAME: &'static str = "fence-source";

    async fn run(&self, order: &mut Order, cx: &Cx) -> Result<Outcome, Failure> {
        let machine = look(order, cx).await?;
        let State::FailingOver { phase: Phase::Fencing, .. } = machine.standing.state else {
            return Ok(Outcome::Done);
        };
        let fenced = if self.may_vouch {
            fence_or_vouch((order, cx), &machine, &machine.source, order.vouched).await?
        } else {
            Some(fence(cx, &machine, &machine.source).await?)
        };
        let Some(fenced) = fenced else {
            return Ok(Outcome::Wait(must_vouch(&machine.source, &machine)));
        };
        happen(order, cx, Event::SourceFenced(fenced)).await?;
        Ok(Outcome::Done)
    }
}

/// Nothing of what it was made of before is left, unless it is that which is to
/// run.
pub struct DiscardFormer;

impl<R: OfMachine> Step<R> for DiscardFormer {
    const NAME: &'static str = "discard-former";

    async fn run(&self, order: &mut Order, cx: &Cx) -> Result<Outcome, Failure> {
        let machine = look(order, cx).await?;
        let Some(recovery) = order.former.filter(|_| !order.goes_on_with_former()) else {
            return Ok(Outcome::Done);
        };
        let Some(FormerHost { id, name }) = order.former_at.clone() else {
            discard(cx, &machine, recovery).await?;
            return Ok(Outcome::Done);
        };
        let there = Host { id: HostId::new(id), name };
        match give(cx, &there, Work::Discard { recovery }).await {
            Ok(_) => {}
            // It may run there still.
            Err(NotGiven::NotConnected(_)) if cx.resumed().is_none() => {
                return Ok(Outcome::Wait(must_vouch(&there, &machine)));
            }
            Err(NotGiven::NotConnected(_)) => cx.warn(left_at(&there, recovery)),
            Err(failed) => return Err(failed.into()),
        }
        end_loan(cx, &machine, recovery).await;
        Ok(Outcome::Done)
    }
}

/// Takes away what was made of a point; where that was lent, it is returned.
pub(super) async fn discard(cx: &Cx, machine: &Protected, recovery: Uuid) -> Result<(), NotGiven> {
    give(cx, machine.compute(), Work::Discard { recovery }).await?;
    if machine.borrower.is_some() {
        end_loan(cx, machine, recovery).await;
    }
    Ok(())
}

/// What was lent is returned. A host that cannot be told keeps nobody from going on:
/// all that is lost is the room of a point.
async fn end_loan(cx: &Cx, machine: &Protected, recovery: Uuid) {
    let work = Work::EndLoan { recovery, drop_points: false };
    if let Err(NotGiven::NotConnected(fault) | NotGiven::Failed(fault)) =
        give(cx, &machine.target, work).await
    {
        cx.warn(format!(
            "host {} goes on keeping the point that it lent ({}); have it end that, on that host: lifeboat agent discard {recovery}",
            machine.target.name, fault.cause
        ));
    }
}

/// Somebody must say that a host that does not answer does not run the machine.
pub(super) fn must_vouch(host: &Host, machine: &Protected) -> Wait {
    Wait::for_operator(format!(
        "vouch that host {} is without power or does not run {}: its agent does not answer, and a link that is cut looks the same",
        host.name, machine.name
    ))
}

/// What is left at a host that does not answer.
pub(super) fn left_at(host: &Host, recovery: Uuid) -> String {
    format!(
        "host {} does not answer: what was made there stays, and is kept down; when it is back, take it away there: lifeboat agent discard {recovery}",
        host.name
    )
}

/// Has the point lent that a machine at another host is to be made of; by whom.
async fn borrow(
    order: &Order,
    cx: &Cx,
    machine: &Protected,
    point: u32,
) -> Result<Option<Lender>, Failure> {
    let Some(borrower) = &machine.borrower else { return Ok(None) };
    let Host { id: host, name } = machine.target.clone();
    let address = machine.target_address.clone().ok_or_else(|| {
        Failure::Passing(Fault::new(
            Code::SideNotReachable.as_str(),
            format!("have host {name} lend a point to {}", borrower.name),
            "its agent has not told where it listens for others".to_owned(),
            "Bring it back; see: lifeboat host list.",
        ))
    })?;
    let (recovery, protection, to) = (order.recovery, order.protection(), borrower.id);
    let loan = Loan { recovery, protection, point, to };
    give(cx, &machine.target, Work::Lend(loan)).await?;
    Ok(Some(Lender { host, name, address }))
}

/// The machine is defined at the target, from the point.
pub struct Define;

impl<R: OfMachine> Step<R> for Define {
    const NAME: &'static str = "define-at-target";

    async fn run(&self, order: &mut Order, cx: &Cx) -> Result<Outcome, Failure> {
        // It is there, and must not be made anew.
        if order.goes_on_with_former() {
            return Ok(Outcome::Done);
        }
        let machine = look(order, cx).await?;
        let Some(chosen) = order.chosen else {
            return Err(Failure::ForGood(Fault::new(
                Code::Internal.as_str(),
                format!("define machine {}", machine.name),
                "no point was chosen",
                "This is a defect of Lifeboat; please report it.",
            )));
        };
        let purpose = match &order.test {
            None => Purpose::Production,
            Some(test) => Purpose::Test { name: test.name.clone(), uuid: test.uuid },
        };
        let recovery = Recovery {
            id: order.recovery,
            protection: order.protection(),
            point: chosen.point,
            purpose,
            nics: order.nics.clone(),
            same_networks: order.same_networks,
            keeper: borrow(order, cx, &machine, chosen.point).await?,
        };
        match give(cx, machine.compute(), Work::Define(Box::new(recovery))).await? {
            Answer::Defined { remarks } => remarks.into_iter().for_each(|remark| cx.warn(remark)),
            other => return Err(nonsense(machine.compute(), &other)),
        }
        Ok(Outcome::Done)
    }
}

/// Nothing of what was made at the target is left.
pub struct Discard;

impl<R: OfMachine> Undo<R> for Discard {
    const NAME: &'static str = "discard-at-target";

    async fn undo(&self, order: &mut Order, cx: &Cx) -> Result<(), Failure> {
        // What it was made of before is newer than any point: it goes only once the
        // machine runs at its source again.
        if order.goes_on_with_former() {
            return Ok(());
        }
        let machine = look(order, cx).await?;
        Ok(discard(cx, &machine, order.recovery).await?)
    }
}

/// The machine runs at the target.
pub struct Start;

impl<R: OfMachine> Step<R> for Start {
    const NAME: &'static str = "start-at-target";

    async fn run(&self, order: &mut Order, cx: &Cx) -> Result<Outcome, Failure> {
        let machine = look(order, cx).await?;
        let epoch = order.test.is_none().then(|| machine.standing.epoch.number());
        let work = Work::StartRecovered { recovery: order.recovery, epoch };
        give(cx, machine.compute(), work).await?;
        Ok(Outcome::Done)
    }
}

/// The machine does not run at the target.
pub struct Stop;

impl<R: OfMachine> Undo<R> for Stop {
    const NAME: &'static str = "stop-at-target";

    async fn undo(&self, order: &mut Order, cx: &Cx) -> Result<(), Failure> {
        let machine = look(order, cx).await?;
        give(cx, machine.compute(), Work::StopRecovered { recovery: order.recovery }).await?;
        Ok(())
    }
}

/// The machine gave a sign of life.
pub struct AwaitLife;

impl<R: OfMachine> Step<R> for AwaitLife {
    const NAME: &'static str = "await-life";

    async fn run(&self, order: &mut Order, cx: &Cx) -> Result<Outcome, Failure> {
        let machine = look(order, cx).await?;
        let work = Work::AwaitLife { recovery: order.recovery, within_seconds: LIFE_SECONDS };
        match give(cx, machine.compute(), work).await {
            Ok(Answer::Alive { by, after_ms }) => order.alive = Some(Alive { by, after_ms }),
            Ok(other) => return Err(nonsense(machine.compute(), &other)),
            // It had its time.
            Err(NotGiven::Failed(fault)) if fault.code == Code::NoSignOfLife.as_str() => {
                return Err(Failure::ForGood(fault));
            }
            Err(failed) => return Err(failed.into()),
        }
        Ok(Outcome::Done)
    }
}

/// The failover is done, and waits for its commit.
pub struct AwaitCommit;

impl<R: OfMachine> Step<R> for AwaitCommit {
    const NAME: &'static str = "await-commit";

    async fn run(&self, order: &mut Order, cx: &Cx) -> Result<Outcome, Failure> {
        let machine = look(order, cx).await?;
        if let State::FailingOver { phase: Phase::Starting, .. } = machine.standing.state {
            let along = Along::Recovery(Some(order.recovery));
            happen_along(order, cx, Event::TargetRuns, along).await?;
        }
        Ok(Outcome::Done)
    }
}
