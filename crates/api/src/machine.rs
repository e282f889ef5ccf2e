//! Machines.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use domain::units::ByteCount;

use crate::{Reason, Reference, words};

/// A virtual machine, as its host last saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Machine {
    /// This machine on this host; never changes.
    pub id: Uuid,
    /// The hypervisor's UUID; the same on every side.
    pub uuid: Uuid,
    /// The hypervisor's name; unique on its host.
    pub name: String,
    /// Where it is defined.
    pub host: Reference,
    /// Where that is.
    pub site: Reference,
    /// Whether it runs.
    pub power: PowerState,
    /// Whether what is shown is what is; else it is as last known.
    pub current: bool,
    /// When it was last seen so.
    #[serde(with = "time::serde::rfc3339")]
    pub seen: OffsetDateTime,
    /// Whether the hypervisor keeps it when it stops.
    pub persistent: bool,
    /// Whether the hypervisor itself starts it at boot.
    pub autostart: bool,
    /// What starts the guest.
    pub firmware: Firmware,
    /// Whether it has a TPM.
    pub tpm: bool,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory at boot, in bytes.
    pub memory_bytes: u64,
    /// Its disks, in the order of the definition.
    pub disks: Vec<Disk>,
    /// Its NICs, in the order of the definition.
    pub nics: Vec<Nic>,
    /// Whether the guest agent can be talked to.
    pub guest_agent: GuestAgent,
    /// Whether it can be protected, and if not why.
    pub protectability: Protectability,
}

words! {
    /// Whether a machine runs.
    PowerState = domain::machine::PowerState {
        Running = "running",
        Paused = "paused",
        ShuttingDown = "shutting-down",
        Off = "off",
        Crashed = "crashed",
        Suspended = "suspended",
    }
}

words! {
    /// Whether the guest agent can be talked to.
    GuestAgent = domain::machine::GuestAgent {
        NoChannel = "no-channel",
        NotAnswering = "not-answering",
        Connected = "connected",
    }
}

words! {
    /// How the changes of a machine are found.
    Capture = domain::protectability::Capture {
        Bitmap = "bitmap",
        Scan = "scan",
    }
}

/// What starts a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Firmware {
    /// Legacy BIOS.
    Bios,
    /// UEFI.
    Uefi,
    /// UEFI that refuses unsigned code.
    UefiSecureBoot,
    /// The host loads the kernel itself.
    DirectKernel,
}

/// A disk of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Disk {
    /// The hypervisor's name for it, such as `vda`.
    pub target: String,
    /// How the guest reaches it.
    pub bus: String,
    /// The serial number that the guest sees.
    pub serial: Option<String>,
    /// Where its bytes are: a path, `pool/volume`, or `protocol:name`.
    pub source: String,
    /// `qcow2`, `raw`, or another.
    pub format: String,
    /// The size that the guest sees, in bytes.
    pub capacity_bytes: Option<u64>,
    /// What it takes up at the host, in bytes.
    pub allocation_bytes: Option<u64>,
    /// Whether the guest can only read it.
    pub read_only: bool,
}

/// A network card of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Nic {
    /// The hardware address.
    pub mac: String,
    /// The virtual network's name, or `bridge NAME`.
    pub network: String,
    /// The card that the guest sees.
    pub model: Option<String>,
    /// Whether its link is up.
    pub link_up: bool,
}

/// Whether a machine can be protected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
pub enum Protectability {
    /// It can be protected now.
    Protectable {
        /// How its changes would be found.
        capture: Capture,
        /// What would be better otherwise.
        remarks: Vec<String>,
    },
    /// It cannot, until every obstacle is gone.
    Blocked {
        /// Each thing in the way, with what to do about it.
        obstacles: Vec<Reason>,
    },
}

impl From<domain::machine::Firmware> for Firmware {
    fn from(firmware: domain::machine::Firmware) -> Self {
        use domain::machine::Firmware as Domain;
        match firmware {
            Domain::Bios => Self::Bios,
            Domain::Uefi { secure_boot: false } => Self::Uefi,
            Domain::Uefi { secure_boot: true } => Self::UefiSecureBoot,
            Domain::DirectKernel => Self::DirectKernel,
        }
    }
}

impl From<domain::machine::Disk> for Disk {
    fn from(disk: domain::machine::Disk) -> Self {
        Self {
            target: disk.target,
            bus: disk.bus,
            serial: disk.serial,
            source: disk.source.to_string(),
            format: disk.format.to_string(),
            capacity_bytes: disk.capacity.map(ByteCount::bytes),
            allocation_bytes: disk.allocation.map(ByteCount::bytes),
            read_only: disk.read_only,
        }
    }
}

impl From<domain::machine::Nic> for Nic {
    fn from(nic: domain::machine::Nic) -> Self {
        Self {
            mac: nic.mac,
            network: nic.attachment.to_string(),
            model: nic.model,
            link_up: nic.link_up,
        }
    }
}

impl From<domain::protectability::Protectability> for Protectability {
    fn from(verdict: domain::protectability::Protectability) -> Self {
        use domain::protectability::Protectability as Domain;
        match verdict {
            Domain::Protectable { capture, remarks } => Self::Protectable {
                capture: capture.into(),
                remarks: remarks.iter().map(ToString::to_string).collect(),
            },
            Domain::Blocked { obstacles } => Self::Blocked {
                obstacles: obstacles
                    .iter()
                    .map(|obstacle| Reason {
                        reason: obstacle.to_string(),
                        advice: obstacle.advice(),
                    })
                    .collect(),
            },
        }
    }
}
