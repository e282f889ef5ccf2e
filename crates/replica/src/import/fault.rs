//! What goes wrong with an import.

use std::{io, path::PathBuf};

use nbd::client::ClientError;

use crate::{
    error::StoreError,
    geometry::DiskNumber,
    offline_copy::{CopyFault, Stopped},
};

/// Why there is no new point.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The folder is no offline copy, or not a whole one.
    #[error("{} is no offline copy", folder.display())]
    Copy {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with it.
        source: CopyFault,
    },
    /// A file cannot be read.
    #[error("read {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// `qemu-nbd` does not give an image's bytes.
    #[error("read {} through qemu-nbd", path.display())]
    Served {
        /// The image.
        path: PathBuf,
        /// Why.
        source: ClientError,
    },
    /// A tool is not there or refuses the image.
    #[error("{tool} {}: {message}", path.display())]
    Tool {
        /// Which.
        tool: &'static str,
        /// The image.
        path: PathBuf,
        /// What it said.
        message: String,
    },
    /// An image is not whole without another file.
    #[error("{} stands on {on}", path.display())]
    StandsOn {
        /// The image.
        path: PathBuf,
        /// The other file.
        on: String,
    },
    /// An image is smaller than its disk, or much greater.
    #[error("{} has {found} bytes, and {disk} has {expected}", path.display())]
    Size {
        /// The disk.
        disk: DiskNumber,
        /// The image.
        path: PathBuf,
        /// The image's bytes.
        found: u64,
        /// The disk's bytes.
        expected: u64,
    },
    /// The bytes are not those that were copied.
    #[error("{disk} in {} is not what was copied: its BLAKE3 is {found}, and was {expected}", path.display())]
    Differs {
        /// The disk.
        disk: DiskNumber,
        /// The image.
        path: PathBuf,
        /// Of the image's bytes.
        found: blake3::Hash,
        /// Of the copied bytes.
        expected: blake3::Hash,
    },
    /// The machine's store refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The user of this crate did not want to go on.
    #[error("the import was stopped")]
    Stopped,
}

impl From<Stopped> for ImportError {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}
