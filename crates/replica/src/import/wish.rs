//! What is to be imported.

use std::{
    fs,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use super::{fault::ImportError, probe::kind_of};
use crate::{
    error::StoreError,
    format::record::Consistency,
    offline_copy::{ImageKind, OfflineCopy},
    writer::{MAX_CONFIGURATION, SealFacts},
};

/// The disks of the point to be, and the rest of it.
#[derive(Debug, Clone)]
pub struct Wish {
    /// In order of their numbers.
    pub disks: Vec<DiskSource>,
    /// All that is known besides.
    pub facts: SealFacts,
}

/// Where a disk comes from.
#[derive(Debug, Clone)]
pub struct DiskSource {
    /// The image.
    pub path: PathBuf,
    /// Its format.
    pub kind: ImageKind,
    /// Bytes of the disk and their hash, where that is known.
    pub proof: Option<(u64, blake3::Hash)>,
}

impl Wish {
    /// The whole of an offline copy.
    ///
    /// # Errors
    /// The folder holds none that can be read.
    pub fn of_copy(folder: &Path) -> Result<Self, ImportError> {
        let copy = OfflineCopy::read(folder)
            .map_err(|source| ImportError::Copy { folder: folder.to_owned(), source })?;
        let disks = copy.disks.into_iter().map(|disk| DiskSource {
            path: folder.join(disk.file),
            kind: disk.kind,
            proof: Some((disk.size, disk.blake3)),
        });
        let configuration = copy.configuration.map(|file| folder.join(file));
        let origin = format!("offline copy of {}: {}", copy.machine, copy.origin);
        let facts = SealFacts {
            instant: copy.instant,
            consistency: copy.consistency,
            origin: origin.chars().take(1000).collect(),
            configuration: read_configuration(configuration.as_deref())?,
        };
        Ok(Self { disks: disks.collect(), facts })
    }

    /// Bare images, in order of the disks, of `kind` or of what they seem to
    /// be. The point's instant is that of their newest change.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn of_images(
        images: &[PathBuf],
        kind: Option<ImageKind>,
        configuration: Option<&Path>,
    ) -> Result<Self, ImportError> {
        let mut disks = Vec::new();
        let mut instant = 0;
        for path in images {
            let failed = |source| ImportError::File { path: path.clone(), source };
            let changed = fs::metadata(path).and_then(|facts| facts.modified()).map_err(failed)?;
            let since = changed.duration_since(UNIX_EPOCH).unwrap_or_default();
            instant = instant.max(i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
            let kind = kind.map_or_else(|| kind_of(path).map_err(failed), Ok)?;
            disks.push(DiskSource { path: path.clone(), kind, proof: None });
        }
        let names: Vec<_> = images.iter().filter_map(|path| path.file_name()).collect();
        let names: Vec<_> = names.iter().map(|name| name.to_string_lossy()).collect();
        let facts = SealFacts {
            instant,
            consistency: Consistency::Crash,
            origin: format!("images {}", names.join(", ")).chars().take(1000).collect(),
            configuration: read_configuration(configuration)?,
        };
        Ok(Self { disks, facts })
    }
}

fn read_configuration(path: Option<&Path>) -> Result<Vec<u8>, ImportError> {
    let Some(path) = path else { return Ok(Vec::new()) };
    let failed = |source| ImportError::File { path: path.to_owned(), source };
    // Known before hours of copying.
    if fs::metadata(path).map_err(failed)?.len() > MAX_CONFIGURATION as u64 {
        return Err(StoreError::TooLarge("a configuration has at most 1 MiB").into());
    }
    fs::read(path).map_err(failed)
}
