//! A copy of a machine's disks that is made of cuts alone, and what reaches a
//! site's libvirt from the test.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use agent::capture::{Base, CaptureSettings, CheckpointName, Cut, CutRequest, StretchKind};
use anyhow::{Context as _, Result, bail, ensure};
use lab::Site;

/// Bytes read at once.
const PIECE: u64 = 1 << 20;

/// Raw images of the disks as of the cut with this checkpoint.
pub struct Copy {
    pub folder: PathBuf,
    pub checkpoint: Option<CheckpointName>,
}

impl Copy {
    pub fn request(&self) -> CutRequest {
        CutRequest { since: self.checkpoint.clone(), ..CutRequest::default() }
    }

    pub fn image(&self, target: &str) -> PathBuf {
        self.folder.join(target)
    }

    /// Applies what changed; returns how many bytes of the disks that is, and
    /// how many of them were read.
    pub async fn apply(&mut self, cut: &Cut) -> Result<(u64, u64)> {
        let (mut told, mut read) = (0, 0);
        for disk in &cut.disks {
            let path = self.image(&disk.target);
            let image = File::options().create(true).truncate(false).write(true).open(path)?;
            image.set_len(disk.size)?;
            let mut changes = disk.reader.changed(0..disk.size);
            while let Some(stretch) = changes.next().await? {
                told += stretch.length;
                let end = stretch.offset + stretch.length;
                let mut offset = stretch.offset;
                while offset < end {
                    let length = (end - offset).min(PIECE);
                    if stretch.kind == StretchKind::Data {
                        read += length;
                        let bytes = disk.reader.read(offset, u32::try_from(length)?).await?;
                        image.write_all_at(&bytes, offset)?;
                    } else {
                        image.write_all_at(&vec![0; usize::try_from(length)?], offset)?;
                    }
                    offset += length;
                }
            }
        }
        Ok((told, read))
    }
}

/// How a site's libvirt and its programs are reached from outside.
pub fn uri(site: &Site) -> String {
    let socket = site.outside("/run/libvirt/libvirt-sock");
    format!("qemu:///system?socket={}", socket.display())
}

/// The path is the same inside the site and outside.
pub fn scratch_folder(site: &Site) -> PathBuf {
    site.folder().join("capture")
}

/// Settings with which the test, outside, captures what is inside.
pub fn settings(site: &Site) -> CaptureSettings {
    let inside = |program: &str| {
        let command = site.command(program);
        let command = command.as_std();
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        words.map(ToOwned::to_owned).collect()
    };
    CaptureSettings {
        qemu_nbd: inside("qemu-nbd"),
        qemu_img: inside("qemu-img"),
        ..CaptureSettings::in_folder(scratch_folder(site))
    }
}

/// The checkpoint that something is told from; none when it is told whole.
pub fn since(base: &Base) -> Option<&CheckpointName> {
    match base {
        Base::Since(name) => Some(name),
        Base::Whole(_) => None,
    }
}

/// Compares two images byte by byte.
pub fn same(one: &Path, other: &Path) -> Result<()> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("read {}", path.display()));
    let (left, right) = (read(one)?, read(other)?);
    ensure!(left.len() == right.len(), "{} and {} bytes", left.len(), right.len());
    match left.iter().zip(&right).position(|(a, b)| a != b) {
        None => Ok(()),
        Some(at) => bail!("{} and {} differ at byte {at}", one.display(), other.display()),
    }
}
