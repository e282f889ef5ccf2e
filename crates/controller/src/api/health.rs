//! Whether the controller is well, for people and for Prometheus.

use api::health::{Health, HealthStatus};
use api::problem::Problem;
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use domain::token::Permission;

use super::access::Caller;
use super::failure::Failure;
use crate::Controller;

/// Tells whether the controller does its work.
#[utoipa::path(get, path = "/health", tag = "controller", responses(
    (status = 200, description = "It does", body = Health),
    (status = 503, description = "It cannot", body = Health),
))]
pub(super) async fn health(State(controller): State<Controller>) -> (StatusCode, Json<Health>) {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    match controller.database.check().await {
        Ok(()) => {
            (StatusCode::OK, Json(Health { status: HealthStatus::Well, version, reasons: vec![] }))
        }
        Err(error) => {
            tracing::error!(%error, "the database does not answer");
            // Details are for those who may read the log.
            let reasons = vec!["the database does not answer".to_owned()];
            let health = Health { status: HealthStatus::Failing, version, reasons };
            (StatusCode::SERVICE_UNAVAILABLE, Json(health))
        }
    }
}

/// Metrics in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", tag = "controller", security(("token" = [])), responses(
    (status = 200, description = "The metrics", body = String, content_type = "text/plain"),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn metrics(
    caller: Caller,
    State(controller): State<Controller>,
) -> Result<impl IntoResponse, Failure> {
    let doing = "show the metrics";
    caller.may(Permission::Read, doing)?;
    let text = crate::metrics::render(&controller)
        .await
        .map_err(|error| Failure::of_database(doing, error))?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text))
}
