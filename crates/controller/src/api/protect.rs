//! Protecting a machine: looking up what is meant, checking, and beginning.

use api::Reason;
use api::problem::Problem;
use api::protection::{Protect, ProtectCheck, Protection};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use domain::fault::{Code, Fault};
use domain::id::{HostId, MachineId, MachineUuid, ProtectionId};
use domain::machine::Machine;
use domain::protect_check::{Candidate, Finding, Target, check as judge};
use domain::token::Permission;
use domain::units::ByteCount;
use time::OffsetDateTime;

use super::access::Caller;
use super::failure::{Body, Failure, is_a_folder};
use super::protection_view::Hosts;
use crate::Controller;
use crate::database::hosts::new_id;
use crate::database::lookup::{LookupError, Noun};
use crate::database::protections::{NewProtection, Protection as Stored};
use crate::database::{DatabaseError, Result};

/// What a wish means, as far as it means anything.
#[derive(Debug, Default)]
struct Meant {
    machine: Option<(Machine, HostId)>,
    target: Option<HostId>,
    policy: Option<api::Reference>,
    /// What could not be found.
    missing: Vec<Reason>,
}

/// What was found, and what it was found of.
struct Found {
    meant: Meant,
    check: ProtectCheck,
}

/// Tells whether a machine could be protected so. Changes nothing.
#[utoipa::path(post, path = "/protection-checks", operation_id = "protection_check", tag = "protection",
    security(("token" = [])), request_body = Protect, responses(
    (status = 200, description = "Everything that was found", body = ProtectCheck),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn check(
    caller: Caller,
    State(controller): State<Controller>,
    Body(wish): Body<Protect>,
) -> std::result::Result<Json<ProtectCheck>, Failure> {
    let doing = format!("check whether machine {} can be protected", wish.machine);
    caller.may(Permission::Read, &doing)?;
    let found = look(&controller, &wish).await;
    found.map(|found| Json(found.check)).map_err(|error| Failure::of_database(&doing, error))
}

/// Protects a machine.
#[utoipa::path(post, path = "/protections", operation_id = "protection_create", tag = "protection",
    security(("token" = [])), request_body = Protect, responses(
    (status = 201, description = "The new protection", body = Protection),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn create(
    caller: Caller,
    State(controller): State<Controller>,
    Body(wish): Body<Protect>,
) -> std::result::Result<(StatusCode, Json<Protection>), Failure> {
    let doing = format!("protect machine {}", wish.machine);
    caller.may(Permission::Operate, &doing)?;
    if let Some(folder) = &wish.offline_folder {
        is_a_folder(folder, &doing)?;
    }
    let of_database = |error| Failure::of_database(&doing, error);
    let found = look(&controller, &wish).await.map_err(of_database)?;
    let Meant {
        machine: Some((machine, source)), target: Some(target), policy: Some(policy), ..
    } = found.meant
    else {
        return Err(blocked(&doing, &found.check.obstacles));
    };
    if !found.check.possible {
        return Err(blocked(&doing, &found.check.obstacles));
    }
    let hosts = Hosts::read(&controller).await.map_err(of_database)?;
    let reference = |host| hosts.get(host).and_then(|(row, _)| row.reference());
    let id = ProtectionId::new(new_id());
    let new = NewProtection {
        id,
        machine: machine.uuid,
        machine_name: &machine.name,
        source: &reference(source).map_err(of_database)?,
        target: &reference(target).map_err(of_database)?,
        policy: &policy,
        excluded: &wish.excluded_disks,
        not_before: wish.not_before,
        offline_folder: wish.offline_folder.as_deref(),
    };
    let created =
        controller.database.create_protection(new, &caller.name, OffsetDateTime::now_utc()).await;
    match created {
        // Somebody else was quicker.
        Err(DatabaseError::NameTaken) => {
            return Err(blocked(&doing, &[reason(&Finding::AlreadyProtected)]));
        }
        created => created.map_err(of_database)?,
    }
    controller.duties.announce();
    let shown = super::protections::now(&controller, &id.to_string(), &doing).await?;
    Ok((StatusCode::CREATED, shown))
}

fn blocked(doing: &str, obstacles: &[Reason]) -> Failure {
    let join = |texts: Vec<&str>, with| texts.join(with);
    let causes = join(obstacles.iter().map(|obstacle| obstacle.reason.as_str()).collect(), "; ");
    let advice = join(obstacles.iter().map(|obstacle| obstacle.advice.as_str()).collect(), " ");
    Fault::new(Code::ProtectionBlocked, doing, causes, advice).into()
}

fn reason(finding: &Finding) -> Reason {
    Reason { reason: finding.to_string(), advice: finding.advice() }
}

async fn look(controller: &Controller, wish: &Protect) -> Result<Found> {
    let hosts = Hosts::read(controller).await?;
    let protections = controller.database.protections().await?;
    let mut meant = Meant::default();
    let machine = find_machine(controller, &wish.machine).await;
    meant.machine = meant.keep(machine)?;
    let source = meant.machine.as_ref().map(|(_, source)| *source);
    let target = find_target(controller, &hosts, &protections, &wish.target, source).await;
    meant.target = meant.keep(target)?;
    let policy = controller.database.policy(wish.policy.as_deref().unwrap_or("default")).await;
    let policy = policy.map(|policy| api::Reference { id: policy.id.uuid(), name: policy.name });
    meant.policy = meant.keep(policy)?;

    let findings = match &meant.machine {
        None => vec![],
        Some((machine, source)) => {
            let candidate = Candidate {
                machine,
                protected: protections.iter().any(|stored| stored.machine == machine.uuid),
                excluded: &wish.excluded_disks,
                source: &hosts.get(*source)?.1,
            };
            match meant.target {
                None => judge(&candidate, None),
                Some(target) => {
                    let from = (&candidate, *source);
                    findings_at(controller, &hosts, &protections, from, target).await?
                }
            }
        }
    };
    let (obstacles, remarks): (Vec<_>, Vec<_>) =
        findings.iter().partition(|finding| finding.is_obstacle());
    let mut all = std::mem::take(&mut meant.missing);
    all.extend(obstacles.into_iter().map(reason));
    let check = ProtectCheck {
        possible: all.is_empty(),
        obstacles: all,
        remarks: remarks.into_iter().map(reason).collect(),
    };
    Ok(Found { meant, check })
}

/// What is found of a machine, with its host, and of the target.
async fn findings_at(
    controller: &Controller,
    hosts: &Hosts,
    protections: &[Stored],
    (candidate, source): (&Candidate<'_>, HostId),
    target: HostId,
) -> Result<Vec<Finding>> {
    let there = controller.database.machines_at(target).await?;
    let machines: Vec<(MachineUuid, String)> =
        there.into_iter().map(|machine| (machine.uuid, machine.name)).collect();
    let target = Target {
        side: &hosts.get(target)?.1,
        is_source: target == source,
        machines: &machines,
        free: room_at(target, protections),
    };
    Ok(judge(candidate, Some(&target)))
}

/// The host that is meant, if a protected machine that runs on `active` can be
/// replicated to it; the one where it ran before always can.
pub(super) async fn target_for(
    controller: &Controller,
    stored: &Stored,
    active: HostId,
    reference: &str,
    doing: &str,
) -> std::result::Result<HostId, Failure> {
    let of_database = |error| Failure::of_database(doing, error);
    let hosts = Hosts::read(controller).await.map_err(of_database)?;
    let protections = controller.database.protections().await.map_err(of_database)?;
    let target = find_target(controller, &hosts, &protections, reference, Some(active)).await;
    let target = target.map_err(of_database)?;
    if target == stored.source {
        return Ok(target);
    }
    let seen = controller.database.machine_at(MachineId::on_host(active, stored.machine)).await;
    let Some((machine, _)) = seen.map_err(of_database)? else {
        return Err(Fault::new(
            Code::StateForbids,
            doing,
            "its host has not told of the machine yet",
            "Wait until its agent is connected: lifeboat machine list.",
        )
        .into());
    };
    let candidate = Candidate {
        machine: &machine,
        protected: false,
        excluded: &stored.excluded,
        source: &hosts.get(active).map_err(of_database)?.1,
    };
    let from = (&candidate, active);
    let findings = findings_at(controller, &hosts, &protections, from, target).await;
    let findings = findings.map_err(of_database)?;
    let obstacles: Vec<Reason> =
        findings.iter().filter(|finding| finding.is_obstacle()).map(reason).collect();
    if obstacles.is_empty() { Ok(target) } else { Err(blocked(doing, &obstacles)) }
}

impl Meant {
    /// What was looked up; what is not there, or not the only one, is noted.
    fn keep<T>(&mut self, found: Result<T>) -> Result<Option<T>> {
        match found {
            Ok(found) => Ok(Some(found)),
            Err(DatabaseError::Lookup(error)) => {
                let advice = match &error {
                    LookupError::NotFound { noun, .. } => {
                        format!("See what there is with: {}.", noun.listing())
                    }
                    LookupError::Ambiguous { .. } => {
                        "Say which one by its qualified name or its id.".into()
                    }
                };
                self.missing.push(Reason { reason: error.to_string(), advice });
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

async fn find_machine(controller: &Controller, reference: &str) -> Result<(Machine, HostId)> {
    let id = MachineId::new(controller.database.find(Noun::Machine, reference).await?);
    controller.database.machine_at(id).await?.ok_or_else(|| {
        LookupError::NotFound { noun: Noun::Machine, reference: reference.to_owned() }.into()
    })
}

/// The host that is meant by its own name; of a cloud or a site, of those that can
/// take points now the one with the most room, as far as that is known.
async fn find_target(
    controller: &Controller,
    hosts: &Hosts,
    protections: &[Stored],
    reference: &str,
    source: Option<HostId>,
) -> Result<HostId> {
    let as_host = match controller.database.find(Noun::Host, reference).await {
        Ok(host) => return Ok(HostId::new(host)),
        Err(error @ DatabaseError::Lookup(LookupError::NotFound { .. })) => error,
        Err(error) => return Err(error),
    };
    for noun in [Noun::Cloud, Noun::Site] {
        let group = match controller.database.find(noun, reference).await {
            Ok(group) => group.to_string(),
            Err(DatabaseError::Lookup(LookupError::NotFound { .. })) => continue,
            Err(error) => return Err(error),
        };
        let mut members = Vec::new();
        for (host, _) in hosts.all().filter(|(host, _)| !host.is_revoked()) {
            let site = host.site()?;
            let inside = match noun {
                Noun::Cloud => host.cloud_id() == Some(group.as_str()),
                _ => site.id.to_string() == group,
            };
            if inside && Some(host.id()?) != source {
                members.push((format!("{}/{}", site.name, host.reference()?.name), host.id()?));
            }
        }
        let best = members.into_iter().max_by_key(|(name, host)| {
            let able = hosts.get(*host).is_ok_and(|(_, side)| side.has_address && side.replicates);
            let connected = able && controller.connections.since(*host).is_some();
            // Of equal ones, the first by name.
            (connected, room_at(*host, protections), std::cmp::Reverse(name.clone()))
        });
        return best.map(|(_, host)| host).ok_or(as_host);
    }
    Err(as_host)
}

/// What is free where a host keeps points, as its agent last told of any.
fn room_at(host: HostId, protections: &[Stored]) -> Option<ByteCount> {
    protections
        .iter()
        .filter(|stored| stored.target == host)
        .filter_map(|stored| stored.keeping.as_ref())
        .max_by_key(|(_, received)| *received)
        .map(|(report, _)| ByteCount::new(report.free_bytes))
}
