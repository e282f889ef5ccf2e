//! Capture's own files of one machine on this host.
//!
//! ```text
//! FOLDER/UUID/          ours
//!   frozen              exists while the guest may be frozen by us
//!   held                exists while QEMU may hold the guest because of us
//!   qemu/               belongs to QEMU's user, who makes the sockets
//!     ID.s              socket of the cut ID
//!     ID-vda            scratch file of the cut ID
//! ```
//! Names in `qemu` are short: a socket's path has at most 107 bytes.

use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use domain::id::MachineUuid;
use nix::unistd::{Gid, Group, Uid, User};
use tokio::fs;

use super::error::CaptureError;

/// The most bytes that the path of a unix socket may have; see unix(7).
const SOCKET_PATH_MAX: usize = 107;
/// Bytes of a cut's id in names of files: enough to tell cuts apart that are
/// open one after the other.
const ID_LENGTH: usize = 12;

/// Whom QEMU runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    user: Uid,
    group: Gid,
}

impl Owner {
    /// Reads libvirt's label `USER:GROUP`: names, or numbers behind a `+`. None
    /// when this host does not know them.
    pub(crate) fn parse(label: &str) -> Option<Self> {
        let (user, group) = label.split_once(':')?;
        let number = |text: &str| text.strip_prefix('+').unwrap_or(text).parse().ok();
        let named_user = || Some(User::from_name(user).ok()??.uid);
        let named_group = || Some(Group::from_name(group).ok()??.gid);
        Some(Self {
            user: number(user).map(Uid::from_raw).or_else(named_user)?,
            group: number(group).map(Gid::from_raw).or_else(named_group)?,
        })
    }
}

impl Owner {
    /// Makes a file or folder its own.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn own(self, path: &Path) -> io::Result<()> {
        Ok(nix::unistd::chown(path, Some(self.user), Some(self.group))?)
    }
}

/// The folder of one machine.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    root: PathBuf,
    own: PathBuf,
}

impl Folder {
    /// # Errors
    /// When sockets in it would have paths that are too long.
    pub(super) fn new(root: &Path, machine: MachineUuid) -> Result<Self, CaptureError> {
        let folder = Self { root: root.to_owned(), own: root.join(machine.to_string()) };
        let longest = folder.qemu().join("x".repeat(ID_LENGTH) + ".s");
        if longest.as_os_str().len() > SOCKET_PATH_MAX {
            let why = format!("paths of sockets have at most {SOCKET_PATH_MAX} bytes");
            let source = io::Error::new(ErrorKind::InvalidFilename, why);
            return Err(CaptureError::File { doing: "use", path: longest, source });
        }
        Ok(folder)
    }

    pub(super) fn qemu(&self) -> PathBuf {
        self.own.join("qemu")
    }

    pub(super) fn frozen(&self) -> PathBuf {
        self.own.join("frozen")
    }

    pub(super) fn held(&self) -> PathBuf {
        self.own.join("held")
    }

    /// Whether a socket of QEMU's is one of a cut of this machine.
    pub(super) fn has_socket(&self, path: &str) -> bool {
        Path::new(path).parent() == Some(&self.qemu())
    }

    /// The files of one cut.
    pub(super) fn of_cut(&self, id: &str) -> CutFiles {
        let id = &id[id.len().saturating_sub(ID_LENGTH)..];
        CutFiles { qemu: self.qemu(), id: id.to_owned() }
    }

    /// Makes the folders, with QEMU's belonging to `owner` when it is not us.
    pub(super) async fn make(&self, owner: Option<Owner>) -> Result<(), CaptureError> {
        // QEMU must be able to get through, and nobody else may look around.
        for (path, mode) in [(&self.root, 0o711), (&self.own, 0o711), (&self.qemu(), 0o700)] {
            let failed = |doing, source| CaptureError::File { doing, path: path.clone(), source };
            match fs::create_dir(path).await {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    fs::create_dir_all(path).await.map_err(|error| failed("make", error))?;
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                made => made.map_err(|error| failed("make", error))?,
            }
            let permissions = std::fs::Permissions::from_mode(mode);
            fs::set_permissions(path, permissions).await.map_err(|e| failed("open up", e))?;
        }
        let path = self.qemu();
        let failed = |source| CaptureError::File { doing: "give QEMU", path: path.clone(), source };
        let now = fs::metadata(&path).await.map_err(failed)?;
        if let Some(owner) = owner
            && (now.uid(), now.gid()) != (owner.user.as_raw(), owner.group.as_raw())
        {
            nix::unistd::chown(&path, Some(owner.user), Some(owner.group))
                .map_err(|error| failed(error.into()))?;
        }
        Ok(())
    }

    /// The first folder on the way that QEMU's user cannot get through; none
    /// when there is none, as far as modes tell.
    pub(super) async fn barred_to(&self, owner: Owner) -> Option<PathBuf> {
        if owner.user.is_root() {
            return None;
        }
        let mut way: Vec<&Path> = self.own.ancestors().collect();
        way.reverse();
        for path in way {
            let Ok(folder) = fs::metadata(path).await else { continue };
            let passes = if folder.uid() == owner.user.as_raw() {
                0o100
            } else if folder.gid() == owner.group.as_raw() {
                0o010
            } else {
                0o001
            };
            if folder.mode() & passes == 0 {
                return Some(path.to_owned());
            }
        }
        None
    }

    /// Removes what cuts have left in QEMU's folder.
    pub(super) async fn clear(&self) -> Result<(), CaptureError> {
        let path = self.qemu();
        let failed = |source| CaptureError::File { doing: "clear", path: path.clone(), source };
        let mut entries = match fs::read_dir(&path).await {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        while let Some(entry) = entries.next_entry().await.map_err(failed)? {
            remove_if_there(&entry.path()).await?;
        }
        Ok(())
    }

    /// Removes everything.
    pub(super) async fn remove(&self) -> Result<(), CaptureError> {
        match fs::remove_dir_all(&self.own).await {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                Err(CaptureError::File { doing: "remove", path: self.own.clone(), source })
            }
            _ => Ok(()),
        }
    }
}

/// The files of one cut.
#[derive(Debug, Clone)]
pub(super) struct CutFiles {
    qemu: PathBuf,
    id: String,
}

impl CutFiles {
    /// The one socket of all disks of a machine that runs.
    pub(super) fn socket(&self) -> PathBuf {
        self.qemu.join(format!("{}.s", self.id))
    }

    /// The socket of one disk, by its place in the machine, of a machine that
    /// is off.
    pub(super) fn socket_of(&self, index: usize) -> PathBuf {
        // Fewer bytes of the id make room for the number.
        self.qemu.join(format!("{}{index}.s", &self.id[self.id.len() / 2..]))
    }

    pub(super) fn scratch(&self, target: &str) -> PathBuf {
        self.qemu.join(format!("{}-{target}", self.id))
    }
}

pub(super) async fn remove_if_there(path: &Path) -> Result<(), CaptureError> {
    match fs::remove_file(path).await {
        Err(source) if source.kind() != ErrorKind::NotFound => {
            Err(CaptureError::File { doing: "remove", path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_qemu_runs_as_is_told_by_number_or_name() {
        let numbers = Owner { user: Uid::from_raw(64055), group: Gid::from_raw(993) };
        assert_eq!(Owner::parse("+64055:+993"), Some(numbers));
        let root = Owner { user: Uid::from_raw(0), group: Gid::from_raw(0) };
        assert_eq!(Owner::parse("root:root"), Some(root));
        assert_eq!(Owner::parse("root"), None);
        assert_eq!(Owner::parse("nobody-has-this-name:root"), None);
    }

    #[tokio::test]
    async fn a_folder_that_bars_qemu_is_named() {
        let root = tempfile::tempdir().unwrap();
        let closed = root.path().join("closed");
        let folder = Folder::new(&closed.join("c"), MachineUuid::new(uuid::Uuid::nil())).unwrap();
        folder.make(None).await.unwrap();
        for path in [root.path(), &closed] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o711)).unwrap();
        }
        let qemu = Owner::parse("+64055:+64055").unwrap();
        assert_eq!(folder.barred_to(qemu).await, None);
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(folder.barred_to(qemu).await, Some(closed));
        assert_eq!(folder.barred_to(Owner::parse("+0:+0").unwrap()).await, None);
    }

    #[test]
    fn sockets_keep_to_what_a_path_may_have() {
        let machine = MachineUuid::new(uuid::Uuid::nil());
        let folder = Folder::new(Path::new("/var/lib/lifeboat/agent/capture"), machine).unwrap();
        let files = folder.of_cut("lifeboat-0123456789abcdef");
        let socket = files.socket();
        assert!(folder.has_socket(&socket.to_string_lossy()), "{socket:?}");
        assert!(files.socket_of(99).as_os_str().len() <= socket.as_os_str().len());
        assert!(!folder.has_socket("/somewhere/else.s"));
        assert!(Folder::new(Path::new(&"/long".repeat(20)), machine).is_err());
    }
}
