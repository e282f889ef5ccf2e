//! Recovery points: listing them, holding one, and letting it go.

use std::time::Duration;

use api::List;
use api::problem::Problem;
use api::protection::RecoveryPoint;
use axum::Json;
use axum::extract::{Path, State};
use domain::fault::{Code, Fault};
use domain::token::Permission;
use time::OffsetDateTime;
use tokio::time::timeout;
use uuid::Uuid;
use wire::command::{Answer, Command, Work};
use wire::replication::Hold;

use super::access::Caller;
use super::failure::{Body, Failure};
use super::protection_view::{self, Hosts};
use crate::Controller;
use crate::agents::commands::CommandError;
use crate::database::audit::Deed;
use crate::database::hosts::new_id;
use crate::database::protections::Protection as Stored;

/// How long a target has to list its points.
const LIST_LIMIT: Duration = Duration::from_secs(3);
/// How long it has to change what holds one.
const HOLD_LIMIT: Duration = Duration::from_secs(30);

/// Has the target do something with its points.
async fn give(
    controller: &Controller,
    stored: &Stored,
    work: Work,
    limit: Duration,
) -> Result<Answer, CommandError> {
    let command = Command { id: new_id(), job: Uuid::nil(), work };
    let answer = controller.commands.give(stored.target, command, |_| {});
    timeout(limit, answer).await.unwrap_or(Err(CommandError::NotConnected))
}

/// The recovery points of a machine, the newest first: all that its target keeps,
/// or if its agent does not answer at once, the newest that it last told of.
#[utoipa::path(get, path = "/protections/{protection}/points", operation_id = "point_list", tag = "protection",
    security(("token" = [])), params(("protection" = String, Path, description = "As for showing it")), responses(
    (status = 200, description = "The points", body = List<RecoveryPoint>),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn list(
    caller: Caller,
    State(controller): State<Controller>,
    Path(reference): Path<String>,
) -> Result<Json<List<RecoveryPoint>>, Failure> {
    let doing = format!("list the recovery points of {reference}");
    caller.may(Permission::Read, &doing)?;
    let of_database = |error| Failure::of_database(&doing, error);
    let stored = controller.database.protection(&reference).await.map_err(of_database)?;
    let work = Work::ListPoints { protection: stored.id };
    let points = match give(&controller, &stored, work, LIST_LIMIT).await {
        Ok(Answer::Points { mut points }) => {
            points.reverse();
            points
        }
        _ => controller.database.points(stored.id).await.map_err(of_database)?,
    };
    let target = target_name(&controller, &stored, &doing).await?;
    let items = points.into_iter().map(|point| protection_view::point(point, &target)).collect();
    Ok(Json(List { items }))
}

async fn target_name(
    controller: &Controller,
    stored: &Stored,
    doing: &str,
) -> Result<String, Failure> {
    let of_database = |error| Failure::of_database(doing, error);
    let hosts = Hosts::read(controller).await.map_err(of_database)?;
    let observed = protection_view::observed(stored, &hosts).map_err(of_database)?;
    Ok(observed.target.name)
}

/// Holds a point whatever the policy says, until it is released.
#[utoipa::path(post, path = "/protections/{protection}/points/{point}/hold", operation_id = "point_hold", tag = "protection",
    security(("token" = [])), params(
    ("protection" = String, Path, description = "As for showing it"), ("point" = u32, Path, description = "Its number")),
    request_body = api::job::Say, responses(
    (status = 200, description = "The point as it is now", body = RecoveryPoint),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn hold(
    caller: Caller,
    State(controller): State<Controller>,
    Path((reference, point)): Path<(String, u32)>,
    Body(why): Body<api::job::Say>,
) -> Result<Json<RecoveryPoint>, Failure> {
    change(&caller, &controller, &reference, (point, Some(Hold::Operator)), why).await
}

/// Lets a point go: it is kept as the policy says.
#[utoipa::path(post, path = "/protections/{protection}/points/{point}/release", operation_id = "point_release", tag = "protection",
    security(("token" = [])), params(
    ("protection" = String, Path, description = "As for showing it"), ("point" = u32, Path, description = "Its number")),
    request_body = api::job::Say, responses(
    (status = 200, description = "The point as it is now", body = RecoveryPoint),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn release(
    caller: Caller,
    State(controller): State<Controller>,
    Path((reference, point)): Path<(String, u32)>,
    Body(why): Body<api::job::Say>,
) -> Result<Json<RecoveryPoint>, Failure> {
    change(&caller, &controller, &reference, (point, None), why).await
}

async fn change(
    caller: &Caller,
    controller: &Controller,
    reference: &str,
    (point, hold): (u32, Option<Hold>),
    why: api::job::Say,
) -> Result<Json<RecoveryPoint>, Failure> {
    let (doing, action) = match hold {
        Some(_) => (format!("hold point {point} of {reference}"), "point.hold"),
        None => (format!("release point {point} of {reference}"), "point.release"),
    };
    caller.may(Permission::Operate, &doing)?;
    let of_database = |error| Failure::of_database(&doing, error);
    let stored = controller.database.protection(reference).await.map_err(of_database)?;
    let target = target_name(controller, &stored, &doing).await?;
    let work = Work::HoldPoint { protection: stored.id, point, hold };
    let point = match give(controller, &stored, work, HOLD_LIMIT).await {
        Ok(Answer::Point { point }) => point,
        Ok(other) => {
            let cause = format!("its agent answered {other:?}");
            return Err(Fault::internal(doing, &cause).into());
        }
        Err(CommandError::Failed(refused)) => return Err(Failure::of_agent(refused)),
        Err(CommandError::NotConnected) => {
            return Err(Fault::new(
                Code::SideNotReachable,
                doing,
                format!("the agent of {target}, which keeps the points, does not answer"),
                "Bring it back and try again; see: lifeboat host list.",
            )
            .into());
        }
    };
    let deed = Deed {
        actor: caller.name.clone(),
        action,
        subject: stored.machine_name.clone(),
        detail: match why.comment.as_str() {
            "" => format!("point {}", point.point),
            comment => format!("point {}: {comment}", point.point),
        },
    };
    controller.database.record(deed, OffsetDateTime::now_utc()).await.map_err(of_database)?;
    Ok(Json(protection_view::point(point, &target)))
}
