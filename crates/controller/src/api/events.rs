//! Events.

use api::List;
use api::event::Event;
use api::problem::Problem;
use axum::Json;
use axum::extract::State;
use domain::token::Permission;
use serde::Deserialize;
use utoipa::IntoParams;

use super::access::Caller;
use super::failure::{Failure, Query};
use super::limit::limit;
use crate::Controller;

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Of this machine only: name, host/name, site/host/name, UUID or id.
    machine: Option<String>,
    /// How many at the most; 100 when absent, 10000 at the most.
    limit: Option<u32>,
}

/// What changed about protected machines, the newest first, over 90 days.
#[utoipa::path(get, path = "/events", operation_id = "event_list", tag = "protection",
    security(("token" = [])), params(Wanted), responses(
    (status = 200, description = "The events", body = List<Event>),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn list(
    caller: Caller,
    State(controller): State<Controller>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<List<Event>>, Failure> {
    let doing = "list what changed";
    caller.may(Permission::Read, doing)?;
    let limit = limit(wanted.limit);
    let listed = async {
        let protection = match wanted.machine {
            Some(machine) => Some(controller.database.protection(&machine).await?.id.uuid()),
            None => None,
        };
        controller.database.events(protection, limit).await
    };
    let items = listed.await.map_err(|error| Failure::of_database(doing, error))?;
    Ok(Json(List { items }))
}
