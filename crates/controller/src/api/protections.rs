//! Protections: looking at them, and what operators do to them.

use api::List;
use api::problem::Problem;
use api::protection::{ChangeProtection, Disabled, ImportCopy, Protection};
use axum::Json;
use axum::extract::{Path, State};
use domain::fault::{Code, Fault};
use domain::host::Reachability;
use domain::protection::{Observed, Operation};
use domain::token::Permission;
use serde::Deserialize;
use time::OffsetDateTime;
use utoipa::IntoParams;
use wire::replication::OfflineCopy;

use super::access::Caller;
use super::failure::{Body, Failure, Query, is_a_folder};
use super::protection_view::{self, Hosts};
use crate::Controller;
use crate::database::hosts::new_id;
use crate::database::protections::{Protection as Stored, Wish};

/// A protection that something is wanted of, if its state allows that now.
pub(super) async fn permitted(
    controller: &Controller,
    reference: &str,
    operation: Operation,
    doing: &str,
) -> Result<(Stored, Observed), Failure> {
    let of_database = |error| Failure::of_database(doing, error);
    let stored = controller.database.protection(reference).await.map_err(of_database)?;
    let hosts = Hosts::read(controller).await.map_err(of_database)?;
    let observed = protection_view::observed(&stored, &hosts).map_err(of_database)?;
    let standing = stored.standing(super::failovers::tests(controller, stored.id));
    protection_view::permitted(operation, &stored, &standing, &observed)
        .map_err(|refusal| Fault::new(Code::StateForbids, doing, refusal.reason, refusal.advice))?;
    Ok((stored, observed))
}

/// A protection as it is now.
pub(super) async fn now(
    controller: &Controller,
    reference: &str,
    doing: &str,
) -> Result<Json<Protection>, Failure> {
    let shown = async {
        let stored = controller.database.protection(reference).await?;
        let hosts = Hosts::read(controller).await?;
        protection_view::shown(controller, &stored, &hosts).await
    };
    shown.await.map(Json).map_err(|error| Failure::of_database(doing, error))
}

/// Keeps what is wanted, tells the agents, and shows the protection.
async fn keep(
    controller: &Controller,
    stored: &Stored,
    wish: Wish,
    caller: &Caller,
    doing: &str,
) -> Result<Json<Protection>, Failure> {
    let at = OffsetDateTime::now_utc();
    let kept = controller.database.wish(stored, wish, &caller.name, at).await;
    kept.map_err(|error| Failure::of_database(doing, error))?;
    controller.duties.announce();
    now(controller, &stored.id.to_string(), doing).await
}

/// Protected machines, by name.
#[utoipa::path(get, path = "/protections", operation_id = "protection_list", tag = "protection",
    security(("token" = [])), responses(
    (status = 200, description = "The protections", body = List<Protection>),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn list(
    caller: Caller,
    State(controller): State<Controller>,
) -> Result<Json<List<Protection>>, Failure> {
    let doing = "list the protected machines";
    caller.may(Permission::Read, doing)?;
    let items = protection_view::all(&controller).await;
    items.map(|items| Json(List { items })).map_err(|error| Failure::of_database(doing, error))
}

/// One protected machine.
#[utoipa::path(get, path = "/protections/{protection}", operation_id = "protection_show", tag = "protection",
    security(("token" = [])), params(("protection" = String, Path, description = "The machine's name, host/name, site/host/name, UUID or id, or the protection's id")), responses(
    (status = 200, description = "The protection", body = Protection),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn show(
    caller: Caller,
    State(controller): State<Controller>,
    Path(reference): Path<String>,
) -> Result<Json<Protection>, Failure> {
    let doing = format!("show protected machine {reference}");
    caller.may(Permission::Read, &doing)?;
    now(&controller, &reference, &doing).await
}

/// Gives a protection another policy.
#[utoipa::path(patch, path = "/protections/{protection}", operation_id = "protection_change", tag = "protection",
    security(("token" = [])), params(("protection" = String, Path, description = "As for showing it")),
    request_body = ChangeProtection, responses(
    (status = 200, description = "The protection as it is now", body = Protection),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn change(
    caller: Caller,
    State(controller): State<Controller>,
    Path(reference): Path<String>,
    Body(wish): Body<ChangeProtection>,
) -> Result<Json<Protection>, Failure> {
    let doing = format!("change the policy of protected machine {reference}");
    caller.may(Permission::Operate, &doing)?;
    let (stored, _) = permitted(&controller, &reference, Operation::ChangePolicy, &doing).await?;
    let policy = controller.database.policy(&wish.policy).await;
    let policy = policy.map_err(|error| Failure::of_database(&doing, error))?;
    let policy = api::Reference { id: policy.id.uuid(), name: policy.name };
    keep(&controller, &stored, Wish::ChangePolicy(policy), &caller, &doing).await
}

/// Takes no more points until it is resumed.
#[utoipa::path(post, path = "/protections/{protection}/pause", operation_id = "protection_pause", tag = "protection",
    security(("token" = [])), params(("protection" = String, Path, description = "As for showing it")), responses(
    (status = 200, description = "The protection as it is now", body = Protection),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn pause(
    caller: Caller,
    State(controller): State<Controller>,
    Path(reference): Path<String>,
) -> Result<Json<Protection>, Failure> {
    let doing = format!("pause protected machine {reference}");
    caller.may(Permission::Operate, &doing)?;
    let (stored, _) = permitted(&controller, &reference, Operation::Pause, &doing).await?;
    keep(&controller, &stored, Wish::Pause, &caller, &doing).await
}

/// Goes on after a pause.
#[utoipa::path(post, path = "/protections/{protection}/resume", operation_id = "protection_resume", tag = "protection",
    security(("token" = [])), params(("protection" = String, Path, description = "As for showing it")), responses(
    (status = 200, description = "The protection as it is now", body = Protection),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn resume(
    caller: Caller,
    State(controller): State<Controller>,
    Path(reference): Path<String>,
) -> Result<Json<Protection>, Failure> {
    let doing = format!("resume protected machine {reference}");
    caller.may(Permission::Operate, &doing)?;
    let (stored, _) = permitted(&controller, &reference, Operation::Resume, &doing).await?;
    keep(&controller, &stored, Wish::Resume, &caller, &doing).await
}

/// Takes in a first copy that was carried to the target's host.
#[utoipa::path(post, path = "/protections/{protection}/import", operation_id = "protection_import", tag = "protection",
    security(("token" = [])), params(("protection" = String, Path, description = "As for showing it")),
    request_body = ImportCopy, responses(
    (status = 200, description = "The protection as it is now", body = Protection),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn import(
    caller: Caller,
    State(controller): State<Controller>,
    Path(reference): Path<String>,
    Body(wish): Body<ImportCopy>,
) -> Result<Json<Protection>, Failure> {
    let doing = format!("take in the first copy of protected machine {reference}");
    caller.may(Permission::Operate, &doing)?;
    is_a_folder(&wish.folder, &doing)?;
    let (stored, _) = permitted(&controller, &reference, Operation::ImportCopy, &doing).await?;
    let copy = OfflineCopy { wish: new_id(), folder: wish.folder };
    keep(&controller, &stored, Wish::ImportCopy(copy), &caller, &doing).await
}

/// Sends a first copy that was to be carried over the network after all.
#[utoipa::path(post, path = "/protections/{protection}/copy-over-network", operation_id = "protection_copy_over_network", tag = "protection",
    security(("token" = [])), params(("protection" = String, Path, description = "As for showing it")), responses(
    (status = 200, description = "The protection as it is now", body = Protection),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn copy_over_network(
    caller: Caller,
    State(controller): State<Controller>,
    Path(reference): Path<String>,
) -> Result<Json<Protection>, Failure> {
    let doing = format!("copy protected machine {reference} over the network");
    caller.may(Permission::Operate, &doing)?;
    let (stored, _) =
        permitted(&controller, &reference, Operation::CopyOverNetwork, &doing).await?;
    keep(&controller, &stored, Wish::CopyOverNetwork, &caller, &doing).await
}

/// Compares source and target once, and sends what differs.
#[utoipa::path(post, path = "/protections/{protection}/resynchronise", operation_id = "protection_resynchronise", tag = "protection",
    security(("token" = [])), params(("protection" = String, Path, description = "As for showing it")), responses(
    (status = 200, description = "The protection as it is now", body = Protection),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn resynchronise(
    caller: Caller,
    State(controller): State<Controller>,
    Path(reference): Path<String>,
) -> Result<Json<Protection>, Failure> {
    let doing = format!("resynchronise protected machine {reference}");
    caller.may(Permission::Operate, &doing)?;
    let (stored, _) = permitted(&controller, &reference, Operation::Resynchronise, &doing).await?;
    keep(&controller, &stored, Wish::Resynchronise(new_id()), &caller, &doing).await
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct How {
    /// Wait for no agent: the other side is gone. False when absent.
    #[serde(default)]
    force: bool,
}

/// Ends a protection at both sides; by force, without waiting for any.
#[utoipa::path(delete, path = "/protections/{protection}", operation_id = "protection_disable", tag = "protection",
    security(("token" = [])), params(("protection" = String, Path, description = "As for showing it"), How), responses(
    (status = 200, description = "What became of it", body = Disabled),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn disable(
    caller: Caller,
    State(controller): State<Controller>,
    Path(reference): Path<String>,
    Query(how): Query<How>,
) -> Result<Json<Disabled>, Failure> {
    let doing = format!("disable protected machine {reference}");
    caller.may(Permission::Operate, &doing)?;
    let at = OffsetDateTime::now_utc();
    let of_database = |error| Failure::of_database(&doing, error);
    if how.force {
        let stored = controller.database.protection(&reference).await.map_err(of_database)?;
        let hosts = Hosts::read(&controller).await.map_err(of_database)?;
        let observed = protection_view::observed(&stored, &hosts).map_err(of_database)?;
        let left_behind = protection_view::left_behind(&stored, &observed);
        let ended =
            controller.database.end_protection(&stored, &left_behind, &caller.name, at).await;
        ended.map_err(of_database)?;
        controller.duties.announce();
        return Ok(Json(Disabled { finished: true, left_behind }));
    }
    let (stored, observed) = permitted(&controller, &reference, Operation::Disable, &doing).await?;
    for side in [&observed.source, &observed.target] {
        if !matches!(side.reachability, Reachability::Connected { .. }) {
            return Err(Fault::new(
                Code::SideNotReachable,
                doing,
                format!("the agent of {} is not connected and cannot end its part", side.name),
                "Bring it back and try again; if the host is lost for good, disable with --force.",
            )
            .into());
        }
    }
    let left_behind = protection_view::left_behind(&stored, &observed);
    controller
        .database
        .wish(&stored, Wish::Disable, &caller.name, at)
        .await
        .map_err(of_database)?;
    controller.duties.announce();
    Ok(Json(Disabled { finished: false, left_behind }))
}
