//! One disk: what differs from the newest point goes into the new one.

use super::{fault::ImportError, image::Image};
use crate::{
    error::{StoreError, StoreResult},
    geometry::{BLOCK, DiskNumber, PAGE},
    offline_copy::{Hashing, Stopped},
    view::View,
    writer::Writer,
};

/// Bytes that are read at once: whole blocks.
const CHUNK: u64 = 1 << 20;
/// Bytes after which what is there is made durable, so that the end of a long
/// import is not one long wait.
const SYNC: u64 = 256 << 20;

pub(crate) struct Disk<'a> {
    writer: &'a mut Writer,
    disk: DiskNumber,
    size: u64,
    /// What the disk is before anything is written.
    before: Option<View>,
    unsynced: u64,
}

impl<'a> Disk<'a> {
    pub(crate) fn begin(writer: &'a mut Writer, disk: DiskNumber, size: u64) -> StoreResult<Self> {
        let store = writer.store();
        let before = match store.newest() {
            Some(point) if usize::from(disk.0) < point.disks.len() => {
                Some(store.view(point.cycle, disk)?)
            }
            _ => None,
        };
        Ok(Self { writer, disk, size, before, unsynced: 0 })
    }

    /// Makes the disk what the image is; the hash of its bytes.
    pub(crate) fn fill(
        &mut self,
        image: &mut dyn Image,
        progress: &mut dyn FnMut(u64) -> Result<(), Stopped>,
    ) -> Result<blake3::Hash, ImportError> {
        let mut hashing = Hashing::default();
        let mut buffer = vec![0; CHUNK as usize];
        let mut at = 0;
        while at < self.size {
            progress(at)?;
            let zeroes = match image.zeroes_until(at)? {
                end if end >= self.size => self.size,
                end => end / BLOCK * BLOCK,
            };
            if zeroes > at {
                // In pieces, so that progress is told in between.
                let end = zeroes.min(at + SYNC);
                hashing.zeroes(end - at);
                self.clear(at, end)?;
                at = end;
                continue;
            }
            let length = CHUNK.min(self.size - at) as usize;
            let chunk = buffer.get_mut(..length).unwrap_or_default();
            image.read(at, chunk)?;
            hashing.bytes(chunk);
            self.put(at, chunk)?;
            at += length as u64;
        }
        progress(at)?;
        Ok(hashing.finish())
    }

    /// Zeroes what is not zero yet.
    fn clear(&mut self, mut at: u64, end: u64) -> StoreResult<()> {
        let Some(before) = self.before.clone() else { return Ok(()) };
        let end = end.min(before.size());
        while at < end {
            for stretch in before.allocation(at, end - at, 256)? {
                let stop = (at + stretch.length).div_ceil(PAGE) * PAGE;
                if stretch.flags == 0 {
                    self.writer.discard(self.disk, at, stop.min(self.size) - at)?;
                }
                at += stretch.length;
            }
        }
        Ok(())
    }

    /// Writes the blocks that differ, neighbours together.
    fn put(&mut self, at: u64, chunk: &[u8]) -> StoreResult<()> {
        let mut run: Option<(usize, usize)> = None;
        for (number, block) in chunk.chunks(BLOCK as usize).enumerate() {
            let start = number * BLOCK as usize;
            match (self.holds(at + start as u64, block)?, &mut run) {
                (true, _) => self.write(at, chunk, run.take())?,
                (false, Some((_, end))) => *end = start + block.len(),
                (false, none) => *none = Some((start, start + block.len())),
            }
        }
        self.write(at, chunk, run)
    }

    fn write(&mut self, at: u64, chunk: &[u8], run: Option<(usize, usize)>) -> StoreResult<()> {
        let Some((start, end)) = run else { return Ok(()) };
        let bytes = chunk.get(start..end).unwrap_or_default();
        self.writer.write(self.disk, at + start as u64, bytes)?;
        self.unsynced += bytes.len() as u64;
        if self.unsynced >= SYNC {
            self.writer.sync()?;
            self.unsynced = 0;
        }
        Ok(())
    }

    /// Whether the disk has these bytes there already.
    fn holds(&self, at: u64, block: &[u8]) -> StoreResult<bool> {
        let size = self.before.as_ref().map_or(0, View::size);
        let length = (block.len() as u64).min(size.saturating_sub(at));
        let before = match &self.before {
            Some(view) if length > 0 => match view.read_to_vec(at, length) {
                Ok(before) => before,
                // What is lost is best written again.
                Err(StoreError::Damaged(_)) => return Ok(false),
                Err(error) => return Err(error),
            },
            _ => Vec::new(),
        };
        // Beyond the old end there are zeroes.
        let rest = block.get(before.len()..).unwrap_or_default();
        Ok(block.starts_with(&before) && rest.iter().all(|byte| *byte == 0))
    }
}
