//! The first process: brings the guest up, reaps, takes it down.
//!
//! One thread, so that nothing competes for the children it reaps. The order
//! is: drivers, network (beside), disks, check, workload, guest agent. So when
//! the agent answers, the check has been reported.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use guest::parameters::Parameters;
use guest::port::Line;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use crate::power::{Buttons, Ending};
use crate::{check, disks, modules, port, power, service};

pub fn run() -> Result<()> {
    // Nobody waits for the first process: it must not end, or the kernel panics.
    let ending = come_up().and_then(|()| wait_for_the_end());
    if let Err(error) = &ending {
        port::say(&Line::Failed(format!("{error:#}")));
    }
    power::go_down(ending.unwrap_or(Ending::PowerOff))
}

fn come_up() -> Result<()> {
    mount_kernel_interfaces()?;
    let parameters = parameters()?;
    nix::unistd::sethostname(&parameters.name).context("set the host name")?;
    modules::load_base()?;
    port::say(&Line::Booted);
    Command::new("/bin/guest").arg("network").spawn().context("start the network")?;
    let found = disks::bring_up(&parameters);
    let report = check::look(&parameters, &found);
    let fit = report.is_clean();
    port::say(&Line::Checked(report));
    // Writing on would bury what is wrong.
    if fit {
        if let Some(rate) = parameters.workload {
            service::start("workload", &[&rate.to_string()])?;
        }
        if let Some(load) = parameters.overwrite {
            let words = [load.disk.into(), load.blocks, load.rate].map(|n: u32| n.to_string());
            service::start("overwrite", &words.each_ref().map(String::as_str))?;
        }
    }
    start_agent()?;
    port::say(&Line::Ready);
    Ok(())
}

fn mount_kernel_interfaces() -> Result<()> {
    for (kind, on) in
        [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/run")]
    {
        fs::create_dir_all(on)?;
        mount(Some(kind), on, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("mount {on}"))?;
    }
    Ok(())
}

/// What the kernel command line says.
pub fn parameters() -> Result<Parameters> {
    let line = fs::read_to_string("/proc/cmdline").context("read the kernel command line")?;
    Ok(Parameters::parse(&line))
}

/// Starts QEMU's guest agent on its port, when the machine has one.
fn start_agent() -> Result<()> {
    const PORT: &str = "org.qemu.guest_agent.0";
    // There is no udev here to make the links by name.
    let links = Path::new("/dev/virtio-ports");
    fs::create_dir_all(links)?;
    for entry in fs::read_dir("/sys/class/virtio-ports").into_iter().flatten() {
        let entry = entry?;
        let name = fs::read_to_string(entry.path().join("name"))?;
        symlink(Path::new("/dev").join(entry.file_name()), links.join(name.trim()))?;
    }
    let device = links.join(PORT);
    if device.exists() {
        Command::new("/usr/sbin/qemu-ga")
            .args(["-m", "virtio-serial", "-t", "/run", "-p"])
            .arg(device)
            .spawn()
            .context("start the guest agent")?;
    }
    Ok(())
}

fn wait_for_the_end() -> Result<Ending> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGINT] {
        signals.add(signal);
    }
    signals.thread_block().context("block signals")?;
    let inbox = SignalFd::new(&signals).context("open the signal inbox")?;
    let buttons = Buttons::open();
    loop {
        // Children that ended before the signal was blocked are reaped here too.
        reap();
        let mut watched = vec![PollFd::new(inbox.as_fd(), PollFlags::POLLIN)];
        watched.extend(buttons.watched());
        match poll(&mut watched, PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error).context("wait for events"),
        }
        let ready: Vec<bool> = watched.iter().map(|fd| fd.any() == Some(true)).collect();
        drop(watched);
        if ready[0]
            && let Some(signal) = inbox.read_signal().context("read a signal")?
            && let Some(ending) = Ending::from_signal(signal.ssi_signo)
        {
            return Ok(ending);
        }
        if ready[1..].contains(&true) && buttons.pressed(&ready[1..]) {
            return Ok(Ending::PowerOff);
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
