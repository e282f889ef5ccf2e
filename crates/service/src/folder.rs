//! A folder that one process holds at a time and only its user may look into.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use domain::fault::{Code, Fault};

const LOCK: &str = "lock";

/// A folder that this process holds until the value is dropped.
#[derive(Debug)]
pub struct PrivateFolder {
    path: PathBuf,
    made: bool,
    /// Locked as long as it is open.
    _lock: File,
}

impl PrivateFolder {
    /// Opens the folder for a role, making it if need be, and takes hold of it.
    ///
    /// # Errors
    /// [`Code::DataFolderUnusable`], [`Code::DataFolderInUse`].
    pub fn open(role: &str, path: &Path) -> Result<Self, Fault> {
        let made = !path.exists();
        let opened = DirBuilder::new().recursive(true).mode(0o700).create(path).and_then(|()| {
            OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .mode(0o600)
                .open(path.join(LOCK))
        });
        let lock = opened.map_err(|error| unusable(role, path, &error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), made, _lock: lock }),
            Err(fs::TryLockError::WouldBlock) => Err(Fault::new(
                Code::DataFolderInUse,
                doing(role, path),
                format!("another {role} works in it"),
                format!(
                    "Stop that {role} first (systemctl stop lifeboat-{role}), or name another folder."
                ),
            )),
            Err(fs::TryLockError::Error(error)) => Err(unusable(role, path, &error)),
        }
    }

    /// Whether some process holds the folder now.
    #[must_use]
    pub fn is_held(path: &Path) -> bool {
        File::open(path.join(LOCK))
            .is_ok_and(|lock| matches!(lock.try_lock(), Err(fs::TryLockError::WouldBlock)))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves no trace when the folder was made by this process and nothing
    /// was written into it.
    pub fn discard(self) {
        if self.made {
            // Best effort: an empty folder left behind harms nobody.
            let _ = fs::remove_file(self.path.join(LOCK));
            let _ = fs::remove_dir(&self.path);
        }
    }

    /// Writes a file whole, in place of any that was there, readable by the
    /// folder's user only. Durable on return.
    ///
    /// # Errors
    /// The system's; what was there before then still stands.
    pub fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        replace(&self.path, name, bytes)
    }
}

/// As [`PrivateFolder::write`], in a folder that is not held, or in one below.
///
/// # Errors
/// The system's; what was there before then still stands.
pub fn replace(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let new = folder.join(format!("{name}.new"));
    // A leftover of a crash may have other rights.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, folder.join(name))?;
    File::open(folder)?.sync_all()
}

fn doing(role: &str, path: &Path) -> String {
    format!("open the {role}'s folder {}", path.display())
}

fn unusable(role: &str, path: &Path, error: &io::Error) -> Fault {
    Fault::new(
        Code::DataFolderUnusable,
        doing(role, path),
        error.to_string(),
        format!(
            "Make the folder writable for the {role}'s user, or name another in its configuration."
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn one_folder_is_held_by_one_process() {
        let root = tempfile::tempdir().unwrap();
        let held = PrivateFolder::open("agent", root.path()).unwrap();
        assert!(PrivateFolder::is_held(root.path()));
        let refused = PrivateFolder::open("agent", root.path()).unwrap_err();
        assert_eq!(refused.code, Code::DataFolderInUse);
        drop(held);
        assert!(!PrivateFolder::is_held(root.path()));
        PrivateFolder::open("agent", root.path()).unwrap();
    }

    #[test]
    fn files_are_private_and_replaced_whole() {
        let root = tempfile::tempdir().unwrap();
        let folder = PrivateFolder::open("agent", &root.path().join("a/b")).unwrap();
        fs::write(folder.path().join("key.new"), "a leftover of a crash").unwrap();
        folder.write("key", b"one").unwrap();
        folder.write("key", b"two").unwrap();
        let path = folder.path().join("key");
        assert_eq!(fs::read(&path).unwrap(), b"two");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(folder.path())), (0o600, 0o700));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "the file and the lock");
    }

    #[test]
    fn a_folder_that_was_made_in_vain_is_gone_again() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("agent");
        PrivateFolder::open("agent", &path).unwrap().discard();
        assert!(!path.exists());
        PrivateFolder::open("agent", root.path()).unwrap().discard();
        assert!(root.path().exists(), "it was there before");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error_that_names_it() {
        let fault = PrivateFolder::open("agent", Path::new("/dev/null/agent")).unwrap_err();
        assert_eq!(fault.code, Code::DataFolderUnusable);
        assert!(fault.doing.contains("/dev/null/agent"), "{fault}");
    }
}
