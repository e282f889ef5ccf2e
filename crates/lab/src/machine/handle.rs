//! A machine of a site, by its name.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use guest::port::Line;
use guest::report::Report;

use super::spec::PORTS;
use crate::run::wait_for;
use crate::site::Site;

/// How long a guest may take to shut down.
const PATIENCE: Duration = Duration::from_secs(90);

/// A machine of a site, by its name. Nothing is kept here: every question goes
/// to libvirt, to the guest, or to what its serial ports left on disk.
#[derive(Debug, Clone)]
pub struct Guest {
    site: Site,
    name: String,
    port: PathBuf,
}

impl Guest {
    pub(crate) fn new(site: Site, name: &str) -> Self {
        let port = site.outside(format!("{PORTS}/{name}.port"));
        let name = name.to_owned();
        Self { site, name, port }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The hypervisor's UUID of it.
    ///
    /// # Errors
    /// When libvirt does not know it.
    pub async fn uuid(&self) -> Result<String> {
        Ok(self.site.virsh(&["domuuid", &self.name]).await?.trim().to_owned())
    }

    /// Where it is.
    #[must_use]
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// The same, with the serial port of a machine with another name: for a
    /// copy whose description still names the original's files.
    #[must_use]
    pub fn with_port_of(mut self, name: &str) -> Self {
        self.port = self.site.outside(format!("{PORTS}/{name}.port"));
        self
    }

    /// Starts it and waits until it is up: disks checked, loads started, guest
    /// agent answering.
    ///
    /// # Errors
    /// When it is not up within 90 seconds; with the end of its console.
    pub async fn start(&self) -> Result<()> {
        let heard = self.listen()?;
        self.site.virsh(&["start", &self.name]).await?;
        heard.comes_up().await
    }

    /// Restarts it from inside, in order, and waits until it is up again.
    ///
    /// # Errors
    /// When it is not up within 90 seconds.
    pub async fn reboot(&self) -> Result<()> {
        let heard = self.listen()?;
        self.site.virsh(&["reboot", "--mode", "agent", &self.name]).await?;
        heard.comes_up().await
    }

    /// Asks it to shut down and waits until it is off.
    ///
    /// # Errors
    /// When it is not off within 90 seconds, or did not unmount its disks.
    pub async fn shutdown(&self) -> Result<()> {
        self.shut_down(&["shutdown", &self.name]).await
    }

    /// Presses its power button and waits until it is off; for a guest whose
    /// agent does not answer.
    ///
    /// # Errors
    /// As [`shutdown`](Self::shutdown).
    pub async fn press_power_button(&self) -> Result<()> {
        self.shut_down(&["shutdown", "--mode", "acpi", &self.name]).await
    }

    async fn shut_down(&self, words: &[&str]) -> Result<()> {
        let heard = self.listen()?;
        self.site.virsh(words).await?;
        let what = format!("shut {} down", self.name);
        wait_for(&what, PATIENCE, async || Ok((!self.is_running().await?).then_some(()))).await?;
        if !heard.has_stopped()? {
            bail!("{} is off, but not by an orderly end:\n{}", self.name, self.console_end());
        }
        Ok(())
    }

    /// Takes its power away.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn cut_power(&self) -> Result<()> {
        self.site.virsh(&["destroy", &self.name]).await.map(drop)
    }

    /// Whether it runs, as libvirt says.
    ///
    /// # Errors
    /// When libvirt does not know it.
    pub async fn is_running(&self) -> Result<bool> {
        let state = self.site.virsh(&["domstate", &self.name]).await?;
        Ok(state.trim() != "shut off")
    }

    /// Its description, as libvirt has it now.
    ///
    /// # Errors
    /// When libvirt does not know it.
    pub async fn xml(&self) -> Result<String> {
        self.site.virsh(&["dumpxml", &self.name]).await
    }

    /// The newest record that it acknowledged at this site; 0 when none. Works
    /// when the machine and its site have no power.
    ///
    /// # Errors
    /// When the file of its port cannot be read.
    pub fn acknowledged(&self) -> Result<u64> {
        self.newest(|line| match line {
            Line::Acknowledged(number) => Some(number),
            _ => None,
        })
        .map(Option::unwrap_or_default)
    }

    /// The newest write of the overwrite load that it acknowledged at this
    /// site; 0 when none.
    ///
    /// # Errors
    /// When the file of its port cannot be read.
    pub fn overwritten(&self) -> Result<u64> {
        self.newest(|line| match line {
            Line::Overwritten(number) => Some(number),
            _ => None,
        })
        .map(Option::unwrap_or_default)
    }

    /// What its last boot found on its disks, before any load went on.
    ///
    /// # Errors
    /// When it has never reported.
    pub fn boot_check(&self) -> Result<Report> {
        let report = self.newest(|line| match line {
            Line::Checked(report) => Some(report),
            _ => None,
        })?;
        report.with_context(|| format!("{} has not reported a check", self.name))
    }

    /// Waits until it has acknowledged `more` records beyond those it has.
    ///
    /// # Errors
    /// When it does not within a minute.
    pub async fn acknowledges(&self, more: u64) -> Result<u64> {
        let enough = self.acknowledged()? + more;
        let what = format!("wait for {more} records of {}", self.name);
        wait_for(&what, Duration::from_secs(60), async || {
            Ok(Some(self.acknowledged()?).filter(|now| *now >= enough))
        })
        .await
    }

    /// Whether libvirt has a backup of it open.
    pub async fn has_backup(&self) -> bool {
        self.site.virsh(&["backup-dumpxml", &self.name]).await.is_ok()
    }

    /// All that it wrote to its console.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn console(&self) -> Result<String> {
        read(&self.port.with_extension("console"))
    }

    /// Removes the machine with its disks; it must be off.
    ///
    /// # Errors
    /// With what libvirt said.
    pub async fn remove(&self) -> Result<()> {
        let words = ["undefine", "--remove-all-storage", "--checkpoints-metadata", &self.name];
        self.site.virsh(&words).await.map(drop)
    }

    fn newest<T>(&self, pick: impl FnMut(Line) -> Option<T>) -> Result<Option<T>> {
        let text = self.port_text()?;
        Ok(Line::parse_all(&text).rev().find_map(pick))
    }

    pub(super) fn port_text(&self) -> Result<String> {
        read(&self.port)
    }

    pub(super) fn console_end(&self) -> String {
        let console = self.console().unwrap_or_default();
        let lines: Vec<&str> = console.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

/// Reads a port's file; one that does not exist yet is empty.
fn read(path: &PathBuf) -> Result<String> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}
