//! Stores as an agent would open them.

use std::{path::Path, sync::Arc};

use anyhow::{Context as _, Result};
use replica::{
    format::record::Consistency,
    geometry::DiskNumber,
    medium::folder::Folder,
    pipeline::Compression,
    state::Limits,
    store::Store,
    writer::{SealFacts, Writer, WriterOptions},
};

/// The disk of machines that have one.
pub(crate) const DISK: DiskNumber = DiskNumber(0);

/// The default compression.
pub(crate) fn compression() -> Compression {
    WriterOptions::new(1).compression
}

/// Opens a store for writing, with all defaults but perhaps the compression.
pub(crate) fn writer(folder: &Path, compression: Compression) -> Result<Writer> {
    let medium = Folder::create(folder).with_context(|| format!("make {}", folder.display()))?;
    // A disk that is nearly full is no reason not to measure it.
    let options = WriterOptions { compression, reserve_percent: 0, ..WriterOptions::new(1) };
    Writer::open(Arc::new(medium), options)
        .with_context(|| format!("open {} for writing", folder.display()))
}

/// Opens a store for reading.
pub(crate) fn store(folder: &Path) -> Result<Store> {
    let medium = Folder::existing(folder).with_context(|| format!("find {}", folder.display()))?;
    Store::open(Arc::new(medium), Limits::default())
        .with_context(|| format!("open {}", folder.display()))
}

/// Facts of a point; the configuration is as long as that of a real machine.
pub(crate) fn facts() -> SealFacts {
    SealFacts {
        instant: 0,
        consistency: Consistency::Crash,
        origin: "bench".to_owned(),
        configuration: vec![b'x'; 4000],
    }
}
