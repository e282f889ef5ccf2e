//! The folder that a lab lives in, and the rule that only one lives there.

use std::env;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::place::{Identity, Place};

/// How long to wait for another lab to end.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// How long killed processes may take to go.
const DEATH: Duration = Duration::from_secs(15);
/// Marks a folder as a lab's, so that no other is ever emptied.
const STATE: &str = "lab.json";

/// The folder of the lab, held by this process alone.
#[derive(Debug)]
pub(crate) struct Root {
    folder: PathBuf,
    helper: PathBuf,
    state: Mutex<State>,
    /// None once the lab has ended: handles of its machines may live longer.
    lock: Mutex<Option<Flock<File>>>,
}

/// What the next run needs to know when this one ends without a word.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    /// What the lab was started for.
    pub story: String,
    /// Whether it was to live on.
    pub kept: bool,
    /// The machine's boot that the processes belong to.
    boot: String,
    /// First processes, by the name of their place.
    pub places: Vec<(String, Identity)>,
}

impl State {
    /// Reads what the last run wrote; none when there is nothing.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(STATE);
        match fs::read_to_string(&path) {
            Ok(text) => {
                let state: Self = serde_json::from_str(&text)
                    .with_context(|| format!("read {}", path.display()))?;
                Ok(Some(state))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    /// The places whose first process runs.
    pub fn alive(&self) -> Vec<(String, Identity)> {
        let same_boot = boot().is_ok_and(|boot| boot == self.boot);
        let places = self.places.iter().filter(|(_, first)| same_boot && first.is_alive());
        places.cloned().collect()
    }
}

/// Where the lab lives: `$LIFEBOAT_LAB_ROOT`, or else below `/var/lib`.
pub(crate) fn folder() -> PathBuf {
    env::var_os("LIFEBOAT_LAB_ROOT").map_or_else(|| "/var/lib/lifeboat-lab".into(), PathBuf::from)
}

fn boot() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    let boot = fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    Ok(boot.trim().to_owned())
}

impl Root {
    /// Waits until no other lab holds the folder, ends what an earlier one left
    /// running, and empties it.
    pub async fn take(story: &str) -> Result<Self> {
        let folder = folder();
        let root = Self {
            helper: helper()?,
            lock: Mutex::new(Some(lock(&folder).await?)),
            state: Mutex::default(),
            folder,
        };
        root.clear().await?;
        let state = State { story: story.to_owned(), boot: boot()?, ..State::default() };
        root.write(|now| *now = state)?;
        Ok(root)
    }

    /// Takes over the lab that an earlier run has kept; none when there is none.
    pub async fn take_over() -> Result<Option<(Self, State)>> {
        let folder = folder();
        let lock = lock(&folder).await?;
        let Some(state) = State::read(&folder)? else {
            return Ok(None);
        };
        let root = Self {
            helper: helper()?,
            lock: Mutex::new(Some(lock)),
            state: Mutex::new(state.clone()),
            folder,
        };
        Ok((!state.alive().is_empty()).then_some((root, state)))
    }

    /// Describes a place of this lab.
    pub fn place(&self, name: &str) -> Place {
        Place::new(name, self.folder.join(name), self.helper.clone())
    }

    /// Notes the first process of `place`, in case that this process ends
    /// without a word.
    pub fn note(&self, place: &Place) -> Result<()> {
        self.write(|state| {
            state.places.retain(|(name, _)| name != place.name());
            state.places.push((place.name().to_owned(), place.first()));
        })
    }

    /// Notes that the lab is to live on.
    pub fn note_kept(&self) -> Result<()> {
        self.write(|state| state.kept = true)
    }

    /// Lets another lab have the folder.
    pub fn release(&self) {
        drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Ends every first process that is noted and empties the folder.
    pub async fn clear(&self) -> Result<()> {
        if let Some(state) = State::read(&self.folder)? {
            for (name, first) in state.alive() {
                eprintln!("lab: ending {name} of the lab {:?} that was left running", state.story);
                first.kill().with_context(|| format!("end {name}"))?;
                first.wait_until_gone(DEATH).await?;
            }
        } else if fs::read_dir(&self.folder)?.flatten().any(|entry| entry.file_name() != "lock") {
            bail!(
                "{} holds files that are not a lab's; empty it yourself or set LIFEBOAT_LAB_ROOT",
                self.folder.display()
            );
        }
        for entry in fs::read_dir(&self.folder)?.flatten() {
            let path = entry.path();
            if entry.file_name() == "lock" || entry.file_name() == STATE {
                continue;
            }
            let removed = match entry.file_type()?.is_dir() {
                true => fs::remove_dir_all(&path),
                false => fs::remove_file(&path),
            };
            removed.with_context(|| format!("remove {}", path.display()))?;
        }
        // Last, since it says that all the rest may be removed.
        match fs::remove_file(self.folder.join(STATE)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {STATE}"))
            }
            _ => Ok(()),
        }
    }

    fn write(&self, change: impl FnOnce(&mut State)) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        let path = self.folder.join(STATE);
        // Never half written: the next run must find all first processes.
        let new = self.folder.join("lab.json.new");
        let text = serde_json::to_string_pretty(&*state).context("write the lab's state")?;
        fs::write(&new, text)
            .and_then(|()| fs::rename(&new, &path))
            .with_context(|| format!("write {}", path.display()))
    }
}

async fn lock(folder: &Path) -> Result<Flock<File>> {
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let path = folder.join("lock");
    let open = || {
        let mut options = File::options();
        let opened = options.create(true).truncate(false).write(true).open(&path);
        opened.with_context(|| format!("open {}", path.display()))
    };
    let mut file = open()?;
    let begun = Instant::now();
    let mut told = false;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((back, Errno::EWOULDBLOCK)) => file = back,
            Err((_, error)) => {
                return Err(error).with_context(|| format!("lock {}", path.display()));
            }
        }
        if begun.elapsed() > PATIENCE {
            bail!("another lab has held {} for {PATIENCE:?}", folder.display());
        }
        if !told && begun.elapsed() > Duration::from_secs(1) {
            eprintln!("lab: waiting for another lab in {} to end", folder.display());
            told = true;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The program that runs inside places: beside this one, where cargo puts the
/// programs of one build, or where the environment says.
pub(crate) fn helper() -> Result<PathBuf> {
    const NAME: &str = "lifeboat-lab-init";
    if let Some(path) = env::var_os("LIFEBOAT_LAB_INIT") {
        return Ok(path.into());
    }
    let own = env::current_exe().context("find this program")?;
    // Tests lie one folder deeper, in `deps`; examples in `examples`.
    let folders = own.ancestors().skip(1).take(2);
    let mut found = folders.map(|folder| folder.join(NAME)).filter(|path| path.exists());
    found.next().with_context(|| {
        format!("{NAME} is not beside {}: run `cargo build -p lab --bins`", own.display())
    })
}
