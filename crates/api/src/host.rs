//! Hosts.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{Operation, Reference, words};

/// A machine with an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Host {
    /// Never changes.
    pub id: Uuid,
    /// Unique within the site.
    pub name: String,
    /// Where it is.
    pub site: Reference,
    /// The cloud it belongs to, if any.
    pub cloud: Option<Reference>,
    /// Whether the controller hears from its agent.
    pub reachability: Reachability,
    /// Whether its agent hears from its hypervisor.
    pub hypervisor: Hypervisor,
    /// Version of Lifeboat that its agent is; absent until it connects.
    pub agent_version: Option<String>,
    /// What the host is; absent until it is first reported.
    pub facts: Option<HostFacts>,
    /// When its inventory was last seen whole; absent until then.
    #[serde(with = "time::serde::rfc3339::option")]
    pub inventory_seen: Option<OffsetDateTime>,
    /// When its agent's certificate ends. The agent renews it by itself.
    #[serde(with = "time::serde::rfc3339")]
    pub certificate_expires: OffsetDateTime,
    /// How many machines it has, as last known.
    pub machines: u32,
    /// Where its agent takes data from other agents, `HOST:PORT`; absent if it
    /// takes none.
    #[serde(default)]
    pub peer_address: Option<String>,
    /// What may be done to it.
    pub operations: Vec<Operation>,
}

/// Whether the controller hears from a host's agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reachability {
    /// The state.
    pub state: ReachabilityState,
    /// Since when.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
}

/// Names the state of a host's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ReachabilityState {
    /// Enrolled, and never connected.
    Enrolled,
    /// Connected.
    Connected,
    /// Was connected, and is not now.
    NotReachable,
    /// Its certificate is refused for good.
    Revoked,
}

impl From<domain::host::Reachability> for Reachability {
    fn from(reachability: domain::host::Reachability) -> Self {
        use domain::host::Reachability as Domain;
        let (state, since) = match reachability {
            Domain::Enrolled { since } => (ReachabilityState::Enrolled, since),
            Domain::Connected { since } => (ReachabilityState::Connected, since),
            Domain::NotReachable { since } => (ReachabilityState::NotReachable, since),
            Domain::Revoked { since } => (ReachabilityState::Revoked, since),
        };
        Self { state, since }
    }
}

/// Whether an agent hears from its hypervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Hypervisor {
    /// It does, or did when it was last heard.
    Answering,
    /// It does not.
    NotAnswering {
        /// When it last answered.
        #[serde(with = "time::serde::rfc3339")]
        since: OffsetDateTime,
        /// What the hypervisor's library said.
        reason: String,
    },
}

impl From<domain::host::Hypervisor> for Hypervisor {
    fn from(hypervisor: domain::host::Hypervisor) -> Self {
        match hypervisor {
            domain::host::Hypervisor::Answering => Self::Answering,
            domain::host::Hypervisor::NotAnswering { since, reason } => {
                Self::NotAnswering { since, reason }
            }
        }
    }
}

/// What a host is, as its agent found it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HostFacts {
    /// The host's own name for itself.
    pub hostname: String,
    /// The hypervisor's UUID of the host.
    pub hypervisor_uuid: Option<Uuid>,
    /// The operating system.
    pub operating_system: String,
    /// The kernel's release.
    pub kernel: String,
    /// The CPU architecture.
    pub architecture: String,
    /// The CPU's model, as the hypervisor names it.
    pub cpu_model: String,
    /// Logical CPUs.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Whether guests can use hardware virtualisation.
    pub kvm: bool,
    /// Version of libvirt.
    pub libvirt: String,
    /// Version of QEMU.
    pub qemu: String,
}

impl From<domain::host::HostFacts> for HostFacts {
    fn from(facts: domain::host::HostFacts) -> Self {
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
            libvirt: facts.libvirt.to_string(),
            qemu: facts.qemu.to_string(),
        }
    }
}

words! {
    /// What may be done to a host.
    HostOperation = domain::host::HostOperation {
        Move = "move",
        Revoke = "revoke",
        Remove = "remove",
    }
}

/// Moves a host into another cloud of its site, or out of any.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MoveHost {
    /// The cloud, by name or id; absent for none.
    pub cloud: Option<String>,
}
