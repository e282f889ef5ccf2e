//! The part of the image that comes from packages.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tokio::process::Command;

use super::archive::Archive;
use super::{fresh, packages};
use crate::run::run;

/// Raised when what this file makes changes.
const VERSION: u32 = 1;
/// Packages whose programs the guest has.
const PACKAGES: [&str; 3] = ["busybox-static", "e2fsprogs", "qemu-guest-agent"];
/// Those programs, with what else they may be called in older packages.
const PROGRAMS: [(&str, &[&str]); 3] = [
    ("usr/sbin/qemu-ga", &["usr/bin/qemu-ga"]),
    ("sbin/mke2fs", &["usr/sbin/mke2fs"]),
    ("sbin/e2fsck", &["usr/sbin/e2fsck"]),
];
/// Modules that every guest loads, in groups as the guest's program knows them.
const MODULES: [(&str, &[&str]); 2] = [
    (
        "base",
        &[
            "virtio_pci",
            "virtio_blk",
            "virtio_net",
            "virtio_console",
            "virtio_rng",
            "crc32c_generic",
            "ext4",
            "button",
            "evdev",
            "gpio_keys",
        ],
    ),
    ("disks", &["virtio_scsi", "ata_piix", "ahci", "sd_mod", "nvme"]),
];

/// What a base depends on: the same key, the same base. A newer kernel in the
/// archive is no reason to build anew.
pub fn key() -> Result<String> {
    let release = fs::read_to_string("/etc/os-release").context("read /etc/os-release")?;
    let kernel = std::env::var("LIFEBOAT_LAB_KERNEL").unwrap_or_default();
    Ok(format!("{VERSION} {} {kernel} {release}", std::env::consts::ARCH))
}

/// Builds `kernel`, `base.cpio` and `drivers` in `folder`.
pub async fn build(folder: &Path) -> Result<()> {
    let scratch = fresh(&folder.with_extension("scratch"))?;
    let root = scratch.join("root");
    packages::fetch(&PACKAGES, &root, &scratch).await?;
    let kernel = find(&root.join("boot"), "vmlinuz-").context("find the kernel")?;
    fs::copy(&kernel, folder.join("kernel")).context("copy the kernel")?;

    let mut archive = Archive::default();
    for path in ["proc", "sys", "run", "tmp", "data", "var", "etc"] {
        archive.folder(path)?;
    }
    archive.link("var/run", "/run")?;
    archive.file("etc/passwd", 0o644, b"root::0:0:root:/:/bin/sh\n")?;
    archive.file("etc/group", 0o644, b"root::0:\n")?;
    archive.link("etc/mtab", "/proc/mounts")?;
    // A first process has no output without it.
    archive.device("dev/console", (5, 1))?;
    add_busybox(&mut archive, &root).await?;
    add_programs(&mut archive, &root).await?;
    let drivers = add_modules(&mut archive, &root).await?;
    fs::write(folder.join("drivers"), drivers).context("write the list of drivers")?;
    fs::write(folder.join("base.cpio"), archive.finish()?).context("write the base")?;
    fs::remove_dir_all(&scratch).context("remove what was unpacked")
}

fn find(folder: &Path, prefix: &str) -> Option<PathBuf> {
    let mut entries = fs::read_dir(folder).ok()?.flatten();
    let found = entries.find(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    found.map(|entry| entry.path())
}

async fn add_busybox(archive: &mut Archive, root: &Path) -> Result<()> {
    let candidates = ["bin/busybox", "usr/bin/busybox"].map(|path| root.join(path));
    let path = candidates.into_iter().find(|path| path.exists()).context("find busybox")?;
    archive.file("bin/busybox", 0o755, &fs::read(&path).context("read busybox")?)?;
    let names = run(Command::new(&path).arg("--list"), "ask busybox for its names").await?;
    // These are our own program's: it knows the workload, busybox does not.
    let ours = ["busybox", "init", "linuxrc", "shutdown", "poweroff", "reboot", "halt"];
    for name in names.split_whitespace().filter(|name| !ours.contains(name)) {
        archive.link(&format!("bin/{name}"), "/bin/busybox")?;
    }
    Ok(())
}

/// Adds the programs and every shared library that they load.
async fn add_programs(archive: &mut Archive, root: &Path) -> Result<()> {
    let machine = std::env::consts::ARCH;
    let folders: Vec<PathBuf> = ["lib", "usr/lib"]
        .iter()
        .flat_map(|lib| [format!("{lib}/{machine}-linux-gnu"), (*lib).to_owned()])
        .map(|folder| root.join(folder))
        .collect();
    let search: Vec<String> = folders.iter().map(|f| f.display().to_string()).collect();
    let loaders = [
        "lib64/ld-linux-x86-64.so.2",
        "usr/lib64/ld-linux-x86-64.so.2",
        "lib/ld-linux-aarch64.so.1",
        "usr/lib/ld-linux-aarch64.so.1",
    ];
    let loader = loaders.iter().find(|path| root.join(path).is_file());
    let loader = *loader.context("find the dynamic loader")?;
    let target = loader.strip_prefix("usr/").unwrap_or(loader);
    let content = fs::read(root.join(loader)).context("read the dynamic loader")?;
    archive.file(target, 0o755, &content)?;

    let mut added = BTreeSet::new();
    for (name, others) in PROGRAMS {
        let mut paths = std::iter::once(&name).chain(others).map(|path| root.join(path));
        let path = paths.find(|path| path.exists()).with_context(|| format!("find {name}"))?;
        archive.file(name, 0o755, &fs::read(&path).with_context(|| format!("read {name}"))?)?;
        let mut list = Command::new(root.join(loader));
        list.arg("--library-path").arg(search.join(":")).arg("--list").arg(&path);
        let libraries = run(&mut list, "list a program's libraries").await?;
        // "	libm.so.6 => /path/libm.so.6 (0x00007f…)"
        for line in libraries.lines() {
            let Some((library, rest)) = line.trim().split_once(" => ") else {
                continue;
            };
            let from = rest.rsplit_once(" (").map_or(rest, |(path, _)| path);
            if library.starts_with('/') || !added.insert(library.to_owned()) {
                continue;
            }
            let content = fs::read(from).with_context(|| format!("read {from}"))?;
            archive.file(&format!("usr/lib/{library}"), 0o755, &content)?;
        }
    }
    if let Ok(content) = fs::read(root.join("etc/mke2fs.conf")) {
        archive.file("etc/mke2fs.conf", 0o644, &content)?;
    }
    Ok(())
}

/// Returns the names of the drivers that the guest will have, one a line.
async fn add_modules(archive: &mut Archive, root: &Path) -> Result<String> {
    let folders = ["lib/modules", "usr/lib/modules"].map(|path| root.join(path));
    let folder = folders.iter().find_map(|path| find(path, "")).context("find the modules")?;
    let mut files = BTreeMap::new();
    collect_modules(&folder, &mut files).context("list the modules")?;
    let mut loaded = BTreeSet::new();
    for (group, wanted) in MODULES {
        let mut order = Vec::new();
        for name in wanted {
            add_module(archive, name, &files, &mut loaded, &mut order).await?;
        }
        let list: String = order.iter().map(|name| format!("{name}.ko\n")).collect();
        archive.file(&format!("lib/modules/{group}"), 0o644, list.as_bytes())?;
    }
    let built_in = fs::read_to_string(folder.join("modules.builtin")).unwrap_or_default();
    let built_in = built_in.lines().filter_map(|line| line.rsplit('/').next()?.strip_suffix(".ko"));
    loaded.extend(built_in.map(|name| name.replace('-', "_")));
    Ok(loaded.into_iter().map(|name| name + "\n").collect())
}

/// Finds module files by name, with `_` for `-` as the kernel does.
fn collect_modules(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            collect_modules(&entry.path(), files)?;
        } else if let Some((name, _)) = name.split_once(".ko") {
            files.insert(name.replace('-', "_"), entry.path());
        }
    }
    Ok(())
}

/// Adds `name` after what it depends on. A module without a file is built into
/// the kernel, or this kernel has no such driver; both are well.
async fn add_module(
    archive: &mut Archive,
    name: &str,
    files: &BTreeMap<String, PathBuf>,
    loaded: &mut BTreeSet<String>,
    order: &mut Vec<String>,
) -> Result<()> {
    let Some(path) = files.get(name) else {
        return Ok(());
    };
    if !loaded.insert(name.to_owned()) {
        return Ok(());
    }
    let content = read_module(path).await?;
    for needed in dependencies(&content) {
        Box::pin(add_module(archive, &needed, files, loaded, order)).await?;
    }
    archive.file(&format!("lib/modules/{name}.ko"), 0o644, &content)?;
    order.push(name.to_owned());
    Ok(())
}

async fn read_module(path: &Path) -> Result<Vec<u8>> {
    let tool = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => return fs::read(path).with_context(|| format!("read {}", path.display())),
    };
    let mut unpack = Command::new(tool);
    unpack.args(["-d", "-c", "-q"]).arg(path).kill_on_drop(true);
    let output = unpack.output().await.with_context(|| format!("run {tool}"))?;
    crate::run::require_success(&output, || format!("{tool} {}", path.display()))?;
    Ok(output.stdout)
}

/// The `depends=` entry of a module's description.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let value = module[at + KEY.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(value);
    names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_says_what_it_needs() {
        let module = b"\0license=GPL\0depends=net_failover,virtio-ring\0name=virtio_net\0";
        assert_eq!(dependencies(module), ["net_failover", "virtio_ring"]);
        assert!(dependencies(b"\0depends=\0").is_empty());
    }
}
