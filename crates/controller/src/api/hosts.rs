//! Hosts.

use api::host::{Host, MoveHost};
use api::problem::Problem;
use api::{List, Reference};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use domain::fault::{Code, Fault};
use domain::host::{HostOperation, permit};
use domain::id::HostId;
use domain::token::Permission;
use time::OffsetDateTime;

use super::access::Caller;
use super::failure::{Body, Failure, Query};
use super::machines::Wanted;
use crate::Controller;
use crate::agents::connections::Connections;
use crate::database::hosts::HostRow;
use crate::database::{DatabaseError, lookup::Noun};

fn view(connections: &Connections, host: HostRow) -> Result<Host, DatabaseError> {
    let connected = connections.since(host.id()?);
    host.view(connected)
}

async fn view_of(controller: &Controller, reference: &str) -> Result<Host, DatabaseError> {
    view(&controller.connections, controller.database.host(reference).await?)
}

/// The host that an operation is wanted on, if its state allows it now.
async fn permitted(
    controller: &Controller,
    reference: &str,
    operation: HostOperation,
    doing: &str,
) -> Result<Host, Failure> {
    let of_database = |error| Failure::of_database(doing, error);
    let row = controller.database.host(reference).await.map_err(of_database)?;
    let connected = controller.connections.since(row.id().map_err(of_database)?);
    let reachability = row.reachability(connected).map_err(of_database)?;
    if let Err(refusal) = permit(operation, &reachability) {
        return Err(Fault::new(Code::StateForbids, doing, refusal.reason, refusal.advice).into());
    }
    row.view(connected).map_err(of_database)
}

/// Hosts, by site and name.
#[utoipa::path(get, path = "/hosts", operation_id = "host_list", tag = "host",
    security(("token" = [])), params(("site" = Option<String>, Query, description = "Only of this site, by name or id")), responses(
    (status = 200, description = "The hosts", body = List<Host>),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn list(
    caller: Caller,
    State(controller): State<Controller>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<List<Host>>, Failure> {
    let doing = "list the hosts";
    caller.may(Permission::Read, doing)?;
    let listed = async {
        let filter = wanted.filter(&controller).await?;
        let hosts = controller.database.hosts().await?;
        let views = hosts.into_iter().map(|host| view(&controller.connections, host));
        let mut items = views.collect::<Result<Vec<_>, _>>()?;
        items.retain(|host| filter.site.is_none_or(|site| host.site.id == site));
        Ok(Json(List { items }))
    };
    listed.await.map_err(|error| Failure::of_database(doing, error))
}

/// One host.
#[utoipa::path(get, path = "/hosts/{host}", operation_id = "host_show", tag = "host",
    security(("token" = [])), params(("host" = String, Path, description = "Name, site/name, or id")), responses(
    (status = 200, description = "The host", body = Host),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn show(
    caller: Caller,
    State(controller): State<Controller>,
    Path(reference): Path<String>,
) -> Result<Json<Host>, Failure> {
    let doing = format!("show host {reference}");
    caller.may(Permission::Read, &doing)?;
    let host = view_of(&controller, &reference).await;
    host.map(Json).map_err(|error| Failure::of_database(&doing, error))
}

/// Moves a host into another cloud of its site, or out of any.
#[utoipa::path(post, path = "/hosts/{host}/move", operation_id = "host_move", tag = "host",
    security(("token" = [])), params(("host" = String, Path, description = "Name, site/name, or id")),
    request_body = MoveHost, responses(
    (status = 200, description = "The host as it is now", body = Host),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn move_to(
    caller: Caller,
    State(controller): State<Controller>,
    Path(reference): Path<String>,
    Body(wish): Body<MoveHost>,
) -> Result<Json<Host>, Failure> {
    let doing = format!("move host {reference}");
    caller.may(Permission::Administer, &doing)?;
    let host = permitted(&controller, &reference, HostOperation::Move, &doing).await?;
    let of_database = |error| Failure::of_database(&doing, error);
    let cloud = match wish.cloud {
        None => None,
        Some(cloud) => {
            let database = &controller.database;
            let id = database.find_seen_from(&host.site, Noun::Cloud, &cloud).await;
            let id = id.map_err(of_database)?;
            let found = database.cloud(&id.to_string()).await.map_err(of_database)?;
            if found.site.id != host.site.id {
                return Err(Fault::new(
                    Code::StateForbids,
                    doing,
                    format!("cloud {} is at site {}, the host at site {}", found.name, found.site.name, host.site.name),
                    "Choose a cloud of the host's own site; a host changes its site by being enrolled there.",
                )
                .into());
            }
            Some(Reference { id: found.id, name: found.name })
        }
    };
    let now = OffsetDateTime::now_utc();
    let moved = async {
        controller.database.move_host(&host, cloud.as_ref(), &caller.name, now).await?;
        view_of(&controller, &host.id.to_string()).await
    };
    moved.await.map(Json).map_err(of_database)
}

/// Refuses a host's certificate from now on and cuts its connection.
#[utoipa::path(post, path = "/hosts/{host}/revoke", operation_id = "host_revoke", tag = "host",
    security(("token" = [])), params(("host" = String, Path, description = "Name, site/name, or id")), responses(
    (status = 200, description = "The host as it is now", body = Host),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn revoke(
    caller: Caller,
    State(controller): State<Controller>,
    Path(reference): Path<String>,
) -> Result<Json<Host>, Failure> {
    let doing = format!("revoke host {reference}");
    caller.may(Permission::Administer, &doing)?;
    let host = permitted(&controller, &reference, HostOperation::Revoke, &doing).await?;
    let now = OffsetDateTime::now_utc();
    let revoked = async {
        controller.database.revoke_host(&host, &caller.name, now).await?;
        // After the database: a session that begins now sees the revocation.
        let fault = crate::agents::revoked(&host.name);
        controller.connections.cut(HostId::new(host.id), fault);
        // Nobody sends anything to a revoked host.
        controller.duties.announce();
        view_of(&controller, &host.id.to_string()).await
    };
    revoked.await.map(Json).map_err(|error| Failure::of_database(&doing, error))
}

/// Forgets a host and its inventory.
#[utoipa::path(delete, path = "/hosts/{host}", operation_id = "host_remove", tag = "host",
    security(("token" = [])), params(("host" = String, Path, description = "Name, site/name, or id")), responses(
    (status = 204, description = "It is gone"),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn remove(
    caller: Caller,
    State(controller): State<Controller>,
    Path(reference): Path<String>,
) -> Result<StatusCode, Failure> {
    let doing = format!("remove host {reference}");
    caller.may(Permission::Administer, &doing)?;
    let host = permitted(&controller, &reference, HostOperation::Remove, &doing).await?;
    let now = OffsetDateTime::now_utc();
    controller
        .database
        .remove_host(&host, &caller.name, now)
        .await
        .map_err(|error| Failure::of_database(&doing, error))?;
    Ok(StatusCode::NO_CONTENT)
}
