//! Raw images: sparse files, and block devices.

use std::{
    fs::File,
    io::{self, Seek, SeekFrom},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    unistd::{Whence, lseek},
};

use super::{fault::ImportError, image::Image};

pub(crate) struct RawImage {
    path: PathBuf,
    file: File,
    size: u64,
    /// Up to where there is data, as was told last.
    data_until: u64,
}

impl RawImage {
    pub(crate) fn open(path: &Path) -> Result<Self, ImportError> {
        let failed = |source| ImportError::File { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(failed)?;
        // A block device's metadata knows no length; its end does.
        let size = file.seek(SeekFrom::End(0)).map_err(failed)?;
        Ok(Self { path: path.to_owned(), file, size, data_until: 0 })
    }

    /// The next data from `at` on; the end if there is none.
    fn next_data(&self, at: u64) -> u64 {
        match lseek(&self.file, signed(at), Whence::SeekData) {
            Ok(found) => found.unsigned_abs(),
            Err(Errno::ENXIO) => self.size,
            // It knows nothing of holes: all is data.
            Err(_) => at,
        }
    }

    fn next_hole(&self, at: u64) -> u64 {
        lseek(&self.file, signed(at), Whence::SeekHole).map_or(self.size, i64::unsigned_abs)
    }
}

fn signed(at: u64) -> i64 {
    i64::try_from(at).unwrap_or(i64::MAX)
}

impl Image for RawImage {
    fn size(&self) -> u64 {
        self.size
    }

    fn zeroes_until(&mut self, at: u64) -> Result<u64, ImportError> {
        if at < self.data_until {
            return Ok(at);
        }
        let data = self.next_data(at);
        if data < self.size {
            self.data_until = self.next_hole(data);
        }
        Ok(data)
    }

    fn read(&mut self, at: u64, buffer: &mut [u8]) -> Result<(), ImportError> {
        let read = self.file.read_exact_at(buffer, at);
        read.map_err(|source: io::Error| ImportError::File { path: self.path.clone(), source })
    }
}
