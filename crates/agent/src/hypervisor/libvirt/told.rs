//! Plain answers of libvirt's, as [`ffi`](super::ffi) gives them on.

/// What `virNodeGetInfo` tells.
pub(super) struct Node {
    pub(super) model: String,
    pub(super) cpus: u32,
    pub(super) memory_kib: u64,
}

/// What `virDomainGetBlockInfo` tells, in bytes.
pub(super) struct BlockSize {
    pub(super) capacity: u64,
    pub(super) allocation: u64,
}

/// What `virStoragePoolGetInfo` tells, in bytes.
pub(super) struct PoolSize {
    pub(super) active: bool,
    pub(super) capacity: u64,
    pub(super) available: u64,
}

/// libvirt's `virDomainState`, without the words for the same thing.
pub(super) enum DomainState {
    Running,
    Paused,
    ShuttingDown,
    Off,
    Crashed,
    Suspended,
}
