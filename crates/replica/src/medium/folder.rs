//! A folder of the local file system.

use std::{
    fs,
    io::{self, Write},
    os::{
        fd::AsFd,
        unix::{
            self,
            fs::{FileExt, MetadataExt},
        },
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, PosixFadviseAdvice, fallocate, posix_fadvise},
    sys::statvfs::statvfs,
};

use super::{File, Identity, Medium, Space};
use crate::geometry::Cycle;

/// Folders that a machine's files lie in.
const FOLDERS: [&str; 3] = ["seg", "idx", "man"];
/// Where readers say which points they need: a locked file for each.
const PINS: &str = "pin";
/// Whose lock keeps a second writer out.
const LOCK: &str = "lock";
/// How long to wait for somebody who pins a point or drops some.
const PATIENCE: Duration = Duration::from_secs(10);

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

    /// Whoever holds it may pin points or count on none being pinned.
    fn lock_pins(&self) -> io::Result<fs::File> {
        let folder = self.path.join(PINS);
        let lock = folder.join(LOCK);
        if !lock.exists() {
            fs::create_dir_all(&folder)?;
            lock_file(&lock)?;
            self.give_to_owner(&[&folder, &lock])?;
        }
        let file = lock_file(&lock)?;
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(fs::TryLockError::Error(error)) => return Err(error),
                Err(fs::TryLockError::WouldBlock) if start.elapsed() > PATIENCE => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Err(fs::TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// Lets whoever owns the store write what somebody else, such as root, has
    /// made in it.
    fn give_to_owner(&self, made: &[&Path]) -> io::Result<()> {
        let owner = fs::metadata(&self.path)?;
        for path in made {
            let facts = fs::metadata(path)?;
            if (facts.uid(), facts.gid()) != (owner.uid(), owner.gid()) {
                unix::fs::chown(path, Some(owner.uid()), Some(owner.gid()))?;
            }
        }
        Ok(())
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

    fn adopted(&self, path: &str) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(LocalFile { file: fs::File::open(path)? }))
    }

    fn identity(&self, path: &str) -> io::Result<Identity> {
        let facts = fs::metadata(path)?;
        let modified = facts.mtime().saturating_mul(1_000_000_000);
        let modified = modified.saturating_add(facts.mtime_nsec());
        Ok(Identity { size: facts.len(), modified, inode: facts.ino() })
    }

    fn pin(&self, point: Cycle) -> io::Result<Box<dyn Send + Sync>> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let _nobody_counts = self.lock_pins()?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{:08x}-{}-{number}", point.0, std::process::id());
        let path = self.path.join(PINS).join(name);
        let file = lock_file(&path)?;
        file.lock()?;
        Ok(Box::new(Pin { path, _file: file }))
    }

    fn pinned(&self) -> io::Result<(Vec<Cycle>, Box<dyn Send + Sync>)> {
        let nobody_pins = self.lock_pins()?;
        let mut points = Vec::new();
        for entry in fs::read_dir(self.path.join(PINS))? {
            let entry = entry?;
            let name = entry.file_name();
            let cycle = name.to_str().and_then(|name| name.split('-').next());
            let Some(cycle) = cycle.and_then(|cycle| u32::from_str_radix(cycle, 16).ok()) else {
                continue;
            };
            match fs::File::open(entry.path()).map(|file| file.try_lock()) {
                // Whoever held it is gone.
                Ok(Ok(())) => fs::remove_file(entry.path())?,
                Ok(Err(_)) => points.push(Cycle(cycle)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        points.sort_unstable();
        points.dedup();
        Ok((points, Box::new(nobody_pins)))
    }

    fn lock(&self) -> io::Result<Box<dyn Send + Sync>> {
        let file = lock_file(&self.path.join(LOCK))?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(file)),
            Err(fs::TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

/// A point that is kept; its file is locked while the process lives.
struct Pin {
    path: PathBuf,
    _file: fs::File,
}

impl Drop for Pin {
    fn drop(&mut self) {
        // If it stays, the next writer finds that nobody locks it.
        let _ = fs::remove_file(&self.path);
    }
}

fn lock_file(path: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
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

    fn settle(&self) -> io::Result<()> {
        self.file.sync_data()?;
        // After a failed sync the system calls pages clean that never reached
        // the disk; without them the next read tells the truth.
        posix_fadvise(&self.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        Ok(())
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
    fn pins_last_as_long_as_their_holder() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = Folder::create(scratch.path()).unwrap();
        let first = folder.pin(Cycle(7)).unwrap();
        let second = folder.pin(Cycle(7)).unwrap();
        folder.pin(Cycle(9)).unwrap();
        // Of a process that died.
        fs::write(scratch.path().join("pin/00000005-1-1"), b"").unwrap();
        drop(first);
        assert_eq!(folder.pinned().unwrap().0, [Cycle(7)]);
        drop(second);
        assert_eq!(folder.pinned().unwrap().0, []);
        assert!(!scratch.path().join("pin/00000005-1-1").exists());
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
