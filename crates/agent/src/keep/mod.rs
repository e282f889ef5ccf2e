//! Keeping recovery points of machines that run elsewhere.
//!
//! Each machine has a [`Keeper`]: one thread that owns its store's writer
//! ([`thread`]) and takes orders from whoever ships to it ([`session`]), one
//! after the other. What old points go is decided by the policy ([`tending`]). A
//! first copy may be carried here instead ([`import`]).
//!
//! The duties say which machines are kept; one that is no longer among them is
//! let go, and its points stay on disk until an operator removes them.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use domain::fault::Fault;
use domain::id::ProtectionId;
use replica::catalogue::MachineFolder;
use replica::state::Limits;
use tokio::sync::watch;
use tracing::{info, warn};
use wire::heritage::Heritage;
use wire::replication::{Keeping, KeepingReport, PointMark};

use crate::heritage;

pub mod fault;
mod import;
pub mod pins;
pub mod session;
pub mod tending;
pub mod thread;

pub use pins::Pins;
pub use thread::Keeper;

/// The keepers of this host, by protection. Clones share them.
#[derive(Debug, Clone)]
pub struct Keepers {
    folder: Arc<PathBuf>,
    by_protection: Arc<Mutex<HashMap<ProtectionId, Keeper>>>,
    /// Rings when any report changed.
    changed: watch::Sender<()>,
    pins: Pins,
}

impl Keepers {
    /// None yet; their stores will lie in `folder`.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: Arc::new(folder.to_owned()),
            by_protection: Arc::default(),
            changed: watch::Sender::new(()),
            pins: Pins::default(),
        }
    }

    /// Points that are kept whatever the policies say.
    #[must_use]
    pub fn pins(&self) -> Pins {
        self.pins.clone()
    }

    /// The folder of a protection's points, whether they are kept by duty or are
    /// still there from an earlier one.
    ///
    /// # Errors
    /// The folder of all stores cannot be read.
    pub fn folder_of(&self, protection: ProtectionId) -> io::Result<Option<PathBuf>> {
        if let Some(keeper) = self.get(protection) {
            return Ok(Some(keeper.folder().to_owned()));
        }
        let found = match replica::catalogue::machines(&self.folder) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let end = format!("-{}", tail(protection));
        Ok(found.into_iter().find(|folder| folder.name.ends_with(&end)).map(|folder| folder.path))
    }

    /// Begins, changes and ends keepers so that they are those of the duties.
    pub fn reconcile(&self, duties: &[Keeping]) {
        let mut keepers = self.lock();
        keepers.retain(|protection, keeper| {
            let stays = duties.iter().any(|duty| duty.protection == *protection);
            if !stays {
                info!(%protection, machine = %keeper.duty().name, "its points are kept no longer by us");
                heritage::take_from(keeper.folder(), *protection);
            }
            stays
        });
        for duty in duties {
            // A thread that panicked is replaced.
            let keeper = match keepers.get(&duty.protection).filter(|keeper| keeper.is_alive()) {
                Some(keeper) => {
                    keeper.change(duty.clone());
                    keeper.clone()
                }
                None => {
                    let folder = folder_of(&self.folder, duty);
                    info!(protection = %duty.protection, machine = %duty.name, folder = %folder.display(), "its points are kept here");
                    let keeper = Keeper::start(
                        duty.clone(),
                        folder,
                        self.changed.clone(),
                        self.pins.clone(),
                    );
                    keepers.insert(duty.protection, keeper.clone());
                    keeper
                }
            };
            keeper.import();
        }
    }

    /// Puts what the controller left of each protection beside its points. What is
    /// left over has no points yet, or could not be written.
    pub fn bequeath(&self, left: &mut Vec<Heritage>) {
        left.retain(|heritage| {
            let Some(keeper) = self.get(heritage.protection) else { return false };
            if !keeper.folder().is_dir() {
                return true;
            }
            let put = heritage::put_beside(keeper.folder(), heritage);
            if let Err(error) = &put {
                warn!(%error, folder = %keeper.folder().display(), "what another controller must know cannot be kept beside the points");
            }
            put.is_err()
        });
    }

    /// The keeper of a protection.
    #[must_use]
    pub fn get(&self, protection: ProtectionId) -> Option<Keeper> {
        self.lock().get(&protection).cloned()
    }

    /// All points of a protection, the oldest first; none if this host keeps
    /// nothing of it.
    ///
    /// # Errors
    /// The store cannot be opened.
    pub async fn points(&self, protection: ProtectionId) -> Result<Option<Vec<PointMark>>, Fault> {
        let doing = "list the points";
        let folder = self.folder_of(protection).map_err(|error| Fault::internal(doing, &error))?;
        let Some(path) = folder else { return Ok(None) };
        let opened = match self.get(protection) {
            Some(keeper) => {
                keeper.settle().await?;
                keeper.store()
            }
            None => None,
        };
        let store = match opened {
            Some(store) => store,
            None => {
                let opening = tokio::task::spawn_blocking(move || {
                    let folder = MachineFolder { name: "of the protection".into(), path };
                    let opened = folder.open(Limits::default());
                    opened.map_err(|error| fault::of_store(&folder.name, &folder.path, &error))
                });
                opening.await.map_err(|error| Fault::internal(doing, &error))??
            }
        };
        let points = store.points();
        Ok(Some(points.iter().map(thread::mark_of).collect()))
    }

    /// How all of them are.
    #[must_use]
    pub fn reports(&self) -> Vec<KeepingReport> {
        let mut reports: Vec<_> = self.lock().values().map(Keeper::report).collect();
        reports.sort_by_key(|report| report.protection);
        reports
    }

    /// Rings when a report changed.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ProtectionId, Keeper>> {
        // Changes are insertions and removals; none stops half-way.
        self.by_protection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the points of a machine are, or will be: a machine may have had
/// another name when the first came.
fn folder_of(store: &Path, duty: &Keeping) -> PathBuf {
    let (name, tail) = folder_name(duty);
    let entries = std::fs::read_dir(store).into_iter().flatten().flatten();
    let mut folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let known = folders.find(|entry| entry.file_name().to_string_lossy().ends_with(&tail));
    known.map_or_else(|| store.join(name), |entry| entry.path())
}

/// A name that people recognise and that no two machines share, and its end,
/// which says whose it is.
fn folder_name(duty: &Keeping) -> (String, String) {
    let fit = |c: char| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    let name: String = duty.name.chars().map(fit).take(100).collect();
    let tail = format!("-{}", tail(duty.protection));
    (format!("{}{tail}", name.trim_start_matches('.')), tail)
}

/// The end of an id: its beginning is the time when it was drawn, which several
/// may share.
fn tail(protection: ProtectionId) -> String {
    let id = protection.to_string();
    id.rsplit('-').next().unwrap_or(&id).to_owned()
}

#[cfg(test)]
mod tests {
    use wire::replication::{Compression, Retention};

    use super::*;

    #[test]
    fn a_machine_that_is_renamed_keeps_its_points() {
        let store = tempfile::tempdir().unwrap();
        let duty = |name: &str, number| Keeping {
            protection: ProtectionId::new(uuid::Uuid::from_u128(number)),
            machine: domain::id::MachineUuid::new(uuid::Uuid::from_u128(7)),
            name: name.into(),
            source: domain::id::HostId::new(uuid::Uuid::from_u128(8)),
            generation: 1,
            retention: Retention { all_hours: 1, tiers: vec![], app_extra_hours: 0 },
            compression: Compression::Fast,
            import: None,
        };
        let shown = |name, number| {
            let folder = folder_of(store.path(), &duty(name, number));
            folder.file_name().unwrap().to_str().unwrap().to_owned()
        };
        assert_eq!(shown(".web 1", 5), "web_1-000000000005");
        std::fs::create_dir(store.path().join("web_1-000000000005")).unwrap();
        assert_eq!(shown("shop", 5), "web_1-000000000005");
        assert_eq!(shown("shop", 6), "shop-000000000006");
    }
}
