//! How large everything is.

/// Sizes and counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    /// Rounds of failovers.
    pub(crate) rounds: u32,
    /// Recovery points of a machine whose failover is timed.
    pub(crate) points: u32,
    /// Bytes of the large disk.
    pub(crate) large_disk: u64,
    /// Rounds of reads and of reverses, which take longer.
    pub(crate) long_rounds: u32,
    /// Bytes of the file on the disks that are read or compared.
    pub(crate) content: u64,
    /// Seconds of random reads.
    pub(crate) reading_seconds: u32,
    /// Bytes of the file in which a guest overwrites some.
    pub(crate) reversed: u64,
    /// MiB that it overwrites.
    pub(crate) overwritten_mib: u32,
}

impl Scale {
    /// What the goals are about.
    pub(crate) const FULL: Self = Self {
        rounds: 5,
        points: 300,
        large_disk: 1 << 40,
        long_rounds: 3,
        content: 1 << 30,
        reading_seconds: 10,
        reversed: 256 << 20,
        overwritten_mib: 100,
    };

    /// What shows that it works.
    pub(crate) const QUICK: Self = Self {
        rounds: 1,
        points: 5,
        large_disk: 16 << 30,
        long_rounds: 1,
        content: 32 << 20,
        reading_seconds: 2,
        reversed: 32 << 20,
        overwritten_mib: 8,
    };
}
