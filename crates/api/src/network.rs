//! Virtual networks.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::Reference;

/// A virtual network, as its host last saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Network {
    /// This network on this host; never changes.
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
    /// Whether it is up.
    pub active: bool,
    /// Whether the hypervisor brings it up at boot.
    pub autostart: bool,
    /// How it is kept apart from other networks.
    pub isolation: Isolation,
    /// Where its packets can go: `isolated`, `nat`, `routed`, `bridged`, or
    /// the hypervisor's word.
    pub reach: String,
    /// The host's bridge behind it.
    pub bridge: Option<String>,
    /// Address ranges that the host knows on it.
    pub subnets: Vec<Subnet>,
}

/// How a network is kept apart from others on the same wires.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Isolation {
    /// Not at all.
    None,
    /// By VLAN tags.
    Vlan {
        /// One tag, or those of a trunk.
        tags: Vec<u16>,
    },
    /// By network virtualisation.
    Virtualised {
        /// The hypervisor's word for the kind of port.
        port: String,
    },
}

/// An address range on a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Subnet {
    /// The subnet, such as `192.0.2.0/24`.
    pub cidr: String,
    /// The host's own address there.
    pub gateway: String,
    /// What DHCP hands out; empty when it is off.
    pub dhcp: Vec<AddressRange>,
}

/// Addresses from the first to the last, both included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AddressRange {
    /// The first.
    pub first: String,
    /// The last.
    pub last: String,
}

impl From<domain::network::Isolation> for Isolation {
    fn from(isolation: domain::network::Isolation) -> Self {
        use domain::network::Isolation as Domain;
        match isolation {
            Domain::None => Self::None,
            Domain::Vlan(tags) => Self::Vlan { tags },
            Domain::Virtualised { port } => Self::Virtualised { port },
        }
    }
}

impl From<domain::network::Subnet> for Subnet {
    fn from(subnet: domain::network::Subnet) -> Self {
        Self {
            cidr: subnet.cidr(),
            gateway: subnet.gateway.to_string(),
            dhcp: subnet
                .dhcp
                .into_iter()
                .map(|(first, last)| AddressRange {
                    first: first.to_string(),
                    last: last.to_string(),
                })
                .collect(),
        }
    }
}

/// The word for where a network's packets can go.
#[must_use]
pub fn reach_word(reach: &domain::network::Reach) -> String {
    use domain::network::Reach;
    match reach {
        Reach::Isolated => "isolated",
        Reach::Nat => "nat",
        Reach::Routed => "routed",
        Reach::Bridged => "bridged",
        Reach::Other(word) => word,
    }
    .to_owned()
}
