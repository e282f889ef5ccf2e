//! The ways in which a guest ends, and the power button.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result};
use guest::port::Line;
use nix::mount::{MntFlags, umount2};
use nix::poll::{PollFd, PollFlags};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, sync};

use crate::{disks, port, service};

/// How a guest ends.
#[derive(Clone, Copy)]
pub enum Ending {
    PowerOff,
    Restart,
}

impl Ending {
    /// The signals that ask the first process to end.
    pub fn from_signal(number: u32) -> Option<Self> {
        let is = |signal: Signal| u32::try_from(signal as i32) == Ok(number);
        if is(Signal::SIGUSR2) {
            Some(Self::PowerOff)
        } else if is(Signal::SIGUSR1) || is(Signal::SIGINT) {
            Some(Self::Restart)
        } else {
            None
        }
    }
}

/// What the guest agent, or a person, calls to end the guest.
pub fn ask(called: &str, words: &[&str]) -> Result<()> {
    let restart = called.ends_with("reboot") || words.contains(&"-r");
    let signal = if restart { Signal::SIGUSR1 } else { Signal::SIGUSR2 };
    kill(Pid::from_raw(1), signal).context("ask the first process to end")
}

/// Ends everything in order. Never returns.
pub fn go_down(ending: Ending) -> ! {
    for name in ["workload", "overwrite"] {
        if let Err(error) = service::stop(name) {
            eprintln!("guest: {error:#}");
        }
    }
    sync();
    let mut unmounted = true;
    for number in disks::mounted().unwrap_or_default() {
        unmounted &= umount2(&disks::folder(number), MntFlags::empty()).is_ok();
    }
    if unmounted {
        port::say(&Line::Stopped);
    } else {
        port::say(&Line::Failed("a disk could not be unmounted".to_owned()));
    }
    // Give the serial port's last line time to leave its buffer.
    sleep(Duration::from_millis(50));
    let mode = match ending {
        Ending::PowerOff => RebootMode::RB_POWER_OFF,
        Ending::Restart => RebootMode::RB_AUTOBOOT,
    };
    let Err(error) = reboot(mode);
    eprintln!("guest: cannot end: {error}");
    loop {
        sleep(Duration::from_secs(3600));
    }
}

/// The machine's buttons, as input devices.
pub struct Buttons(Vec<File>);

impl Buttons {
    /// Opens every input device there is.
    pub fn open() -> Self {
        let devices = fs::read_dir("/dev/input").into_iter().flatten().flatten();
        Self(devices.filter_map(|entry| File::open(entry.path()).ok()).collect())
    }

    /// What to poll for.
    pub fn watched(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.0.iter().map(|file| PollFd::new(file.as_fd(), PollFlags::POLLIN))
    }

    /// Whether the power button was pressed, of those that are `ready`.
    pub fn pressed(&self, ready: &[bool]) -> bool {
        // struct input_event: a time of two words, type, code (16 bits each), value (32).
        const TIME: usize = 2 * size_of::<usize>();
        const KEY: u16 = 1;
        const POWER: u16 = 116;
        self.0.iter().zip(ready).filter(|(_, ready)| **ready).any(|(mut file, _)| {
            let mut events = [0; 64 * (TIME + 8)];
            let length = file.read(&mut events).unwrap_or(0);
            events[..length].chunks_exact(TIME + 8).any(|event| {
                let half = |at| u16::from_ne_bytes([event[TIME + at], event[TIME + at + 1]]);
                half(0) == KEY && half(2) == POWER && event[TIME + 4..] != [0; 4]
            })
        })
    }
}
