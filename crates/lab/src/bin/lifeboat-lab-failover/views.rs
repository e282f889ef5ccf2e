//! Reading from a recovery point, and making disks independent of it.
//!
//! In each round a copy of the machine is made of its newest point and runs from
//! a view of it; beside it at the same site runs a machine whose local qcow2 has
//! the same files. Both
//! read the same file, in turn: in order, and anywhere. Then `nbdcopy` copies
//! the view into a local qcow2, the machine is hydrated while it runs, and both
//! guests read once more.
//!
//! Before a guest reads in order from a view, the host forgets what it has in
//! memory of all disks: after a failover nobody has read them yet. Hydrated ones
//! were written a moment ago and are somewhere on their way to the medium; so
//! both guests read theirs once before it counts. Reads anywhere are of what was
//! read once.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use lab::product::{Deployment, STORE};
use lab::{Guest, Lab, Site, guest};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use serde::Serialize;
use serde_json::Value;
use tokio::process::Command;

use crate::ground::{FILE, disk_for, folder_with, protect, turns};

/// Where an agent makes machines of points.
const RECOVERED: &str = "/var/lib/lifeboat/recovered";
/// Where machines have their own disks.
const IMAGES: &str = "/var/lib/libvirt/images";
/// What `nbdcopy` writes, at west.
const COPY: &str = "/var/lib/libvirt/images/copy.qcow2";

#[derive(clap::Args)]
pub struct Arguments {
    /// Rounds
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// A file that is read in the guests
    #[arg(long)]
    content: PathBuf,
    /// Bytes of it
    #[arg(long, default_value_t = 1 << 30)]
    bytes: u64,
    /// Seconds of reading anywhere
    #[arg(long, default_value_t = 10)]
    seconds: u32,
}

/// What was done with the disks before they are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// Nothing: the host has nothing of them in memory.
    Forgotten,
    /// They were read once.
    ReadOnce,
}

/// What a machine reads: bytes a second in order, reads of 4 KiB a second
/// anywhere.
#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Reads {
    sequential: f64,
    random: f64,
}

/// Two that are compared.
#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Pair<T> {
    ours: T,
    theirs: T,
}

#[derive(Serialize)]
struct Round {
    /// On the view, beside a local qcow2.
    view: Pair<Reads>,
    /// The same after it was hydrated.
    hydrated: Pair<Reads>,
    /// Bytes a second, beside `nbdcopy`.
    hydration: Pair<f64>,
}

pub async fn measure(arguments: &Arguments) -> Result<()> {
    let lab = Lab::start("reading from a recovery point").await?;
    let product = Deployment::start(&lab).await?;
    let size = disk_for(arguments.bytes);
    let machine = |site: &Site, name| -> Result<_> {
        let files = folder_with(site, &arguments.content, arguments.bytes)?;
        Ok(guest(name).filled_disk(size, &files).without_filesystem_check())
    };
    lab.east().boot(machine(lab.east(), "web")?).await?;
    protect(&product.controller).await?;
    let local = lab.west().boot(machine(lab.west(), "local")?).await?;
    let stage = Stage { lab: &lab, product: &product, local, size, seconds: arguments.seconds };
    for round in 0..arguments.rounds {
        let figures = stage.round(round).await?;
        println!("{}", serde_json::to_string(&figures).context("write a round")?);
    }
    product.stop().await?;
    lab.stop().await
}

struct Stage<'a> {
    lab: &'a Lab,
    product: &'a Deployment<'a>,
    /// On a local qcow2 with the same files.
    local: Guest,
    /// Bytes of each disk.
    size: u64,
    seconds: u32,
}

impl Stage<'_> {
    async fn round(&self, round: u32) -> Result<Round> {
        let copy = self.recover(&format!("web-{round}")).await?;
        let view = self.reads(round, &copy, Before::Forgotten).await?;
        let rate = |seconds: f64| self.size as f64 / seconds;
        let theirs = rate(self.nbdcopy(&copy).await?);
        let ours = rate(self.hydrate(&copy).await?);
        let hydrated = self.reads(round, &copy, Before::ReadOnce).await?;
        // With disks of its own it is a machine as any other.
        copy.cut_power().await?;
        self.lab.west().virsh(&["undefine", copy.name()]).await?;
        let round = Round { view, hydrated, hydration: Pair { ours, theirs } };
        eprintln!(
            "   view {view:.0?}\n   hydrated {hydrated:.0?}\n   hydration {:.0?}",
            round.hydration
        );
        Ok(round)
    }

    /// Of the machine from the point and of the local one, in turn.
    async fn reads(&self, round: u32, copy: &Guest, before: Before) -> Result<Pair<Reads>> {
        let mut pair = Pair::default();
        for of_ours in turns(round, [true, false]) {
            for folder in [STORE, RECOVERED, IMAGES] {
                forget(&self.lab.west().outside(folder))?;
            }
            let guest = if of_ours { copy } else { &self.local };
            if before == Before::ReadOnce {
                read(guest, &[]).await?;
            }
            let sequential = read(guest, &[]).await?;
            let random = read(guest, &[&self.seconds.to_string()]).await?;
            let reads = if of_ours { &mut pair.ours } else { &mut pair.theirs };
            *reads = Reads { sequential, random };
        }
        Ok(pair)
    }

    /// A machine of this name of the newest point, which runs.
    async fn recover(&self, name: &str) -> Result<Guest> {
        let told = self.product.west.ask(&["recover", "web", "--test", name]).await?;
        ensure!(told["alive_by"] == "guest_agent", "{told}");
        Ok(self.lab.west().guest(name))
    }

    /// What the agent knows of it.
    async fn recovered(&self, copy: &Guest) -> Result<Value> {
        let all = self.product.west.ask(&["recovered"]).await?;
        let mut items = all["items"].as_array().into_iter().flatten();
        let found = items.find(|item| item["name"] == copy.name()).cloned();
        found.with_context(|| format!("find {} in {all}", copy.name()))
    }

    /// Seconds to copy the point's disk from where QEMU has it.
    async fn nbdcopy(&self, copy: &Guest) -> Result<f64> {
        let west = self.lab.west();
        let recovery = self.recovered(copy).await?;
        let folder = format!("{RECOVERED}/{}", recovery["id"].as_str().context("its id")?);
        create(west, self.size).await?;
        let view = format!("nbd+unix:///vda?socket={folder}/qemu/views.s");
        let mut copy = west.command("nbdcopy");
        copy.args([&view, "--", "[", "qemu-nbd", "-f", "qcow2", COPY, "]"]);
        let begun = Instant::now();
        succeed(&mut copy).await?;
        let seconds = begun.elapsed().as_secs_f64();
        succeed(west.command("rm").arg(COPY)).await?;
        Ok(seconds)
    }

    /// Seconds to make the running machine's disk its own.
    async fn hydrate(&self, copy: &Guest) -> Result<f64> {
        let begun = Instant::now();
        self.product.west.ask(&["hydrate", copy.name()]).await?;
        let seconds = begun.elapsed().as_secs_f64();
        let recovered = self.recovered(copy).await?;
        ensure!(recovered["stage"] == "standing", "{recovered}");
        Ok(seconds)
    }
}

/// What the guest's `reads` tells of the file, with these words more.
async fn read(guest: &Guest, words: &[&str]) -> Result<f64> {
    let said = guest.exec(&[&["guest", "reads", "0", FILE], words].concat()).await?;
    said.trim().parse().with_context(|| format!("read {said:?}"))
}

/// Has the host keep nothing in memory of the files in a folder and below.
fn forget(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let (kind, path) = entry.and_then(|entry| Ok((entry.file_type()?, entry.path())))?;
        if kind.is_dir() {
            forget(&path)?;
        } else if kind.is_file() {
            let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
            // What is not yet written cannot be forgotten.
            file.sync_all().with_context(|| format!("sync {}", path.display()))?;
            posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)
                .with_context(|| format!("forget {}", path.display()))?;
        }
    }
    Ok(())
}

async fn create(site: &Site, size: u64) -> Result<()> {
    let mut create = site.command("qemu-img");
    succeed(create.args(["create", "-q", "-f", "qcow2", COPY, &size.to_string()])).await
}

/// Runs a command to its end, however long a copy takes.
async fn succeed(command: &mut Command) -> Result<()> {
    let output = command.kill_on_drop(true).output().await.context("run a command")?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{:?}: {}: {error}", command.as_std(), output.status);
    Ok(())
}
