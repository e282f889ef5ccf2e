//! libvirt's own notes on a machine that runs, with a backup job of which it
//! knows nothing: as it leaves them when it dies while it begins one. They are
//! changed while it does not run.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

use crate::site::Site;

const LOST: &str = "<job type='none' async='backup' flags='0x0' asyncStarted='1'/>";

/// Notes such a job. Not while it has a backup of which it does know: false then.
///
/// # Errors
/// When it has no notes on the machine.
pub fn plant(site: &Site, machine: &str) -> Result<bool> {
    let notes = Notes::read(site, machine)?;
    if notes.text.contains("<job ") && notes.text.contains("<domainbackup ") {
        return Ok(false);
    }
    if !notes.text.contains("<job ") {
        notes.write(&notes.text.replacen("</domstatus>", &format!("  {LOST}\n</domstatus>"), 1))?;
    }
    Ok(true)
}

/// Removes it, as the page of the error says.
///
/// # Errors
/// When it has no notes on the machine.
pub fn remove(site: &Site, machine: &str) -> Result<()> {
    Notes::read(site, machine)?.remove_job()
}

/// Removes such a job that came by itself, if the machine runs.
///
/// # Errors
/// When its notes cannot be written.
pub fn remove_half_begun(site: &Site, machine: &str) -> Result<()> {
    match Notes::read(site, machine) {
        Ok(notes) if !notes.text.contains("<domainbackup ") => notes.remove_job(),
        _ => Ok(()),
    }
}

struct Notes {
    path: PathBuf,
    text: String,
}

impl Notes {
    fn read(site: &Site, machine: &str) -> Result<Self> {
        let path = site.outside(format!("/run/libvirt/qemu/{machine}.xml"));
        let text = fs::read_to_string(&path)
            .with_context(|| format!("read libvirt's notes {}", path.display()))?;
        ensure!(text.contains("</domstatus>"), "{} is not as expected: {text}", path.display());
        Ok(Self { path, text })
    }

    fn remove_job(&self) -> Result<()> {
        let others = self.text.lines().filter(|line| !line.contains("<job "));
        self.write(&others.collect::<Vec<_>>().join("\n"))
    }

    fn write(&self, text: &str) -> Result<()> {
        Ok(fs::write(&self.path, text)?)
    }
}
