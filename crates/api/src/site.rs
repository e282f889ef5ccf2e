//! Sites.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::words;

words! {
    /// What stands at a site.
    SiteKind = domain::site::SiteKind {
        Managed = "managed",
        StandaloneHost = "standalone-host",
        Physical = "physical",
        Vmware = "vmware",
        HyperV = "hyper-v",
        CloudProvider = "cloud-provider",
    }
}

/// A place that can be lost as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Site {
    /// Never changes.
    pub id: Uuid,
    /// Unique among sites.
    pub name: String,
    /// What stands there.
    pub kind: SiteKind,
    /// The operator's words about it.
    pub description: String,
    /// How many clouds it has.
    pub clouds: u32,
    /// How many hosts it has.
    pub hosts: u32,
    /// How many of them are connected now.
    pub hosts_connected: u32,
    /// How many machines its hosts have, as last known.
    pub machines: u32,
}

/// Makes a site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSite {
    /// Unique among sites.
    pub name: String,
    /// What stands there.
    pub kind: SiteKind,
    /// The operator's words about it.
    #[serde(default)]
    pub description: String,
}

/// Changes what an operator says about a site or a cloud. What is absent
/// stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rename {
    /// The new name.
    pub name: Option<String>,
    /// The new words about it.
    pub description: Option<String>,
}
