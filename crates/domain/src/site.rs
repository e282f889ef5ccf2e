//! Sites and clouds.

use crate::id::{CloudId, SiteId};
use crate::name::Name;

/// What stands at a site, which decides the directions and kinds of failover
/// that it takes part in (SPEC §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SiteKind {
    /// Hosts with agents, grouped in clouds.
    Managed,
    /// A single host that belongs to no cloud.
    StandaloneHost,
    /// Servers without a hypervisor.
    Physical,
    /// VMware hosts.
    Vmware,
    /// Hyper-V hosts.
    HyperV,
    /// A cloud provider.
    CloudProvider,
}

impl SiteKind {
    /// All kinds, in the order in which they are offered.
    pub const ALL: [Self; 6] = [
        Self::Managed,
        Self::StandaloneHost,
        Self::Physical,
        Self::Vmware,
        Self::HyperV,
        Self::CloudProvider,
    ];

    /// Whether hosts of this kind of site are grouped in clouds.
    #[must_use]
    pub const fn has_clouds(self) -> bool {
        matches!(self, Self::Managed)
    }

    /// Whether an agent can be enrolled into a site of this kind today.
    #[must_use]
    pub const fn takes_agents(self) -> bool {
        matches!(self, Self::Managed | Self::StandaloneHost)
    }
}

/// A place that can be lost as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// Never changes.
    pub id: SiteId,
    /// Unique among sites.
    pub name: Name,
    /// What stands there.
    pub kind: SiteKind,
    /// The operator's words about it; may be empty.
    pub description: String,
}

/// A named group of hosts inside a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cloud {
    /// Never changes.
    pub id: CloudId,
    /// The site it belongs to.
    pub site: SiteId,
    /// Unique within the site.
    pub name: Name,
    /// The operator's words about it; may be empty.
    pub description: String,
}
