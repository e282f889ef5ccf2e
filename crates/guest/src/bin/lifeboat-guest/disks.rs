//! Finds, formats, checks and mounts the data disks.
//!
//! A disk's number comes from the label of its file system, which travels with
//! its bytes; only a blank disk is numbered by its serial (`data0`, `data1` …)
//! or else by its place.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use guest::parameters::Parameters;
use guest::report::{Fault, Filesystem};
use nix::mount::{MsFlags, mount, umount};

use crate::modules;

/// How long a disk may take to appear once its driver is loaded.
const PATIENCE: Duration = Duration::from_secs(3);
const LABEL: &str = "data";

/// The disks that are mounted, and what is wrong with them or the others.
#[derive(Default)]
pub struct Found {
    pub disks: Vec<(u16, Filesystem)>,
    pub faults: Vec<Fault>,
}

/// Where disk `number` is mounted.
pub fn folder(number: u16) -> PathBuf {
    PathBuf::from(format!("/data/{number}"))
}

/// Numbers of the disks that are mounted now, in order.
pub fn mounted() -> Result<Vec<u16>> {
    let mounts = fs::read_to_string("/proc/mounts").context("read the mounts")?;
    let mut numbers: Vec<u16> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1)?.strip_prefix("/data/")?.parse().ok())
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Mounts every data disk at `/data/NUMBER`.
pub fn bring_up(parameters: &Parameters) -> Found {
    let mut found = Found::default();
    let mut blank = Vec::new();
    for device in wait_for(usize::from(parameters.disks)) {
        match label(&device) {
            Ok(Some(number)) => match mount_existing(&device, number, parameters) {
                Ok(filesystem) => found.disks.push((number, filesystem)),
                Err(error) => found.faults.push(unreadable(number, &error)),
            },
            Ok(None) => blank.push(device),
            Err(error) => found.faults.push(unreadable(u16::MAX, &error)),
        }
    }
    for device in blank {
        let taken = |n: &u16| !found.disks.iter().any(|(number, _)| number == n);
        let number = serial(&device).or_else(|| (0..).find(taken)).unwrap_or(0);
        match format(&device, number) {
            Ok(()) => found.disks.push((number, Filesystem::New)),
            Err(error) => found.faults.push(unreadable(number, &error)),
        }
    }
    found.disks.sort_unstable_by_key(|(number, _)| *number);
    found
}

fn unreadable(disk: u16, error: &anyhow::Error) -> Fault {
    let what = format!("{error:#}");
    Fault::Unreadable { disk, what }
}

/// Waits a bounded time for `expected` disks and returns those there are.
fn wait_for(expected: usize) -> Vec<PathBuf> {
    // Virtio disks are there as soon as their driver is.
    if present().len() < expected
        && let Err(error) = modules::load_other_disks()
    {
        eprintln!("guest: {error:#}");
    }
    let give_up = Instant::now() + PATIENCE;
    while present().len() < expected && Instant::now() < give_up {
        sleep(Duration::from_millis(20));
    }
    present()
}

fn present() -> Vec<PathBuf> {
    let mut disks: Vec<PathBuf> = fs::read_dir("/sys/block")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| ["vd", "sd", "hd", "nvme", "xvd"].iter().any(|kind| name.starts_with(kind)))
        .map(|name| Path::new("/dev").join(name))
        .collect();
    disks.sort();
    disks
}

/// The number in the label of the device's ext4; none when the device is blank.
fn label(device: &Path) -> Result<Option<u16>> {
    const SUPERBLOCK: usize = 1024;
    const MAGIC: usize = SUPERBLOCK + 0x38;
    const NAME: usize = SUPERBLOCK + 0x78;
    let mut start = vec![0; 4096];
    File::open(device)
        .and_then(|mut file| file.read_exact(&mut start))
        .with_context(|| format!("read {}", device.display()))?;
    if start.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let name = &start[NAME..NAME + 16];
    let name = String::from_utf8_lossy(name.split(|byte| *byte == 0).next().unwrap_or(name));
    if start[MAGIC..MAGIC + 2] != [0x53, 0xef] {
        bail!("{} is neither blank nor ext4", device.display());
    }
    name.strip_prefix(LABEL)
        .and_then(|number| number.parse().ok())
        .map(Some)
        .with_context(|| format!("{} is labelled {name:?}, not by us", device.display()))
}

/// The number in the disk's serial.
fn serial(device: &Path) -> Option<u16> {
    let block = Path::new("/sys/block").join(device.file_name()?);
    let plain = fs::read_to_string(block.join("serial")).ok();
    // SCSI and SATA: page 0x80, four bytes of header before the text.
    let page = || {
        let bytes = fs::read(block.join("device/vpd_pg80")).ok()?;
        String::from_utf8(bytes.get(4..)?.to_vec()).ok()
    };
    let serial = plain.or_else(page)?;
    serial.trim().strip_prefix(LABEL)?.parse().ok()
}

fn format(device: &Path, number: u16) -> Result<()> {
    // Nothing lazy: background writes of a new file system would blur what
    // a test sees as the guest's own writes.
    let options = "lazy_itable_init=0,lazy_journal_init=0,nodiscard";
    tool(
        Command::new("/sbin/mke2fs")
            .args(["-q", "-F", "-t", "ext4", "-E", options, "-L"])
            .arg(format!("{LABEL}{number}"))
            .arg(device),
        0,
    )?;
    attach(device, number)
}

fn mount_existing(device: &Path, number: u16, parameters: &Parameters) -> Result<Filesystem> {
    attach(device, number)?;
    if !parameters.check_filesystems {
        return Ok(Filesystem::Unchecked);
    }
    // Mounting replayed the journal, as after any power cut. What is checked
    // is whether the file system is whole after that.
    umount(&folder(number)).with_context(|| format!("unmount disk {number}"))?;
    let checked = tool(Command::new("/sbin/e2fsck").args(["-f", "-n"]).arg(device), 0);
    attach(device, number)?;
    if let Err(error) = &checked {
        eprintln!("guest: {error:#}");
        return Ok(Filesystem::Broken);
    }
    Ok(Filesystem::Clean)
}

fn attach(device: &Path, number: u16) -> Result<()> {
    let folder = folder(number);
    fs::create_dir_all(&folder)?;
    mount(Some(device), &folder, Some("ext4"), MsFlags::MS_NOATIME, None::<&str>)
        .with_context(|| format!("mount {} at {}", device.display(), folder.display()))
}

fn tool(command: &mut Command, fine: i32) -> Result<()> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    if output.status.code() != Some(fine) {
        let said = [&output.stdout[..], &output.stderr[..]].concat();
        bail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&said).trim());
    }
    Ok(())
}
