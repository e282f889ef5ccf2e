//! `lifeboat network`.

use api::List;
use api::network::{Isolation, Network, Subnet};

use domain::units::utc;

use crate::client::{Session, narrow, segment};
use crate::failure::Failure;
use crate::nouns::Look;
use crate::output::{self, inner_table, or_dash, yes};

pub(crate) async fn run(look: Look, session: &Session) -> Result<(), Failure> {
    match look {
        Look::List { site, host } => {
            let path = format!("/networks{}", narrow(site.as_deref(), host.as_deref()));
            let networks: List<Network> = session.get(&path).await?;
            output::list(
                session.json,
                &networks,
                "There are no virtual networks.",
                &["NAME", "SITE", "HOST", "STATE", "ISOLATION", "REACH", "SUBNETS", "DHCP"],
                |network| {
                    let subnets: Vec<_> = network.subnets.iter().map(|s| s.cidr.clone()).collect();
                    let ranges: Vec<_> = network.subnets.iter().flat_map(ranges).collect();
                    vec![
                        network.name.clone(),
                        network.site.name.clone(),
                        network.host.name.clone(),
                        state(network),
                        isolation(&network.isolation),
                        network.reach.clone(),
                        or_dash(Some(subnets.join(", ")).filter(|text| !text.is_empty())),
                        or_dash(Some(ranges.join(", ")).filter(|text| !text.is_empty())),
                    ]
                },
            );
        }
        Look::Show { name } => {
            let network: Network = session.get(&format!("/networks/{}", segment(&name))).await?;
            let subnets = network
                .subnets
                .iter()
                .map(|subnet| {
                    let dhcp = ranges(subnet).join(", ");
                    vec![
                        subnet.cidr.clone(),
                        subnet.gateway.clone(),
                        if dhcp.is_empty() { "off".into() } else { dhcp },
                    ]
                })
                .collect();
            let fields = [
                ("Name", network.name.clone()),
                ("Id", network.id.to_string()),
                ("UUID", network.uuid.to_string()),
                ("Host", format!("{} at {}", network.host.name, network.site.name)),
                ("State", state(&network)),
                ("Autostart", yes(network.autostart)),
                ("Isolation", isolation(&network.isolation)),
                ("Reach", network.reach.clone()),
                ("Bridge", or_dash(network.bridge.as_ref())),
                ("Subnets", inner_table(&["SUBNET", "GATEWAY", "DHCP"], subnets)),
            ];
            output::item(session.json, &network, &fields);
        }
    }
    Ok(())
}

fn state(network: &Network) -> String {
    let state = if network.active { "active" } else { "inactive" };
    if network.current { state.into() } else { format!("{state} as of {}", utc(network.seen)) }
}

fn isolation(isolation: &Isolation) -> String {
    match isolation {
        Isolation::None => "none".into(),
        Isolation::Vlan { tags } => {
            let tags: Vec<_> = tags.iter().map(ToString::to_string).collect();
            format!("VLAN {}", tags.join(", "))
        }
        Isolation::Virtualised { port } => format!("virtualised ({port})"),
    }
}

fn ranges(subnet: &Subnet) -> Vec<String> {
    subnet.dhcp.iter().map(|range| format!("{} to {}", range.first, range.last)).collect()
}
