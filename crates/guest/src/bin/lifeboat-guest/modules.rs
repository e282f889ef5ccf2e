//! Loads the kernel modules that the image's builder put in, in its order.

use std::ffi::CString;
use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};

/// Drivers that every guest needs.
pub fn load_base() -> Result<()> {
    load("base")
}

/// Drivers for disks that are not on virtio-blk. They take a while to load
/// under emulation, so this waits until a disk is missing.
pub fn load_other_disks() -> Result<()> {
    load("disks")
}

/// Loads the files listed in `/lib/modules/GROUP`, each after what it needs.
fn load(group: &str) -> Result<()> {
    let folder = Path::new("/lib/modules");
    let list = fs::read_to_string(folder.join(group))
        .with_context(|| format!("read the list of {group} modules"))?;
    for name in list.lines() {
        let file = File::open(folder.join(name)).with_context(|| format!("open module {name}"))?;
        match finit_module(&file, &CString::default(), ModuleInitFlags::empty()) {
            // A driver without its hardware says ENODEV; this is no mistake.
            Ok(()) | Err(Errno::EEXIST | Errno::ENODEV) => {}
            Err(error) => return Err(error).with_context(|| format!("load module {name}")),
        }
    }
    Ok(())
}
