//! A folder of the local file system.

use std::{
    fs,
    io::{self, Write},
    os::{fd::AsFd, unix::fs::FileExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, fallocate},
    sys::statvfs::statvfs,
};

use super::{File, Medium, Space};

/// Folders that a machine's files lie in.
const FOLDERS: [&str; 3] = ["seg", "idx", "man"];
/// Whose lock keeps a second writer out.
const LOCK: &str = "lock";

/// A folder with a machine's files.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Makes the folder if need be, durably.
    ///
    /// # Errors
    /// Whatever the system says.
    pub fn create(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        for folder in FOLDERS {
            fs::create_dir_all(path.join(folder))?;
        }
        sync_folder(&path)?;
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sync_folder(parent)?;
        }
        Ok(Self { path })
    }

    /// A folder that exists; nothing is touched.
    ///
    /// # Errors
    /// `NotFound` if it holds no machine.
    pub fn existing(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        match path.join("man").is_dir() {
            true => Ok(Self { path }),
            false => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Medium for Folder {
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let path = self.path.join(name);
        let file = fs::OpenOptions::new().read(true).append(true).create_new(true).open(&path)?;
        if let Some(folder) = path.parent() {
            sync_folder(folder)?;
        }
        Ok(Arc::new(LocalFile { file }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let path = self.path.join(name);
        // Holes are punched through a writable handle; a store on a read-only
        // file system can still be read.
        let file =
            fs::OpenOptions::new().read(true).write(true).open(&path).or_else(
                |error| match error.kind() {
                    io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                        fs::File::open(&path)
                    }
                    _ => Err(error),
                },
            )?;
        Ok(Arc::new(LocalFile { file }))
    }

    fn list(&self, folder: &str) -> io::Result<Vec<(String, u64)>> {
        let entries = match fs::read_dir(self.path.join(folder)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            match entry.metadata() {
                Ok(facts) => found.push((format!("{folder}/{name}"), facts.len())),
                // Deleted since.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.path.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn space(&self) -> io::Result<Space> {
        let facts = statvfs(&self.path)?;
        let unit = facts.fragment_size();
        Ok(Space {
            total: facts.blocks().saturating_mul(unit),
            free: facts.blocks_available().saturating_mul(unit),
        })
    }

    fn lock(&self) -> io::Result<Box<dyn Send + Sync>> {
        let path = self.path.join(LOCK);
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(file)),
            Err(fs::TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

#[derive(Debug)]
struct LocalFile {
    file: fs::File,
}

impl File for LocalFile {
    fn append(&self, data: &[u8]) -> io::Result<()> {
        (&self.file).write_all(data)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let (Ok(offset), Ok(length)) = (offset.try_into(), length.try_into()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        fallocate(self.file.as_fd(), flags, offset, length).map_err(|errno| match errno {
            Errno::EOPNOTSUPP => io::ErrorKind::Unsupported.into(),
            other => io::Error::from(other),
        })
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_made_once_and_listed_in_order() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = Folder::create(scratch.path().join("machine")).unwrap();
        folder.publish("man/2", b"two").unwrap();
        let file = folder.create("man/1").unwrap();
        file.append(b"o").unwrap();
        file.append(b"ne").unwrap();
        let mut read = [0; 2];
        file.read_at(&mut read, 1).unwrap();
        assert_eq!(&read, b"ne");
        let again = folder.create("man/1").unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(folder.list("man").unwrap(), [("man/1".into(), 3), ("man/2".into(), 3)]);
        folder.delete("man/1").unwrap();
        folder.delete("man/1").unwrap();
        assert_eq!(folder.open("man/1").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(folder.space().unwrap().free > 0);
    }

    #[test]
    fn one_lock_at_a_time() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = Folder::create(scratch.path()).unwrap();
        let held = folder.lock().unwrap();
        let second = folder.lock().map(|_| ()).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::WouldBlock);
        drop(held);
        folder.lock().unwrap();
    }
}
