//! What this host is to do in replication: learned from the controller, kept on
//! disk, and done whether the controller is there or not.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::warn;
use wire::replication::{DUTIES_FORMAT, Duties, Replication};

use crate::epochs::owners::Owners;
use crate::heritage;
use crate::identity::StateFolder;
use crate::keep::Keepers;
use crate::ship::{Shippers, Surroundings};

const FILE: &str = "duties.json";
/// Reports are told no more often than this.
const REPORT_PAUSE: Duration = Duration::from_secs(1);
/// Points that are told in a second, at about 100 bytes each.
const POINTS_A_SECOND: usize = 2000;
/// And at least this often: ages grow without anything happening.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

#[derive(Serialize, Deserialize)]
struct DutiesFile {
    format: u16,
    duties: Duties,
}

/// The duties that were learned last; none if nothing was ever learned.
///
/// # Errors
/// The file cannot be read, or is of another version.
pub fn read(folder: &Path) -> io::Result<Duties> {
    let path = folder.join(FILE);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Duties::default()),
        Err(error) => return Err(error),
    };
    let file: DutiesFile = serde_json::from_slice(&bytes)?;
    match file.format {
        DUTIES_FORMAT => Ok(file.duties),
        other => Err(io::Error::other(format!("its format {other} is not known here"))),
    }
}

/// Keeps what was learned. Durable on return.
///
/// # Errors
/// The folder is full or the like; what was known before stands.
fn keep(folder: &StateFolder, duties: &Duties) -> io::Result<()> {
    let file = DutiesFile { format: DUTIES_FORMAT, duties: duties.clone() };
    folder.write(FILE, &serde_json::to_vec_pretty(&file)?)
}

/// Does what the duties say, for ever. `learned` has what the controller says;
/// none until it said something. Once nothing was heard of it for `alone_after`, what
/// policies want then is done.
pub async fn perform(
    folder: Arc<StateFolder>,
    around: Surroundings,
    keepers: Keepers,
    (owners, alone_after): (Owners, Duration),
    mut learned: watch::Receiver<Option<Duties>>,
    reports: watch::Sender<Replication>,
) {
    let mut rings = around.changed.subscribe();
    let mut keeps = keepers.changes();
    let mut shippers = Shippers::new(around);
    let mut known = Duties::default();
    match read(folder.path()) {
        Ok(duties) => {
            shippers.reconcile(&duties.shipping);
            known = duties;
        }
        // The controller tells them again; until then nothing is shipped.
        Err(error) => {
            warn!(%error, path = %folder.path().join(FILE).display(), "the duties of this host cannot be read")
        }
    }
    keepers.reconcile(&known.keeping);
    let mut left = known.heritage.clone();
    let mut is_alone = true;
    let patience = sleep(alone_after);
    tokio::pin!(patience);
    loop {
        tokio::select! {
            changed = learned.changed() => {
                if changed.is_err() {
                    return;
                }
                let duties = learned.borrow_and_update().clone();
                if let Some(duties) = duties {
                    is_alone = false;
                    // First of all: who must not run is stopped at once.
                    owners.learn(&duties.ownership).await;
                    match keep(&folder, &duties) {
                        Ok(()) => heritage::told(&folder),
                        Err(error) => {
                            warn!(%error, "the duties of this host cannot be kept: after a restart it knows the former ones until the controller is there");
                        }
                    }
                    shippers.reconcile(&duties.shipping);
                    left.clone_from(&duties.heritage);
                    known = duties;
                }
            }
            () = &mut patience, if is_alone => {
                is_alone = false;
                owners.nobody_answers();
            }
            _ = rings.changed() => {}
            _ = keeps.changed() => {}
            () = sleep(REPORT_INTERVAL) => {}
        }
        // Both also begin anew what ended by a defect of ours.
        keepers.reconcile(&known.keeping);
        keepers.bequeath(&mut left);
        shippers.revive();
        let report = Replication { shipping: shippers.reports(), keeping: keepers.reports() };
        reports.send_if_modified(|before| {
            let changed = *before != report;
            before.clone_from(&report);
            changed
        });
        sleep(pause_after(&report)).await;
    }
}

/// Long reports, of many machines with many points, are told more rarely.
fn pause_after(report: &Replication) -> Duration {
    let points: usize = report.keeping.iter().map(|keeping| keeping.points.len()).sum();
    REPORT_PAUSE + REPORT_PAUSE * u32::try_from(points / POINTS_A_SECOND).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What version 1 wrote; it must be readable for ever.
    const GOLDEN: &str = include_str!("../tests/golden/duties-1.json");

    #[test]
    fn duties_are_kept_and_read_again() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("agent");
        let folder = StateFolder::open(&path).unwrap();
        assert_eq!(read(&path).unwrap(), Duties::default());
        let golden: DutiesFile = serde_json::from_str(GOLDEN).unwrap();
        keep(&folder, &golden.duties).unwrap();
        assert_eq!(read(&path).unwrap(), golden.duties);
        assert_eq!(fs::read_to_string(path.join(FILE)).unwrap().trim(), GOLDEN.trim());
        fs::write(path.join(FILE), GOLDEN.replace("\"format\": 1", "\"format\": 2")).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("format 2"));
    }
}
