//! How large everything is.

/// Sizes and counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    /// Rounds of everything.
    pub(crate) rounds: usize,
    /// Bytes of the disk.
    pub(crate) disk: u64,
    /// Machines at once.
    pub(crate) machines: u64,
    /// Bytes of each one's disk.
    pub(crate) small_disk: u64,
    /// Blocks of 64 KiB that each changes in a cycle.
    pub(crate) small_changes: u64,
    /// Seconds of their cycles.
    pub(crate) every: u64,
    /// Cycles that count.
    pub(crate) cycles: usize,
    /// Rounds of a guest that counts its writes.
    pub(crate) guest_rounds: u32,
    /// Seconds of each turn of it.
    pub(crate) guest_seconds: u32,
    /// Seconds of its cycles.
    pub(crate) guest_every: u32,
}

impl Scale {
    /// What the goals are about.
    pub(crate) const FULL: Self = Self {
        rounds: 3,
        disk: 4 << 30,
        machines: 50,
        small_disk: 64 << 20,
        small_changes: 32,
        every: 30,
        cycles: 3,
        guest_rounds: 3,
        guest_seconds: 60,
        guest_every: 30,
    };

    /// What shows that it works.
    pub(crate) const QUICK: Self = Self {
        rounds: 2,
        disk: 128 << 20,
        machines: 5,
        small_disk: 16 << 20,
        small_changes: 8,
        every: 1,
        cycles: 3,
        guest_rounds: 1,
        guest_seconds: 10,
        guest_every: 5,
    };
}
