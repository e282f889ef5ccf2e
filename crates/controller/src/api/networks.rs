//! Virtual networks.

use api::List;
use api::network::Network;
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

/// Virtual networks, by name.
#[utoipa::path(get, path = "/networks", operation_id = "network_list", tag = "network",
    security(("token" = [])), params(
        ("site" = Option<String>, Query, description = "Only of this site, by name or id"),
        ("host" = Option<String>, Query, description = "Only of this host, by name or id"),
    ), responses(
    (status = 200, description = "The virtual networks", body = List<Network>),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn list(
    caller: Caller,
    State(controller): State<Controller>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<List<Network>>, Failure> {
    let doing = "list the virtual networks";
    caller.may(Permission::Read, doing)?;
    let listed = async {
        let filter = wanted.filter(&controller).await?;
        let connected = |host| controller.connections.since(host).is_some();
        let items = controller.database.networks(filter, connected).await?;
        Ok(Json(List { items }))
    };
    listed.await.map_err(|error| Failure::of_database(doing, error))
}

/// One virtual network.
#[utoipa::path(get, path = "/networks/{network}", operation_id = "network_show", tag = "network",
    security(("token" = [])), params(("network" = String, Path, description = "Name, host/name, site/host/name, or id")), responses(
    (status = 200, description = "The virtual network", body = Network),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn show(
    caller: Caller,
    State(controller): State<Controller>,
    Path(reference): Path<String>,
) -> Result<Json<Network>, Failure> {
    let doing = format!("show virtual network {reference}");
    caller.may(Permission::Read, &doing)?;
    let shown = async {
        let id = controller.database.find(Noun::Network, &reference).await?;
        let connected = |host| controller.connections.since(host).is_some();
        let items = controller.database.networks(Filter::default(), connected).await?;
        items.into_iter().find(|item| item.id == id).ok_or_else(|| {
            crate::database::lookup::LookupError::NotFound {
                noun: Noun::Network,
                reference: reference.clone(),
            }
            .into()
        })
    };
    shown.await.map(Json).map_err(|error| Failure::of_database(&doing, error))
}
