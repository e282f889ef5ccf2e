//! The BLAKE3 of a disk's bytes, holes as the zeroes that they read as.

use nbd::server::Extent;

use super::{Progress, Stopped};
use crate::{
    error::{StoreError, StoreResult},
    view::View,
};

/// Bytes that are read at once.
const READ: u64 = 1 << 20;
static ZEROES: [u8; 64 * 1024] = [0; 64 * 1024];

/// A hash under way.
#[derive(Debug, Default)]
pub(crate) struct Hashing(blake3::Hasher);

impl Hashing {
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn zeroes(&mut self, mut length: u64) {
        while length > 0 {
            let part = length.min(ZEROES.len() as u64);
            self.0.update(ZEROES.get(..part as usize).unwrap_or_default());
            length -= part;
        }
    }

    pub(crate) fn finish(&self) -> blake3::Hash {
        self.0.finalize()
    }
}

/// Why there is no hash.
#[derive(Debug)]
pub(crate) enum NoHash {
    Store(StoreError),
    Stopped,
}

impl From<Stopped> for NoHash {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

/// Hashes a whole view. Blocks.
pub(crate) fn hash_view(view: &View, progress: &mut Progress<'_>) -> Result<blake3::Hash, NoHash> {
    let mut hashing = Hashing::default();
    let mut at = 0;
    while at < view.size() {
        for stretch in view.allocation(at, view.size() - at, 256).map_err(NoHash::Store)? {
            let end = at + stretch.length;
            while at < end {
                progress(at, view.size())?;
                let length = READ.min(end - at);
                if stretch.flags == 0 {
                    read(view, at, length, &mut hashing).map_err(NoHash::Store)?;
                } else {
                    hashing.zeroes(length);
                }
                at += length;
            }
        }
    }
    progress(at, at)?;
    Ok(hashing.finish())
}

fn read(view: &View, at: u64, length: u64, hashing: &mut Hashing) -> StoreResult<()> {
    for extent in view.extents(at, length)? {
        match extent {
            Extent::Data(bytes) => hashing.bytes(&bytes),
            Extent::Hole(length) => hashing.zeroes(length),
        }
    }
    Ok(())
}
