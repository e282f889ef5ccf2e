//! `<network>`: a virtual network. See <https://libvirt.org/formatnetwork.html>.

use std::net::IpAddr;

use domain::network::{Isolation, Reach, Subnet, VirtualNetwork};
use roxmltree::{Document, Node};

use super::{XmlError, attribute, child, children, required};

/// Reads a virtual network.
///
/// # Errors
/// When it is not XML, or has no name or UUID.
pub fn parse(xml: &str, active: bool, autostart: bool) -> Result<VirtualNetwork, XmlError> {
    let document = Document::parse(xml)?;
    let root = document.root_element();
    let forward = child(root, "forward");
    Ok(VirtualNetwork {
        uuid: required(root, "a virtual network", "uuid")?,
        name: required(root, "a virtual network", "name")?,
        active,
        autostart,
        isolation: isolation(root),
        reach: match forward.map(|forward| forward.attribute("mode").unwrap_or("nat")) {
            None => Reach::Isolated,
            Some("nat") => Reach::Nat,
            Some("route" | "open") => Reach::Routed,
            Some("bridge") => Reach::Bridged,
            Some(other) => Reach::Other(other.to_owned()),
        },
        bridge: attribute(root, "bridge", "name"),
        subnets: children(root, "ip").filter_map(subnet).collect(),
    })
}

fn isolation(network: Node<'_, '_>) -> Isolation {
    let tags: Vec<u16> = child(network, "vlan")
        .into_iter()
        .flat_map(|vlan| children(vlan, "tag"))
        .filter_map(|tag| tag.attribute("id")?.parse().ok())
        .collect();
    if !tags.is_empty() {
        return Isolation::Vlan(tags);
    }
    match attribute(network, "virtualport", "type") {
        // A plain Open vSwitch port separates nothing by itself.
        Some(port) if port != "openvswitch" => Isolation::Virtualised { port },
        _ => Isolation::None,
    }
}

/// None when the address makes no sense; libvirt checks them when a network
/// is defined.
fn subnet(ip: Node<'_, '_>) -> Option<Subnet> {
    let gateway: IpAddr = ip.attribute("address")?.parse().ok()?;
    let prefix_length = match (ip.attribute("prefix"), ip.attribute("netmask"), gateway) {
        (Some(prefix), _, _) => prefix.parse().ok()?,
        (None, Some(mask), _) => {
            let mask: std::net::Ipv4Addr = mask.parse().ok()?;
            u32::from(mask).leading_ones().try_into().ok()?
        }
        // What libvirt assumes: the class of the address, and /64.
        (None, None, IpAddr::V4(address)) => match address.octets()[0] {
            0..=127 => 8,
            128..=191 => 16,
            _ => 24,
        },
        (None, None, IpAddr::V6(_)) => 64,
    };
    let dhcp = child(ip, "dhcp")
        .into_iter()
        .flat_map(|dhcp| children(dhcp, "range"))
        .filter_map(|range| {
            Some((range.attribute("start")?.parse().ok()?, range.attribute("end")?.parse().ok()?))
        })
        .collect();
    Some(Subnet { gateway, prefix_length, dhcp })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(inside: &str) -> VirtualNetwork {
        let xml = format!(
            "<network><name>n</name><uuid>3c2b9f3e-0000-4000-8000-000000000003</uuid>{inside}</network>"
        );
        parse(&xml, true, true).unwrap()
    }

    #[test]
    fn the_default_network_is_nat_with_dhcp() {
        let default = network(
            "<forward mode='nat'><nat><port start='1024' end='65535'/></nat></forward>
             <bridge name='virbr0' stp='on' delay='0'/><mac address='52:54:00:00:00:01'/>
             <ip address='192.0.2.1' netmask='255.255.255.0'>
               <dhcp><range start='192.0.2.2' end='192.0.2.254'/></dhcp></ip>
             <ip family='ipv6' address='2001:db8::1' prefix='64'/>",
        );
        assert_eq!(default.reach, Reach::Nat);
        assert_eq!(default.isolation, Isolation::None);
        assert_eq!(default.bridge.as_deref(), Some("virbr0"));
        let subnets: Vec<_> =
            default.subnets.iter().map(|subnet| (subnet.cidr(), subnet.dhcp.len())).collect();
        assert_eq!(subnets, [("192.0.2.0/24".to_owned(), 1), ("2001:db8::/64".to_owned(), 0)]);
    }

    #[test]
    fn isolation_is_by_tag_or_by_overlay_or_not_at_all() {
        assert_eq!(network("").reach, Reach::Isolated);
        assert_eq!(
            network("<forward mode='bridge'/><virtualport type='openvswitch'/><vlan trunk='yes'><tag id='42'/><tag id='47'/></vlan>").isolation,
            Isolation::Vlan(vec![42, 47])
        );
        assert_eq!(
            network("<forward mode='bridge'/><virtualport type='openvswitch'/>").isolation,
            Isolation::None
        );
        assert_eq!(
            network("<forward mode='bridge'/><virtualport type='midonet'/>").isolation,
            Isolation::Virtualised { port: "midonet".into() }
        );
    }
}
