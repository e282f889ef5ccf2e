//! Whose machines are: the highest epoch that this host has seen of each, and
//! whether the machine was its own in that epoch (ADR 15).
//!
//! ```text
//!   nothing known ──▶ ours in epoch 3 ──fenced──▶ not ours from epoch 4 on ──▶ …
//! ```
//! It is durable before anything is done by it, and only ever grows. A machine
//! that is not ours is stopped wherever it is seen to run ([`watch`]); one that is
//! ours is started by this agent, and not by libvirt, when the host was restarted
//! ([`owners`]).

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fs, io};

use domain::failover::fence::{Alone, Decision, Epoch, Known, Told, heed, may_start};
use domain::fault::{Code, Fault};
use domain::id::MachineUuid;
use serde::{Deserialize, Serialize};
use service::folder::replace;
use tokio::sync::watch as channel;
use tracing::{info, warn};
use uuid::Uuid;
use wire::replication::Ownership;

pub mod owners;
pub mod watch;

/// Version of the files' format.
const FORMAT: u16 = 1;

/// The file of a machine, version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EpochFile {
    format: u16,
    machine: Uuid,
    /// The highest that was seen.
    epoch: u64,
    /// Whether this host may run the machine in it.
    ours: bool,
    /// Whether libvirt started it by itself before it was taken over.
    autostart: bool,
    /// Whether the controller's duties have told of it: it is forgotten when they
    /// tell of it no more.
    listed: bool,
    /// Whether it is started, if it is this host's by all that is known, when the host
    /// was restarted and nobody can be asked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    alone: bool,
}

/// What is known. Clones share it.
#[derive(Debug, Clone)]
pub struct Epochs(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    known: Mutex<HashMap<MachineUuid, EpochFile>>,
    /// Machines of which the controller has said last, since this agent began, that
    /// they are this host's.
    confirmed: Mutex<HashSet<MachineUuid>>,
    /// Held by whoever stops a machine.
    stopping: tokio::sync::Mutex<()>,
    changed: channel::Sender<()>,
}

impl Epochs {
    /// Reads what is known from the folder, which is made if need be.
    ///
    /// # Errors
    /// [`Code::DataFolderUnusable`]: without knowing, nobody may act.
    pub fn in_folder(folder: &Path) -> Result<Self, Fault> {
        let known = read_all(folder).map_err(|error| unusable("read", folder, &error))?;
        Ok(Self(Arc::new(Inner {
            folder: folder.to_owned(),
            known: Mutex::new(known),
            confirmed: Mutex::default(),
            stopping: tokio::sync::Mutex::default(),
            changed: channel::Sender::new(()),
        })))
    }

    /// What is known of a machine; none if it was never failed over.
    #[must_use]
    pub fn known(&self, machine: MachineUuid) -> Option<Known> {
        self.lock().get(&machine).map(known_of)
    }

    /// Whether it is known that a machine must not run here.
    #[must_use]
    pub fn is_anothers(&self, machine: MachineUuid) -> bool {
        self.known(machine).is_some_and(|known| !known.ours)
    }

    /// Takes up what a command carries. Durable on return.
    ///
    /// # Errors
    /// [`Code::EpochStale`] when more is known, and nothing is changed;
    /// [`Code::DataFolderUnusable`].
    pub fn heed(&self, machine: MachineUuid, epoch: u64, ours: bool) -> Result<(), Fault> {
        let command = Known { epoch: Epoch::new(epoch), ours };
        let mut files = self.lock();
        let file = files.get(&machine);
        if let Some(known) = file.map(known_of) {
            heed(known, command).map_err(|known| stale(machine, known, command))?;
            if known == command {
                return Ok(());
            }
        }
        let file = EpochFile {
            format: FORMAT,
            machine: machine.uuid(),
            epoch,
            ours,
            autostart: file.is_some_and(|file| file.autostart),
            listed: file.is_some_and(|file| file.listed),
            alone: file.is_some_and(|file| file.alone),
        };
        self.keep(&mut files, machine, file)
    }

    /// Takes up what the controller's duties say, as far as it is news. A machine
    /// that they told of and tell of no more is protected no longer: what is known
    /// of it is forgotten. The machines among these that started with the host and
    /// that were this host's at the end, as the controller has said since this agent
    /// began: of another side's machine, what lies here must not start beside it, and
    /// a host that was away long may not have heard whose it became.
    pub fn learn(&self, ownerships: &[Ownership]) -> Vec<MachineUuid> {
        for Ownership { machine, epoch, ours, starts_alone } in ownerships {
            let before = self.known(*machine);
            let learned = self.heed(*machine, *epoch, *ours).and_then(|()| {
                let said = |file: &mut EpochFile| {
                    (file.listed, file.alone) = (true, *starts_alone);
                };
                self.change(*machine, said)
            });
            match learned {
                Ok(()) if before.is_some_and(|known| known.epoch.number() == *epoch) => {}
                Ok(()) => info!(%machine, epoch, ours, "whose the machine is, was learned"),
                Err(fault) => {
                    warn!(code = %fault.code, cause = %fault.cause, advice = %fault.advice, "cannot {}", fault.doing);
                }
            }
        }
        let told = |machine: &MachineUuid| ownerships.iter().any(|one| one.machine == *machine);
        let ended: Vec<(MachineUuid, bool)> = self
            .lock()
            .iter()
            .filter(|(machine, file)| file.listed && !told(machine))
            .map(|(machine, file)| (*machine, file.autostart && file.ours))
            .collect();
        let ours = ownerships.iter().filter(|one| one.ours).map(|one| one.machine).collect();
        let confirmed = self.confirm(ours);
        let mut start_again = Vec::new();
        for (machine, starts) in ended {
            info!(%machine, "it is protected no longer, and anybody may start it");
            self.forget(machine);
            match (starts, confirmed.contains(&machine)) {
                (true, true) => start_again.push(machine),
                (true, false) => {
                    warn!(%machine, "it started with this host once; if it is to do so again: virsh autostart");
                }
                (false, _) => {}
            }
        }
        start_again
    }

    /// Notes what is this host's by the controller's word; what was by the former.
    fn confirm(&self, ours: HashSet<MachineUuid>) -> HashSet<MachineUuid> {
        let mut confirmed = self.0.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut confirmed, ours)
    }

    fn forget(&self, machine: MachineUuid) {
        let mut files = self.lock();
        match fs::remove_file(self.0.folder.join(format!("{machine}.json"))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                warn!(%machine, %error, "whose the machine is cannot be forgotten yet");
            }
            _ => {
                files.remove(&machine);
                self.0.changed.send_replace(());
            }
        }
    }

    /// Changes what else is known of a machine; nothing of one that is not.
    fn change(
        &self,
        machine: MachineUuid,
        change: impl FnOnce(&mut EpochFile),
    ) -> Result<(), Fault> {
        let mut files = self.lock();
        let Some(before) = files.get(&machine).cloned() else { return Ok(()) };
        let mut after = before.clone();
        change(&mut after);
        if after == before { Ok(()) } else { self.keep(&mut files, machine, after) }
    }

    /// Whether a machine started with the host before it was taken over, or did so
    /// where it came from.
    #[must_use]
    pub fn starts_by_itself(&self, machine: MachineUuid) -> bool {
        self.lock().get(&machine).is_some_and(|file| file.autostart)
    }

    /// Machines that may be started although nobody can be asked: by what is known here
    /// and by their policy.
    #[must_use]
    pub fn startable_alone(&self) -> Vec<MachineUuid> {
        let files = self.lock();
        let may = |file: &EpochFile| {
            let alone = if file.alone { Alone::StartIfLastActive } else { Alone::StayDown };
            let (_, decision) = may_start(known_of(file), Told::Nothing, alone);
            matches!(decision, Decision::Start(_))
        };
        files.iter().filter(|(_, file)| may(file)).map(|(machine, _)| *machine).collect()
    }

    /// Remembers that a machine is to start with the host.
    ///
    /// # Errors
    /// [`Code::DataFolderUnusable`].
    pub fn note_autostart(&self, machine: MachineUuid) -> Result<(), Fault> {
        self.change(machine, |file| file.autostart = true)
    }

    /// The turn to stop machines: whoever fences one stops it, and the watch
    /// finds it off.
    pub async fn stopping(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.0.stopping.lock().await
    }

    /// Rings when anything changed.
    fn changes(&self) -> channel::Receiver<()> {
        self.0.changed.subscribe()
    }

    fn keep(
        &self,
        files: &mut HashMap<MachineUuid, EpochFile>,
        machine: MachineUuid,
        file: EpochFile,
    ) -> Result<(), Fault> {
        let bytes = serde_json::to_vec_pretty(&file).expect("the file's form is plain");
        replace(&self.0.folder, &format!("{machine}.json"), &bytes)
            .map_err(|error| unusable("write", &self.0.folder, &error))?;
        files.insert(machine, file);
        self.0.changed.send_replace(());
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<MachineUuid, EpochFile>> {
        // An entry is changed when its file is durable; none is half-done.
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn known_of(file: &EpochFile) -> Known {
    Known { epoch: Epoch::new(file.epoch), ours: file.ours }
}

fn read_all(folder: &Path) -> io::Result<HashMap<MachineUuid, EpochFile>> {
    fs::create_dir_all(folder)?;
    let mut known = HashMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let wrong = |why: String| io::Error::other(format!("{}: {why}", path.display()));
        let file: EpochFile =
            serde_json::from_slice(&fs::read(&path)?).map_err(|error| wrong(error.to_string()))?;
        if file.format != FORMAT {
            return Err(wrong(format!("its format {} is not known here", file.format)));
        }
        known.insert(MachineUuid::new(file.machine), file);
    }
    Ok(known)
}

fn unusable(verb: &str, folder: &Path, error: &io::Error) -> Fault {
    Fault::new(
        Code::DataFolderUnusable,
        format!("{verb} whose machines are in {}", folder.display()),
        error.to_string(),
        "Make the folder and its files readable and writable for the agent's user. A damaged file may be removed only if the machine that it is named after is known not to run elsewhere.",
    )
}

fn stale(machine: MachineUuid, known: Known, command: Known) -> Fault {
    let side = |ours| if ours { "this host's" } else { "another side's" };
    Fault::new(
        Code::EpochStale,
        format!("take machine {machine} as {} in epoch {}", side(command.ours), command.epoch),
        format!("this host knows of epoch {}, in which it is {}", known.epoch, side(known.ours)),
        "Look at where the machine stands, and which side really runs it, before anything else is done with it.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What version 1 wrote; it must be readable for ever.
    const GOLDEN: &str = include_str!("../../tests/golden/epoch-1.json");

    #[test]
    fn what_is_known_only_grows_and_survives() {
        let folder = tempfile::tempdir().unwrap();
        let machine = MachineUuid::new(Uuid::from_u128(4));
        let epochs = Epochs::in_folder(folder.path()).unwrap();
        assert_eq!(epochs.known(machine), None);
        assert!(!epochs.is_anothers(machine));
        epochs.heed(machine, 3, true).unwrap();
        epochs.heed(machine, 3, true).unwrap();
        let refused = |epoch, ours| epochs.heed(machine, epoch, ours).map_err(|fault| fault.code);
        assert_eq!(refused(2, true), Err(Code::EpochStale));
        assert_eq!(refused(3, false), Err(Code::EpochStale));
        assert_eq!(epochs.learn(&[]), []);
        assert!(epochs.known(machine).is_some(), "the controller never told of it");
        assert_eq!(
            epochs.learn(&[Ownership { machine, epoch: 4, ours: false, starts_alone: false }]),
            []
        );
        assert_eq!(
            epochs.learn(&[Ownership { machine, epoch: 2, ours: true, starts_alone: false }]),
            []
        );
        epochs.note_autostart(machine).unwrap();
        let again = Epochs::in_folder(folder.path()).unwrap();
        assert_eq!(again.known(machine), Some(Known { epoch: Epoch::new(4), ours: false }));
        assert!(again.is_anothers(machine));
        assert_eq!(again.startable_alone(), []);
        let file = fs::read_to_string(folder.path().join(format!("{machine}.json"))).unwrap();
        assert_eq!(file.trim(), GOLDEN.trim());
        assert_eq!(again.learn(&[]), [], "it runs on the other side");
        assert_eq!(again.known(machine), None);
        again.learn(&[Ownership { machine, epoch: 5, ours: true, starts_alone: true }]);
        assert_eq!(again.startable_alone(), [machine], "its policy says so");
        again.note_autostart(machine).unwrap();
        assert_eq!(again.learn(&[]), [machine], "libvirt shall start it by itself again");
        assert_eq!(Epochs::in_folder(folder.path()).unwrap().known(machine), None);
        again.learn(&[Ownership { machine, epoch: 6, ours: true, starts_alone: true }]);
        again.note_autostart(machine).unwrap();
        let after_long = Epochs::in_folder(folder.path()).unwrap();
        assert_eq!(after_long.learn(&[]), [], "who knows whose it became meanwhile");
        assert_eq!(after_long.known(machine), None);
        fs::write(folder.path().join("x.json"), GOLDEN.replace("\"format\": 1", "\"format\": 2"))
            .unwrap();
        assert!(Epochs::in_folder(folder.path()).unwrap_err().cause.contains("format 2"));
    }
}
