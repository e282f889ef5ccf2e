//! A disk of a point in another store.

use super::{fault::ImportError, image::Image};
use crate::view::View;

/// Stretches that are asked for at once.
const STRETCHES: usize = 64;

impl Image for View {
    fn size(&self) -> u64 {
        Self::size(self)
    }

    fn zeroes_until(&mut self, at: u64) -> Result<u64, ImportError> {
        let mut end = at;
        while end < Self::size(self) {
            let stretches = self.allocation(end, Self::size(self) - end, STRETCHES)?;
            if stretches.is_empty() {
                break;
            }
            for stretch in stretches {
                if stretch.flags == 0 {
                    return Ok(end);
                }
                end += stretch.length;
            }
        }
        Ok(end)
    }

    fn read(&mut self, at: u64, buffer: &mut [u8]) -> Result<(), ImportError> {
        let bytes = self.read_to_vec(at, buffer.len() as u64)?;
        buffer.copy_from_slice(&bytes);
        Ok(())
    }
}
