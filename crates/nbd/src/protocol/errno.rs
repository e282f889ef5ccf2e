//! Error numbers that may cross the wire (spec, "Error values").

use std::{fmt, io};

/// An error number of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Errno {
    /// `EPERM` (1): not permitted; a write to a read-only export.
    Perm,
    /// `EIO` (5): input/output error.
    Io,
    /// `ENOMEM` (12): out of memory.
    NoMemory,
    /// `EINVAL` (22): the request makes no sense.
    Invalid,
    /// `ENOSPC` (28): no space, or a write beyond the end.
    NoSpace,
    /// `EOVERFLOW` (75): too large to answer unfragmented (with DF only).
    Overflow,
    /// `ENOTSUP` (95): fast zeroing is not possible (with FAST_ZERO only).
    NotSupported,
    /// `ESHUTDOWN` (108): the server is about to stop.
    Shutdown,
    /// A number outside the specification. Treat as [`Errno::Invalid`].
    Other(u32),
}

impl Errno {
    /// The number on the wire; never zero.
    #[must_use]
    pub fn to_wire(self) -> u32 {
        match self {
            Self::Perm => 1,
            Self::Io => 5,
            Self::NoMemory => 12,
            Self::Invalid | Self::Other(0) => 22,
            Self::NoSpace => 28,
            Self::Overflow => 75,
            Self::NotSupported => 95,
            Self::Shutdown => 108,
            Self::Other(number) => number,
        }
    }

    /// What `number` means; `None` for zero, which is success.
    #[must_use]
    pub fn from_wire(number: u32) -> Option<Self> {
        Some(match number {
            0 => return None,
            1 => Self::Perm,
            5 => Self::Io,
            12 => Self::NoMemory,
            22 => Self::Invalid,
            28 => Self::NoSpace,
            75 => Self::Overflow,
            95 => Self::NotSupported,
            108 => Self::Shutdown,
            other => Self::Other(other),
        })
    }

    /// The nearest number that the specification allows. `EDQUOT` and `EFBIG`
    /// become `ENOSPC`, as it asks.
    #[must_use]
    pub fn of_io(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Self::Perm,
            io::ErrorKind::OutOfMemory => Self::NoMemory,
            io::ErrorKind::InvalidInput => Self::Invalid,
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => Self::NoSpace,
            _ => Self::Io,
        }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Perm => "EPERM",
            Self::Io => "EIO",
            Self::NoMemory => "ENOMEM",
            Self::Invalid => "EINVAL",
            Self::NoSpace => "ENOSPC",
            Self::Overflow => "EOVERFLOW",
            Self::NotSupported => "ENOTSUP",
            Self::Shutdown => "ESHUTDOWN",
            Self::Other(number) => return write!(f, "errno {number}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_keeps_its_meaning() {
        for number in 1..200 {
            assert_eq!(Errno::from_wire(number).unwrap().to_wire(), number);
        }
        assert_eq!(Errno::from_wire(0), None);
        assert_ne!(Errno::Other(0).to_wire(), 0, "an error must not read as success");
    }

    #[test]
    fn full_quota_is_no_space() {
        let quota = io::Error::from(io::ErrorKind::QuotaExceeded);
        assert_eq!(Errno::of_io(&quota), Errno::NoSpace);
    }
}
