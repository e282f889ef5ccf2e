//! Whether a machine can be protected and, if not, why.
//!
//! What stands in the way is an [`Obstacle`]; what merely makes protection
//! poorer is a [`Remark`]. Both are shown in the inventory, long before
//! anybody tries, so that the operator can mend them in time.

use std::fmt;

use crate::machine::{Disk, DiskFormat, DiskSource, GuestAgent, Machine};

/// The answer, with its reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protectability {
    /// It can be protected now.
    Protectable {
        /// How its changes would be found.
        capture: Capture,
        /// What would be better otherwise.
        remarks: Vec<Remark>,
    },
    /// It cannot, until every obstacle is gone. Never empty.
    Blocked {
        /// Each thing in the way.
        obstacles: Vec<Obstacle>,
    },
}

/// How the changes of a machine are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Capture {
    /// By the hypervisor's change bitmaps: cheap at any interval.
    Bitmap,
    /// By reading at least one disk whole and comparing hashes.
    Scan,
}

/// Something that keeps a machine from being protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// It would be forgotten by its hypervisor when it stops.
    NotPersistent,
    /// Its TPM holds secrets that the disks do not.
    Tpm,
    /// A device of the host is passed through.
    PassedThrough(String),
    /// It has no disk that holds anything to protect.
    NoDisks,
    /// Another machine may write to the disk as well.
    SharedDisk(String),
    /// The guest talks to the device itself.
    RawDevice(String),
    /// The bytes are not on this host in a form that can be read.
    SourceNotSupported {
        /// The disk's target name.
        disk: String,
        /// Where its bytes are.
        source: DiskSource,
    },
    /// The format cannot be read.
    FormatNotSupported {
        /// The disk's target name.
        disk: String,
        /// Its format.
        format: DiskFormat,
    },
}

/// Something that makes protection poorer without preventing it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remark {
    /// The format holds no change bitmap.
    FoundByScan {
        /// The disk's target name.
        disk: String,
        /// Its format.
        format: DiskFormat,
    },
    /// Without the guest agent, points are crash-consistent only.
    NoGuestAgent,
    /// The hypervisor starts the machine by itself at boot, which the fence
    /// has to take over once it is protected.
    Autostart,
}

/// Judges a machine by what its host sees of it.
#[must_use]
pub fn judge(machine: &Machine) -> Protectability {
    let written: Vec<&Disk> = machine.disks.iter().filter(|disk| !disk.read_only).collect();

    let mut obstacles = Vec::new();
    if !machine.persistent {
        obstacles.push(Obstacle::NotPersistent);
    }
    if machine.has_tpm {
        obstacles.push(Obstacle::Tpm);
    }
    obstacles.extend(machine.passed_through.iter().cloned().map(Obstacle::PassedThrough));
    if written.is_empty() {
        obstacles.push(Obstacle::NoDisks);
    }
    obstacles.extend(written.iter().filter_map(|disk| obstacle_of(disk)));
    if !obstacles.is_empty() {
        return Protectability::Blocked { obstacles };
    }

    let scanned = written.iter().filter(|disk| disk.format != DiskFormat::Qcow2);
    let mut remarks: Vec<Remark> = scanned
        .map(|disk| Remark::FoundByScan { disk: disk.target.clone(), format: disk.format.clone() })
        .collect();
    let capture = if remarks.is_empty() { Capture::Bitmap } else { Capture::Scan };
    if machine.guest_agent == GuestAgent::NoChannel {
        remarks.push(Remark::NoGuestAgent);
    }
    if machine.autostart {
        remarks.push(Remark::Autostart);
    }
    Protectability::Protectable { capture, remarks }
}

/// The first thing about a disk that stands in the way.
fn obstacle_of(disk: &Disk) -> Option<Obstacle> {
    let target = || disk.target.clone();
    if disk.shareable {
        return Some(Obstacle::SharedDisk(target()));
    }
    if disk.raw_device {
        return Some(Obstacle::RawDevice(target()));
    }
    match &disk.source {
        DiskSource::File(_) | DiskSource::Block(_) | DiskSource::Volume { .. } => {}
        source @ (DiskSource::Network { .. } | DiskSource::Other(_)) => {
            return Some(Obstacle::SourceNotSupported { disk: target(), source: source.clone() });
        }
    }
    match &disk.format {
        DiskFormat::Qcow2 | DiskFormat::Raw => None,
        format @ DiskFormat::Other(_) => {
            Some(Obstacle::FormatNotSupported { disk: target(), format: format.clone() })
        }
    }
}

impl Obstacle {
    /// What the operator can do about it: one sentence.
    #[must_use]
    pub fn advice(&self) -> String {
        match self {
            Self::NotPersistent => {
                "Define the machine from its current XML (virsh dumpxml, then virsh define).".into()
            }
            Self::Tpm => {
                "Remove the TPM from the definition; machines with a TPM are not supported yet."
                    .into()
            }
            Self::PassedThrough(_) => {
                "Detach the device or give the machine an emulated one.".into()
            }
            Self::NoDisks => "Give the machine a writable disk, or leave it unprotected.".into(),
            Self::SharedDisk(disk) => format!(
                "Remove <shareable/> from {disk} if no other machine writes to it; shared disks are not supported."
            ),
            Self::RawDevice(disk) => {
                format!("Attach {disk} as device='disk' instead of device='lun'.")
            }
            Self::SourceNotSupported { disk, .. } => {
                format!("Move {disk} to a file, a volume or a block device of the host.")
            }
            Self::FormatNotSupported { disk, .. } => {
                format!(
                    "Convert {disk} to qcow2 (qemu-img convert -O qcow2) while the machine is off."
                )
            }
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPersistent => {
                f.write_str("the machine is transient: it is forgotten when it stops")
            }
            Self::Tpm => f.write_str("it has a TPM, whose secrets the disks do not hold"),
            Self::PassedThrough(device) => write!(f, "the host's {device} is passed through"),
            Self::NoDisks => f.write_str("it has no disk that it can write to"),
            Self::SharedDisk(disk) => write!(f, "disk {disk} may be written by several machines"),
            Self::RawDevice(disk) => write!(f, "disk {disk} gives the guest the device itself"),
            Self::SourceNotSupported { disk, source } => {
                write!(f, "disk {disk} is at {source}, which cannot be captured")
            }
            Self::FormatNotSupported { disk, format } => {
                write!(f, "disk {disk} has format {format}, which cannot be captured")
            }
        }
    }
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FoundByScan { disk, format } => write!(
                f,
                "disk {disk} is {format}: changes are found by reading it whole; qcow2 would hold a bitmap"
            ),
            Self::NoGuestAgent => f.write_str(
                "no guest agent channel: points will be crash-consistent, not app-consistent",
            ),
            Self::Autostart => {
                f.write_str("autostart is on: once protected, the agent decides what starts")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::MachineUuid;
    use crate::machine::{Firmware, PowerState};
    use crate::units::ByteCount;
    use uuid::Uuid;

    fn disk(target: &str, format: DiskFormat) -> Disk {
        Disk {
            target: target.into(),
            bus: "virtio".into(),
            serial: None,
            source: DiskSource::File(format!("/disks/{target}")),
            format,
            capacity: Some(ByteCount::from_kib(1024)),
            allocation: None,
            read_only: false,
            shareable: false,
            raw_device: false,
        }
    }

    fn machine(disks: Vec<Disk>) -> Machine {
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
            disks,
            nics: vec![],
            guest_agent: GuestAgent::Connected,
        }
    }

    fn render(verdict: &Protectability) -> String {
        let lines = |items: Vec<String>| items.join("; ");
        match verdict {
            Protectability::Protectable { capture, remarks } => {
                let remarks: Vec<_> = remarks.iter().map(ToString::to_string).collect();
                format!("{capture:?}: {}", lines(remarks))
            }
            Protectability::Blocked { obstacles } => {
                lines(obstacles.iter().map(ToString::to_string).collect())
            }
        }
    }

    #[test]
    fn qcow2_disks_are_captured_by_bitmap_and_one_raw_disk_asks_for_a_scan() {
        let qcow2 = machine(vec![disk("vda", DiskFormat::Qcow2)]);
        assert_eq!(render(&judge(&qcow2)), "Bitmap: ");

        let mixed = machine(vec![disk("vda", DiskFormat::Qcow2), disk("vdb", DiskFormat::Raw)]);
        assert_eq!(
            render(&judge(&mixed)),
            "Scan: disk vdb is raw: changes are found by reading it whole; qcow2 would hold a bitmap"
        );
    }

    #[test]
    fn every_obstacle_is_named_at_once() {
        let mut blocked = machine(vec![
            Disk { shareable: true, ..disk("vda", DiskFormat::Raw) },
            Disk {
                source: DiskSource::Network { protocol: "rbd".into(), name: "pool/web".into() },
                ..disk("vdb", DiskFormat::Raw)
            },
            disk("vdc", DiskFormat::Other("vmdk".into())),
        ]);
        blocked.persistent = false;
        blocked.has_tpm = true;
        blocked.passed_through = vec!["pci device 0000:03:00.0".into()];
        assert_eq!(
            render(&judge(&blocked)),
            "the machine is transient: it is forgotten when it stops; \
             it has a TPM, whose secrets the disks do not hold; \
             the host's pci device 0000:03:00.0 is passed through; \
             disk vda may be written by several machines; \
             disk vdb is at rbd:pool/web, which cannot be captured; \
             disk vdc has format vmdk, which cannot be captured"
        );
    }

    #[test]
    fn a_machine_with_only_read_only_disks_has_nothing_to_protect() {
        let live = machine(vec![Disk { read_only: true, ..disk("vda", DiskFormat::Raw) }]);
        assert_eq!(render(&judge(&live)), "it has no disk that it can write to");
    }
}
