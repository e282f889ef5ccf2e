//! Virtual networks of a host.

use std::net::IpAddr;

use uuid::Uuid;

/// A virtual network as its host defines it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualNetwork {
    /// The hypervisor's UUID.
    pub uuid: Uuid,
    /// The hypervisor's name, unique on its host.
    pub name: String,
    /// Whether it is up.
    pub active: bool,
    /// Whether the hypervisor brings it up at boot.
    pub autostart: bool,
    /// How it is kept apart from other networks.
    pub isolation: Isolation,
    /// Where its packets can go.
    pub reach: Reach,
    /// The host's bridge behind it, where there is one.
    pub bridge: Option<String>,
    /// Address ranges that the host knows on it; none for a mere bridge.
    pub subnets: Vec<Subnet>,
}

/// How a network is kept apart from others on the same wires (SPEC §5).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Isolation {
    /// Not at all: a wire of its own, or an untagged one.
    None,
    /// By VLAN tags; more than one makes a trunk.
    Vlan(Vec<u16>),
    /// By network virtualisation, such as a port of an overlay.
    Virtualised {
        /// The hypervisor's word for the kind of port.
        port: String,
    },
}

/// Where a network's packets can go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Reach {
    /// Only between the machines on it and the host.
    Isolated,
    /// Out through the host's address.
    Nat,
    /// Out with their own addresses, by the host's routes.
    Routed,
    /// Straight onto a bridge or device of the host.
    Bridged,
    /// Something else, by the hypervisor's word for it.
    Other(String),
}

/// An address range on a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    /// The host's own address there.
    pub gateway: IpAddr,
    /// Length of the network part, in bits.
    pub prefix_length: u8,
    /// What DHCP hands out, first and last; empty when it is off.
    pub dhcp: Vec<(IpAddr, IpAddr)>,
}

impl Subnet {
    /// The subnet as `192.0.2.0/24`.
    #[must_use]
    pub fn cidr(&self) -> String {
        let network = match self.gateway {
            IpAddr::V4(address) => {
                let mask =
                    u32::MAX.checked_shl(32 - u32::from(self.prefix_length.min(32))).unwrap_or(0);
                IpAddr::V4((u32::from(address) & mask).into())
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX
                    .checked_shl(128 - u32::from(self.prefix_length.min(128)))
                    .unwrap_or(0);
                IpAddr::V6((u128::from(address) & mask).into())
            }
        };
        format!("{network}/{}", self.prefix_length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_is_named_by_its_network() {
        let cidr = |gateway: &str, prefix_length| {
            Subnet { gateway: gateway.parse().unwrap(), prefix_length, dhcp: vec![] }.cidr()
        };
        assert_eq!(cidr("192.0.2.129", 25), "192.0.2.128/25");
        assert_eq!(cidr("192.0.2.1", 0), "0.0.0.0/0");
        assert_eq!(cidr("192.0.2.1", 32), "192.0.2.1/32");
        assert_eq!(cidr("2001:db8:1:2::1", 48), "2001:db8:1::/48");
    }
}
