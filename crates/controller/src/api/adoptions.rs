//! Adopting what a lost controller left with its hosts.

use std::collections::HashMap;

use api::adoption::{AdoptedHost, Adoption, Which};
use api::problem::Problem;
use api::{List, Reason};
use axum::Json;
use axum::extract::State;
use domain::failover::{LooseEnd, State as Standing};
use domain::fault::{Code, Fault};
use domain::id::HostId;
use domain::token::Permission;
use jobs::{Asked, JobId};
use time::OffsetDateTime;
use wire::heritage::{Heritage, Place};

use super::access::Caller;
use super::failure::{Body, Failure};
use crate::Controller;
use crate::adoption::{Found, Known, Obstacle, Seat, find};
use crate::database::hosts::new_id;
use crate::runbooks::{Order, undo};

/// What hosts of a lost controller told and is not adopted.
#[utoipa::path(get, path = "/adoptions", operation_id = "adoption_list", tag = "controller",
    security(("token" = [])), responses(
    (status = 200, description = "What could be adopted", body = List<Adoption>),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn list(
    caller: Caller,
    State(controller): State<Controller>,
) -> Result<Json<List<Adoption>>, Failure> {
    let doing = "list what a lost controller left";
    caller.may(Permission::Read, doing)?;
    let (found, known) = look(&controller, doing).await?;
    let items = found.into_iter().map(|found| view(&found, &known, None)).collect();
    Ok(Json(List { items }))
}

/// Goes on with protections of a lost controller; all that were asked for, or
/// none.
#[utoipa::path(post, path = "/adoptions", operation_id = "adoption_adopt", tag = "controller",
    security(("token" = [])), request_body = Which, responses(
    (status = 200, description = "What was adopted", body = List<Adoption>),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn adopt(
    caller: Caller,
    State(controller): State<Controller>,
    Body(which): Body<Which>,
) -> Result<Json<List<Adoption>>, Failure> {
    let doing = "adopt what a lost controller left";
    caller.may(Permission::Administer, doing)?;
    let (found, known) = look(&controller, doing).await?;
    let named = !which.machines.is_empty();
    let mut found = chosen(found, &which, doing)?;
    for found in &mut found {
        let silent = found.silent(&which.without).join(" and ");
        if !silent.is_empty() {
            found.adoption = Err(Obstacle {
                reason: format!("{silent} has not told of it, and may know of a later failover"),
                advice: format!(
                    "Enrol it here with --take-over and start its agent; if it is lost, say so: --without {silent}."
                ),
            });
        }
    }
    let mut adoptions = Vec::new();
    for found in &found {
        match &found.adoption {
            Ok(adoption) => adoptions.push(adoption.clone()),
            Err(obstacle) if named => {
                let doing = format!("adopt machine {}", found.heritage.name);
                let (cause, advice) = (obstacle.reason.clone(), obstacle.advice.clone());
                return Err(Fault::new(Code::StateForbids, doing, cause, advice).into());
            }
            // It is shown with its reason, and holds up no other.
            Err(_) => {}
        }
    }
    let of_database = |error| Failure::of_database(doing, error);
    let now = OffsetDateTime::now_utc();
    controller.database.adopt(&adoptions, &caller.name, now).await.map_err(of_database)?;
    controller.duties.announce();
    let mut items = Vec::new();
    for found in &found {
        let takes_back =
            found.adoption.as_ref().is_ok_and(|adoption| adoption.loose == LooseEnd::TakeBack);
        let job = match takes_back {
            true => Some(take_back(&controller, &caller, &found.heritage, doing).await?),
            false => None,
        };
        items.push(view(found, &known, job));
    }
    Ok(Json(List { items }))
}

/// Forgets what was told of protections. Their hosts end what they do for them,
/// and the points stay.
#[utoipa::path(post, path = "/adoptions/renounce", operation_id = "adoption_renounce", tag = "controller",
    security(("token" = [])), request_body = Which, responses(
    (status = 200, description = "What was renounced", body = List<Adoption>),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn renounce(
    caller: Caller,
    State(controller): State<Controller>,
    Body(which): Body<Which>,
) -> Result<Json<List<Adoption>>, Failure> {
    let doing = "renounce what a lost controller left";
    caller.may(Permission::Administer, doing)?;
    let (found, known) = look(&controller, doing).await?;
    let found = chosen(found, &which, doing)?;
    let renounced: Vec<Heritage> = found.iter().map(|found| found.heritage.clone()).collect();
    let now = OffsetDateTime::now_utc();
    let done = controller.database.renounce(&renounced, &caller.name, now).await;
    done.map_err(|error| Failure::of_database(doing, error))?;
    controller.duties.announce();
    let items = found.iter().map(|found| view(found, &known, None)).collect();
    Ok(Json(List { items }))
}

async fn look(controller: &Controller, doing: &str) -> Result<(Vec<Found>, Known), Failure> {
    let read = async {
        let database = &controller.database;
        let mut hosts = HashMap::new();
        for row in database.hosts().await? {
            let (host, name) = (row.id()?, row.reference()?.name);
            hosts.insert(host, Place { host, name, site: row.site()?.name });
        }
        let protections = database.protections().await?;
        let known = Known {
            hosts,
            machines: protections.iter().map(|protection| protection.machine).collect(),
            policies: database.policy_documents().await?,
        };
        Ok((find(database.heritage().await?, &known), known))
    };
    read.await.map_err(|error| Failure::of_database(doing, error))
}

/// Those that are named; each name must be one of them.
fn chosen(found: Vec<Found>, which: &Which, doing: &str) -> Result<Vec<Found>, Failure> {
    let means = |name: &String, found: &Found| {
        let Heritage { name: machine, machine: uuid, protection, .. } = &found.heritage;
        name == machine || *name == uuid.to_string() || *name == protection.to_string()
    };
    for name in &which.machines {
        match found.iter().filter(|found| means(name, found)).count() {
            1 => {}
            0 => {
                return Err(Fault::new(
                    Code::NotFound,
                    doing,
                    format!("no host told of a machine {name}"),
                    "See what was told: lifeboat adopt --plan. A host tells it once it is enrolled here with --take-over and its agent runs.",
                )
                .into());
            }
            _ => {
                return Err(Fault::new(
                    Code::Ambiguous,
                    doing,
                    format!("several machines have the name {name}"),
                    "Give the machine's UUID: lifeboat adopt --plan shows it.",
                )
                .into());
            }
        }
    }
    let wanted = |found: &Found| {
        which.machines.is_empty() || which.machines.iter().any(|name| means(name, found))
    };
    Ok(found.into_iter().filter(wanted).collect())
}

/// A job that brings a machine back to its source, from where the lost one was.
async fn take_back(
    controller: &Controller,
    caller: &Caller,
    heritage: &Heritage,
    doing: &str,
) -> Result<JobId, Failure> {
    let job = JobId::new(new_id());
    let order = Order::new(heritage.protection.uuid(), caller.name.clone(), new_id());
    let asked = Asked::new(caller.name.clone(), format!("machine {}", heritage.name));
    let ordered = controller.engine.order::<undo::UndoFailover>(job, asked, &order).await;
    ordered.map_err(|error| super::jobs::refused(doing, error))?;
    Ok(job)
}

fn view(found: &Found, known: &Known, job: Option<JobId>) -> Adoption {
    let Found { heritage, told_by, adoption } = found;
    let host = |place: &Place, seat: Option<&Seat>| {
        let known = match seat {
            Some(Seat::Known(host)) => known.hosts.get(host),
            _ => None,
        };
        let Place { name, site, .. } = known.unwrap_or(place);
        AdoptedHost { name: name.clone(), site: site.clone(), enrolled: known.is_some() }
    };
    let adopted = adoption.as_ref().ok();
    let source = host(&heritage.source, adopted.map(|adoption| &adoption.source));
    let target = host(&heritage.target, adopted.map(|adoption| &adoption.target));
    let name_of = |host: &HostId| known.hosts.get(host).map(|place| place.name.clone());
    let mut remarks = Vec::new();
    for side in [&source, &target] {
        if adopted.is_some() && !side.enrolled {
            remarks.push(format!(
                "host {} is not enrolled here: until it is, with --take-over, it does what the lost controller said",
                side.name
            ));
        }
    }
    remarks.extend(adopted.and_then(|adoption| remark(adoption.loose, &source, &target)));
    Adoption {
        protection: heritage.protection.uuid(),
        machine: heritage.name.clone(),
        machine_uuid: heritage.machine.uuid(),
        policy: adopted.map(|adoption| adoption.policy_name.clone()),
        state: adopted.map(|adoption| Standing::name(&adoption.standing.state).to_owned()),
        epoch: heritage.epoch,
        told_by: told_by.iter().filter_map(name_of).collect(),
        refused: adoption.as_ref().err().map(|obstacle| Reason {
            reason: obstacle.reason.clone(),
            advice: obstacle.advice.clone(),
        }),
        remarks,
        job: job.map(JobId::uuid),
        source,
        target,
    }
}

fn remark(loose: LooseEnd, source: &AdoptedHost, target: &AdoptedHost) -> Option<String> {
    match loose {
        LooseEnd::None => None,
        LooseEnd::MayBeOff => Some(format!(
            "a failover to {} had begun, and is forgotten: see that the machine runs on {}",
            target.name, source.name
        )),
        LooseEnd::MayHaveNoDisks => Some(format!(
            "another point was being made ready: see that the machine runs on {}; if not, choose a point again",
            target.name
        )),
        LooseEnd::TakeBack => Some(format!(
            "a failover or a return was under way: the machine is taken back to {}; if that is lost, abandon the job and use an unplanned failover",
            source.name
        )),
    }
}
