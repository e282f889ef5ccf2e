//! The data folder: what is where in it.

use std::io;
use std::path::{Path, PathBuf};

use domain::fault::{Code, Fault};
use service::folder::PrivateFolder;

const DATABASE: &str = "lifeboat.db";
const AUTHORITY_CERTIFICATE: &str = "authority.pem";
const AUTHORITY_KEY: &str = "authority.key";

/// The data folder, held by this process alone.
#[derive(Debug)]
pub struct DataFolder(PrivateFolder);

impl DataFolder {
    /// Opens the folder, making it if need be, and takes hold of it.
    ///
    /// # Errors
    /// [`Code::DataFolderUnusable`], [`Code::DataFolderInUse`].
    pub fn open(path: &Path) -> Result<Self, Fault> {
        PrivateFolder::open("controller", path).map(Self)
    }

    /// The database's file.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.0.path().join(DATABASE)
    }

    /// The authority's certificate, PEM; not secret.
    #[must_use]
    pub fn authority_certificate(&self) -> PathBuf {
        self.0.path().join(AUTHORITY_CERTIFICATE)
    }

    /// The authority's key, PEM. Whoever has it can be any host.
    #[must_use]
    pub fn authority_key(&self) -> PathBuf {
        self.0.path().join(AUTHORITY_KEY)
    }

    /// Keeps a new authority. Durable on return.
    ///
    /// # Errors
    /// The system's.
    pub fn keep_authority(&self, certificate: &str, key: &str) -> io::Result<()> {
        // The key first, so that the certificate's presence means both.
        self.0.write(AUTHORITY_KEY, key.as_bytes())?;
        self.0.write(AUTHORITY_CERTIFICATE, certificate.as_bytes())
    }
}

/// What one finds in the data folder of a controller that may be running.
#[derive(Debug)]
pub struct Visit {
    /// The database's file.
    pub database: PathBuf,
    /// The authority's certificate, PEM.
    pub authority_certificate: PathBuf,
}

/// Looks into a data folder without taking hold of it.
///
/// # Errors
/// [`Code::DataFolderUnusable`] when no controller ever worked there.
pub fn visit(path: &Path) -> Result<Visit, Fault> {
    let visit = Visit {
        database: path.join(DATABASE),
        authority_certificate: path.join(AUTHORITY_CERTIFICATE),
    };
    if visit.database.exists() {
        return Ok(visit);
    }
    Err(Fault::new(
        Code::DataFolderUnusable,
        format!("look into the controller's folder {}", path.display()),
        "no controller has worked in it yet, or this user may not look into it",
        "Start the controller once, or name its folder with --data-folder; run as its user or as root.",
    ))
}
