//! Machines.

use api::List;
use api::machine::Machine;
use api::problem::Problem;
use axum::Json;
use axum::extract::{Path, State};
use domain::token::Permission;

use super::access::Caller;
use super::failure::{Failure, Query};
use crate::Controller;
use crate::database::DatabaseError;
use crate::database::inventory::Filter;
use crate::database::lookup::Noun;
use serde::Deserialize;

/// Which items of an inventory are wanted.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    site: Option<String>,
    host: Option<String>,
}

impl Wanted {
    /// The filter, with names looked up.
    pub(super) async fn filter(&self, controller: &Controller) -> Result<Filter, DatabaseError> {
        let find = async |noun, reference: &Option<String>| match reference {
            Some(reference) => controller.database.find(noun, reference).await.map(Some),
            None => Ok(None),
        };
        Ok(Filter {
            site: find(Noun::Site, &self.site).await?,
            host: find(Noun::Host, &self.host).await?,
        })
    }
}

/// Machines, by name.
#[utoipa::path(get, path = "/machines", operation_id = "machine_list", tag = "machine",
    security(("token" = [])), params(
        ("site" = Option<String>, Query, description = "Only of this site, by name or id"),
        ("host" = Option<String>, Query, description = "Only of this host, by name or id"),
    ), responses(
    (status = 200, description = "The machines", body = List<Machine>),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn list(
    caller: Caller,
    State(controller): State<Controller>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<List<Machine>>, Failure> {
    let doing = "list the machines";
    caller.may(Permission::Read, doing)?;
    let listed = async {
        let filter = wanted.filter(&controller).await?;
        let connected = |host| controller.connections.since(host).is_some();
        let items = controller.database.machines(filter, connected).await?;
        Ok(Json(List { items }))
    };
    listed.await.map_err(|error| Failure::of_database(doing, error))
}

/// One machine.
#[utoipa::path(get, path = "/machines/{machine}", operation_id = "machine_show", tag = "machine",
    security(("token" = [])), params(("machine" = String, Path, description = "Name, host/name, site/host/name, or id")), responses(
    (status = 200, description = "The machine", body = Machine),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn show(
    caller: Caller,
    State(controller): State<Controller>,
    Path(reference): Path<String>,
) -> Result<Json<Machine>, Failure> {
    let doing = format!("show machine {reference}");
    caller.may(Permission::Read, &doing)?;
    let shown = async {
        let id = controller.database.find(Noun::Machine, &reference).await?;
        let connected = |host| controller.connections.since(host).is_some();
        let items = controller.database.machines(Filter::default(), connected).await?;
        items.into_iter().find(|item| item.id == id).ok_or_else(|| {
            crate::database::lookup::LookupError::NotFound {
                noun: Noun::Machine,
                reference: reference.clone(),
            }
            .into()
        })
    };
    shown.await.map(Json).map_err(|error| Failure::of_database(&doing, error))
}
