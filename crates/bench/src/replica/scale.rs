//! How large everything is.

/// Sizes and counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    /// Rounds of what takes long: more than a few GiB are moved in each.
    pub(crate) long_rounds: usize,
    /// Rounds of everything else.
    pub(crate) rounds: usize,
    /// Bytes of the image that is taken in.
    pub(crate) image: u64,
    /// Scattered writes of 4 KiB.
    pub(crate) small_writes: u64,
    /// Points of a store with many.
    pub(crate) many_points: u64,
    /// Points on the disk of 1 TiB.
    pub(crate) huge_points: u64,
    /// Blocks of 64 KiB that differ between the last two of them.
    pub(crate) differing_blocks: u64,
    /// Bytes of the disk that is served over NBD.
    pub(crate) served: u64,
    /// Seconds of random reads, per contender and round.
    pub(crate) reading_seconds: u64,
    /// Blocks of 64 KiB that a point of the disk of 100 GiB changes.
    pub(crate) changed_blocks: u64,
    /// Blocks in the index of the 20 TiB.
    pub(crate) protected_blocks: u64,
    /// Bytes of the database's disk.
    pub(crate) database: u64,
    /// Its points.
    pub(crate) database_points: u64,
}

impl Scale {
    /// What the goals are about.
    pub(crate) const FULL: Self = Self {
        long_rounds: 3,
        rounds: 5,
        image: 4 << 30,
        small_writes: 200_000,
        many_points: 10_000,
        huge_points: 1000,
        // 0.1 % of 1 TiB.
        differing_blocks: (1 << 24) / 1000,
        served: 1 << 30,
        reading_seconds: 4,
        // 1 % of 100 GiB.
        changed_blocks: (100 << 14) / 100,
        protected_blocks: 8 << 20,
        database: 2 << 30,
        database_points: 288,
    };

    /// What shows that it works.
    pub(crate) const QUICK: Self = Self {
        long_rounds: 2,
        rounds: 2,
        image: 128 << 20,
        small_writes: 20_000,
        many_points: 200,
        huge_points: 50,
        differing_blocks: 500,
        served: 64 << 20,
        reading_seconds: 1,
        changed_blocks: 500,
        protected_blocks: 100_000,
        database: 128 << 20,
        database_points: 12,
    };
}
