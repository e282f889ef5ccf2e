//! Who this host is: one file in the state folder, written whole or not at
//! all, readable by the agent's user only.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use domain::fault::{Code, Fault};
use domain::id::HostId;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use wire::tls::Credentials;

/// Version of the file's format.
const FORMAT: u16 = 1;
const IDENTITY: &str = "identity.json";
const LOCK: &str = "lock";

/// Who this host is, and whom it believes.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The host.
    pub host: HostId,
    /// Its name, as of the last connection.
    pub name: String,
    /// The name of its site, as of the last connection.
    pub site: String,
    /// The controller's address for agents, `HOST:PORT`.
    pub controller: String,
    /// The authority's certificate, PEM.
    pub authority: String,
    /// What proves that this is the host.
    pub credentials: Credentials,
}

/// The file's form, version 1.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IdentityFile {
    format: u16,
    host: Uuid,
    name: String,
    site: String,
    controller: String,
    authority: String,
    certificate: String,
    key: String,
}

/// The folder with the agent's state, held by this process alone.
#[derive(Debug)]
pub struct StateFolder {
    path: PathBuf,
    made: bool,
    /// Locked as long as it is open.
    _lock: File,
}

impl StateFolder {
    /// Opens the folder, making it if need be, and takes hold of it.
    ///
    /// # Errors
    /// [`Code::DataFolderUnusable`], [`Code::DataFolderInUse`].
    pub fn open(path: &Path) -> Result<Self, Fault> {
        let doing = || format!("open the agent's state folder {}", path.display());
        let unusable = |error: io::Error| {
            Fault::new(
                Code::DataFolderUnusable,
                doing(),
                error.to_string(),
                "Make the folder writable for the agent's user, or name another as `state_folder`.",
            )
        };
        let made = !path.exists();
        if made {
            DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(unusable)?;
        }
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join(LOCK))
            .map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), made, _lock: lock }),
            Err(fs::TryLockError::WouldBlock) => Err(Fault::new(
                Code::DataFolderInUse,
                doing(),
                "another agent works in it",
                "Stop that agent first (systemctl stop lifeboat-agent), or name another folder.",
            )),
            Err(fs::TryLockError::Error(error)) => Err(unusable(error)),
        }
    }

    /// Whether some process holds the folder now.
    #[must_use]
    pub fn is_held(path: &Path) -> bool {
        File::open(path.join(LOCK))
            .is_ok_and(|lock| matches!(lock.try_lock(), Err(fs::TryLockError::WouldBlock)))
    }

    /// Leaves no trace when the folder was made by this process.
    pub fn discard(self) {
        if self.made {
            // Best effort: an empty folder left behind harms nobody.
            let _ = fs::remove_file(self.path.join(LOCK));
            let _ = fs::remove_dir(&self.path);
        }
    }

    /// Who this host is; none before it is enrolled.
    ///
    /// # Errors
    /// [`Code::DataFolderUnusable`] when the file cannot be read or understood.
    pub fn identity(&self) -> Result<Option<Identity>, Fault> {
        read_identity(&self.path)
    }

    /// Keeps who this host is. Durable on return.
    ///
    /// # Errors
    /// [`Code::DataFolderUnusable`]; the former identity then still stands.
    pub fn keep_identity(&self, identity: &Identity) -> Result<(), Fault> {
        let file = IdentityFile {
            format: FORMAT,
            host: identity.host.uuid(),
            name: identity.name.clone(),
            site: identity.site.clone(),
            controller: identity.controller.clone(),
            authority: identity.authority.clone(),
            certificate: identity.credentials.certificate.clone(),
            key: identity.credentials.key.clone(),
        };
        let text = serde_json::to_vec_pretty(&file).expect("the file's form is plain");
        self.replace(IDENTITY, &text).map_err(|error| {
            Fault::new(
                Code::DataFolderUnusable,
                format!("keep who this host is in {}", self.path.display()),
                error.to_string(),
                "Make room in the folder and make it writable for the agent's user.",
            )
        })
    }

    /// Replaces a file whole. Durable on return.
    pub(crate) fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let new = self.path.join(format!("{name}.new"));
        // A leftover of a crash may have other rights.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, self.path.join(name))?;
        File::open(&self.path)?.sync_all()
    }
}

/// Who the host of a state folder is, without taking hold of it.
///
/// # Errors
/// [`Code::DataFolderUnusable`] when the file cannot be read or understood.
pub fn read_identity(folder: &Path) -> Result<Option<Identity>, Fault> {
    let path = folder.join(IDENTITY);
    let unusable = |cause: String| {
        Fault::new(
            Code::DataFolderUnusable,
            format!("read who this host is from {}", path.display()),
            cause,
            "Run as the agent's user; if the file is damaged, remove it and enrol the host again with a token that replaces it.",
        )
    };
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unusable(error.to_string())),
    };
    let file: IdentityFile =
        serde_json::from_slice(&text).map_err(|error| unusable(error.to_string()))?;
    if file.format != FORMAT {
        return Err(unusable(format!("its format {} is not known here", file.format)));
    }
    Ok(Some(Identity {
        host: HostId::new(file.host),
        name: file.name,
        site: file.site,
        controller: file.controller,
        authority: file.authority,
        credentials: Credentials { certificate: file.certificate, key: file.key },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    /// What version 1 wrote; it must be readable for ever.
    const GOLDEN: &str = include_str!("../tests/golden/identity-1.json");

    #[test]
    fn an_identity_of_format_1_is_read_and_written_alike() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("state/agent");
        let folder = StateFolder::open(&path).unwrap();
        assert!(folder.identity().unwrap().is_none());
        fs::write(path.join(IDENTITY), GOLDEN).unwrap();
        let identity = folder.identity().unwrap().unwrap();
        assert_eq!((identity.name.as_str(), identity.site.as_str()), ("kvm1", "east"));
        folder.keep_identity(&identity).unwrap();
        let written = fs::read_to_string(path.join(IDENTITY)).unwrap();
        assert_eq!(written.trim(), GOLDEN.trim());
        let mode = fs::metadata(path.join(IDENTITY)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "the key is for the agent's user only");
        assert!(!format!("{identity:?}").contains("SECRET"), "{identity:?}");
    }

    #[test]
    fn a_newer_format_is_refused_and_not_overwritten() {
        let root = tempfile::tempdir().unwrap();
        let newer = GOLDEN.replace("\"format\": 1", "\"format\": 2");
        fs::write(root.path().join(IDENTITY), &newer).unwrap();
        let fault = read_identity(root.path()).unwrap_err();
        assert!(fault.cause.contains("format 2"), "{fault}");
    }

    #[test]
    fn one_folder_has_one_agent() {
        let root = tempfile::tempdir().unwrap();
        let held = StateFolder::open(root.path()).unwrap();
        assert!(StateFolder::is_held(root.path()));
        assert_eq!(StateFolder::open(root.path()).unwrap_err().code, Code::DataFolderInUse);
        drop(held);
        assert!(!StateFolder::is_held(root.path()));
        StateFolder::open(root.path()).unwrap();
    }

    #[test]
    fn a_folder_that_was_made_in_vain_is_gone_again() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("agent");
        StateFolder::open(&path).unwrap().discard();
        assert!(!path.exists());
    }
}
