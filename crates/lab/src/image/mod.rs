//! The guest's kernel and initial file system, built once and kept.
//!
//! ```text
//! /var/cache/lifeboat-lab
//!   base-HASH/   kernel and base.cpio: from the distribution's packages
//!   guest-HASH/  kernel and initrd: base.cpio with our own program behind it
//! ```
//!
//! Nothing is installed on the host: packages are downloaded by apt, with its
//! checks of signatures, and unpacked in a folder. The kernel reads several
//! archives in a row as one, so a new program of ours costs no new base.

mod archive;
mod base;
mod packages;
mod program;

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest as _, Sha256};

use crate::machine::Bus;
use crate::place::Place;
use archive::Archive;

/// Where the kernel lies at a site, the same at both.
pub(crate) const KERNEL: &str = "/var/lib/libvirt/boot/lifeboat-guest.kernel";
/// Where the initial file system lies at a site, the same at both.
pub(crate) const INITRD: &str = "/var/lib/libvirt/boot/lifeboat-guest.initrd";
/// Images of earlier programs that are kept beside the newest.
const KEPT: usize = 3;

/// A built image.
#[derive(Debug, Clone)]
pub struct Image {
    cache: PathBuf,
    folder: PathBuf,
}

impl Image {
    /// The image for this machine and the program as its source is now. Builds
    /// what is missing: seconds when only our program changed, else about a
    /// minute, with downloads from the distribution's archive.
    ///
    /// # Errors
    /// When a package or tool is missing; says which.
    pub async fn ensure() -> Result<Self> {
        let cache = env::var_os("LIFEBOAT_LAB_CACHE")
            .map_or_else(|| "/var/cache/lifeboat-lab".into(), PathBuf::from);
        fs::create_dir_all(&cache).with_context(|| format!("make {}", cache.display()))?;
        let program = program::build().await.context("build the guest's program")?;
        let bytes = fs::read(&program).with_context(|| format!("read {}", program.display()))?;
        let base = base::key()?;
        let folder = cache.join(format!("guest-{}", hash(&[base.as_bytes(), &bytes])));
        let image = Self { cache, folder };
        if !image.folder.exists() {
            image.build(&base, bytes).await?;
        }
        Ok(image)
    }

    async fn build(&self, base: &str, program: Vec<u8>) -> Result<()> {
        let lock = lock(self.cache.join("lock")).await?;
        if self.folder.exists() {
            return Ok(());
        }
        let base_folder = self.cache.join(format!("base-{}", hash(&[base.as_bytes()])));
        if !base_folder.exists() {
            eprintln!("lab: building the guest's base from packages, once");
            let new = fresh(&self.cache.join("base.new"))?;
            base::build(&new).await?;
            publish(&new, &base_folder)?;
        }
        let new = fresh(&self.cache.join("guest.new"))?;
        fs::copy(base_folder.join("kernel"), new.join("kernel")).context("copy the kernel")?;
        fs::copy(base_folder.join("drivers"), new.join("drivers")).context("copy the drivers")?;
        let mut initrd = fs::read(base_folder.join("base.cpio")).context("read the base")?;
        let mut own = Archive::default();
        own.file("bin/guest", 0o755, &program)?;
        for name in ["init", "sbin/shutdown", "sbin/poweroff", "sbin/reboot", "sbin/halt"] {
            own.link(name, "/bin/guest")?;
        }
        own.link("bin/dhcp-event", "/bin/guest")?;
        initrd.extend(own.finish()?);
        fs::write(new.join("initrd"), initrd).context("write the initial file system")?;
        publish(&new, &self.folder)?;
        self.prune();
        drop(lock);
        Ok(())
    }

    /// Refuses a bus that the guest's kernel has no driver for.
    pub(crate) fn require_driver(&self, bus: Bus) -> Result<()> {
        let driver = match bus {
            Bus::Virtio => "virtio_blk",
            Bus::Scsi => "virtio_scsi",
            Bus::Sata => "ahci",
            Bus::Ide => "ata_piix",
        };
        let drivers =
            fs::read_to_string(self.folder.join("drivers")).context("read the drivers")?;
        if !drivers.lines().any(|line| line == driver) {
            bail!(
                "the guest's kernel has no driver {driver} for disks on {bus:?}; \
                 set LIFEBOAT_LAB_KERNEL to a kernel package that has it"
            );
        }
        Ok(())
    }

    /// Copies the image to where the site's machines boot from. A copy, as
    /// libvirt changes the owner of what a running machine uses.
    pub(crate) fn install(&self, site: &Place) -> Result<()> {
        for (name, inside) in [("kernel", KERNEL), ("initrd", INITRD)] {
            let path = site.outside(inside);
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
            }
            fs::copy(self.folder.join(name), &path)
                .with_context(|| format!("copy the guest's {name} to {}", path.display()))?;
        }
        Ok(())
    }

    /// The folder that images are kept in.
    pub(crate) fn cache(&self) -> &Path {
        &self.cache
    }

    /// The folder with the files `kernel` and `initrd`.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The kernel, for probes outside of any site.
    pub(crate) fn kernel(&self) -> PathBuf {
        self.folder.join("kernel")
    }

    /// Removes images of older programs. What cannot be removed stays.
    fn prune(&self) {
        let entries = fs::read_dir(&self.cache).into_iter().flatten().flatten();
        let mut old: Vec<(SystemTime, PathBuf)> = entries
            .map(|entry| entry.path())
            .filter(|path| path.to_string_lossy().contains("/guest-") && *path != self.folder)
            .filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path)))
            .collect();
        old.sort();
        old.truncate(old.len().saturating_sub(KEPT));
        for (_, path) in old {
            let _ = fs::remove_dir_all(path);
        }
    }
}

fn hash(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn fresh(folder: &Path) -> Result<PathBuf> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("clear {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    Ok(folder.to_owned())
}

/// Either the whole folder is there or none of it.
fn publish(new: &Path, folder: &Path) -> Result<()> {
    fs::rename(new, folder).with_context(|| format!("publish {}", folder.display()))
}

async fn lock(path: PathBuf) -> Result<Flock<File>> {
    let file = File::create(&path).with_context(|| format!("open {}", path.display()))?;
    let waiting = tokio::task::spawn_blocking(|| Flock::lock(file, FlockArg::LockExclusive));
    let locked = waiting.await.context("wait for the image's lock")?;
    locked.map_err(|(_, error)| error).with_context(|| format!("lock {}", path.display()))
}
