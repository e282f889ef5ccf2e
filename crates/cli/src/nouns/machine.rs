//! `lifeboat machine`.

use api::List;
use api::machine::{Machine, Protectability};
use domain::units::ByteCount;

use domain::units::utc;

use crate::client::{Session, narrow, segment};
use crate::failure::Failure;
use crate::nouns::Look;
use crate::output::{self, inner_table, or_dash, yes};

pub(crate) async fn run(look: Look, session: &Session) -> Result<(), Failure> {
    match look {
        Look::List { site, host } => {
            let path = format!("/machines{}", narrow(site.as_deref(), host.as_deref()));
            let machines: List<Machine> = session.get(&path).await?;
            output::list(
                session.json,
                &machines,
                "There are no machines.",
                &["NAME", "SITE", "HOST", "POWER", "DISKS", "SIZE", "GUEST AGENT", "PROTECTABLE"],
                |machine| {
                    vec![
                        machine.name.clone(),
                        machine.site.name.clone(),
                        machine.host.name.clone(),
                        power(machine),
                        machine.disks.len().to_string(),
                        total(machine).to_string(),
                        machine.guest_agent.to_string(),
                        protectable(machine),
                    ]
                },
            );
        }
        Look::Show { name } => {
            let machine: Machine = session.get(&format!("/machines/{}", segment(&name))).await?;
            show(session, &machine);
        }
    }
    Ok(())
}

fn show(session: &Session, machine: &Machine) {
    let size = |bytes: Option<u64>| or_dash(bytes.map(ByteCount::new));
    let disks = machine
        .disks
        .iter()
        .map(|disk| {
            vec![
                disk.target.clone(),
                disk.bus.clone(),
                disk.format.clone(),
                size(disk.capacity_bytes),
                size(disk.allocation_bytes),
                disk.source.clone(),
            ]
        })
        .collect();
    let nics = machine
        .nics
        .iter()
        .map(|nic| {
            vec![
                nic.mac.clone(),
                nic.network.clone(),
                or_dash(nic.model.as_ref()),
                if nic.link_up { "up" } else { "down" }.into(),
            ]
        })
        .collect();
    let fields = [
        ("Name", machine.name.clone()),
        ("Id", machine.id.to_string()),
        ("UUID", machine.uuid.to_string()),
        ("Host", format!("{} at {}", machine.host.name, machine.site.name)),
        ("Power", power(machine)),
        (
            "Hardware",
            format!("{} vCPUs, {} memory", machine.vcpus, ByteCount::new(machine.memory_bytes)),
        ),
        ("Firmware", firmware(machine)),
        ("Guest agent", machine.guest_agent.to_string()),
        ("Autostart", yes(machine.autostart)),
        ("Disks", inner_table(&["TARGET", "BUS", "FORMAT", "SIZE", "ALLOCATED", "SOURCE"], disks)),
        ("NICs", inner_table(&["MAC", "NETWORK", "MODEL", "LINK"], nics)),
        ("Protectable", verdict(machine)),
    ];
    output::item(session.json, machine, &fields);
}

fn power(machine: &Machine) -> String {
    if machine.current {
        machine.power.to_string()
    } else {
        format!("{} as of {}", machine.power, utc(machine.seen))
    }
}

fn firmware(machine: &Machine) -> String {
    use api::machine::Firmware;
    match machine.firmware {
        Firmware::Bios => "BIOS",
        Firmware::Uefi => "UEFI",
        Firmware::UefiSecureBoot => "UEFI with secure boot",
        Firmware::DirectKernel => "kernel loaded by the host",
    }
    .into()
}

fn total(machine: &Machine) -> ByteCount {
    machine.disks.iter().filter_map(|disk| disk.capacity_bytes).map(ByteCount::new).sum()
}

fn protectable(machine: &Machine) -> String {
    match &machine.protectability {
        Protectability::Protectable { capture, .. } => format!("yes, by {capture}"),
        Protectability::Blocked { obstacles } => {
            let first = obstacles.first().map_or("", |obstacle| &obstacle.reason);
            match obstacles.len() {
                0 | 1 => format!("no: {first}"),
                several => format!("no: {first} (and {} more)", several - 1),
            }
        }
    }
}

fn verdict(machine: &Machine) -> String {
    match &machine.protectability {
        Protectability::Protectable { capture, remarks } => {
            let mut lines = vec![format!("yes, by {capture}")];
            lines.extend(remarks.clone());
            lines.join("\n")
        }
        Protectability::Blocked { obstacles } => {
            let mut lines = vec!["no:".to_owned()];
            for obstacle in obstacles {
                lines.push(format!("- {}. {}", obstacle.reason, obstacle.advice));
            }
            lines.join("\n")
        }
    }
}
