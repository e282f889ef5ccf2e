//! Runs a command inside a place.
//!
//! The command dies with the process that entered for it, so nothing is left
//! behind when a caller gives up on a command.

use std::env;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};

use anyhow::{Context as _, Result, bail};
use lab::inside::{self, CONTROLLED, KEEP, KILL, TERMINATE};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::SignalFd;
use nix::unistd::Pid;

/// Runs `command` and ends as it ends.
pub fn run(pid: &str, start: &str, command: &[&str]) -> Result<ExitCode> {
    match env::var_os(CONTROLLED) {
        Some(_) => controlled(pid, start, command),
        None => plain(pid, start, command),
    }
}

fn plain(pid: &str, start: &str, command: &[&str]) -> Result<ExitCode> {
    // Ctrl-C is for the command; it reaches it through the terminal.
    block(&[Signal::SIGINT, Signal::SIGQUIT])?;
    join(pid, start)?;
    let status = leashed(command)
        .spawn()
        .and_then(|mut child| child.wait())
        .with_context(|| format!("run {command:?}"))?;
    Ok(code(status))
}

/// Runs `command` and obeys the socket on standard input: first it says the
/// command's process id there, then it kills or terminates it as told. A
/// closed socket kills, unless the lab said to keep it.
fn controlled(pid: &str, start: &str, command: &[&str]) -> Result<ExitCode> {
    nix::unistd::setsid().context("leave the terminal's session")?;
    let signals = block(&[Signal::SIGCHLD])?;
    let inbox = SignalFd::new(&signals).context("open the signal inbox")?;
    let mut control = File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    join(pid, start)?;
    let mut child = leashed(command)
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| format!("run {command:?}"))?;
    writeln!(control, "{}", child.id()).context("say the process id")?;
    let mut kept = false;
    loop {
        if let Some(status) = child.try_wait().context("look at the command")? {
            return Ok(code(status));
        }
        let mut watched = vec![PollFd::new(inbox.as_fd(), PollFlags::POLLIN)];
        if !kept {
            watched.push(PollFd::new(control.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut watched, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("wait for events"),
        }
        let called = watched[0].any() == Some(true);
        let spoken = watched.get(1).and_then(PollFd::any) == Some(true);
        drop(watched);
        if called {
            inbox.read_signal().context("read a signal")?;
        }
        if spoken {
            let mut word = [KILL];
            control.read(&mut word).context("read what the lab says")?;
            match word[0] {
                KEEP => kept = true,
                TERMINATE => send(&child, Signal::SIGTERM)?,
                _ => {
                    send(&child, Signal::SIGKILL)?;
                    kept = true;
                }
            }
        }
    }
}

/// The child has not been waited for, so its id is still its own.
fn send(child: &Child, signal: Signal) -> Result<()> {
    let pid = i32::try_from(child.id()).context("a process id")?;
    kill(Pid::from_raw(pid), signal).context("signal the command")
}

fn block(signals: &[Signal]) -> Result<SigSet> {
    let set: SigSet = signals.iter().copied().collect();
    set.thread_block().context("block signals")?;
    Ok(set)
}

fn leashed(command: &[&str]) -> Command {
    // This file, by the place's own /proc: it is there whatever was bound over.
    let mut leashed = Command::new("/proc/self/exe");
    leashed.arg("leashed").args(command).env_remove(CONTROLLED);
    leashed
}

/// Moves this process into the place whose first process is `pid`.
fn join(pid: &str, start: &str) -> Result<()> {
    let folder = env::current_dir();
    let kinds = [
        ("pid", CloneFlags::CLONE_NEWPID),
        ("ipc", CloneFlags::CLONE_NEWIPC),
        ("uts", CloneFlags::CLONE_NEWUTS),
        ("net", CloneFlags::CLONE_NEWNET),
        ("mnt", CloneFlags::CLONE_NEWNS),
    ];
    let mut doors = Vec::new();
    for (name, kind) in kinds {
        let path = format!("/proc/{pid}/ns/{name}");
        let Ok(door) = File::open(&path) else {
            bail!("the place has no power");
        };
        doors.push((door, kind));
    }
    // Looked at after the doors are open: then they are the right ones.
    let (Ok(number), Ok(start)) = (pid.parse(), start.parse()) else {
        bail!("{pid} and {start} are no process");
    };
    if inside::start_of(number) != Some(start) {
        bail!("the place has no power");
    }
    for (door, kind) in doors {
        setns(door, kind).context("enter the place")?;
    }
    // Entering put us at the root; a place has the host's folders.
    let back = folder.and_then(env::set_current_dir);
    back.or_else(|_| env::set_current_dir("/")).context("go to a folder")
}

fn code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}
