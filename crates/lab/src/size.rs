//! Sizes that read well in a story.

/// Writes `64.mib()` for a number of bytes.
pub trait Size {
    /// That many KiB, in bytes.
    fn kib(self) -> u64;
    /// That many MiB, in bytes.
    fn mib(self) -> u64;
    /// That many GiB, in bytes.
    fn gib(self) -> u64;
}

impl Size for u64 {
    fn kib(self) -> u64 {
        self << 10
    }

    fn mib(self) -> u64 {
        self << 20
    }

    fn gib(self) -> u64 {
        self << 30
    }
}
