//! Makes a place: namespaces, mounts, and the first process that holds them.
//!
//! The namespaces have no name anywhere: they live exactly as long as the first
//! process, and the kernel kills everything in them when it ends. It ends when
//! it is killed (a power cut), or when the pipe on its standard input is closed
//! (the lab's process is gone, however that happened).

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};
use lab::inside::{KEEP, READY, Setup};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

/// Starts the first process of a new place, says its process id, and stays
/// until it ended, to reap it.
pub fn start(setup: &str) -> Result<ExitCode> {
    // Away from the terminal: Ctrl-C is for the program that holds the lab.
    nix::unistd::setsid().context("leave the terminal's session")?;
    unshare(CloneFlags::CLONE_NEWPID).context("make a process namespace")?;
    let mut first = Command::new("/proc/self/exe")
        .args(["init", setup])
        .spawn()
        .context("start the first process")?;
    println!("{}", first.id());
    first.wait().context("wait for the first process")?;
    Ok(ExitCode::SUCCESS)
}

/// The first process of a place.
pub fn init(setup: &str) -> Result<ExitCode> {
    let text = fs::read_to_string(setup).with_context(|| format!("read {setup}"))?;
    let setup: Setup = serde_json::from_str(&text).with_context(|| format!("read {setup}"))?;
    let kinds = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC;
    unshare(kinds).context("make namespaces")?;
    nix::unistd::sethostname(&setup.name).context("set the host name")?;
    arrange_mounts(&setup)?;
    let lo = Command::new("ip").args(["link", "set", "lo", "up"]).status();
    if !lo.context("run ip")?.success() {
        bail!("ip could not bring lo up");
    }
    println!("{READY}");
    std::io::stdout().flush().context("say that the place is ready")?;
    reap_until_let_go()
}

/// Reaps what ends here until the lab lets go of the pipe.
fn reap_until_let_go() -> Result<ExitCode> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    signals.thread_block().context("block signals")?;
    let inbox = SignalFd::new(&signals).context("open the signal inbox")?;
    let mut pipe = File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let mut kept = false;
    loop {
        reap();
        let mut watched = vec![PollFd::new(inbox.as_fd(), PollFlags::POLLIN)];
        if !kept {
            watched.push(PollFd::new(pipe.as_fd(), PollFlags::POLLIN));
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
            let mut word = [0];
            match pipe.read(&mut word).context("read what the lab says")? {
                0 => return Ok(ExitCode::SUCCESS),
                _ => kept |= word[0] == KEEP,
            }
        }
    }
}

fn reap() {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            break;
        }
    }
}

fn arrange_mounts(setup: &Setup) -> Result<()> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .context("make all mounts private")?;
    for (kind, on) in [("proc", "/proc"), ("sysfs", "/sys")] {
        // Off with the host's, whole: what was mounted below it would still be
        // listed, and libvirt would take the host's control groups for its own.
        while umount2(on, MntFlags::MNT_DETACH).is_ok() {}
        mount(Some(kind), on, Some(kind), MsFlags::empty(), none)
            .with_context(|| format!("mount {on}"))?;
    }
    for (own, over) in &setup.binds {
        make_mountable(own, over)?;
        bind(own, over)?;
    }
    Ok(())
}

fn bind(own: &Path, over: &Path) -> Result<()> {
    let none = None::<&str>;
    mount(Some(own), over, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)
        .with_context(|| format!("bind {} over {}", own.display(), over.display()))
}

/// Makes sure that `over` exists, of the kind of `own`, without leaving
/// anything on the host: a folder that lacks it is opened up first.
fn make_mountable(own: &Path, over: &Path) -> Result<()> {
    if over.exists() {
        return Ok(());
    }
    let parent = over.parent().context("the root cannot be bound over")?;
    if !parent.exists() {
        make_mountable(Path::new("/"), parent)?;
    } else {
        open_up(parent)?;
    }
    create_like(own, over)
}

/// Replaces `folder` in this place by a writable one in memory with the same
/// entries bound into it.
fn open_up(folder: &Path) -> Result<()> {
    let none = None::<&str>;
    let stage = Path::new("/run/.opened");
    fs::create_dir_all(stage).with_context(|| format!("make {}", stage.display()))?;
    mount(Some("tmpfs"), stage, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
        .with_context(|| format!("mount {}", stage.display()))?;
    let entries = fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("read {}", folder.display()))?;
        let copy = stage.join(entry.file_name());
        if entry.file_type()?.is_symlink() {
            symlink(fs::read_link(entry.path())?, &copy)?;
        } else {
            create_like(&entry.path(), &copy)?;
            bind(&entry.path(), &copy)?;
        }
    }
    mount(Some(stage), folder, none, MsFlags::MS_MOVE, none)
        .with_context(|| format!("move the opened {} into place", folder.display()))?;
    fs::remove_dir(stage).with_context(|| format!("remove {}", stage.display()))
}

fn create_like(model: &Path, path: &Path) -> Result<()> {
    let made = if model.is_dir() { fs::create_dir_all(path) } else { File::create(path).map(drop) };
    made.with_context(|| format!("make {}", path.display()))
}
