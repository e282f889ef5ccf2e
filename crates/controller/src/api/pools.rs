//! Storage pools.

use api::List;
use api::pool::Pool;
use api::problem::Problem;
use axum::Json;
use axum::extract::{Path, State};
use domain::token::Permission;

use super::access::Caller;
use super::failure::{Failure, Query};
use super::machines::Wanted;
use crate::Controller;
use crate::database::inventory::Filter;
use crate::database::lookup::Noun;

/// Storage pools, by name.
#[utoipa::path(get, path = "/pools", operation_id = "pool_list", tag = "pool",
    security(("token" = [])), params(
        ("site" = Option<String>, Query, description = "Only of this site, by name or id"),
        ("host" = Option<String>, Query, description = "Only of this host, by name or id"),
    ), responses(
    (status = 200, description = "The storage pools", body = List<Pool>),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn list(
    caller: Caller,
    State(controller): State<Controller>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<List<Pool>>, Failure> {
    let doing = "list the storage pools";
    caller.may(Permission::Read, doing)?;
    let listed = async {
        let filter = wanted.filter(&controller).await?;
        let connected = |host| controller.connections.since(host).is_some();
        let items = controller.database.pools(filter, connected).await?;
        Ok(Json(List { items }))
    };
    listed.await.map_err(|error| Failure::of_database(doing, error))
}

/// One storage pool.
#[utoipa::path(get, path = "/pools/{pool}", operation_id = "pool_show", tag = "pool",
    security(("token" = [])), params(("pool" = String, Path, description = "Name, host/name, site/host/name, or id")), responses(
    (status = 200, description = "The storage pool", body = Pool),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn show(
    caller: Caller,
    State(controller): State<Controller>,
    Path(reference): Path<String>,
) -> Result<Json<Pool>, Failure> {
    let doing = format!("show storage pool {reference}");
    caller.may(Permission::Read, &doing)?;
    let shown = async {
        let id = controller.database.find(Noun::Pool, &reference).await?;
        let connected = |host| controller.connections.since(host).is_some();
        let items = controller.database.pools(Filter::default(), connected).await?;
        items.into_iter().find(|item| item.id == id).ok_or_else(|| {
            crate::database::lookup::LookupError::NotFound {
                noun: Noun::Pool,
                reference: reference.clone(),
            }
            .into()
        })
    };
    shown.await.map(Json).map_err(|error| Failure::of_database(&doing, error))
}
