//! Opening recovery points as an outsider would: the store's own command writes
//! them as images, and file system tools and the guest's records tell whether
//! they are a state that the machine had.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use guest::sequence::{compare, scan};
use serde_json::Value;

use crate::machine::Guest;
use crate::product::binary;
use crate::run::wait_for;
use crate::site::Site;

const SOON: Duration = Duration::from_secs(60);
/// Where an agent keeps recovery points unless it is told otherwise.
pub const STORE: &str = "/var/lib/lifeboat/store";

/// The store of a site's agent.
#[derive(Debug)]
pub struct Points {
    site: Site,
    scratch: PathBuf,
}

impl Points {
    /// Of the store at a site.
    #[must_use]
    pub fn at(site: &Site) -> Self {
        Self { site: site.clone(), scratch: site.folder().join("opened") }
    }

    /// At the site, where a file system of its own may lie over the folder.
    fn lifeboat(&self, arguments: &[&str]) -> Result<Vec<u8>> {
        let mut command = self.site.command(binary()?).into_std();
        let output =
            command.args(["--json", "store", "--store", STORE]).args(arguments).output()?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "lifeboat store {arguments:?}: {error}");
        Ok(output.stdout)
    }

    /// The number of a machine's newest point; 0 while there is none.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn newest(&self, machine: &str) -> Result<u64> {
        Ok(self.of(machine)?.last().copied().unwrap_or(0))
    }

    /// Waits for a point that was begun after this instant: it has what the guest
    /// was told is durable by now. The point.
    ///
    /// # Errors
    /// When there is none within a minute, or it is no state of the machine.
    pub async fn go_on(&self, machine: &Guest, disks: u16, after: &str) -> Result<u64> {
        let name = machine.name();
        let acknowledged = machine.acknowledged()?;
        let newest = self.newest(name)?;
        let mut found = 0;
        wait_for(&format!("points after {after}"), SOON, async || {
            found = self.newest(name)?;
            Ok((found > newest + 1).then_some(()))
        })
        .await?;
        let last = self.is_a_state(name, found, disks)?;
        ensure!(last >= acknowledged, "{after}: point {found} has {last} of {acknowledged}");
        println!("{after}: point {found}, {last} records");
        Ok(found)
    }

    /// Numbers of a machine's points, the oldest first; none while there is no
    /// store.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn of(&self, machine: &str) -> Result<Vec<u64>> {
        if !self.site.outside(STORE).is_dir() {
            return Ok(Vec::new());
        }
        let list: Value = serde_json::from_slice(&self.lifeboat(&["list"])?)?;
        let known = list["items"].as_array().into_iter().flatten();
        let known = known.filter(|item| item["machine_name"] == machine);
        if known.count() == 0 {
            return Ok(Vec::new());
        }
        let points: Value = serde_json::from_slice(&self.lifeboat(&["points", machine])?)?;
        let points = points["items"].as_array().context("a list of points")?;
        points.iter().map(|point| point["point"].as_u64().context("its number")).collect()
    }

    /// A point's disks as raw images.
    ///
    /// # Errors
    /// When there is no such point, or it is damaged.
    pub fn open(&self, machine: &str, point: u64) -> Result<Opened> {
        let folder = self.scratch.join(point.to_string());
        fs::create_dir_all(&self.scratch)?;
        let text = folder.to_str().context("a readable path")?.to_owned();
        let opened = Opened { folder };
        self.lifeboat(&["export", machine, &point.to_string(), &text, "--format", "raw"])?;
        Ok(opened)
    }

    /// Opens a point's disks: their file systems are whole after a journal
    /// replay, and the records on the first `disks` of them together have no
    /// hole. The last record.
    ///
    /// # Errors
    /// When the point is no such state.
    pub fn is_a_state(&self, machine: &str, point: u64, disks: u16) -> Result<u64> {
        let opened = self.open(machine, point)?;
        let mut scans = Vec::new();
        for disk in 0..disks {
            let image = opened.disk(disk);
            let replay = Command::new("e2fsck").args(["-f", "-y"]).arg(&image).output()?;
            let told = String::from_utf8_lossy(&replay.stdout).into_owned();
            // 1: the journal was replayed, or the like; more: there was damage.
            ensure!(matches!(replay.status.code(), Some(0 | 1)), "point {point}: {told}");
            let clean = Command::new("e2fsck").args(["-f", "-n"]).arg(&image).output()?;
            ensure!(clean.status.code() == Some(0), "point {point}, disk {disk} is not clean");
            let records = opened.folder.join(format!("records{disk}"));
            dump(&image, &records)?;
            scans.push(scan(File::open(&records)?, disk, disks)?);
        }
        let (last, faults) = compare(&scans);
        let own: Vec<_> = scans.iter().flat_map(|scan| &scan.faults).collect();
        ensure!(faults.is_empty() && own.is_empty(), "point {point}: {faults:?} {own:?}");
        Ok(last)
    }
}

/// A recovery point's disks as images, which are gone when this is dropped.
#[derive(Debug)]
pub struct Opened {
    folder: PathBuf,
}

impl Opened {
    /// The image of a disk, by its number from 0.
    #[must_use]
    pub fn disk(&self, number: u16) -> PathBuf {
        self.folder.join(format!("disk{number}.raw"))
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // What is left goes with the lab.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Copies the guest's records out of a file system without mounting it.
fn dump(image: &Path, to: &Path) -> Result<()> {
    let request = format!("dump /records {}", to.display());
    let output = Command::new("debugfs").args(["-R", &request]).arg(image).output()?;
    ensure!(to.is_file(), "debugfs: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
