//! What a machine is to be, as a story says it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use guest::parameters::{Address, Overwrite};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::description;
use super::disk::{Content, Disk, Format};
use crate::site::Site;

/// Folder of machines' serial ports, at either site.
pub(crate) const PORTS: &str = "/var/log/libvirt/guests";
const IMAGES: &str = "/var/lib/libvirt/images";

/// Begins the description of a machine: one processor, 160 MiB, one interface
/// on `default` with DHCP, no disk.
pub fn guest(name: &str) -> GuestSpec {
    GuestSpec {
        name: name.to_owned(),
        uuid: Uuid::new_v4(),
        memory: 160,
        processors: 1,
        nics: None,
        disks: Vec::new(),
        bus: Bus::Virtio,
        workload: None,
        overwrite: None,
        check_filesystems: true,
        uefi: false,
    }
}

/// A machine to be made.
#[derive(Debug, Clone)]
#[must_use = "a description makes no machine; give it to a site"]
pub struct GuestSpec {
    pub(super) name: String,
    pub(super) uuid: Uuid,
    pub(super) memory: u64,
    pub(super) processors: u32,
    pub(super) nics: Option<Vec<Nic>>,
    pub(super) disks: Vec<Disk>,
    pub(super) bus: Bus,
    pub(super) workload: Option<u32>,
    pub(super) overwrite: Option<Overwrite>,
    pub(super) check_filesystems: bool,
    pub(super) uefi: bool,
}

/// What disks are attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bus {
    /// Virtio block devices.
    Virtio,
    /// A virtio SCSI controller.
    Scsi,
    /// A SATA controller. Kernels made for clouds have no driver for it:
    /// `LIFEBOAT_LAB_KERNEL=linux-image-amd64` builds an image with another.
    Sata,
    /// The old machine's IDE controller, at most four disks.
    Ide,
}

/// A network interface.
#[derive(Debug, Clone)]
pub struct Nic {
    pub(super) network: String,
    pub(super) mac: Option<String>,
    pub(super) address: Address,
}

impl Nic {
    /// On a libvirt network, with an address from its DHCP.
    #[must_use]
    pub fn dhcp(network: &str) -> Self {
        Self { network: network.to_owned(), mac: None, address: Address::Dhcp }
    }

    /// On a libvirt network, with an `address` such as `10.86.10.5/24`.
    #[must_use]
    pub fn fixed(network: &str, address: &str) -> Self {
        Self {
            address: Address::Static { address: address.to_owned(), gateway: None },
            ..Self::dhcp(network)
        }
    }

    /// With this default gateway; only for a fixed address.
    #[must_use]
    pub fn via(mut self, router: &str) -> Self {
        if let Address::Static { gateway, .. } = &mut self.address {
            *gateway = Some(router.to_owned());
        }
        self
    }

    /// With this hardware address, instead of one derived from the machine's name.
    #[must_use]
    pub fn mac(mut self, mac: &str) -> Self {
        self.mac = Some(mac.to_lowercase());
        self
    }
}

impl GuestSpec {
    /// Has UEFI for its firmware, whose variables are in a file of their own.
    pub fn uefi(mut self) -> Self {
        self.uefi = true;
        self
    }

    /// Adds a qcow2 disk of that many bytes. The guest formats it.
    pub fn disk(self, bytes: u64) -> Self {
        self.disk_as(bytes, Format::Qcow2)
    }

    /// Adds a disk of that many bytes in the given format.
    pub fn disk_as(mut self, bytes: u64, format: Format) -> Self {
        let (size, content) = (bytes, Content::Blank);
        self.disks.push(Disk { size, format, content });
        self
    }

    /// Adds a qcow2 disk of that many bytes which is formatted already, so that
    /// its size costs nothing: the guest would write to all of it.
    pub fn formatted_disk(self, bytes: u64) -> Self {
        self.disk_of(bytes, None)
    }

    /// Adds such a disk with a copy of a folder's files on it.
    pub fn filled_disk(self, bytes: u64, files: &Path) -> Self {
        self.disk_of(bytes, Some(files.to_owned()))
    }

    fn disk_of(mut self, size: u64, files: Option<PathBuf>) -> Self {
        let content = Content::FileSystem { files };
        self.disks.push(Disk { size, format: Format::Qcow2, content });
        self
    }

    /// Attaches all disks to this bus.
    pub fn bus(mut self, bus: Bus) -> Self {
        self.bus = bus;
        self
    }

    /// Gives it that many MiB of memory.
    pub fn memory(mut self, mib: u64) -> Self {
        self.memory = mib;
        self
    }

    /// Gives it that many processors.
    pub fn processors(mut self, processors: u32) -> Self {
        self.processors = processors;
        self
    }

    /// Adds an interface. The first one replaces the default one.
    pub fn nic(mut self, nic: Nic) -> Self {
        self.nics.get_or_insert_default().push(nic);
        self
    }

    /// Gives it no interface at all.
    pub fn no_nic(mut self) -> Self {
        self.nics = Some(Vec::new());
        self
    }

    /// Gives it this identity instead of a random one.
    pub fn uuid(mut self, uuid: Uuid) -> Self {
        self.uuid = uuid;
        self
    }

    /// Lets it write that many records per second, from each boot on.
    pub fn workload(mut self, records_per_second: u32) -> Self {
        self.workload = Some(records_per_second);
        self
    }

    /// Lets it overwrite a region of `blocks` blocks of 4 KiB on one disk, that
    /// many times per second, from each boot on.
    pub fn overwrite(mut self, disk: u16, blocks: u32, writes_per_second: u32) -> Self {
        self.overwrite = Some(Overwrite { disk, blocks, rate: writes_per_second });
        self
    }

    /// Leaves out the check of file systems at boot, which takes about a
    /// quarter of a second for each disk under emulation.
    pub fn without_filesystem_check(mut self) -> Self {
        self.check_filesystems = false;
        self
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The interfaces, each with its hardware address.
    pub(super) fn resolved_nics(&self) -> Vec<(Nic, String)> {
        let default = || vec![Nic::dhcp("default")];
        let nics = self.nics.clone().unwrap_or_else(default);
        let hash = Sha256::digest(self.name.as_bytes());
        let with_mac = |(nic, index): (Nic, u8)| {
            let derived = format!("52:54:00:{:02x}:{:02x}:{index:02x}", hash[0], hash[1]);
            let mac = nic.mac.clone().unwrap_or(derived);
            (nic, mac)
        };
        nics.into_iter().zip(0..).map(with_mac).collect()
    }

    /// Path inside the site of the file of disk `index`.
    pub(super) fn disk_file(&self, index: usize) -> String {
        let extension = self.disks[index].format.extension();
        format!("{IMAGES}/{}-{index}.{extension}", self.name)
    }

    /// Makes the disks and defines the machine.
    pub(crate) async fn define(&self, site: &Site) -> Result<()> {
        site.image().require_driver(self.bus)?;
        for (disk, number) in self.disks.iter().zip(0_u16..) {
            disk.make(site, number, &self.disk_file(number.into())).await?;
        }
        if !self.disks.is_empty() {
            site.virsh(&["pool-refresh", "default"]).await?;
        }
        let file: PathBuf = site.outside(format!("/run/{}.machine.xml", self.name));
        fs::write(&file, description::domain(self, site.acceleration()))
            .with_context(|| format!("write {}", file.display()))?;
        site.virsh(&["define", &file.to_string_lossy()]).await.map(drop)
    }
}
