//! Sites.

use api::List;
use api::problem::Problem;
use api::site::{CreateSite, Rename, Site};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use domain::token::Permission;
use time::OffsetDateTime;

use super::access::Caller;
use super::failure::{Body, Failure, name};
use crate::Controller;
use crate::database::DatabaseError;
use crate::database::hosts::{HostRow, new_id};
use crate::database::sites::SiteRow;

/// The site's view, with how many of these hosts are its own and connected.
fn view(controller: &Controller, site: SiteRow, hosts: &[HostRow]) -> Result<Site, DatabaseError> {
    let id = site.id()?;
    let mut connected = 0;
    for host in hosts {
        if host.site()?.id == id && controller.connections.since(host.id()?).is_some() {
            connected += 1;
        }
    }
    site.view(connected)
}

async fn view_of(controller: &Controller, reference: &str) -> Result<Site, DatabaseError> {
    let site = controller.database.site(reference).await?;
    view(controller, site, &controller.database.hosts().await?)
}

/// All sites, by name.
#[utoipa::path(get, path = "/sites", operation_id = "site_list", tag = "site",
    security(("token" = [])), responses(
    (status = 200, description = "The sites", body = List<Site>),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn list(
    caller: Caller,
    State(controller): State<Controller>,
) -> Result<Json<List<Site>>, Failure> {
    let doing = "list the sites";
    caller.may(Permission::Read, doing)?;
    let listed = async {
        let hosts = controller.database.hosts().await?;
        let sites = controller.database.sites().await?.into_iter();
        let items = sites.map(|site| view(&controller, site, &hosts)).collect::<Result<_, _>>()?;
        Ok(Json(List { items }))
    };
    listed.await.map_err(|error| Failure::of_database(doing, error))
}

/// Makes a site.
#[utoipa::path(post, path = "/sites", operation_id = "site_create", tag = "site",
    security(("token" = [])), request_body = CreateSite, responses(
    (status = 201, description = "The new site", body = Site),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn create(
    caller: Caller,
    State(controller): State<Controller>,
    Body(wish): Body<CreateSite>,
) -> Result<(StatusCode, Json<Site>), Failure> {
    let doing = format!("create site {}", wish.name);
    caller.may(Permission::Administer, &doing)?;
    let name = name(&wish.name, &doing)?;
    let (id, now) = (new_id(), OffsetDateTime::now_utc());
    let created = async {
        let kind = wish.kind.into();
        let description = &wish.description;
        controller.database.create_site(id, &name, kind, description, &caller.name, now).await?;
        view_of(&controller, &id.to_string()).await
    };
    let site = created.await.map_err(|error| Failure::of_database(&doing, error))?;
    Ok((StatusCode::CREATED, Json(site)))
}

/// One site.
#[utoipa::path(get, path = "/sites/{site}", operation_id = "site_show", tag = "site",
    security(("token" = [])), params(("site" = String, Path, description = "Name or id")), responses(
    (status = 200, description = "The site", body = Site),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn show(
    caller: Caller,
    State(controller): State<Controller>,
    Path(reference): Path<String>,
) -> Result<Json<Site>, Failure> {
    let doing = format!("show site {reference}");
    caller.may(Permission::Read, &doing)?;
    let site = view_of(&controller, &reference).await;
    site.map(Json).map_err(|error| Failure::of_database(&doing, error))
}

/// Changes a site's name or description.
#[utoipa::path(patch, path = "/sites/{site}", operation_id = "site_update", tag = "site",
    security(("token" = [])), params(("site" = String, Path, description = "Name or id")),
    request_body = Rename, responses(
    (status = 200, description = "The site as it is now", body = Site),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn update(
    caller: Caller,
    State(controller): State<Controller>,
    Path(reference): Path<String>,
    Body(wish): Body<Rename>,
) -> Result<Json<Site>, Failure> {
    let doing = format!("change site {reference}");
    caller.may(Permission::Administer, &doing)?;
    let name = wish.name.map(|text| name(&text, &doing)).transpose()?;
    let now = OffsetDateTime::now_utc();
    let updated = async {
        let id = controller.database.site(&reference).await?.id()?;
        let description = wish.description.as_deref();
        controller.database.update_site(id, name.as_ref(), description, &caller.name, now).await?;
        view_of(&controller, &id.to_string()).await
    };
    updated.await.map(Json).map_err(|error| Failure::of_database(&doing, error))
}

/// Deletes a site that has neither hosts nor clouds.
#[utoipa::path(delete, path = "/sites/{site}", operation_id = "site_delete", tag = "site",
    security(("token" = [])), params(("site" = String, Path, description = "Name or id")), responses(
    (status = 204, description = "It is gone"),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn delete(
    caller: Caller,
    State(controller): State<Controller>,
    Path(reference): Path<String>,
) -> Result<StatusCode, Failure> {
    let doing = format!("delete site {reference}");
    caller.may(Permission::Administer, &doing)?;
    let now = OffsetDateTime::now_utc();
    let deleted = async {
        let id = controller.database.site(&reference).await?.id()?;
        controller.database.delete_site(id, &caller.name, now).await
    };
    deleted.await.map_err(|error| Failure::of_database(&doing, error))?;
    Ok(StatusCode::NO_CONTENT)
}
