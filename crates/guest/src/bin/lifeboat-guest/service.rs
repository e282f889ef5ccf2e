//! Starts and stops the loads, each at most once.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

/// How long a load may take to finish what it is writing.
const PATIENCE: Duration = Duration::from_secs(10);

fn pid_file(name: &str) -> PathBuf {
    PathBuf::from(format!("/run/{name}.pid"))
}

fn running(name: &str) -> Option<Pid> {
    let pid = fs::read_to_string(pid_file(name)).ok()?.trim().parse().ok()?;
    let pid = Pid::from_raw(pid);
    // A dead one that nobody has reaped yet has no command line.
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    (!command.is_empty()).then_some(pid)
}

/// Starts `guest NAME run WORDS…` in the background, unless it runs already.
pub fn start(name: &str, words: &[&str]) -> Result<()> {
    if running(name).is_some() {
        bail!("the {name} runs already");
    }
    let child = Command::new("/bin/guest")
        .args([name, "run"])
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        // Not the caller's either: the guest agent waits until all its ends close.
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .with_context(|| format!("start the {name}"))?;
    fs::write(pid_file(name), child.id().to_string()).context("note its process id")
}

/// Ends the load between two writes. No mistake when it does not run.
pub fn stop(name: &str) -> Result<()> {
    let Some(pid) = running(name) else {
        return Ok(());
    };
    kill(pid, Signal::SIGTERM).with_context(|| format!("stop the {name}"))?;
    let give_up = Instant::now() + PATIENCE;
    while running(name).is_some() {
        if Instant::now() > give_up {
            bail!("the {name} did not stop within {PATIENCE:?}");
        }
        sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Held by a load while it writes, and by a check while it reads: a check sees
/// the disks between two writes.
pub fn quiet() -> Result<Flock<fs::File>> {
    let file = fs::File::create("/run/writing").context("open the lock")?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error).context("take the lock")
}

/// Calls `write` at `rate` per second until asked to stop.
pub fn at_rate(rate: u32, mut write: impl FnMut() -> Result<()>) -> Result<()> {
    let mut signals = nix::sys::signal::SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.thread_block().context("block signals")?;
    let inbox = SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK)?;
    let pause = Duration::from_secs(1) / rate.max(1);
    let mut due = Instant::now();
    while inbox.read_signal().context("look for a signal")?.is_none() {
        write()?;
        due += pause;
        match due.checked_duration_since(Instant::now()) {
            Some(rest) => sleep(rest),
            // Behind: do not catch up in a burst, a frozen guest comes back steadily.
            None => due = Instant::now(),
        }
    }
    Ok(())
}
