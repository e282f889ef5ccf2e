//! A point as a folder of ordinary files that any tool reads, and that proves
//! itself: one image per disk, the machine's configuration, and `copy.json`.
//!
//! `copy.json` is written last: a folder without it is not a whole copy. The
//! format is in `docs/formats/offline-copy.md`. [`write`](write::write) makes a
//! copy, [`import`](crate::import) reads one back.

mod manifest;
mod proof;
pub mod write;

pub use manifest::{CopyFault, DiskImage, ImageKind, OfflineCopy};
pub(crate) use proof::{Hashing, hash_view};

/// The manifest's name.
pub const MANIFEST: &str = "copy.json";
/// The name of the machine's configuration.
pub const CONFIGURATION: &str = "configuration.xml";

/// Why a step of long work was not gone on with: its user said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped;

/// Told of `(done, total)` in bytes; with an error, the work stops.
pub type Progress<'a> = dyn FnMut(u64, u64) -> Result<(), Stopped> + 'a;
