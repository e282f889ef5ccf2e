//! A machine's disk before the machine is there.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;

use crate::run::{run, run_within};
use crate::site::Site;

/// How long a file system may take to be made and filled.
const PATIENCE: Duration = Duration::from_secs(300);

/// Format of a disk's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// QEMU's own, which can hold dirty bitmaps.
    Qcow2,
    /// The bytes as the guest sees them.
    Raw,
}

impl Format {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
        }
    }

    pub(super) fn extension(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "img",
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Disk {
    pub size: u64,
    pub format: Format,
    pub content: Content,
}

/// What is on a disk at first.
#[derive(Debug, Clone)]
pub(super) enum Content {
    /// Nothing; the guest formats it.
    Blank,
    /// A file system, with a copy of this folder's files.
    FileSystem { files: Option<PathBuf> },
}

impl Disk {
    /// Makes the file of the disk with this number, `inside` the site.
    pub(super) async fn make(&self, site: &Site, number: u16, inside: &str) -> Result<()> {
        ensure!(!site.outside(inside).exists(), "the disk {inside} exists already");
        match &self.content {
            Content::Blank => {
                let mut create = site.command("qemu-img");
                create.args(["create", "-q", "-f", self.format.name(), inside]);
                run(create.arg(self.size.to_string()), "make a disk").await.map(drop)
            }
            Content::FileSystem { files } => {
                let (raw, to) = (site.folder().join("new-disk.raw"), site.outside(inside));
                let made = self.format_to(&raw, number, files.as_deref(), &to).await;
                // It may not even be there, and is in nobody's way.
                let _ = fs::remove_file(&raw);
                made
            }
        }
    }

    /// Through a file with holes, so that a disk of any size takes no more than
    /// what is on it.
    async fn format_to(
        &self,
        raw: &Path,
        number: u16,
        files: Option<&Path>,
        to: &Path,
    ) -> Result<()> {
        let file = File::create(raw).with_context(|| format!("make {}", raw.display()))?;
        file.set_len(self.size).with_context(|| format!("size {}", raw.display()))?;
        let mut format = Command::new("mke2fs");
        // Few inodes and a small journal, written here: the guest has nothing to
        // do in the background that would blur what is measured or watched.
        format.args(["-q", "-F", "-t", "ext4", "-T", "largefile4", "-J", "size=16", "-m", "0"]);
        format.args(["-E", "lazy_itable_init=0,nodiscard", "-L", &format!("data{number}")]);
        if let Some(files) = files {
            format.arg("-d").arg(files);
        }
        run_within(PATIENCE, format.arg(raw), "make a file system").await?;
        let mut convert = Command::new("qemu-img");
        convert.args(["convert", "-q", "-f", "raw", "-O", self.format.name()]).arg(raw).arg(to);
        run_within(PATIENCE, &mut convert, "make a disk").await.map(drop)
    }
}
