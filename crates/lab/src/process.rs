//! A program that runs inside a place.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as Socket;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::inside::{CONTROLLED, KEEP, KILL, TERMINATE};

/// How long starting or killing may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A program that runs inside a place until it ends, is ended, or is dropped.
///
/// Dropping it kills the program, and so does the end of the process that holds
/// it. What it prints goes to a file.
#[derive(Debug)]
pub struct Process {
    name: String,
    /// The helper that entered the place; it ends when the program does.
    entered: Child,
    control: BufReader<UnixStream>,
    pid: u32,
    log: PathBuf,
}

impl Process {
    /// Starts what `command` says, which must be made by a place, and appends
    /// what it prints to `log`.
    pub(crate) async fn start(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let what = || format!("start {name}");
        let output = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("open {}", log.display()))?;
        let (ours, theirs) = Socket::pair().with_context(what)?;
        ours.set_nonblocking(true).with_context(what)?;
        let entered = command
            .env(CONTROLLED, "1")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(output.try_clone().with_context(what)?)
            .stderr(output)
            .spawn()
            .with_context(what)?;
        // The command would keep the socket's other end open.
        command.stdin(Stdio::null());
        let mut control = BufReader::new(UnixStream::from_std(ours).with_context(what)?);
        let mut line = String::new();
        let said = timeout(PATIENCE, control.read_line(&mut line)).await;
        said.with_context(|| format!("start {name}: not within {PATIENCE:?}"))?
            .with_context(what)?;
        let Ok(pid) = line.trim().parse() else {
            let said = fs::read_to_string(log).unwrap_or_default();
            bail!("start {name}: {}", said.lines().last().unwrap_or("it said nothing"));
        };
        Ok(Self { name: name.to_owned(), entered, control, pid, log: log.to_owned() })
    }

    /// The name that it was given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id as the host counts.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it has not ended yet.
    ///
    /// # Errors
    /// When the system cannot say.
    pub fn is_running(&mut self) -> Result<bool> {
        let ended = self.entered.try_wait();
        let ended = ended.with_context(|| format!("look at {}", self.name))?;
        Ok(ended.is_none())
    }

    /// Ends it with SIGKILL and waits until it is gone. No mistake when it has
    /// ended already.
    ///
    /// # Errors
    /// When it is not gone within ten seconds.
    pub async fn kill(&mut self) -> Result<()> {
        self.tell(KILL).await;
        self.wait(PATIENCE).await.map(drop)
    }

    /// Asks it to end with SIGTERM and waits up to `limit` until it did.
    ///
    /// # Errors
    /// When it has not ended by then; it goes on running.
    pub async fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.tell(TERMINATE).await;
        self.wait(limit).await
    }

    /// Waits up to `limit` until it ends by itself.
    ///
    /// # Errors
    /// When it has not ended by then.
    pub async fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        match timeout(limit, self.entered.wait()).await {
            Ok(status) => status.with_context(|| format!("wait for {}", self.name)),
            Err(_) => bail!("{} did not end within {limit:?}", self.name),
        }
    }

    /// Lets it run on when this value or the whole program ends; it ends with
    /// its place.
    pub async fn keep_running(mut self) {
        self.tell(KEEP).await;
    }

    /// All that it has printed so far, errors too.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn log(&self) -> Result<String> {
        let bytes = fs::read(&self.log).with_context(|| format!("read {}", self.log.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The file with all that it prints.
    #[must_use]
    pub fn log_file(&self) -> &Path {
        &self.log
    }

    async fn tell(&mut self, word: u8) {
        // A closed socket means that it has ended; then there is nothing to tell.
        let _ = self.control.get_mut().write_all(&[word]).await;
    }
}
