//! How something is to be written: the flags of WRITE, WRITE_ZEROES and TRIM in
//! words.

/// When a write must be on stable storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// With the next flush.
    Cached,
    /// On return (FUA).
    OnReturn,
}

/// How zeroes are to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZeroMode {
    /// Deallocating is fine.
    MayPunch,
    /// The range stays allocated (NO_HOLE).
    KeepAllocated,
}

/// How long writing zeroes may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZeroEffort {
    /// As long as it takes.
    Any,
    /// Only if it is faster than writing; else [`ENOTSUP`](super::errno::Errno::NotSupported)
    /// (FAST_ZERO).
    OnlyFast,
}
