//! The audit log.

use api::List;
use api::audit::AuditEntry;
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
    /// How many entries at the most; 100 when absent, 10000 at the most.
    limit: Option<u32>,
}

/// The newest entries of the audit log, newest first.
#[utoipa::path(get, path = "/audit", operation_id = "audit_list", tag = "controller",
    security(("token" = [])), params(Wanted), responses(
    (status = 200, description = "The entries", body = List<AuditEntry>),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn list(
    caller: Caller,
    State(controller): State<Controller>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<List<AuditEntry>>, Failure> {
    let doing = "show the audit log";
    caller.may(Permission::Administer, doing)?;
    let limit = limit(wanted.limit);
    let items = controller
        .database
        .audit_entries(limit)
        .await
        .map_err(|error| Failure::of_database(doing, error))?;
    Ok(Json(List { items }))
}
