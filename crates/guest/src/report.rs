//! What a check found, as data.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What the guest found on its disks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Name of the machine that looked.
    pub machine: String,
    /// Last whole record of the sequence over all disks; 0 when there is none.
    pub last: u64,
    /// Each disk, in order.
    pub disks: Vec<DiskReport>,
    /// Everything that must not be. Empty when the disks are as promised.
    pub faults: Vec<Fault>,
}

/// What one disk holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskReport {
    /// Its number.
    pub disk: u16,
    /// Whole records on it.
    pub records: u64,
    /// Number of its last whole record; 0 when there is none.
    pub last: u64,
    /// Bytes of a record that was being written when the power went.
    pub torn_bytes: u64,
    /// Last write of the overwrite load; 0 when it never ran.
    pub overwrites: u64,
    /// What the file system's own check said.
    pub filesystem: Filesystem,
}

/// What the file system's own check said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Filesystem {
    /// Just made by this boot.
    New,
    /// Checked at boot, nothing wrong.
    Clean,
    /// Checked at boot, and broken.
    Broken,
    /// Not checked, because it was asked not to be.
    Unchecked,
}

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "fault", rename_all = "kebab-case")]
pub enum Fault {
    /// Bytes in the place of a record are not that record.
    #[error("disk {disk}: {what} at number {number}")]
    Damaged {
        /// The disk.
        disk: u16,
        /// Number of the record that belongs there.
        number: u64,
        /// What stands there.
        what: String,
    },
    /// A whole record stands where another belongs: a hole, or an old block.
    #[error("disk {disk}: record {found} in the place of {expected}")]
    OutOfPlace {
        /// The disk.
        disk: u16,
        /// Number that belongs there.
        expected: u64,
        /// Number found there.
        found: u64,
    },
    /// A disk misses records that were durable before newer ones elsewhere.
    #[error("disk {disk}: ends at record {last}, but {newest} exists, so {expected} must")]
    Behind {
        /// The disk.
        disk: u16,
        /// Its last record.
        last: u64,
        /// The last record it must have.
        expected: u64,
        /// The newest record on any disk.
        newest: u64,
    },
    /// A record was begun before an earlier one was durable.
    #[error("disk {disk}: record {started} was begun, but {newest} is the newest")]
    Ahead {
        /// The disk.
        disk: u16,
        /// The record that was begun.
        started: u64,
        /// The newest whole record on any disk.
        newest: u64,
    },
    /// A block of the overwrite load is not what its last write made it.
    #[error("disk {disk}: block {block}: {what}")]
    Block {
        /// The disk.
        disk: u16,
        /// Index of the block, from 0.
        block: u32,
        /// What is wrong with it.
        what: String,
    },
    /// The file system's own check failed.
    #[error("disk {disk}: file system: {what}")]
    Filesystem {
        /// The disk.
        disk: u16,
        /// What the check said.
        what: String,
    },
    /// A disk that the machine should have is not there.
    #[error("disk {disk} is missing")]
    Missing {
        /// The disk.
        disk: u16,
    },
    /// A disk could not be read or mounted.
    #[error("disk {disk}: cannot be read: {what}")]
    Unreadable {
        /// The disk.
        disk: u16,
        /// The error.
        what: String,
    },
}

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.faults.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: last record {}", self.machine, self.last)?;
        if self.is_clean() {
            return write!(f, ", clean");
        }
        for fault in &self.faults {
            write!(f, "; {fault}")?;
        }
        Ok(())
    }
}
