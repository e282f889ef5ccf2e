//! Whether the controller is well.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What anybody may know of the controller's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// Whether it does its work.
    pub status: HealthStatus,
    /// Version of Lifeboat.
    pub version: String,
    /// What is wrong, when something is.
    pub reasons: Vec<String>,
}

/// Whether the controller does its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HealthStatus {
    /// It does.
    Well,
    /// It cannot; answered with status 503.
    Failing,
}
