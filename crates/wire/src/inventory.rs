//! What an agent sees, as it is sent, and as the controller keeps it.
//!
//! The controller stores each machine, network and pool as one such JSON
//! document beside the columns that it searches by, so these shapes are a
//! persisted format as well. Version 1; `FORMAT` goes into each row.
//! Added fields need a `#[serde(default)]`; any other change a new version
//! with a conversion from this one.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use domain::id::MachineUuid;
use domain::units::ByteCount;
use domain::{host, inventory, machine, network, storage};

/// Version of these documents.
pub const FORMAT: u16 = 1;

/// What a host is and has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// When the agent looked, by its clock.
    #[serde(with = "time::serde::rfc3339")]
    pub seen: OffsetDateTime,
    /// The host itself.
    pub facts: HostFacts,
    /// Its machines.
    pub machines: Vec<Machine>,
    /// Its virtual networks.
    pub networks: Vec<Network>,
    /// Its storage pools.
    pub pools: Vec<Pool>,
}

/// See [`host::HostFacts`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each field stands for the domain's field of the same name")]
pub struct HostFacts {
    pub hostname: String,
    pub hypervisor_uuid: Option<Uuid>,
    pub operating_system: String,
    pub kernel: String,
    pub architecture: String,
    pub cpu_model: String,
    pub cpus: u32,
    pub memory_bytes: u64,
    pub kvm: bool,
    pub libvirt: [u32; 3],
    pub qemu: [u32; 3],
}

/// See [`machine::Machine`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each field stands for the domain's field of the same name")]
pub struct Machine {
    pub uuid: Uuid,
    pub name: String,
    pub power: PowerState,
    pub persistent: bool,
    pub autostart: bool,
    pub firmware: Firmware,
    pub has_tpm: bool,
    pub passed_through: Vec<String>,
    pub vcpus: u32,
    pub memory_bytes: u64,
    pub disks: Vec<Disk>,
    pub nics: Vec<Nic>,
    pub guest_agent: GuestAgent,
}

/// See [`machine::Disk`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each field stands for the domain's field of the same name")]
pub struct Disk {
    pub target: String,
    pub bus: String,
    pub serial: Option<String>,
    pub source: DiskSource,
    /// `qcow2`, `raw`, or the hypervisor's name of another format.
    pub format: String,
    pub capacity_bytes: Option<u64>,
    pub allocation_bytes: Option<u64>,
    pub read_only: bool,
    pub shareable: bool,
    pub raw_device: bool,
}

/// See [`machine::DiskSource`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(missing_docs, reason = "each field stands for the domain's field of the same name")]
pub enum DiskSource {
    File { path: String },
    Block { path: String },
    Volume { pool: String, volume: String },
    Network { protocol: String, name: String },
    Other { word: String },
}

/// See [`machine::Nic`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each field stands for the domain's field of the same name")]
pub struct Nic {
    pub mac: String,
    pub attachment: NicAttachment,
    pub model: Option<String>,
    pub link_up: bool,
}

/// See [`network::VirtualNetwork`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each field stands for the domain's field of the same name")]
pub struct Network {
    pub uuid: Uuid,
    pub name: String,
    pub active: bool,
    pub autostart: bool,
    pub isolation: Isolation,
    pub reach: Reach,
    pub bridge: Option<String>,
    pub subnets: Vec<Subnet>,
}

/// See [`network::Subnet`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each field stands for the domain's field of the same name")]
pub struct Subnet {
    pub gateway: IpAddr,
    pub prefix_length: u8,
    pub dhcp: Vec<[IpAddr; 2]>,
}

/// See [`storage::StoragePool`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each field stands for the domain's field of the same name")]
pub struct Pool {
    pub uuid: Uuid,
    pub name: String,
    pub kind: String,
    pub active: bool,
    pub autostart: bool,
    pub path: Option<String>,
    pub capacity_bytes: u64,
    pub available_bytes: u64,
}

/// Declares the sent form of an enum and its conversions both ways. The
/// domain's variants are matched without a wildcard, so a new one does not
/// compile until it is named here.
macro_rules! mirrored {
    ($name:ident = $domain:path { $($variant:ident $(($inner:ty))? $({ $field:ident: $type:ty })?),* $(,)? }) => {
        #[doc = concat!("See [`", stringify!($domain), "`].")]
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[expect(missing_docs, reason = "each variant stands for the domain's variant of the same name")]
        pub enum $name { $($variant $(($inner))? $({ $field: $type })?),* }

        impl From<$domain> for $name {
            fn from(value: $domain) -> Self {
                use $domain as Domain;
                match value {
                    $(mirrored!(@pattern Domain $variant $(($inner) inner)? $({$field})?) =>
                        mirrored!(@pattern Self $variant $(($inner) inner)? $({$field})?)),*
                }
            }
        }

        impl From<$name> for $domain {
            fn from(value: $name) -> Self {
                use $name as Sent;
                match value {
                    $(mirrored!(@pattern Sent $variant $(($inner) inner)? $({$field})?) =>
                        mirrored!(@pattern Self $variant $(($inner) inner)? $({$field})?)),*
                }
            }
        }
    };
    (@pattern $enum:ident $variant:ident) => { $enum::$variant };
    (@pattern $enum:ident $variant:ident ($inner:ty) $name:ident) => { $enum::$variant($name) };
    (@pattern $enum:ident $variant:ident {$field:ident}) => { $enum::$variant { $field } };
}

mirrored!(
    PowerState = machine::PowerState { Running, Paused, ShuttingDown, Off, Crashed, Suspended }
);
mirrored!(Firmware = machine::Firmware { Bios, Uefi { secure_boot: bool }, DirectKernel });
mirrored!(GuestAgent = machine::GuestAgent { NoChannel, NotAnswering, Connected });
mirrored!(NicAttachment = machine::NicAttachment {
    Network(String), Bridge(String), Other(String)
});
mirrored!(Isolation = network::Isolation { None, Vlan(Vec<u16>), Virtualised { port: String } });
mirrored!(Reach = network::Reach { Isolated, Nat, Routed, Bridged, Other(String) });

impl Inventory {
    /// The sent form of an inventory taken at this instant.
    #[must_use]
    pub fn new(inventory: inventory::Inventory, seen: OffsetDateTime) -> Self {
        Self {
            seen,
            facts: inventory.facts.into(),
            machines: inventory.machines.into_iter().map(Into::into).collect(),
            networks: inventory.networks.into_iter().map(Into::into).collect(),
            pools: inventory.pools.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<Inventory> for inventory::Inventory {
    fn from(sent: Inventory) -> Self {
        Self {
            facts: sent.facts.into(),
            machines: sent.machines.into_iter().map(Into::into).collect(),
            networks: sent.networks.into_iter().map(Into::into).collect(),
            pools: sent.pools.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<host::HostFacts> for HostFacts {
    fn from(facts: host::HostFacts) -> Self {
        let numbers = |version: host::Version| [version.major, version.minor, version.release];
        Self {
            hostname: facts.hostname,
            hypervisor_uuid: facts.hypervisor_uuid,
            operating_system: facts.operating_system,
            kernel: facts.kernel,
            architecture: facts.architecture,
            cpu_model: facts.cpu_model,
            cpus: facts.cpus,
            memory_bytes: facts.memory.bytes(),
            kvm: facts.kvm,
            libvirt: numbers(facts.libvirt),
            qemu: numbers(facts.qemu),
        }
    }
}

impl From<HostFacts> for host::HostFacts {
    fn from(sent: HostFacts) -> Self {
        let version = |[major, minor, release]: [u32; 3]| host::Version { major, minor, release };
        Self {
            hostname: sent.hostname,
            hypervisor_uuid: sent.hypervisor_uuid,
            operating_system: sent.operating_system,
            kernel: sent.kernel,
            architecture: sent.architecture,
            cpu_model: sent.cpu_model,
            cpus: sent.cpus,
            memory: ByteCount::new(sent.memory_bytes),
            kvm: sent.kvm,
            libvirt: version(sent.libvirt),
            qemu: version(sent.qemu),
        }
    }
}

impl From<machine::Machine> for Machine {
    fn from(machine: machine::Machine) -> Self {
        Self {
            uuid: machine.uuid.uuid(),
            name: machine.name,
            power: machine.power.into(),
            persistent: machine.persistent,
            autostart: machine.autostart,
            firmware: machine.firmware.into(),
            has_tpm: machine.has_tpm,
            passed_through: machine.passed_through,
            vcpus: machine.vcpus,
            memory_bytes: machine.memory.bytes(),
            disks: machine.disks.into_iter().map(Into::into).collect(),
            nics: machine.nics.into_iter().map(Into::into).collect(),
            guest_agent: machine.guest_agent.into(),
        }
    }
}

impl From<Machine> for machine::Machine {
    fn from(sent: Machine) -> Self {
        Self {
            uuid: MachineUuid::new(sent.uuid),
            name: sent.name,
            power: sent.power.into(),
            persistent: sent.persistent,
            autostart: sent.autostart,
            firmware: sent.firmware.into(),
            has_tpm: sent.has_tpm,
            passed_through: sent.passed_through,
            vcpus: sent.vcpus,
            memory: ByteCount::new(sent.memory_bytes),
            disks: sent.disks.into_iter().map(Into::into).collect(),
            nics: sent.nics.into_iter().map(Into::into).collect(),
            guest_agent: sent.guest_agent.into(),
        }
    }
}

impl From<machine::Disk> for Disk {
    fn from(disk: machine::Disk) -> Self {
        Self {
            target: disk.target,
            bus: disk.bus,
            serial: disk.serial,
            source: disk.source.into(),
            format: disk.format.to_string(),
            capacity_bytes: disk.capacity.map(ByteCount::bytes),
            allocation_bytes: disk.allocation.map(ByteCount::bytes),
            read_only: disk.read_only,
            shareable: disk.shareable,
            raw_device: disk.raw_device,
        }
    }
}

impl From<Disk> for machine::Disk {
    fn from(sent: Disk) -> Self {
        Self {
            target: sent.target,
            bus: sent.bus,
            serial: sent.serial,
            source: sent.source.into(),
            format: match sent.format.as_str() {
                "qcow2" => machine::DiskFormat::Qcow2,
                "raw" => machine::DiskFormat::Raw,
                _ => machine::DiskFormat::Other(sent.format),
            },
            capacity: sent.capacity_bytes.map(ByteCount::new),
            allocation: sent.allocation_bytes.map(ByteCount::new),
            read_only: sent.read_only,
            shareable: sent.shareable,
            raw_device: sent.raw_device,
        }
    }
}

impl From<machine::DiskSource> for DiskSource {
    fn from(source: machine::DiskSource) -> Self {
        match source {
            machine::DiskSource::File(path) => Self::File { path },
            machine::DiskSource::Block(path) => Self::Block { path },
            machine::DiskSource::Volume { pool, volume } => Self::Volume { pool, volume },
            machine::DiskSource::Network { protocol, name } => Self::Network { protocol, name },
            machine::DiskSource::Other(word) => Self::Other { word },
        }
    }
}

impl From<DiskSource> for machine::DiskSource {
    fn from(sent: DiskSource) -> Self {
        match sent {
            DiskSource::File { path } => Self::File(path),
            DiskSource::Block { path } => Self::Block(path),
            DiskSource::Volume { pool, volume } => Self::Volume { pool, volume },
            DiskSource::Network { protocol, name } => Self::Network { protocol, name },
            DiskSource::Other { word } => Self::Other(word),
        }
    }
}

impl From<machine::Nic> for Nic {
    fn from(nic: machine::Nic) -> Self {
        Self {
            mac: nic.mac,
            attachment: nic.attachment.into(),
            model: nic.model,
            link_up: nic.link_up,
        }
    }
}

impl From<Nic> for machine::Nic {
    fn from(sent: Nic) -> Self {
        Self {
            mac: sent.mac,
            attachment: sent.attachment.into(),
            model: sent.model,
            link_up: sent.link_up,
        }
    }
}

impl From<network::VirtualNetwork> for Network {
    fn from(network: network::VirtualNetwork) -> Self {
        let subnet = |subnet: network::Subnet| Subnet {
            gateway: subnet.gateway,
            prefix_length: subnet.prefix_length,
            dhcp: subnet.dhcp.into_iter().map(|(first, last)| [first, last]).collect(),
        };
        Self {
            uuid: network.uuid,
            name: network.name,
            active: network.active,
            autostart: network.autostart,
            isolation: network.isolation.into(),
            reach: network.reach.into(),
            bridge: network.bridge,
            subnets: network.subnets.into_iter().map(subnet).collect(),
        }
    }
}

impl From<Network> for network::VirtualNetwork {
    fn from(sent: Network) -> Self {
        let subnet = |sent: Subnet| network::Subnet {
            gateway: sent.gateway,
            prefix_length: sent.prefix_length,
            dhcp: sent.dhcp.into_iter().map(|[first, last]| (first, last)).collect(),
        };
        Self {
            uuid: sent.uuid,
            name: sent.name,
            active: sent.active,
            autostart: sent.autostart,
            isolation: sent.isolation.into(),
            reach: sent.reach.into(),
            bridge: sent.bridge,
            subnets: sent.subnets.into_iter().map(subnet).collect(),
        }
    }
}

impl From<storage::StoragePool> for Pool {
    fn from(pool: storage::StoragePool) -> Self {
        Self {
            uuid: pool.uuid,
            name: pool.name,
            kind: pool.kind,
            active: pool.active,
            autostart: pool.autostart,
            path: pool.path,
            capacity_bytes: pool.capacity.bytes(),
            available_bytes: pool.available.bytes(),
        }
    }
}

impl From<Pool> for storage::StoragePool {
    fn from(sent: Pool) -> Self {
        Self {
            uuid: sent.uuid,
            name: sent.name,
            kind: sent.kind,
            active: sent.active,
            autostart: sent.autostart,
            path: sent.path,
            capacity: ByteCount::new(sent.capacity_bytes),
            available: ByteCount::new(sent.available_bytes),
        }
    }
}
