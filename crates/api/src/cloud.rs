//! Clouds.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::Reference;

/// A named group of hosts inside a site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Cloud {
    /// Never changes.
    pub id: Uuid,
    /// Unique within the site.
    pub name: String,
    /// The site it belongs to.
    pub site: Reference,
    /// The operator's words about it.
    pub description: String,
    /// How many hosts it has.
    pub hosts: u32,
}

/// Makes a cloud.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateCloud {
    /// The site it belongs to, by name or id.
    pub site: String,
    /// Unique within the site.
    pub name: String,
    /// The operator's words about it.
    #[serde(default)]
    pub description: String,
}
