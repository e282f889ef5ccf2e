//! Failovers: ordering them, and what follows on them.

use std::collections::HashMap;

use api::failover::{
    ChangePoint, FailoverKind, OrderCommit, OrderFailover, OrderReversal, Ordered, Plan,
};
use api::job::{Job, Say};
use api::problem::Problem;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use domain::failover::downtime::{Downtime, Measured, downtime};
use domain::failover::elsewhere::{Elsewhere, Unsuitable, may_be_made_at};
use domain::failover::standing::Kind;
use domain::failover::{Operation, Route, Tests, permit};
use domain::fault::{Code, Fault};
use domain::host::Reachability;
use domain::id::{HostId, ProtectionId};
use domain::token::Permission;
use jobs::history::StepHistory;
use jobs::{Asked, JobId, Runbook, Stage, Standing, Step, View};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;
use wire::command::NicWish;

use super::access::Caller;
use super::failure::{Body, Failure, name};
use super::jobs::{newest, now, readable, refused};
use super::protect::target_for;
use super::protection_view::{self, Hosts};
use crate::Controller;
use crate::database::failover::replication_of;
use crate::database::hosts::new_id;
use crate::database::lookup::Noun;
use crate::database::protections::Protection as Stored;
use crate::runbooks::order::{FormerHost, TestOrder};
use crate::runbooks::steps::ShutDownSource;
use crate::runbooks::{
    Order, PointWish, change_point, commit, planned, reverse, test, undo, unplanned,
};

/// The step in which a source is shut down.
const SHUT_DOWN: &str = <ShutDownSource as Step<planned::PlannedFailover>>::NAME;
/// Seconds that a source may take to shut down, if nothing is said.
const SHUT_DOWN_SECONDS: u32 = 300;
/// Hours after which a test is completed by force, if nothing is said: 14 days.
const TEST_HOURS: u32 = 14 * 24;
/// The most of them: a year.
const TEST_HOURS_MAX: u32 = 366 * 24;

/// The tests that are open now, by the protection.
pub(super) fn open_tests(controller: &Controller) -> HashMap<ProtectionId, Tests> {
    let mut open: HashMap<ProtectionId, Tests> = HashMap::new();
    for view in controller.engine.unfinished() {
        let history = &*view.history;
        if history.order.runbook != test::TestFailover::NAME {
            continue;
        }
        let Ok(order) = history.state::<Order>() else { continue };
        let tests = open.entry(order.protection()).or_default();
        match &history.standing {
            Standing::Unwinding { .. } => tests.cleaning += 1,
            _ => tests.running += 1,
        }
    }
    open
}

/// The tests of a machine that are open now.
pub(super) fn tests(controller: &Controller, protection: ProtectionId) -> Tests {
    open_tests(controller).remove(&protection).unwrap_or_default()
}

/// A protection on which an operation is allowed now.
pub(super) async fn permitted(
    controller: &Controller,
    reference: &str,
    operation: Operation,
    doing: &str,
) -> Result<Stored, Failure> {
    let stored = controller.database.protection(reference).await;
    let stored = stored.map_err(|error| Failure::of_database(doing, error))?;
    let standing = stored.standing(tests(controller, stored.id));
    permit(operation, &standing, &replication_of(&stored), Route::SITES).map_err(|refusal| {
        let cause = format!("it is {}: {}", refusal.state, refusal.reason);
        Fault::new(Code::StateForbids, doing, cause, refusal.advice)
    })?;
    Ok(stored)
}

fn order_of(stored: &Stored, caller: &Caller) -> Order {
    Order::new(stored.id.uuid(), caller.name.clone(), new_id())
}

fn point_of(text: Option<&str>, doing: &str) -> Result<PointWish, Failure> {
    match text {
        None | Some("latest") => Ok(PointWish::Latest),
        Some("latest-app") => Ok(PointWish::LatestApp),
        Some(number) => number.parse().map(PointWish::Number).map_err(|_| {
            Fault::new(
                Code::RequestInvalid,
                doing,
                format!("`{number}` is neither latest, latest-app, nor a point's number"),
                "Choose one of: lifeboat point list.",
            )
            .into()
        }),
    }
}

/// Orders a job, and shows it.
async fn begin<R: Runbook<State = Order>>(
    controller: &Controller,
    caller: &Caller,
    stored: &Stored,
    order: &Order,
    doing: &str,
) -> Result<Json<Job>, Failure> {
    let job = JobId::new(new_id());
    let asked = Asked::new(caller.name.clone(), format!("machine {}", stored.machine_name));
    let ordered = controller.engine.order::<R>(job, asked, order).await;
    ordered.map_err(|error| refused(doing, error))?;
    now(controller, job, doing).await
}

/// Orders a failover: a test, a planned or an unplanned one.
#[utoipa::path(post, path = "/protections/{protection}/failovers", operation_id = "failover_order", tag = "failover",
    security(("token" = [])), params(("protection" = String, Path, description = "The machine's name, host/name, site/host/name, UUID or id, or the protection's id")),
    request_body = OrderFailover, responses(
    (status = 202, description = "The job, or the plan", body = Ordered),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn order(
    caller: Caller,
    State(controller): State<Controller>,
    Path(reference): Path<String>,
    Body(wish): Body<OrderFailover>,
) -> Result<(StatusCode, Json<Ordered>), Failure> {
    let (verb, operation, permission) = match wish.kind {
        FailoverKind::Test => ("test", Operation::TestFailover, Permission::Drill),
        FailoverKind::Planned => ("planned", Operation::PlannedFailover, Permission::Operate),
        FailoverKind::Unplanned => ("unplanned", Operation::UnplannedFailover, Permission::Operate),
    };
    let doing = format!("order a {verb} failover of machine {reference}");
    caller.may(permission, &doing)?;
    let stored = permitted(&controller, &reference, operation, &doing).await?;
    let mut order = order_of(&stored, &caller);
    order.point = point_of(wish.point.as_deref(), &doing)?;
    if let Some(to) = &wish.to {
        let wished = (to.as_str(), wish.point.as_deref());
        (order.at, order.former_at) = elsewhere(&controller, &stored, wished, &doing).await?;
    }
    order.force = wish.force;
    order.vouched = wish.source_is_down;
    if let Some(former) = newest_of_a_return(&stored, &wish) {
        order.recovery = former;
    }
    let nics = wish.nics.iter().flatten();
    order.nics =
        nics.map(|nic| NicWish { mac: nic.mac.clone(), network: nic.network.clone() }).collect();
    order.same_networks = wish.nics.is_none() && wish.kind != FailoverKind::Test;
    order.shut_down_seconds = match wish.kind {
        FailoverKind::Test => None,
        FailoverKind::Planned => Some(wish.shut_down_seconds.unwrap_or(SHUT_DOWN_SECONDS)),
        FailoverKind::Unplanned => wish.shut_down_seconds,
    };
    if wish.kind == FailoverKind::Test {
        order.test = Some(test_of(&wish, &stored, &doing)?);
    }
    if wish.plan_only {
        let plan = plan(&controller, &stored, &wish, &order, &doing).await?;
        return Ok((StatusCode::OK, Json(Ordered::Plan { plan })));
    }
    let job = match wish.kind {
        FailoverKind::Test => {
            begin::<test::TestFailover>(&controller, &caller, &stored, &order, &doing).await
        }
        FailoverKind::Planned => {
            begin::<planned::PlannedFailover>(&controller, &caller, &stored, &order, &doing).await
        }
        FailoverKind::Unplanned => {
            begin::<unplanned::UnplannedFailover>(&controller, &caller, &stored, &order, &doing)
                .await
        }
    };
    let Json(job) = job?;
    Ok((StatusCode::ACCEPTED, Json(Ordered::Job { job: Box::new(job) })))
}

/// The host on which a machine is to be made, if that is for the order to say, and the
/// one where it was made before, if it is to have no part any more.
async fn elsewhere(
    controller: &Controller,
    stored: &Stored,
    (reference, from_point): (&str, Option<&str>),
    doing: &str,
) -> Result<(Option<Uuid>, Option<FormerHost>), Failure> {
    let of_database = |error| Failure::of_database(doing, error);
    let found = controller.database.find(Noun::Host, reference).await;
    let there = HostId::new(found.map_err(of_database)?);
    if there == stored.away() {
        return Ok((stored.compute.map(HostId::uuid), None));
    }
    let hosts = Hosts::read(controller).await.map_err(of_database)?;
    let name = |host| hosts.get(host).map(|(_, side)| side.name.clone());
    let (row, side) = hosts.get(there).map_err(of_database)?;
    let (keeper, keeping) = hosts.get(stored.target).map_err(of_database)?;
    let (site, keepers_site) = (row.site(), keeper.site());
    let (site, keepers_site) = (site.map_err(of_database)?, keepers_site.map_err(of_database)?);
    let made_at = name(stored.away()).map_err(of_database)?;
    let former = stored.failover.recovery.is_some();
    let goes_on = former && from_point.is_none();
    may_be_made_at(&Elsewhere {
        name: &side.name,
        is_source: there == stored.source,
        other_site: (site.id != keepers_site.id).then_some(keepers_site.name.as_str()),
        reachability: side.reachability,
        borrows: row.knows_loans(),
        cannot_lend: (there != stored.target && !keeper.knows_loans())
            .then_some(keeping.name.as_str()),
        made_at: goes_on.then_some(made_at.as_str()),
    })
    .map_err(|Unsuitable { reason, advice }| {
        Fault::new(Code::RequestInvalid, doing, reason, advice)
    })?;
    let left = FormerHost { id: stored.away().uuid(), name: made_at };
    Ok((Some(there.uuid()), former.then_some(left)))
}

/// What a return was to drop that has lost its source: it is newer than any point,
/// so the machine goes on with it unless a point is asked for.
fn newest_of_a_return(stored: &Stored, wish: &OrderFailover) -> Option<Uuid> {
    let is_returning =
        matches!(stored.failover.state, Some(domain::failover::State::Returning { .. }));
    let goes_on = wish.kind == FailoverKind::Unplanned && wish.point.is_none();
    stored.failover.recovery.filter(|_| is_returning && goes_on)
}

fn test_of(wish: &OrderFailover, stored: &Stored, doing: &str) -> Result<TestOrder, Failure> {
    let hours = wish.hours.unwrap_or(TEST_HOURS);
    if !(1..=TEST_HOURS_MAX).contains(&hours) {
        let cause = format!("{hours} hours are no time for a test");
        let advice = format!("Give from 1 to {TEST_HOURS_MAX} hours.");
        return Err(Fault::new(Code::RequestInvalid, doing, cause, advice).into());
    }
    let text = wish.name.clone().unwrap_or_else(|| format!("{}-test", stored.machine_name));
    Ok(TestOrder {
        name: name(&text, doing)?.as_str().to_owned(),
        uuid: Uuid::new_v4(),
        until: OffsetDateTime::now_utc() + Duration::hours(hours.into()),
    })
}

/// What a failover would do, as far as is known now.
async fn plan(
    controller: &Controller,
    stored: &Stored,
    wish: &OrderFailover,
    order: &Order,
    doing: &str,
) -> Result<Plan, Failure> {
    let of_database = |error| Failure::of_database(doing, error);
    let hosts = Hosts::read(controller).await.map_err(of_database)?;
    let observed = protection_view::observed(stored, &hosts).map_err(of_database)?;
    let known = controller.database.points(stored.id).await.map_err(of_database)?;
    let point = match order.point {
        PointWish::Latest => known.first(),
        PointWish::LatestApp => known.iter().find(|point| point.app_consistent),
        PointWish::Number(number) => known.iter().find(|point| point.point == number),
    };
    let steps = match wish.kind {
        FailoverKind::Test => test::TestFailover.table().names(),
        FailoverKind::Planned => planned::PlannedFailover.table().names(),
        FailoverKind::Unplanned => unplanned::UnplannedFailover.table().names(),
    };
    let mut remarks = Vec::new();
    let mut to = observed.target.name.clone();
    if let Some(compute) = order.at().or(stored.compute).filter(|at| *at != stored.target) {
        to = hosts.get(compute).map_err(of_database)?.1.name.clone();
        remarks.push(format!(
            "until the failover is committed, {to} reads what the machine has not written there from {}, over the network",
            observed.target.name
        ));
    }
    for side in [&observed.source, &observed.target] {
        if !matches!(side.reachability, Reachability::Connected { .. }) {
            remarks.push(format!("the agent of {} is not connected", side.name));
        }
    }
    if point.is_none() && wish.kind != FailoverKind::Planned {
        remarks.push("no such point is known here; the target's agent knows all of them".into());
    }
    if order.same_networks {
        remarks.push(
            "NICs will be connected to networks of the same names at the target, as far as it has them".into(),
        );
    } else if order.nics.is_empty() {
        remarks.push("all NICs will be disconnected".into());
    }
    let instant = point.map(|point| point.instant).filter(|_| wish.kind != FailoverKind::Planned);
    let lost = match wish.kind {
        FailoverKind::Unplanned => instant.map(|at| OffsetDateTime::now_utc() - at),
        FailoverKind::Test | FailoverKind::Planned => None,
    };
    let cycle = stored.shipping.as_ref().and_then(|(report, _)| report.last_cycle);
    let kind = match wish.kind {
        FailoverKind::Test => None,
        FailoverKind::Planned => Some(Kind::Planned),
        FailoverKind::Unplanned => Some(Kind::Unplanned),
    };
    let mut down = Downtime::default();
    if let Some(kind) = kind {
        let cycle = cycle.map(|cycle| std::time::Duration::from_millis(cycle.took_ms));
        down = downtime(kind, &Measured { cycle, ..measured(controller, stored.id).await? });
    }
    Ok(Plan {
        kind: wish.kind,
        from: observed.source.name,
        to,
        steps: steps.into_iter().map(str::to_owned).collect(),
        point_instant: instant,
        lost_ms: lost.and_then(|lost| u64::try_from(lost.whole_milliseconds()).ok()).unwrap_or(0),
        bytes: match wish.kind {
            FailoverKind::Planned => cycle.map_or(0, |cycle| cycle.changed),
            FailoverKind::Test | FailoverKind::Unplanned => 0,
        },
        downtime_ms: down.about.and_then(|about| u64::try_from(about.as_millis()).ok()),
        downtime_basis: down.basis,
        remarks,
    })
}

/// What the newest jobs of a machine tell of its guest: how long it took to shut down,
/// and to boot.
async fn measured(controller: &Controller, protection: ProtectionId) -> Result<Measured, Failure> {
    let doing = "look at earlier jobs";
    let mut found = Measured::default();
    for job in newest(controller, doing).await? {
        if found.shutdown.is_some() && found.boot.is_some() {
            break;
        }
        let Some(View { history, .. }) = readable(controller, job, doing).await? else { continue };
        let Ok(order) = history.state::<Order>() else { continue };
        if order.protection() != protection {
            continue;
        }
        let was_asked = |step: &&StepHistory| {
            step.name == SHUT_DOWN && step.stage == Stage::Done && order.shut_down_seconds.is_some()
        };
        let shutdown = history.steps.iter().find(was_asked);
        let took = shutdown.and_then(|step| (step.since? - step.begun?).try_into().ok());
        found.shutdown = found.shutdown.or(took);
        let boot = order.alive.map(|alive| std::time::Duration::from_millis(alive.after_ms));
        found.boot = found.boot.or(boot);
    }
    Ok(found)
}

/// Makes a machine that was failed over anew, of another point.
#[utoipa::path(post, path = "/protections/{protection}/change-point", operation_id = "failover_change_point", tag = "failover",
    security(("token" = [])), params(("protection" = String, Path, description = "As for ordering a failover")),
    request_body = ChangePoint, responses(
    (status = 202, description = "The job", body = Job),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn change_point(
    caller: Caller,
    State(controller): State<Controller>,
    Path(reference): Path<String>,
    Body(wish): Body<ChangePoint>,
) -> Result<(StatusCode, Json<Job>), Failure> {
    let doing = format!("change the recovery point of machine {reference}");
    caller.may(Permission::Operate, &doing)?;
    let stored = permitted(&controller, &reference, Operation::ChangePoint, &doing).await?;
    let mut order = order_of(&stored, &caller);
    order.point = point_of(Some(&wish.point), &doing)?;
    order.same_networks = true;
    let job =
        begin::<change_point::ChangePoint>(&controller, &caller, &stored, &order, &doing).await?;
    Ok((StatusCode::ACCEPTED, job))
}

/// Makes a failover final.
#[utoipa::path(post, path = "/protections/{protection}/commit", operation_id = "failover_commit", tag = "failover",
    security(("token" = [])), params(("protection" = String, Path, description = "As for ordering a failover")),
    request_body = OrderCommit, responses(
    (status = 202, description = "The job", body = Job),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn commit(
    caller: Caller,
    State(controller): State<Controller>,
    Path(reference): Path<String>,
    Body(wish): Body<OrderCommit>,
) -> Result<(StatusCode, Json<Job>), Failure> {
    let doing = format!("commit the failover of machine {reference}");
    caller.may(Permission::Operate, &doing)?;
    let stored = permitted(&controller, &reference, Operation::Commit, &doing).await?;
    let order = Order { reversal: wish.reverse.then(new_id), ..order_of(&stored, &caller) };
    let job = begin::<commit::Commit>(&controller, &caller, &stored, &order, &doing).await?;
    Ok((StatusCode::ACCEPTED, job))
}

/// Returns a machine to its source, and drops what the target wrote.
#[utoipa::path(post, path = "/protections/{protection}/undo", operation_id = "failover_undo", tag = "failover",
    security(("token" = [])), params(("protection" = String, Path, description = "As for ordering a failover")),
    request_body = Say, responses(
    (status = 202, description = "The job", body = Job),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn undo(
    caller: Caller,
    State(controller): State<Controller>,
    Path(reference): Path<String>,
    Body(_wish): Body<Say>,
) -> Result<(StatusCode, Json<Job>), Failure> {
    let doing = format!("undo the failover of machine {reference}");
    caller.may(Permission::Operate, &doing)?;
    let stored = permitted(&controller, &reference, Operation::Undo, &doing).await?;
    let order = order_of(&stored, &caller);
    let job = begin::<undo::UndoFailover>(&controller, &caller, &stored, &order, &doing).await?;
    Ok((StatusCode::ACCEPTED, job))
}

/// Replicates to the side where a machine ran before, or to another host.
#[utoipa::path(post, path = "/protections/{protection}/reverse", operation_id = "protection_reverse", tag = "failover",
    security(("token" = [])), params(("protection" = String, Path, description = "As for ordering a failover")),
    request_body = OrderReversal, responses(
    (status = 202, description = "The job", body = Job),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn reverse(
    caller: Caller,
    State(controller): State<Controller>,
    Path(reference): Path<String>,
    Body(wish): Body<OrderReversal>,
) -> Result<(StatusCode, Json<Job>), Failure> {
    let doing = format!("reverse the replication of machine {reference}");
    caller.may(Permission::Operate, &doing)?;
    let operation = Operation::ReverseReplicate;
    let stored = permitted(&controller, &reference, operation, &doing).await?;
    let mut order = order_of(&stored, &caller);
    if let Some(to) = &wish.to {
        // It runs where its points went before.
        let chosen = target_for(&controller, &stored, stored.away(), to, &doing).await?;
        order.to = Some(chosen).filter(|host| *host != stored.source).map(HostId::uuid);
    }
    let job =
        begin::<reverse::ReverseReplicate>(&controller, &caller, &stored, &order, &doing).await?;
    Ok((StatusCode::ACCEPTED, job))
}
