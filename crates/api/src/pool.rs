//! Storage pools.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::Reference;

/// A storage pool, as its host last saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Pool {
    /// This pool on this host; never changes.
    pub id: Uuid,
    /// The hypervisor's UUID.
    pub uuid: Uuid,
    /// The hypervisor's name; unique on its host.
    pub name: String,
    /// Where it is defined.
    pub host: Reference,
    /// Where that is.
    pub site: Reference,
    /// Whether what is shown is what is; else it is as last known.
    pub current: bool,
    /// When it was last seen so.
    #[serde(with = "time::serde::rfc3339")]
    pub seen: OffsetDateTime,
    /// The hypervisor's word for its kind.
    pub kind: String,
    /// Whether it can be used now.
    pub active: bool,
    /// Whether the hypervisor opens it at boot.
    pub autostart: bool,
    /// The folder or device behind it.
    pub path: Option<String>,
    /// Its size in bytes; zero while it is not active.
    pub capacity_bytes: u64,
    /// What is left of it, in bytes; zero while it is not active.
    pub available_bytes: u64,
}
