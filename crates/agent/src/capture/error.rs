//! What can go wrong while a machine is captured.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use domain::id::MachineUuid;
use nbd::client::{ClientError, ConnectError};

use crate::hypervisor::CallError;
use crate::hypervisor::libvirt::LibvirtError;

/// Why there is no cut, or why it is of no more use.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The hypervisor knows no such machine.
    #[error("the hypervisor has no machine {machine}")]
    NoSuchMachine {
        /// The machine.
        machine: MachineUuid,
    },
    /// The hypervisor did not do what it was asked to.
    #[error("{doing} of machine {machine}")]
    Hypervisor {
        /// What was being done, as a verb phrase that goes before `of`.
        doing: &'static str,
        /// The machine.
        machine: MachineUuid,
        /// What the hypervisor said.
        source: CallError,
    },
    /// Somebody else's work on the machine excludes ours. It is left alone.
    #[error("machine {machine} cannot be cut now: {what} is in the way")]
    InTheWay {
        /// The machine.
        machine: MachineUuid,
        /// Whose work, on what.
        what: String,
    },
    /// No disk is left to be captured.
    #[error("machine {machine} has no disk to capture")]
    NoDisk {
        /// The machine.
        machine: MachineUuid,
    },
    /// QEMU cannot reach the folder for its sockets and scratch files.
    #[error("QEMU of machine {machine} cannot get through the folder {}", path.display())]
    Barred {
        /// The machine.
        machine: MachineUuid,
        /// The folder that bars it.
        path: PathBuf,
        /// What libvirt said when it tried.
        source: CallError,
    },
    /// A disk cannot be captured at all.
    #[error("disk {disk} of machine {machine} cannot be captured: {why}")]
    Unsupported {
        /// The machine.
        machine: MachineUuid,
        /// Its target.
        disk: String,
        /// Why not.
        why: String,
    },
    /// There is no room for what the guest overwrites while the cut is open. The
    /// cut was ended, or not begun, so that the guest goes on.
    #[error("{of}: {filled}")]
    ScratchFull {
        /// Whose.
        of: Of,
        /// How full.
        filled: Filled,
    },
    /// The machine was started while its disks were read as those of a machine
    /// that is off.
    #[error("{of}: the machine was started while it was read")]
    Started {
        /// Whose.
        of: Of,
    },
    /// libvirt has a job of the machine of which it knows nothing.
    #[error("machine {machine}: {}", LibvirtError::LostJob)]
    LostJob {
        /// The machine.
        machine: MachineUuid,
    },
    /// A backup was asked to end and did not.
    #[error("the backup of machine {machine} did not end within {} s", limit.as_secs())]
    BackupStays {
        /// The machine.
        machine: MachineUuid,
        /// How long it was waited for.
        limit: Duration,
    },
    /// No connection to a disk that is held still.
    #[error("open {of} for reading")]
    Open {
        /// Whose.
        of: Of,
        /// Why not.
        source: ConnectError,
    },
    /// What serves a disk does not serve what was agreed on.
    #[error("open {of} for reading: {why}")]
    Served {
        /// Whose.
        of: Of,
        /// What is wrong.
        why: String,
    },
    /// A disk that is held still could not be read.
    #[error("read {of}")]
    Read {
        /// Whose.
        of: Of,
        /// Why not.
        source: ClientError,
    },
    /// A file of capture's own.
    #[error("{doing} {}", path.display())]
    File {
        /// What was being done, as a verb.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A later cut was taken, or everything forgotten, since this cut.
    #[error("a later cut of machine {machine} has taken the place of this one")]
    Superseded {
        /// The machine.
        machine: MachineUuid,
    },
}

/// A machine, or a disk of it, in messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Of {
    /// The machine.
    pub machine: MachineUuid,
    /// The disk's target; none for the machine as a whole.
    pub disk: Option<String>,
}

impl fmt::Display for Of {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.disk {
            Some(disk) => write!(f, "disk {disk} of machine {}", self.machine),
            None => write!(f, "machine {}", self.machine),
        }
    }
}

/// How full the place for scratch files was, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filled {
    /// As to what they may take up.
    Limit {
        /// What scratch files took up.
        used: u64,
        /// What they may take up.
        limit: u64,
    },
    /// As to what their file system has room for.
    System {
        /// What scratch files took up.
        used: u64,
        /// What was free beside them.
        free: u64,
    },
}

impl fmt::Display for Filled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limit { used, limit } => {
                write!(f, "its scratch files take {used} bytes of the {limit} that they may")
            }
            Self::System { used, free } => {
                write!(
                    f,
                    "its scratch files take {used} bytes, and only {free} are free where they lie"
                )
            }
        }
    }
}

/// Why a cut ended before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    ScratchFull(Filled),
    Started,
}

impl Ended {
    pub(crate) fn of(self, of: Of) -> CaptureError {
        match self {
            Self::ScratchFull(filled) => CaptureError::ScratchFull { of, filled },
            Self::Started => CaptureError::Started { of },
        }
    }
}
