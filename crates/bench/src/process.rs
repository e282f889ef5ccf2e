//! Processes: opponents, clients that both sides are read with, and probes,
//! which are this program again with a clean memory.
//!
//! Each dies with us, whatever we die of: `setpriv` of util-linux asks the
//! kernel for that.

use std::{
    ffi::OsStr,
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::de::DeserializeOwned;

/// How long a server may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);

/// A program that dies with us. Must be started by the main thread, which
/// lives as long as we do.
pub(crate) fn program(name: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(name);
    command
}

/// This program again.
pub(crate) fn probe(name: &str) -> Result<Command> {
    let mut command = program(std::env::current_exe().context("find this program")?);
    command.args(["probe", name]);
    Ok(command)
}

/// Runs it to its end; what it wrote to stdout. Its stderr is ours, unless it
/// fails quietly.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let told = format!("run {command:?}");
    let output = command.stdin(Stdio::null()).output().with_context(|| told.clone())?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{told}: {}: {}", output.status, errors.trim());
    eprint!("{errors}");
    String::from_utf8(output.stdout).with_context(|| told.clone())
}

/// Runs a probe, and understands what it tells.
pub(crate) fn told_by<T: DeserializeOwned>(command: &mut Command) -> Result<T> {
    let text = output(command)?;
    serde_json::from_str(&text).with_context(|| format!("understand {text:?} of {command:?}"))
}

/// Whether a program is there.
pub(crate) fn has(name: &str) -> bool {
    let mut command = Command::new(name);
    command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok()
}

/// A server, until it is dropped.
pub(crate) struct Server {
    child: Child,
    name: String,
}

impl Server {
    /// Starts one and waits until its socket is there.
    pub(crate) fn start(command: &mut Command, socket: &Path) -> Result<Self> {
        Self::start_until(command, || socket.exists())
    }

    /// Starts one and waits until it is ready.
    pub(crate) fn start_until(command: &mut Command, ready: impl Fn() -> bool) -> Result<Self> {
        let name = format!("{command:?}");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let mut server = Self { child: child.with_context(|| format!("run {name}"))?, name };
        let begun = Instant::now();
        while !ready() {
            if let Some(status) = server.child.try_wait()? {
                bail!("{} ended: {status}", server.name);
            }
            ensure!(begun.elapsed() < PATIENCE, "{} does not listen", server.name);
            thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    /// Asks it to end, and waits.
    pub(crate) fn stop(mut self) -> Result<()> {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
        self.child.wait().with_context(|| format!("wait for {}", self.name))?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended already, or ends now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The most memory that this process has had, in MiB.
pub(crate) fn peak_memory() -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status").context("read /proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    Ok(kib.context("find VmHWM in /proc/self/status")? / 1024.0)
}
