//! Files and sockets of a recovery.
//!
//! ```text
//! RECOVERY_FOLDER/ID/   ours
//!   qemu/               belongs to QEMU's user, whom alone it lets in
//!     views.s           the point's disks, served by the agent
//!     vda.qcow2         what the machine wrote
//!     nvram.fd          its UEFI variables, if it has any
//! ```

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use domain::fault::{Code, Fault};
use domain::units::ByteCount;
use tokio::process::Command;
use tokio::time::timeout;

use super::record::Record;
use crate::capture::Owner;
use crate::hypervisor::libvirt::xml::recovered::DiskPlace;

/// How long `qemu-img` may take to make an empty image.
const CREATE_LIMIT: Duration = Duration::from_secs(30);
/// Room that must be there before a machine is made: its disks grow as it
/// writes.
const ROOM: u64 = 256 << 20;

/// The folder of one recovery.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    own: PathBuf,
    disks: Vec<String>,
}

impl Folder {
    pub(super) fn of(record: &Record) -> Self {
        Self { own: record.folder.clone(), disks: record.targets() }
    }

    fn qemu(&self) -> PathBuf {
        self.own.join("qemu")
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.qemu().join("views.s")
    }

    pub(super) fn nvram(&self) -> PathBuf {
        self.qemu().join("nvram.fd")
    }

    pub(super) fn overlay(&self, target: &str) -> PathBuf {
        self.qemu().join(format!("{target}.qcow2"))
    }

    pub(super) fn places(&self) -> Vec<DiskPlace> {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let place = |target: &String| DiskPlace {
            target: target.clone(),
            overlay: text(self.overlay(target)),
            socket: text(self.socket()),
        };
        self.disks.iter().map(place).collect()
    }

    /// Makes the folders, with QEMU's belonging to `owner` when it is not us.
    pub(super) fn make(&self, owner: Option<Owner>) -> Result<(), Fault> {
        let made = || -> io::Result<()> {
            fs::create_dir_all(self.qemu())?;
            if let Some(parent) = self.own.parent() {
                // QEMU must be able to get through.
                let mode = fs::metadata(parent)?.permissions().mode();
                if mode & 0o111 != 0o111 {
                    fs::set_permissions(parent, Permissions::from_mode(mode | 0o111))?;
                }
            }
            fs::set_permissions(&self.own, Permissions::from_mode(0o711))?;
            fs::set_permissions(self.qemu(), Permissions::from_mode(0o700))?;
            owner.map_or(Ok(()), |owner| owner.own(&self.qemu()))
        };
        made().map_err(|error| unusable("make", &self.qemu(), &error))
    }

    /// Makes a disk that has all of the view and room for what is written.
    pub(super) async fn make_overlay(
        &self,
        target: &str,
        size: u64,
        owner: Option<Owner>,
    ) -> Result<(), Fault> {
        let overlay = self.overlay(target);
        remove(&overlay)?;
        let socket = self.socket();
        let view = format!("nbd+unix:///{target}?socket={}", socket.display());
        let create = Command::new("qemu-img")
            // The view need not be opened: its size is known.
            .args(["create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", &view])
            .arg(&overlay)
            .arg(size.to_string())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let doing = || format!("make the disk {}", overlay.display());
        let failed = |why: String| {
            Fault::new(
                Code::ToolFailed,
                doing(),
                format!("qemu-img: {why}"),
                "Install the package qemu-utils (or qemu-img), and see that there is room; then run it again.",
            )
        };
        match timeout(CREATE_LIMIT, create).await {
            Err(_) => return Err(failed(format!("no end within {} s", CREATE_LIMIT.as_secs()))),
            Ok(Err(error)) => return Err(failed(error.to_string())),
            Ok(Ok(output)) if !output.status.success() => {
                return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
            }
            Ok(Ok(_)) => {}
        }
        let owned = owner.map_or(Ok(()), |owner| owner.own(&overlay));
        owned.map_err(|error| unusable("give QEMU", &overlay, &error))
    }

    /// Puts the variables of its firmware where QEMU finds them.
    pub(super) fn put_variables(&self, bytes: &[u8], owner: Option<Owner>) -> Result<(), Fault> {
        let file = self.nvram();
        let put =
            fs::write(&file, bytes).and_then(|()| owner.map_or(Ok(()), |owner| owner.own(&file)));
        put.map_err(|error| unusable("write", &file, &error))
    }

    /// Removes everything. No mistake when nothing is there.
    pub(super) fn remove(&self) -> Result<(), Fault> {
        match fs::remove_dir_all(&self.own) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(unusable("remove", &self.own, &error))
            }
            _ => Ok(()),
        }
    }
}

/// Makes sure that machines' disks have room to grow in.
pub(super) fn has_room(folder: &Path) -> Result<(), Fault> {
    let mut places = folder.ancestors();
    let facts = places.find_map(|place| nix::sys::statvfs::statvfs(place).ok());
    let free =
        facts.map_or(0, |facts| facts.blocks_available().saturating_mul(facts.fragment_size()));
    if free >= ROOM {
        return Ok(());
    }
    Err(Fault::new(
        Code::RecoveryFolderFull,
        format!("make the disks of a machine in {}", folder.display()),
        format!(
            "{} are free there, and {} are asked for at least",
            ByteCount::new(free),
            ByteCount::new(ROOM)
        ),
        "Make room there, or set `recovery_folder` in the agent's configuration to a folder with more.",
    ))
}

fn remove(path: &Path) -> Result<(), Fault> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(unusable("remove", path, &error)),
        _ => Ok(()),
    }
}

fn unusable(verb: &str, path: &Path, error: &io::Error) -> Fault {
    let code = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Code::RecoveryFolderFull,
        _ => Code::DataFolderUnusable,
    };
    Fault::new(
        code,
        format!("{verb} {}", path.display()),
        error.to_string(),
        "Make room in the `recovery_folder` of the agent's configuration, and make it writable for the agent's user.",
    )
}
