//! A place: a site or the third place, as namespaces with a first process.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::inside::{KEEP, READY, Setup, start_of};
use crate::process::Process;
use crate::root::{self, State};
use crate::run::wait_for;

/// How long a place may take to come up or to go.
const PATIENCE: Duration = Duration::from_secs(15);

/// One process of this machine, for as long as it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub pid: u32,
    /// Clock ticks since boot; 0 for no process.
    pub start: u64,
}

impl Identity {
    pub const NOBODY: Self = Self { pid: 0, start: 0 };

    pub fn is_alive(self) -> bool {
        start_of(self.pid) == Some(self.start)
    }

    /// Kills it, unless it is another process by now.
    pub fn kill(self) -> Result<()> {
        if !self.is_alive() {
            return Ok(());
        }
        let pid = i32::try_from(self.pid).context("a process id")?;
        match kill(Pid::from_raw(pid), Signal::SIGKILL) {
            Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("kill process {pid}")),
        }
    }

    /// Waits until it has ended and been reaped, or only waits to be reaped.
    pub async fn wait_until_gone(self, limit: Duration) -> Result<()> {
        let what = format!("wait for the end of process {}", self.pid);
        wait_for(&what, limit, async || Ok((!self.is_alive()).then_some(()))).await
    }
}

/// A place that programs can run in.
#[derive(Debug)]
pub struct Place {
    name: String,
    folder: PathBuf,
    helper: PathBuf,
    power: Mutex<Option<Power>>,
}

/// What holds a place up.
#[derive(Debug)]
struct Power {
    first: Identity,
    /// None for a place that an earlier run has kept.
    hold: Option<Hold>,
}

#[derive(Debug)]
struct Hold {
    /// The parent of the first process; reaps it.
    parent: Child,
    /// The first process ends when this is closed.
    lifeline: ChildStdin,
}

impl Place {
    /// Describes a place without power, with its things below `folder`.
    pub(crate) fn new(name: &str, folder: PathBuf, helper: PathBuf) -> Self {
        Self { name: name.to_owned(), folder, helper, power: Mutex::new(None) }
    }

    /// A place of the lab that runs on this machine, whoever holds it; none
    /// when it has no power.
    ///
    /// # Errors
    /// When the lab's notes cannot be read.
    pub fn standing(name: &str) -> Result<Option<Self>> {
        let folder = root::folder();
        let Some(state) = State::read(&folder)? else {
            return Ok(None);
        };
        let mut alive = state.alive().into_iter();
        let Some((name, first)) = alive.find(|(place, _)| place == name) else {
            return Ok(None);
        };
        let place = Self::new(&name, folder.join(&name), root::helper()?);
        place.adopt(first);
        Ok(Some(place))
    }

    /// Its name, which is its host name too.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder with everything of this place, as the host sees it. The same
    /// path leads to it from inside.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the file lies on the host that has the absolute path `inside` in
    /// the place, for the folders that each place has of its own: `/run`,
    /// `/etc/lifeboat`, `/etc/libvirt`, `/var/lib/lifeboat`, `/var/lib/libvirt`,
    /// `/var/log/lifeboat`, `/var/log/libvirt`, `/var/cache/libvirt`.
    #[must_use]
    pub fn outside(&self, inside: impl AsRef<Path>) -> PathBuf {
        let path = inside.as_ref();
        self.folder.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// A command that runs inside. It fails with status 127 when the place has
    /// no power, and is killed when the value is dropped while it runs, if
    /// `kill_on_drop` is set.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let Identity { pid, start } = self.first();
        let mut command = Command::new(&self.helper);
        command
            .arg("enter")
            .args([pid.to_string(), start.to_string()])
            .arg("--")
            .arg(program)
            .env("LC_ALL", "C");
        command
    }

    /// Starts a [`command`](Self::command) of this place that runs beside the
    /// test until it is ended or dropped. What it prints is appended to
    /// `log/NAME.log` in the place's folder.
    ///
    /// # Errors
    /// When the place has no power. A program that does not exist counts as one
    /// that ended at once; its log says so.
    pub async fn spawn(&self, name: &str, command: &mut Command) -> Result<Process> {
        let log = self.folder.join("log").join(format!("{name}.log"));
        let started = Process::start(name, command, &log).await;
        started.with_context(|| format!("at {}", self.name))
    }

    /// Whether the place has power.
    #[must_use]
    pub fn has_power(&self) -> bool {
        self.first().is_alive()
    }

    /// The place's first process.
    pub(crate) fn first(&self) -> Identity {
        let power = self.power.lock().unwrap_or_else(PoisonError::into_inner);
        power.as_ref().map_or(Identity::NOBODY, |power| power.first)
    }

    /// Makes the namespaces and starts the first process. What earlier runs
    /// left in `/run` is cleared, as a machine does.
    pub(crate) async fn start(&self, own: &[&str]) -> Result<()> {
        let starting = self.start_first(own);
        let power = starting.await.with_context(|| format!("start {}", self.name))?;
        *self.power.lock().unwrap_or_else(PoisonError::into_inner) = Some(power);
        Ok(())
    }

    async fn start_first(&self, own: &[&str]) -> Result<Power> {
        let setup = self.prepare(own)?;
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("log/init.log"))
            .context("open the first process's log")?;
        let mut parent = Command::new(&self.helper)
            .arg("start")
            .arg(setup)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| format!("run {}", self.helper.display()))?;
        let (Some(lifeline), Some(output)) = (parent.stdin.take(), parent.stdout.take()) else {
            bail!("no pipes to the first process");
        };
        let mut lines = BufReader::new(output).lines();
        let pid = self.next_line(&mut lines).await?;
        let pid: u32 = pid.parse().with_context(|| format!("read the process id {pid:?}"))?;
        let start = start_of(pid).context("the first process ended at once")?;
        let ready = self.next_line(&mut lines).await?;
        if ready != READY {
            bail!("the first process said {ready:?}");
        }
        Ok(Power { first: Identity { pid, start }, hold: Some(Hold { parent, lifeline }) })
    }

    async fn next_line(&self, lines: &mut Lines<BufReader<ChildStdout>>) -> Result<String> {
        let line = timeout(PATIENCE, lines.next_line()).await;
        let line = line.with_context(|| format!("nothing heard within {PATIENCE:?}"))??;
        line.with_context(|| {
            let log = fs::read_to_string(self.folder.join("log/init.log")).unwrap_or_default();
            format!("the first process ended: {}", log.trim())
        })
    }

    /// Makes the folders and files that the place has of its own, and the
    /// description of how to bind them.
    fn prepare(&self, own: &[&str]) -> Result<PathBuf> {
        let run = self.folder.join("run");
        if run.exists() {
            fs::remove_dir_all(&run).with_context(|| format!("clear {}", run.display()))?;
        }
        let mut binds = Vec::new();
        for inside in ["/run", "/run/lock", "/log"].iter().chain(own) {
            let folder = self.outside(inside);
            fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
            // A mount below a mount would keep files from being renamed across.
            let covered = binds.iter().any(|(_, over): &(_, PathBuf)| {
                Path::new(inside).starts_with(over) || *inside == "/log"
            });
            if !covered {
                binds.push((folder, PathBuf::from(inside)));
            }
        }
        // A new one each time: programs tell by it that the machine has started anew.
        fs::write(run.join("boot_id"), format!("{}\n", uuid::Uuid::new_v4()))
            .context("write the boot's identity")?;
        binds.push((run.join("boot_id"), "/proc/sys/kernel/random/boot_id".into()));
        for file in ["/etc/hostname", "/etc/hosts", "/etc/machine-id"] {
            let path = self.outside(file);
            if path.exists() {
                binds.push((path, file.into()));
            }
        }
        let setup = Setup { name: self.name.clone(), binds };
        let path = self.folder.join("setup.json");
        let text = serde_json::to_string_pretty(&setup).context("write the setup")?;
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    /// Kills the first process, and with it everything in the place; returns
    /// when all of it is gone.
    pub(crate) async fn kill(&self) -> Result<()> {
        let power = self.power.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(power) = power else {
            return Ok(());
        };
        power.first.kill()?;
        if let Some(mut hold) = power.hold {
            let gone = timeout(PATIENCE, hold.parent.wait()).await;
            gone.with_context(|| format!("end {}: not within {PATIENCE:?}", self.name))?
                .with_context(|| format!("end {}", self.name))?;
        }
        power.first.wait_until_gone(PATIENCE).await
    }

    /// As [`kill`](Self::kill), without waiting; for when nothing can be awaited.
    pub(crate) fn kill_now(&self) {
        // The closed lifeline ends it too, should the signal fail.
        let _ = self.first().kill();
        drop(self.power.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Lets the place live on when this process ends.
    pub(crate) async fn keep(&self) -> Result<()> {
        let power = self.power.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut hold) = power.and_then(|power| power.hold) {
            let told = hold.lifeline.write_all(&[KEEP]).await;
            told.with_context(|| format!("keep {}", self.name))?;
        }
        Ok(())
    }

    /// Takes over a place that an earlier run has kept.
    pub(crate) fn adopt(&self, first: Identity) {
        let power = Power { first, hold: None };
        *self.power.lock().unwrap_or_else(PoisonError::into_inner) = Some(power);
    }
}
