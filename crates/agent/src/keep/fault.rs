//! What a store says, as an operator reads it.

use std::path::Path;

use domain::fault::{Code, Fault};
use replica::error::{StoreError, is_full};

const FULL: &str = "Make room where the store lies, or keep points for a shorter time; shipping goes on by itself once there is room.";

/// An error of the store of a machine's points.
#[must_use]
pub fn of_store(machine: &str, folder: &Path, error: &StoreError) -> Fault {
    let doing = format!("keep points of machine {machine} in {}", folder.display());
    let (code, advice) = match error {
        StoreError::Full { .. } => (Code::StoreFull, FULL),
        StoreError::Io { source, .. } if is_full(source) => (Code::StoreFull, FULL),
        StoreError::Io { .. } | StoreError::AttemptFailed | StoreError::WriterFailed => (
            Code::StoreFailed,
            "Look at the kernel's log of this host for errors of the disk; it is tried again by itself.",
        ),
        StoreError::TooNew { .. } => (
            Code::StoreTooNew,
            "A newer agent wrote it: upgrade the agent of this host. Until then no point is kept here, and none is lost.",
        ),
        StoreError::InUse => (
            Code::StoreInUse,
            "Another process writes to it, such as a lifeboat store command: wait until it ends.",
        ),
        StoreError::Fenced { .. } => (
            Code::StoreFenced,
            "Another host was made the source or the keeper of this machine since; nothing to do here.",
        ),
        StoreError::LostRecords(_)
        | StoreError::Damaged(_)
        | StoreError::File { .. }
        | StoreError::WrongBytes { .. } => (
            Code::StoreDamaged,
            "See what is whole with: lifeboat store verify. Mend it from another copy, or move the folder away: the machine is then copied anew.",
        ),
        other => return Fault::internal(doing, &other.chain()),
    };
    Fault::new(code, doing, error.chain(), advice)
}
