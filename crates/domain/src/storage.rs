//! Storage pools of a host.

use uuid::Uuid;

use crate::units::ByteCount;

/// A storage pool as its host defines it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoragePool {
    /// The hypervisor's UUID.
    pub uuid: Uuid,
    /// The hypervisor's name, unique on its host.
    pub name: String,
    /// The hypervisor's word for its kind: `dir`, `logical`, `rbd` …
    pub kind: String,
    /// Whether it can be used now.
    pub active: bool,
    /// Whether the hypervisor opens it at boot.
    pub autostart: bool,
    /// The folder or device behind it, where there is one.
    pub path: Option<String>,
    /// Its size; zero while it is not active.
    pub capacity: ByteCount,
    /// What is left of it; zero while it is not active.
    pub available: ByteCount,
}
