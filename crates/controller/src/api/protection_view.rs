//! How a protection is shown: what is wanted, what agents told, and what
//! follows from both now.

use std::collections::HashMap;

use api::failover::FailoverOperation;
use api::protection::{
    Cycle, Health, HealthReason, Hold, HoldBy, Kept, Progress, Protection, ProtectionOperation,
    ProtectionState, RecoveryPoint, Replication, Rpo, TestState, Totals,
};
use domain::failover::{self, Route, Standing, Tests};
use domain::host::Refusal;
use domain::id::HostId;
use domain::protection::{
    Keeping, Observed, Operation, Side, Verified, permit, replication, state,
};
use domain::protection_health::{age_allowed, judge};
use domain::units::ByteCount;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;
use wire::replication as told;

use crate::Controller;
use crate::database::failover::{host_at, replication_of};
use crate::database::hosts::HostRow;
use crate::database::protections::Protection as Stored;
use crate::database::reports::RpoFigures;
use crate::database::{DatabaseError, Result};

/// All hosts, by id, as views of protections need them.
pub(crate) struct Hosts {
    by_id: HashMap<HostId, (HostRow, Side)>,
}

impl Hosts {
    pub(crate) async fn read(controller: &Controller) -> Result<Self> {
        let mut by_id = HashMap::new();
        for row in controller.database.hosts().await? {
            let (id, connections) = (row.id()?, &controller.connections);
            let side = row.side(connections.since(id), connections.clock_ahead(id))?;
            by_id.insert(id, (row, side));
        }
        Ok(Self { by_id })
    }

    pub(crate) fn get(&self, host: HostId) -> Result<&(HostRow, Side)> {
        self.by_id.get(&host).ok_or_else(|| DatabaseError::Nonsense {
            what: "a protection",
            cause: format!("there is no host {host}"),
        })
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &(HostRow, Side)> {
        self.by_id.values()
    }
}

/// What is known of how a protection is.
pub(crate) fn observed(stored: &Stored, hosts: &Hosts) -> Result<Observed> {
    Ok(Observed {
        source: hosts.get(stored.source)?.1.clone(),
        target: hosts.get(stored.target)?.1.clone(),
        shipping: stored.shipping.as_ref().map(|(report, _)| report.into()),
        keeping: stored.keeping.as_ref().map(|(report, _)| Keeping {
            trouble: report.trouble.as_ref().map(Into::into),
            newest: stored.newest_kept,
            used: ByteCount::new(report.used_bytes),
            free: ByteCount::new(report.free_bytes),
            import_failed: report.import.as_ref().and_then(|import| match &import.stage {
                told::ImportStage::Failed(why) => Some(why.into()),
                told::ImportStage::Reading(_) | told::ImportStage::Taken => None,
            }),
        }),
        verified: stored.verified.as_ref().map(verified),
    })
}

fn verified(report: &told::VerifyReport) -> Verified {
    let at = report.finished;
    if let Some(trouble) = &report.trouble {
        let cause = format!("cannot {}: {}", trouble.doing, trouble.cause);
        return Verified::NotDone { at, cause, advice: trouble.advice.clone() };
    }
    if report.disks.is_empty() {
        let cause = "the agent compared no disk".to_owned();
        return Verified::NotDone { at, cause, advice: "Look at the agent's log.".into() };
    }
    let differing = report.disks.iter().filter(|disk| !disk.differing.is_empty());
    let disks: Vec<String> = differing.map(|disk| disk.disk.clone()).collect();
    if disks.is_empty() { Verified::Same { at } } else { Verified::Differs { at, disks } }
}

/// A recovery point as it is shown, of the host that keeps it.
pub(super) fn point(point: told::PointMark, host: &str) -> RecoveryPoint {
    RecoveryPoint {
        point: point.point,
        instant: point.instant,
        app_consistent: point.app_consistent,
        stored_bytes: point.stored_bytes,
        hold: point.hold.map(|hold| hold_view(hold, host)),
    }
}

fn hold_view(hold: told::Hold, host: &str) -> Hold {
    match hold {
        told::Hold::Operator => {
            Hold { by: HoldBy::Operator, reason: "an operator holds it".into() }
        }
        told::Hold::Lost => Hold {
            by: HoldBy::Lost,
            reason: format!(
                "what {host} had when it was lost; may hold writes that were never sent"
            ),
        },
    }
}

/// What of a protection tells how it is, without figures.
#[derive(Debug, Clone)]
pub(crate) struct Glance {
    pub(crate) id: Uuid,
    pub(crate) machine: String,
    pub(crate) state: ProtectionState,
    pub(crate) replication: Replication,
    pub(crate) health: Health,
    /// Held points, the oldest first, and why they are held.
    pub(crate) held: Vec<(u32, String)>,
}

impl Glance {
    fn of(
        stored: &Stored,
        observed: &Observed,
        held: &[(u32, told::Hold)],
        now: OffsetDateTime,
    ) -> Self {
        let intent = stored.intent();
        let health = judge(&intent, observed, now);
        Self {
            id: stored.id.uuid(),
            machine: stored.machine_name.clone(),
            state: match stored.failover.state.filter(|_| stored.disabling.is_none()) {
                Some(state) => state.into(),
                None => state(&intent, observed).into(),
            },
            replication: replication_view(replication(&intent, observed)),
            health: Health {
                level: health.level.into(),
                reasons: health
                    .reasons
                    .iter()
                    .map(|reason| HealthReason {
                        level: reason.level().into(),
                        reason: reason.to_string(),
                        advice: reason.advice(),
                    })
                    .collect(),
            },
            held: held
                .iter()
                .map(|(point, hold)| (*point, hold_view(*hold, &observed.target.name).reason))
                .collect(),
        }
    }
}

/// How a protection is shown.
pub(crate) fn view(
    stored: &Stored,
    hosts: &Hosts,
    newest: Option<told::PointMark>,
    figures: RpoFigures,
    tests: Tests,
    now: OffsetDateTime,
) -> Result<Protection> {
    let observed = observed(stored, hosts)?;
    let intent = stored.intent();
    let standing = stored.standing(tests);
    let (source, target) = (&hosts.get(stored.source)?.0, &hosts.get(stored.target)?.0);
    let shipped = stored.shipping.as_ref().map(|(report, _)| report);
    let kept = stored.keeping.as_ref().map(|(report, _)| report);
    let glance = Glance::of(stored, &observed, &[], now);
    Ok(Protection {
        id: stored.id.uuid(),
        machine: api::Reference { id: stored.machine.uuid(), name: stored.machine_name.clone() },
        source: source.reference()?,
        source_site: source.site()?,
        target: target.reference()?,
        target_site: target.site()?,
        policy: api::Reference { id: stored.policy_id.uuid(), name: stored.policy_name.clone() },
        excluded_disks: stored.excluded.clone(),
        created: stored.created,
        not_before: stored.not_before,
        state: glance.state,
        active: hosts.get(host_at(stored, standing.active()))?.0.reference()?,
        epoch: standing.epoch.number(),
        replication: glance.replication,
        test: match tests {
            Tests { running: 0, cleaning: 0 } => TestState::None,
            Tests { running: 0, .. } => TestState::CleaningUp,
            Tests { .. } => TestState::Running,
        },
        health: glance.health,
        rpo: Rpo {
            now_ms: observed.age(now).map(milliseconds),
            allowed_ms: milliseconds(age_allowed(intent.every)),
            worst_24h_ms: figures.worst_ms,
            p99_24h_ms: figures.p99_ms,
            measured_minutes: figures.minutes,
            agent_worst_ms: shipped.and_then(|report| report.rpo_worst_ms),
            agent_p99_ms: shipped.and_then(|report| report.rpo_p99_ms),
        },
        newest: newest.map(|newest| point(newest, &observed.target.name)),
        kept: kept.map(|report| Kept {
            folder: report.folder.clone(),
            points: report.count,
            used_bytes: report.used_bytes,
            free_bytes: report.free_bytes,
        }),
        progress: shipped
            .and_then(|report| report.progress)
            .or_else(|| kept.and_then(importing))
            .map(|progress| Progress {
                done_bytes: progress.done,
                total_bytes: progress.total,
                seconds_left: progress.seconds_left,
            }),
        totals: shipped.map(|report| Totals {
            read_bytes: report.totals.read,
            sent_bytes: report.totals.sent,
            points: report.totals.points,
        }),
        last_cycle: shipped.and_then(|report| report.last_cycle).map(|cycle| Cycle {
            took_ms: cycle.took_ms,
            changed_bytes: cycle.changed,
            sent_bytes: cycle.sent,
        }),
        source_told: stored.shipping.as_ref().map(|(_, received)| *received),
        target_told: stored.keeping.as_ref().map(|(_, received)| *received),
        verifying: stored.verify,
        operations: operations(stored, &standing, &observed),
    })
}

/// Everything that may be done to a protection, and why not now.
fn operations(stored: &Stored, standing: &Standing, observed: &Observed) -> Vec<api::Operation> {
    let refused = |refusal: Option<(String, &str)>| {
        refusal.map(|(reason, advice)| api::Reason { reason, advice: advice.to_owned() })
    };
    let of_replication = Operation::ALL.into_iter().map(|operation| api::Operation {
        name: ProtectionOperation::from(operation).to_string(),
        refused: refused(
            permitted(operation, stored, standing, observed)
                .err()
                .map(|refusal| (refusal.reason.to_owned(), refusal.advice)),
        ),
    });
    let of_failover = failover::allowed(standing, &replication_of(stored), Route::SITES)
        .into_iter()
        .filter(|answer| counterpart(answer.operation).is_none())
        .map(|answer| api::Operation {
            name: FailoverOperation::from(answer.operation).to_string(),
            refused: refused(answer.answer.err().map(|refusal| {
                (format!("it is {}: {}", refusal.state, refusal.reason), refusal.advice)
            })),
        });
    of_replication.chain(of_failover).collect()
}

/// Whether something may be done to a protection's replication now.
///
/// # Errors
/// The reason why not, with advice.
pub(super) fn permitted(
    operation: Operation,
    stored: &Stored,
    standing: &Standing,
    observed: &Observed,
) -> std::result::Result<(), Refusal> {
    let in_failover = failover::Operation::ALL
        .into_iter()
        .find(|asked| counterpart(*asked) == Some(operation))
        .filter(|_| stored.failover.state.is_some());
    if let Some(asked) = in_failover {
        failover::permit(asked, standing, &replication_of(stored), Route::SITES)
            .map_err(|refusal| Refusal { reason: refusal.reason, advice: refusal.advice })?;
    } else if stored.failover.state.is_some() {
        return Err(Refusal {
            reason: "it is being failed over, or was",
            advice: "Do it once the machine is protected again.",
        });
    }
    permit(operation, &stored.intent(), observed)
}

/// What a failover's own rules also speak of.
const fn counterpart(operation: failover::Operation) -> Option<Operation> {
    match operation {
        failover::Operation::Pause => Some(Operation::Pause),
        failover::Operation::Resume => Some(Operation::Resume),
        failover::Operation::Resynchronise => Some(Operation::Resynchronise),
        failover::Operation::ChangeSettings => Some(Operation::ChangePolicy),
        failover::Operation::Disable => Some(Operation::Disable),
        _ => None,
    }
}

fn replication_view(replication: domain::protection::Replication) -> Replication {
    use domain::protection::Replication as Domain;
    match replication {
        Domain::Waiting => Replication::Waiting,
        Domain::Initial => Replication::Initial,
        Domain::Steady => Replication::Steady,
        Domain::Exporting(carried) => Replication::Exporting { folder: carried.folder },
        Domain::Carried(carried) => Replication::Carried { folder: carried.folder },
        Domain::Resynchronising(comparison) => Replication::Resynchronising {
            reason: comparison.reason,
            held_until: comparison.held_until,
        },
        Domain::Paused => Replication::Paused,
        Domain::Broken { trouble } => Replication::Broken {
            code: trouble.code,
            reason: trouble.cause,
            advice: trouble.advice,
            since: trouble.since,
        },
    }
}

/// How far the taking in of a first copy is, while it is under way.
fn importing(report: &told::KeepingReport) -> Option<told::Progress> {
    match report.import.as_ref()?.stage {
        told::ImportStage::Reading(progress) => Some(progress),
        told::ImportStage::Taken | told::ImportStage::Failed(_) => None,
    }
}

/// What stays at the hosts when a protection ends.
pub(super) fn left_behind(stored: &Stored, observed: &Observed) -> Vec<String> {
    use domain::host::Reachability;
    let name = &stored.machine_name;
    let mut left = Vec::new();
    let source = &observed.source;
    match source.reachability {
        Reachability::Connected { .. } => {}
        Reachability::Revoked { .. } => left.push(format!(
            "at {}: the record of changes in the disks of {name}, for its agent is revoked",
            source.name
        )),
        Reachability::Enrolled { .. } | Reachability::NotReachable { .. } => left.push(format!(
            "at {}: the record of changes in the disks of {name}, until its agent connects again",
            source.name
        )),
    }
    let target = &observed.target.name;
    left.push(match &stored.keeping {
        Some((report, _)) => format!(
            "at {target}: {} recovery points in {}, {}; they stay until somebody deletes the folder",
            report.count,
            report.folder,
            ByteCount::new(report.used_bytes)
        ),
        None => format!("at {target}: whatever recovery points of {name} it keeps"),
    });
    left
}

fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.whole_milliseconds()).unwrap_or_default()
}

/// How all protections are, by the machine's name.
///
/// # Errors
/// When the database fails.
pub(crate) async fn glances(controller: &Controller) -> Result<Vec<Glance>> {
    let hosts = Hosts::read(controller).await?;
    let now = OffsetDateTime::now_utc();
    let stored = controller.database.protections().await?;
    let held = controller.database.held_points().await?;
    let glance = |stored: &Stored| {
        let held = held.get(&stored.id.uuid()).map(Vec::as_slice).unwrap_or_default();
        Ok(Glance::of(stored, &observed(stored, &hosts)?, held, now))
    };
    stored.iter().map(glance).collect()
}

/// All protections as they are shown, by the machine's name.
///
/// # Errors
/// When the database fails.
pub(crate) async fn all(controller: &Controller) -> Result<Vec<Protection>> {
    let hosts = Hosts::read(controller).await?;
    let tests = super::failovers::open_tests(controller);
    let mut views = Vec::new();
    for stored in controller.database.protections().await? {
        let tests = tests.get(&stored.id).copied().unwrap_or_default();
        views.push(with_figures(controller, &stored, &hosts, tests).await?);
    }
    Ok(views)
}

/// One protection as it is shown.
///
/// # Errors
/// When the database fails.
pub(super) async fn shown(
    controller: &Controller,
    stored: &Stored,
    hosts: &Hosts,
) -> Result<Protection> {
    let tests = super::failovers::tests(controller, stored.id);
    with_figures(controller, stored, hosts, tests).await
}

async fn with_figures(
    controller: &Controller,
    stored: &Stored,
    hosts: &Hosts,
    tests: Tests,
) -> Result<Protection> {
    let now = OffsetDateTime::now_utc();
    let figures = controller.database.rpo_figures(stored.id, now - Duration::DAY).await?;
    let kept = controller.database.newest_point(stored.id).await?;
    let shipped = stored.shipping.as_ref().and_then(|(report, _)| report.newest);
    let newest = [shipped, kept].into_iter().flatten().max_by_key(|point| point.point);
    view(stored, hosts, newest, figures, tests, now)
}
