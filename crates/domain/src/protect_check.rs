//! Checks before a machine is protected: everything that stands in the way, and
//! everything that will make protection poorer, at once.

use std::fmt;

use time::OffsetDateTime;

use crate::host::Reachability;
use crate::id::MachineUuid;
use crate::machine::Machine;
use crate::protectability::{self, Protectability};
use crate::protection::Side;
use crate::units::{ByteCount, utc};

/// What is to be protected, and where.
#[derive(Debug, Clone)]
pub struct Candidate<'a> {
    /// The machine as its host sees it.
    pub machine: &'a Machine,
    /// Whether it is protected already.
    pub protected: bool,
    /// Disks to leave out.
    pub excluded: &'a [String],
    /// Its host.
    pub source: &'a Side,
}

/// The host that would keep the points.
#[derive(Debug, Clone)]
pub struct Target<'a> {
    /// The host.
    pub side: &'a Side,
    /// Whether it is the machine's own host.
    pub is_source: bool,
    /// The machines that it has.
    pub machines: &'a [(MachineUuid, String)],
    /// What is free where it keeps points, as far as anybody told.
    pub free: Option<ByteCount>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// The machine is protected already.
    AlreadyProtected,
    /// What stands in the way of protecting the machine anywhere.
    Machine(protectability::Obstacle),
    /// There is no such disk to leave out.
    NoSuchDisk {
        /// What was named.
        disk: String,
        /// What there is.
        known: Vec<String>,
    },
    /// No disk is left.
    AllExcluded,
    /// The target is the machine's own host.
    SameHost(String),
    /// A host is revoked.
    Revoked(String),
    /// The target's agent never connected.
    NeverHeard(String),
    /// An agent is one that does not replicate.
    AgentTooOld(String),
    /// The target's agent takes nothing from others.
    NoAddress(String),
    /// The same machine is defined at the target.
    UuidTaken {
        /// The target.
        host: String,
        /// The machine's name there.
        name: String,
    },
    /// The first copy does not fit.
    TooLittleRoom {
        /// The target.
        host: String,
        /// What is free.
        free: ByteCount,
        /// What the disks take up.
        needed: ByteCount,
    },
    /// Nobody told how much room there is.
    RoomUnknown {
        /// The target.
        host: String,
        /// What the disks take up.
        needed: ByteCount,
    },
    /// Another machine has the name at the target.
    NameTaken {
        /// The target.
        host: String,
        /// The name.
        name: String,
    },
    /// A host is not heard now.
    NotHeard {
        /// The host.
        host: String,
        /// Since when.
        since: OffsetDateTime,
    },
    /// Each cycle reads the disk whole, and the like.
    Poorer(protectability::Remark),
}

/// Checks what can be checked; without a target, what concerns the machine.
#[must_use]
pub fn check(candidate: &Candidate<'_>, target: Option<&Target<'_>>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if candidate.protected {
        findings.push(Finding::AlreadyProtected);
    }
    let kept = check_machine(candidate, &mut findings);
    check_source(candidate.source, &mut findings);
    if let Some(target) = target {
        check_target(target, candidate.machine, &kept, &mut findings);
    }
    findings
}

/// Judges the machine without the excluded disks, which it gives back.
fn check_machine(candidate: &Candidate<'_>, findings: &mut Vec<Finding>) -> Machine {
    let written: Vec<String> = candidate
        .machine
        .disks
        .iter()
        .filter(|disk| !disk.read_only)
        .map(|disk| disk.target.clone())
        .collect();
    for disk in candidate.excluded {
        if !candidate.machine.disks.iter().any(|known| known.target == *disk) {
            findings.push(Finding::NoSuchDisk { disk: disk.clone(), known: written.clone() });
        }
    }
    let mut kept = candidate.machine.clone();
    kept.disks.retain(|disk| !candidate.excluded.contains(&disk.target));
    if !written.is_empty() && kept.disks.iter().all(|disk| disk.read_only) {
        findings.push(Finding::AllExcluded);
    }
    match protectability::judge(&kept) {
        Protectability::Protectable { remarks, .. } => {
            findings.extend(remarks.into_iter().map(Finding::Poorer));
        }
        Protectability::Blocked { obstacles } => {
            let told = |obstacle: &protectability::Obstacle| {
                *obstacle == protectability::Obstacle::NoDisks && !written.is_empty()
            };
            let rest = obstacles.into_iter().filter(|obstacle| !told(obstacle));
            findings.extend(rest.map(Finding::Machine));
        }
    }
    kept
}

fn check_source(source: &Side, findings: &mut Vec<Finding>) {
    let host = source.name.clone();
    match source.reachability {
        Reachability::Revoked { .. } => findings.push(Finding::Revoked(host)),
        Reachability::Enrolled { since } | Reachability::NotReachable { since } => {
            findings.push(Finding::NotHeard { host, since });
        }
        Reachability::Connected { .. } if !source.replicates => {
            findings.push(Finding::AgentTooOld(host));
        }
        Reachability::Connected { .. } => {}
    }
}

fn check_target(
    target: &Target<'_>,
    machine: &Machine,
    kept: &Machine,
    findings: &mut Vec<Finding>,
) {
    let host = || target.side.name.clone();
    if target.is_source {
        findings.push(Finding::SameHost(host()));
        return;
    }
    match target.side.reachability {
        Reachability::Revoked { .. } => findings.push(Finding::Revoked(host())),
        Reachability::Enrolled { .. } => findings.push(Finding::NeverHeard(host())),
        Reachability::NotReachable { since } => {
            findings.push(Finding::NotHeard { host: host(), since });
        }
        Reachability::Connected { .. } => {}
    }
    if !matches!(
        target.side.reachability,
        Reachability::Revoked { .. } | Reachability::Enrolled { .. }
    ) {
        if !target.side.replicates {
            findings.push(Finding::AgentTooOld(host()));
        } else if !target.side.has_address {
            findings.push(Finding::NoAddress(host()));
        }
    }
    let same_uuid = target.machines.iter().find(|(uuid, _)| *uuid == machine.uuid);
    let same_name = target.machines.iter().find(|(_, name)| *name == machine.name);
    if let Some((_, name)) = same_uuid {
        findings.push(Finding::UuidTaken { host: host(), name: name.clone() });
    } else if let Some((_, name)) = same_name {
        findings.push(Finding::NameTaken { host: host(), name: name.clone() });
    }
    let taken = kept.disks.iter().filter(|disk| !disk.read_only);
    let needed: ByteCount = taken.filter_map(|disk| disk.allocation.or(disk.capacity)).sum();
    match target.free {
        Some(free) if free < needed => {
            findings.push(Finding::TooLittleRoom { host: host(), free, needed });
        }
        Some(_) => {}
        None => findings.push(Finding::RoomUnknown { host: host(), needed }),
    }
}

impl Finding {
    /// Whether it keeps the machine from being protected.
    #[must_use]
    pub const fn is_obstacle(&self) -> bool {
        !matches!(
            self,
            Self::RoomUnknown { .. }
                | Self::NameTaken { .. }
                | Self::NotHeard { .. }
                | Self::Poorer(_)
        )
    }

    /// What to do about it.
    #[must_use]
    pub fn advice(&self) -> String {
        match self {
            Self::AlreadyProtected => {
                "See it with: lifeboat protected show; disable it first to protect it otherwise."
                    .into()
            }
            Self::Machine(obstacle) => obstacle.advice(),
            Self::NoSuchDisk { known, .. } => format!("Its disks are: {}.", known.join(", ")),
            Self::AllExcluded => "Leave at least one disk in that the machine writes to.".into(),
            Self::SameHost(_) => "Choose a host that is not lost together with this one.".into(),
            Self::Revoked(host) => {
                format!("Enrol {host} again with a token that replaces it, or choose another host.")
            }
            Self::NeverHeard(host) => format!("Start the agent on {host}."),
            Self::AgentTooOld(host) => format!("Upgrade the agent of {host}."),
            Self::NoAddress(host) => format!(
                "Let the agent of {host} listen for other agents, and restart it; see the guide to protection."
            ),
            Self::UuidTaken { host, name } => format!(
                "If {name} at {host} is an old copy, undefine it there; else choose another host."
            ),
            Self::TooLittleRoom { host, .. } => {
                format!("Make room at {host}, exclude a disk, or choose another host.")
            }
            Self::RoomUnknown { host, .. } => {
                format!("Look at the file system of the agent's store on {host}.")
            }
            Self::NameTaken { .. } => {
                "Nothing now; the machine needs another name there when it fails over.".into()
            }
            Self::NotHeard { host, .. } => {
                format!("Replication begins once the agent of {host} is connected.")
            }
            Self::Poorer(remark) => match remark {
                protectability::Remark::FoundByScan { disk, .. } => format!(
                    "Choose a copy frequency that leaves time to read {disk}, or convert it to qcow2 while the machine is off."
                ),
                protectability::Remark::NoGuestAgent => {
                    "Give the machine a guest agent channel to take app-consistent points.".into()
                }
                protectability::Remark::Autostart => "Nothing now.".into(),
            },
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyProtected => f.write_str("the machine is protected already"),
            Self::Machine(obstacle) => obstacle.fmt(f),
            Self::NoSuchDisk { disk, .. } => write!(f, "it has no disk {disk} to exclude"),
            Self::AllExcluded => f.write_str("every disk that it writes to is excluded"),
            Self::SameHost(host) => write!(f, "it runs on {host} itself"),
            Self::Revoked(host) => write!(f, "host {host} is revoked"),
            Self::NeverHeard(host) => write!(f, "the agent of {host} never connected"),
            Self::AgentTooOld(host) => write!(f, "the agent of {host} is too old to replicate"),
            Self::NoAddress(host) => {
                write!(f, "the agent of {host} has not told where other agents reach it")
            }
            Self::UuidTaken { host, name } => {
                write!(f, "{host} has a machine with the same UUID: {name}")
            }
            Self::TooLittleRoom { host, free, needed } => {
                write!(f, "{free} are free at {host}, the disks take up {needed}")
            }
            Self::RoomUnknown { host, needed } => {
                write!(f, "how much room {host} has is not known; the disks take up {needed}")
            }
            Self::NameTaken { host, name } => {
                write!(f, "{host} has another machine of the name {name}")
            }
            Self::NotHeard { host, since } => {
                write!(f, "host {host} is not heard since {}", utc(*since))
            }
            Self::Poorer(remark) => remark.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{Disk, DiskFormat, DiskSource, Firmware, GuestAgent, PowerState};
    use uuid::Uuid;

    fn disk(target: &str, format: DiskFormat) -> Disk {
        Disk {
            target: target.into(),
            bus: "virtio".into(),
            serial: None,
            source: DiskSource::File(format!("/disks/{target}")),
            format,
            capacity: Some(ByteCount::from_kib(2 << 20)),
            allocation: Some(ByteCount::from_kib(1 << 20)),
            read_only: false,
            shareable: false,
            raw_device: false,
        }
    }

    fn machine() -> Machine {
        Machine {
            uuid: MachineUuid::new(Uuid::from_u128(1)),
            name: "web".into(),
            power: PowerState::Running,
            persistent: true,
            autostart: false,
            firmware: Firmware::Bios,
            has_tpm: false,
            passed_through: vec![],
            vcpus: 1,
            memory: ByteCount::from_kib(131_072),
            disks: vec![disk("vda", DiskFormat::Qcow2), disk("vdb", DiskFormat::Raw)],
            nics: vec![],
            guest_agent: GuestAgent::Connected,
        }
    }

    fn side(name: &str) -> Side {
        Side {
            name: name.into(),
            reachability: Reachability::Connected { since: OffsetDateTime::UNIX_EPOCH },
            replicates: true,
            has_address: true,
            clock_ahead: None,
        }
    }

    fn render(findings: &[Finding]) -> String {
        let line = |finding: &Finding| {
            let sign = if finding.is_obstacle() { "!" } else { "-" };
            assert!(!finding.advice().is_empty());
            format!("{sign} {finding}")
        };
        findings.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn what_makes_protection_poorer_does_not_prevent_it() {
        let (machine, source, mut there) = (machine(), side("kvm1"), side("kvm2"));
        let since = OffsetDateTime::UNIX_EPOCH;
        there.reachability = Reachability::NotReachable { since };
        let candidate =
            Candidate { machine: &machine, protected: false, excluded: &[], source: &source };
        let others = [(MachineUuid::new(Uuid::from_u128(2)), "web".into())];
        let target = Target { side: &there, is_source: false, machines: &others, free: None };
        assert_eq!(
            render(&check(&candidate, Some(&target))),
            "- disk vdb is raw: changes are found by reading it whole; qcow2 would hold a bitmap\n\
             - host kvm2 is not heard since 1970-01-01 00:00:00Z\n\
             - kvm2 has another machine of the name web\n\
             - how much room kvm2 has is not known; the disks take up 2.0 GiB"
        );
        let excluded = ["vdb".to_owned()];
        let candidate = Candidate { excluded: &excluded, ..candidate };
        let there = side("kvm2");
        let free = Some(ByteCount::from_kib(1 << 20));
        let target = Target { side: &there, is_source: false, machines: &[], free };
        assert_eq!(
            render(&check(&candidate, Some(&target))),
            "",
            "what is left out does not count"
        );
    }

    #[test]
    fn every_obstacle_is_told_at_once() {
        let mut machine = machine();
        machine.has_tpm = true;
        let mut source = side("kvm1");
        source.replicates = false;
        let mut there = side("kvm2");
        there.has_address = false;
        let excluded = ["vdz".to_owned()];
        let candidate =
            Candidate { machine: &machine, protected: true, excluded: &excluded, source: &source };
        let same = [(machine.uuid, "web-old".to_owned())];
        let free = Some(ByteCount::from_kib(1));
        let target = Target { side: &there, is_source: false, machines: &same, free };
        assert_eq!(
            render(&check(&candidate, Some(&target))),
            "! the machine is protected already\n\
             ! it has no disk vdz to exclude\n\
             ! it has a TPM, whose secrets the disks do not hold\n\
             ! the agent of kvm1 is too old to replicate\n\
             ! the agent of kvm2 has not told where other agents reach it\n\
             ! kvm2 has a machine with the same UUID: web-old\n\
             ! 1.0 KiB are free at kvm2, the disks take up 2.0 GiB"
        );
    }

    #[test]
    fn a_target_must_be_another_host_that_was_heard_and_is_not_revoked() {
        let (machine, source) = (machine(), side("kvm1"));
        let excluded = ["vda".to_owned(), "vdb".to_owned()];
        let candidate =
            Candidate { machine: &machine, protected: false, excluded: &excluded, source: &source };
        let since = OffsetDateTime::UNIX_EPOCH;
        let on = |reachability, is_source| {
            let there = Side { reachability, ..side("kvm2") };
            let target = Target {
                side: &there,
                is_source,
                machines: &[],
                free: Some(ByteCount::new(u64::MAX)),
            };
            render(&check(&candidate, Some(&target)))
        };
        let excluded = "! every disk that it writes to is excluded\n";
        assert_eq!(
            on(Reachability::Connected { since }, true),
            format!("{excluded}! it runs on kvm2 itself")
        );
        assert_eq!(
            on(Reachability::Enrolled { since }, false),
            format!("{excluded}! the agent of kvm2 never connected")
        );
        assert_eq!(
            on(Reachability::Revoked { since }, false),
            format!("{excluded}! host kvm2 is revoked")
        );
    }
}
