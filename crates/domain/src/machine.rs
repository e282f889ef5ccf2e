//! Machines as a hypervisor knows them: power state, firmware, disks, NICs.

use std::fmt;

use crate::id::MachineUuid;
use crate::units::ByteCount;

/// A virtual machine as its host sees it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// The hypervisor's UUID; the same on every side.
    pub uuid: MachineUuid,
    /// The hypervisor's name, unique on its host. Not one of our
    /// [names](crate::name::Name): hypervisors allow more.
    pub name: String,
    /// Whether it runs.
    pub power: PowerState,
    /// Whether the hypervisor keeps the definition when the machine stops.
    pub persistent: bool,
    /// Whether the hypervisor itself starts it at boot.
    pub autostart: bool,
    /// What starts the guest.
    pub firmware: Firmware,
    /// Whether it has an emulated or passed-through TPM, whose state the
    /// disks do not hold.
    pub has_tpm: bool,
    /// Host devices passed through, as the hypervisor describes them.
    pub passed_through: Vec<String>,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory at boot.
    pub memory: ByteCount,
    /// Disks in the order of the definition. Removable media are left out.
    pub disks: Vec<Disk>,
    /// NICs in the order of the definition.
    pub nics: Vec<Nic>,
    /// Whether the guest agent can be talked to.
    pub guest_agent: GuestAgent,
}

/// Whether a machine runs, in the field's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PowerState {
    /// Runs, or is idle for want of work.
    Running,
    /// Held by an operator or the hypervisor; its memory is kept.
    Paused,
    /// The guest was asked to stop and has not yet.
    ShuttingDown,
    /// Does not run.
    Off,
    /// The guest or its hypervisor process crashed.
    Crashed,
    /// The guest put itself to sleep.
    Suspended,
}

/// What starts the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Firmware {
    /// Legacy BIOS.
    Bios,
    /// UEFI, with variables beside the disks.
    Uefi {
        /// Whether it refuses unsigned code.
        secure_boot: bool,
    },
    /// The host loads the kernel itself.
    DirectKernel,
}

/// A disk of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The hypervisor's name for it on its bus, such as `vda`.
    pub target: String,
    /// How the guest reaches it.
    pub bus: String,
    /// The serial number that the guest sees, where one is set.
    pub serial: Option<String>,
    /// Where its bytes are.
    pub source: DiskSource,
    /// How its bytes are laid out.
    pub format: DiskFormat,
    /// The size that the guest sees.
    pub capacity: Option<ByteCount>,
    /// What it takes up at the host now.
    pub allocation: Option<ByteCount>,
    /// Whether the guest may write to it.
    pub read_only: bool,
    /// Whether several machines may write to it at once.
    pub shareable: bool,
    /// Whether SCSI commands of the guest go to the device itself.
    pub raw_device: bool,
}

/// Where a disk's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskSource {
    /// A file at this path of the host.
    File(String),
    /// A block device at this path of the host.
    Block(String),
    /// A volume of a storage pool.
    Volume {
        /// The pool's name.
        pool: String,
        /// The volume's name within it.
        volume: String,
    },
    /// Reached over the network by the hypervisor.
    Network {
        /// `nbd`, `rbd`, `iscsi` and so on.
        protocol: String,
        /// What is opened there.
        name: String,
    },
    /// Something else, named by the hypervisor's word for it.
    Other(String),
}

impl fmt::Display for DiskSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) | Self::Block(path) => f.write_str(path),
            Self::Volume { pool, volume } => write!(f, "{pool}/{volume}"),
            Self::Network { protocol, name } => write!(f, "{protocol}:{name}"),
            Self::Other(kind) => write!(f, "({kind})"),
        }
    }
}

/// How a disk's bytes are laid out.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DiskFormat {
    /// QEMU's copy-on-write format, which can hold a change bitmap.
    Qcow2,
    /// The guest's bytes as they are.
    Raw,
    /// Another, by the hypervisor's name.
    Other(String),
}

impl fmt::Display for DiskFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
            Self::Other(name) => name,
        })
    }
}

/// A network card of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// The hardware address, as `52:54:00:…`.
    pub mac: String,
    /// What it is plugged into.
    pub attachment: NicAttachment,
    /// The emulated or para-virtual card, where the hypervisor names it.
    pub model: Option<String>,
    /// Whether its link is up.
    pub link_up: bool,
}

/// What a NIC is plugged into.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NicAttachment {
    /// A virtual network of the host, by name.
    Network(String),
    /// A bridge of the host, by name.
    Bridge(String),
    /// Something else, named by the hypervisor's word for it.
    Other(String),
}

impl fmt::Display for NicAttachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(name) => f.write_str(name),
            Self::Bridge(name) => write!(f, "bridge {name}"),
            Self::Other(kind) => write!(f, "({kind})"),
        }
    }
}

/// Whether the guest agent can be talked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GuestAgent {
    /// The machine has no channel for it.
    NoChannel,
    /// There is a channel, and nobody answers in the guest.
    NotAnswering,
    /// It answers.
    Connected,
}
