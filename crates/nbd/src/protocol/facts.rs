//! What an export says about itself before the first request.

use super::{
    Violation,
    constants::{BASE_ALLOCATION, MAX_PAYLOAD, TransmissionFlags},
};

/// Sizes in bytes that requests should keep to (spec, "Block size
/// constraints").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockSizes {
    /// Offsets and lengths are multiples of this; a power of two, at most
    /// 64 KiB.
    pub minimum: u32,
    /// The size that is efficient; a power of two, at least `minimum` and 512.
    pub preferred: u32,
    /// The most data of one READ or WRITE; a multiple of `minimum`, or
    /// `u32::MAX` for "no limit".
    pub maximum: u32,
}

impl BlockSizes {
    /// What holds when nothing was said: any byte range up to 32 MiB.
    pub const DEFAULT: Self = Self { minimum: 1, preferred: 4096, maximum: MAX_PAYLOAD };

    /// Checks the rules of the specification.
    ///
    /// # Errors
    /// A [`Violation::Value`] that names the broken rule.
    pub fn check(self) -> Result<Self, Violation> {
        let broken = |why| Err(Violation::Value { what: "block sizes", why });
        if !self.minimum.is_power_of_two() || self.minimum > 64 * 1024 {
            return broken("the minimum is not a power of two up to 64 KiB");
        }
        if !self.preferred.is_power_of_two() || self.preferred < self.minimum.max(512) {
            return broken("the preferred size is not a power of two from the minimum on");
        }
        if self.maximum < self.minimum
            || (self.maximum != u32::MAX && !self.maximum.is_multiple_of(self.minimum))
        {
            return broken("the maximum is not a multiple of the minimum");
        }
        Ok(self)
    }
}

/// What an export says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportFacts {
    /// Size in bytes.
    pub size: u64,
    /// What it can do. `HAS_FLAGS` and `SEND_DF` are the server's business.
    pub flags: TransmissionFlags,
    /// What requests should keep to.
    pub block_sizes: BlockSizes,
    /// A sentence for people; may be empty.
    pub description: String,
    /// Metadata contexts for which block status can be asked.
    pub contexts: Vec<String>,
}

impl ExportFacts {
    /// A read-only export of `size` bytes with `base:allocation`. Several
    /// connections are fine, as nobody writes.
    #[must_use]
    pub fn read_only(size: u64) -> Self {
        Self {
            size,
            flags: TransmissionFlags::READ_ONLY | TransmissionFlags::CAN_MULTI_CONN,
            block_sizes: BlockSizes::DEFAULT,
            description: String::new(),
            contexts: vec![BASE_ALLOCATION.to_owned()],
        }
    }

    /// A writable export of `size` bytes with `base:allocation` that
    /// understands flush, FUA, trim and write-zeroes.
    #[must_use]
    pub fn writable(size: u64) -> Self {
        Self {
            flags: TransmissionFlags::SEND_FLUSH
                | TransmissionFlags::SEND_FUA
                | TransmissionFlags::SEND_TRIM
                | TransmissionFlags::SEND_WRITE_ZEROES,
            ..Self::read_only(size)
        }
    }

    /// With more abilities.
    #[must_use]
    pub fn with(mut self, flags: TransmissionFlags) -> Self {
        self.flags |= flags;
        self
    }

    /// With a description for people.
    #[must_use]
    pub fn described(mut self, description: impl Into<String>) -> Self {
        self.description = description.into();
        self
    }

    /// With one more metadata context.
    #[must_use]
    pub fn context(mut self, name: impl Into<String>) -> Self {
        self.contexts.push(name.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_sizes_keep_the_rules() {
        let sizes = |minimum, preferred, maximum| {
            BlockSizes { minimum, preferred, maximum }.check().is_ok()
        };
        assert!(sizes(1, 4096, MAX_PAYLOAD));
        assert!(sizes(512, 4096, u32::MAX));
        assert!(!sizes(0, 4096, MAX_PAYLOAD), "zero is no size");
        assert!(!sizes(3, 4096, 4095), "a power of two is asked for");
        assert!(!sizes(131_072, 131_072, MAX_PAYLOAD), "too coarse");
        assert!(!sizes(4096, 512, MAX_PAYLOAD), "preferred below minimum");
        assert!(!sizes(512, 512, 1000), "maximum must be aligned");
    }
}
