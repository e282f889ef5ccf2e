//! Clouds.

use api::cloud::{Cloud, CreateCloud};
use api::problem::Problem;
use api::site::Rename;
use api::{List, Reference};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use domain::fault::{Code, Fault};
use domain::site::SiteKind;
use domain::token::Permission;
use time::OffsetDateTime;

use super::access::Caller;
use super::failure::{Body, Failure, name};
use crate::Controller;
use crate::database::hosts::new_id;

/// All clouds, by site and name.
#[utoipa::path(get, path = "/clouds", operation_id = "cloud_list", tag = "cloud",
    security(("token" = [])), responses(
    (status = 200, description = "The clouds", body = List<Cloud>),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn list(
    caller: Caller,
    State(controller): State<Controller>,
) -> Result<Json<List<Cloud>>, Failure> {
    let doing = "list the clouds";
    caller.may(Permission::Read, doing)?;
    let items = controller.database.clouds().await;
    items.map(|items| Json(List { items })).map_err(|error| Failure::of_database(doing, error))
}

/// Makes a cloud.
#[utoipa::path(post, path = "/clouds", operation_id = "cloud_create", tag = "cloud",
    security(("token" = [])), request_body = CreateCloud, responses(
    (status = 201, description = "The new cloud", body = Cloud),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn create(
    caller: Caller,
    State(controller): State<Controller>,
    Body(wish): Body<CreateCloud>,
) -> Result<(StatusCode, Json<Cloud>), Failure> {
    let doing = format!("create cloud {} at site {}", wish.name, wish.site);
    caller.may(Permission::Administer, &doing)?;
    let name = name(&wish.name, &doing)?;
    let of_database = |error| Failure::of_database(&doing, error);
    let site = controller.database.site(&wish.site).await.map_err(of_database)?;
    let site = site.view(0).map_err(of_database)?;
    if !SiteKind::from(site.kind).has_clouds() {
        return Err(Fault::new(
            Code::StateForbids,
            doing,
            format!("site {} is of the kind {}, which has no clouds", site.name, site.kind),
            "Make clouds at sites of the kind managed.",
        )
        .into());
    }
    let (id, now) = (new_id(), OffsetDateTime::now_utc());
    let created = async {
        let site = Reference { id: site.id, name: site.name };
        let description = &wish.description;
        controller.database.create_cloud(id, &site, &name, description, &caller.name, now).await?;
        controller.database.cloud(&id.to_string()).await
    };
    let cloud = created.await.map_err(of_database)?;
    Ok((StatusCode::CREATED, Json(cloud)))
}

/// One cloud.
#[utoipa::path(get, path = "/clouds/{cloud}", operation_id = "cloud_show", tag = "cloud",
    security(("token" = [])), params(("cloud" = String, Path, description = "Name, site/name, or id")), responses(
    (status = 200, description = "The cloud", body = Cloud),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn show(
    caller: Caller,
    State(controller): State<Controller>,
    Path(reference): Path<String>,
) -> Result<Json<Cloud>, Failure> {
    let doing = format!("show cloud {reference}");
    caller.may(Permission::Read, &doing)?;
    let cloud = controller.database.cloud(&reference).await;
    cloud.map(Json).map_err(|error| Failure::of_database(&doing, error))
}

/// Changes a cloud's name or description.
#[utoipa::path(patch, path = "/clouds/{cloud}", operation_id = "cloud_update", tag = "cloud",
    security(("token" = [])), params(("cloud" = String, Path, description = "Name, site/name, or id")),
    request_body = Rename, responses(
    (status = 200, description = "The cloud as it is now", body = Cloud),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn update(
    caller: Caller,
    State(controller): State<Controller>,
    Path(reference): Path<String>,
    Body(wish): Body<Rename>,
) -> Result<Json<Cloud>, Failure> {
    let doing = format!("change cloud {reference}");
    caller.may(Permission::Administer, &doing)?;
    let name = wish.name.map(|text| name(&text, &doing)).transpose()?;
    let now = OffsetDateTime::now_utc();
    let updated = async {
        let database = &controller.database;
        let cloud = database.cloud(&reference).await?;
        let description = wish.description.as_deref();
        database.update_cloud(&cloud, name.as_ref(), description, &caller.name, now).await?;
        database.cloud(&cloud.id.to_string()).await
    };
    updated.await.map(Json).map_err(|error| Failure::of_database(&doing, error))
}

/// Deletes a cloud that has no hosts.
#[utoipa::path(delete, path = "/clouds/{cloud}", operation_id = "cloud_delete", tag = "cloud",
    security(("token" = [])), params(("cloud" = String, Path, description = "Name, site/name, or id")), responses(
    (status = 204, description = "It is gone"),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn delete(
    caller: Caller,
    State(controller): State<Controller>,
    Path(reference): Path<String>,
) -> Result<StatusCode, Failure> {
    let doing = format!("delete cloud {reference}");
    caller.may(Permission::Administer, &doing)?;
    let now = OffsetDateTime::now_utc();
    let deleted = async {
        let cloud = controller.database.cloud(&reference).await?;
        controller.database.delete_cloud(&cloud, &caller.name, now).await
    };
    deleted.await.map_err(|error| Failure::of_database(&doing, error))?;
    Ok(StatusCode::NO_CONTENT)
}
