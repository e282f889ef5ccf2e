//! Verifications: comparing source and replica, and the reports.

use api::List;
use api::problem::Problem;
use api::protection::{Stretch, Verification, VerificationOutcome, VerifiedDisk};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use domain::fault::{Code, Fault};
use domain::protection::Operation;
use domain::token::Permission;
use time::OffsetDateTime;

use super::access::Caller;
use super::failure::Failure;
use super::protection_view::point;
use super::protections::permitted;
use crate::Controller;
use crate::database::hosts::new_id;
use crate::database::verifications::Verification as Stored;

fn view(stored: Stored) -> Verification {
    let outcome = match &stored.report {
        None => VerificationOutcome::Pending,
        // Nothing was compared, whatever the agent says: nobody vouches for that.
        Some(report) if report.trouble.is_some() || report.disks.is_empty() => {
            VerificationOutcome::NotDone
        }
        Some(report) if report.disks.iter().any(|disk| !disk.differing.is_empty()) => {
            VerificationOutcome::Differs
        }
        Some(_) => VerificationOutcome::Same,
    };
    let (compared, disks, trouble) = match stored.report {
        None => (None, vec![], None),
        Some(report) => (report.point, report.disks, report.trouble),
    };
    let stretch = |(offset_bytes, length_bytes)| Stretch { offset_bytes, length_bytes };
    Verification {
        id: stored.wish,
        protection: stored.protection,
        machine: api::Reference { id: stored.machine, name: stored.machine_name },
        source: stored.source,
        target: stored.target.clone(),
        asked: stored.asked,
        asked_by: stored.asked_by,
        outcome,
        finished: stored.finished,
        point: compared.map(|compared| point(compared, &stored.target)),
        disks: disks
            .into_iter()
            .map(|disk| VerifiedDisk {
                disk: disk.disk,
                bytes: disk.bytes,
                digest: disk.digest,
                differing: disk.differing.into_iter().map(stretch).collect(),
            })
            .collect(),
        trouble: trouble.map(|fault| Problem {
            code: fault.code,
            doing: fault.doing,
            cause: fault.cause,
            advice: fault.advice,
        }),
    }
}

/// Compares source and target once; the report comes later.
#[utoipa::path(post, path = "/protections/{protection}/verify", operation_id = "protection_verify", tag = "protection",
    security(("token" = [])), params(("protection" = String, Path, description = "As for showing it")), responses(
    (status = 202, description = "The verification that is under way", body = Verification),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn verify(
    caller: Caller,
    State(controller): State<Controller>,
    Path(reference): Path<String>,
) -> Result<(StatusCode, Json<Verification>), Failure> {
    let doing = format!("verify protected machine {reference}");
    caller.may(Permission::Operate, &doing)?;
    let (stored, observed) = permitted(&controller, &reference, Operation::Verify, &doing).await?;
    let (wish, now) = (new_id(), OffsetDateTime::now_utc());
    let database = &controller.database;
    let names = (observed.source.name.as_str(), observed.target.name.as_str());
    let of_database = |error| Failure::of_database(&doing, error);
    let asked = database.ask_to_verify(&stored, wish, names, &caller.name, now).await;
    if !asked.map_err(of_database)? {
        let fault = Fault::new(
            Code::StateForbids,
            doing,
            "a verification is under way",
            "Wait for its report.",
        );
        return Err(fault.into());
    }
    controller.duties.announce();
    let made = database.verification(&wish.to_string()).await.map_err(of_database)?;
    Ok((StatusCode::ACCEPTED, Json(view(made))))
}

/// The verifications of a machine, the newest first.
#[utoipa::path(get, path = "/protections/{protection}/verifications", operation_id = "verification_list", tag = "protection",
    security(("token" = [])), params(("protection" = String, Path, description = "As for showing it")), responses(
    (status = 200, description = "The verifications", body = List<Verification>),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn list(
    caller: Caller,
    State(controller): State<Controller>,
    Path(reference): Path<String>,
) -> Result<Json<List<Verification>>, Failure> {
    let doing = format!("list the verifications of {reference}");
    caller.may(Permission::Read, &doing)?;
    let listed = async {
        let stored = controller.database.protection(&reference).await?;
        controller.database.verifications(&stored).await
    };
    let items = listed.await.map_err(|error| Failure::of_database(&doing, error))?;
    Ok(Json(List { items: items.into_iter().map(view).collect() }))
}

/// One verification. It outlives its protection.
#[utoipa::path(get, path = "/verifications/{verification}", operation_id = "verification_show", tag = "protection",
    security(("token" = [])), params(("verification" = String, Path, description = "Id")), responses(
    (status = 200, description = "The verification", body = Verification),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn show(
    caller: Caller,
    State(controller): State<Controller>,
    Path(reference): Path<String>,
) -> Result<Json<Verification>, Failure> {
    let doing = format!("show verification {reference}");
    caller.may(Permission::Read, &doing)?;
    let stored = controller.database.verification(&reference).await;
    stored.map(view).map(Json).map_err(|error| Failure::of_database(&doing, error))
}
