//! Everything that one agent sees, as one value.
//!
//! An agent always publishes the whole. The controller takes it as the truth
//! about that host, so nothing has to be added or taken away piece by piece,
//! and a lost message leaves neither a duplicate nor a ghost.

use crate::host::HostFacts;
use crate::machine::Machine;
use crate::network::VirtualNetwork;
use crate::storage::StoragePool;

/// What a host is and has, at one look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory {
    /// The host itself.
    pub facts: HostFacts,
    /// Its machines, running or not, by name.
    pub machines: Vec<Machine>,
    /// Its virtual networks, by name.
    pub networks: Vec<VirtualNetwork>,
    /// Its storage pools, by name.
    pub pools: Vec<StoragePool>,
}
