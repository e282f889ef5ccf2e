//! Who this host is: one file in the state folder, written whole or not at
//! all, readable by the agent's user only.

use std::fs;
use std::io;
use std::path::Path;

use domain::fault::{Code, Fault};
use domain::id::HostId;
use serde::{Deserialize, Serialize};
use service::folder::PrivateFolder;
use uuid::Uuid;
use wire::tls::Credentials;

/// Version of the file's format.
const FORMAT: u16 = 1;
const IDENTITY: &str = "identity.json";

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
pub struct StateFolder(PrivateFolder);

impl StateFolder {
    /// Opens the folder, making it if need be, and takes hold of it.
    ///
    /// # Errors
    /// [`Code::DataFolderUnusable`], [`Code::DataFolderInUse`].
    pub fn open(path: &Path) -> Result<Self, Fault> {
        PrivateFolder::open("agent", path).map(Self)
    }

    /// Leaves no trace when the folder was made by this process in vain.
    pub fn discard(self) {
        self.0.discard();
    }

    /// Who this host is; none before it is enrolled.
    ///
    /// # Errors
    /// [`Code::DataFolderUnusable`] when the file cannot be read or understood.
    pub fn identity(&self) -> Result<Option<Identity>, Fault> {
        read_identity(self.0.path())
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
        self.0.write(IDENTITY, &text).map_err(|error| {
            Fault::new(
                Code::DataFolderUnusable,
                format!("keep who this host is in {}", self.0.path().display()),
                error.to_string(),
                "Make room in the folder and make it writable for the agent's user.",
            )
        })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Replaces another file of the agent's whole. Durable on return.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.0.write(name, bytes)
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
}
