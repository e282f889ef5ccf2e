//! What the engine says, with code and advice.

use std::error::Error;
use std::io;

use domain::fault::{Code, Fault, chain};
use replica::error::{StoreError, is_full};
use replica::import::ImportError;
use replica::offline_copy::write::WriteError;

/// A store's folder that cannot be looked into.
pub(super) fn folder(doing: impl Into<String>, cause: String) -> Fault {
    Fault::new(
        Code::StoreFolderUnusable,
        doing,
        cause,
        "Name the folder with one folder per machine: --store DIR, or LIFEBOAT_STORE. Is it mounted, and may this user read it?",
    )
}

/// The command was interrupted.
pub(super) fn interrupted(doing: impl Into<String>) -> Fault {
    Fault::new(
        Code::Interrupted,
        doing,
        "it was interrupted",
        "Run it again when you like; nothing half-done counts.",
    )
}

/// An error of a machine's store; `doing` names the machine.
pub(super) fn store(doing: impl Into<String>, error: &StoreError) -> Fault {
    let (code, advice) = match error {
        StoreError::Io { source, .. } if is_full(source) => (Code::StoreFull, FULL),
        StoreError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => (
            Code::StoreDamaged,
            "A file of the store is missing. Look for it, or take the machine from another copy.",
        ),
        StoreError::Io { .. } => (
            Code::StoreFailed,
            "Run the command as the user who owns the store; see dmesg for errors of the disk.",
        ),
        StoreError::File { .. } | StoreError::Damaged(_) | StoreError::WrongBytes { .. } => (
            Code::StoreDamaged,
            "Points that do not need the damaged bytes are whole. See them all with: lifeboat store verify MACHINE, and mend them with: lifeboat store repair MACHINE --from OTHERSTORE",
        ),
        StoreError::LostRecords(_) => (
            Code::StoreDamaged,
            "It can still be read: export the points that you need, and import them into a new store.",
        ),
        StoreError::TooNew { .. } => (
            Code::StoreTooNew,
            "Use a version of Lifeboat that is as new as the one that wrote it.",
        ),
        StoreError::InUse => (
            Code::StoreInUse,
            "That is the agent of this host, or another command. Wait, or stop the agent: systemctl stop lifeboat-agent",
        ),
        StoreError::Fenced { .. } => (
            Code::StoreFenced,
            "Look at who writes to this store now, and run the command again if that writer is gone for good.",
        ),
        StoreError::Full { .. } => (Code::StoreFull, FULL),
        StoreError::NoSuchPoint(_) | StoreError::NoSuchDisk { .. } => {
            (Code::PointUnknown, "List the points with: lifeboat store points MACHINE")
        }
        StoreError::Kept { .. } => (
            Code::PointKept,
            "See what holds which point with: lifeboat store points MACHINE. No point was dropped.",
        ),
        StoreError::TooLarge(_) => {
            (Code::RequestInvalid, "Check that the files are those that you mean.")
        }
        StoreError::NotAdoptable { .. } => (
            Code::ImageUnreadable,
            "Import the image instead, which copies it: lifeboat store import MACHINE --disk FILE",
        ),
        StoreError::Tool { message, .. } if message.contains("No space left") => {
            (Code::StoreFull, FULL)
        }
        StoreError::Tool { .. } => (Code::ToolFailed, TOOLS),
        StoreError::AttemptFailed | StoreError::WriterFailed => (
            Code::StoreFailed,
            "Run the command again, and see dmesg for errors of the disk if it fails once more.",
        ),
        other => return Fault::internal(doing, &other.chain()),
    };
    Fault::new(code, doing, error.chain(), advice)
}

/// An error of an import.
pub(super) fn import(doing: impl Into<String>, error: &ImportError) -> Fault {
    let (code, advice) = match error {
        ImportError::Store(error) => return store(doing, error),
        ImportError::Stopped => return interrupted(doing),
        ImportError::Copy { .. } => (
            Code::CopyUnusable,
            "Name the folder with copy.json. Without it the copy is not whole: copy or export it again.",
        ),
        ImportError::File { .. } | ImportError::Served { .. } | ImportError::Size { .. } => (
            Code::ImageUnreadable,
            "Check that the file is there, is whole, and may be read by this user.",
        ),
        ImportError::StandsOn { .. } => (
            Code::ImageUnreadable,
            "Make an image that stands alone, and import that: qemu-img convert -O qcow2 IMAGE WHOLE.qcow2",
        ),
        ImportError::Tool { .. } => (Code::ToolFailed, TOOLS),
        ImportError::Differs { .. } => (
            Code::CopyMismatch,
            "Take another copy. No point was made; if you want the image as it is, import it with: --disk FILE",
        ),
        other => return Fault::internal(doing, &chain(other)),
    };
    Fault::new(code, doing, chain(error), advice)
}

/// An error of an export.
pub(super) fn export(doing: impl Into<String>, error: &WriteError) -> Fault {
    let (code, advice) = match error {
        WriteError::Store(error) => return store(doing, error),
        WriteError::Taken(_) => {
            (Code::TargetTaken, "Name a folder that does not exist yet, or an empty one.")
        }
        WriteError::Io { source, .. } if is_full(source) => (Code::StoreFull, FULL),
        WriteError::Io { .. } => (
            Code::StoreFailed,
            "The folder above it must exist, and this user must be allowed to write there.",
        ),
        other => return Fault::internal(doing, &chain(other as &dyn Error)),
    };
    Fault::new(code, doing, chain(error), advice)
}

const FULL: &str = "Make room. Dropping points does, with reclaim after it: lifeboat store drop MACHINE POINT, lifeboat store reclaim MACHINE";
const TOOLS: &str = "Install qemu-utils (Debian, Ubuntu) or qemu-img (Fedora, RHEL), and see what it says of the image. Raw images need no tool.";
