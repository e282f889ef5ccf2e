//! A disk image that is read from front to back.

use std::path::Path;

use super::{fault::ImportError, qemu::ServedImage, raw::RawImage};
use crate::offline_copy::ImageKind;

/// An open image. Offsets that it is asked about only grow.
pub(crate) trait Image {
    /// Bytes of the disk in it.
    fn size(&self) -> u64;

    /// Where the zeroes end that begin at `at`, as far as is known without
    /// reading; `at` if there are none.
    fn zeroes_until(&mut self, at: u64) -> Result<u64, ImportError>;

    /// Fills `buffer` from `at` on; the range lies inside the disk.
    fn read(&mut self, at: u64, buffer: &mut [u8]) -> Result<(), ImportError>;
}

/// Opens an image of a known format. Nothing is guessed from its contents: a
/// raw disk's first bytes belong to the guest, who may imitate any format.
pub(crate) fn open(path: &Path, kind: ImageKind) -> Result<Box<dyn Image>, ImportError> {
    Ok(match kind {
        ImageKind::Raw => Box::new(RawImage::open(path)?),
        other => Box::new(ServedImage::open(path, other)?),
    })
}
