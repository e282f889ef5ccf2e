//! Whether a lab can run on this machine.

use std::path::Path;
use std::{env, fs};

/// Programs that a lab calls, each with the Debian package that has it.
const PROGRAMS: [(&str, &str); 14] = [
    ("apt-get", "apt"),
    ("bridge", "iproute2"),
    ("busybox", "busybox-static"),
    ("dnsmasq", "dnsmasq-base"),
    ("dpkg-deb", "dpkg"),
    ("ip", "iproute2"),
    ("libvirtd", "libvirt-daemon"),
    ("qemu-img", "qemu-utils"),
    (QEMU, QEMU_PACKAGE),
    ("tc", "iproute2"),
    ("virsh", "libvirt-clients"),
    ("virtlogd", "libvirt-daemon"),
    ("xz", "xz-utils"),
    ("zstd", "zstd"),
];

/// QEMU for guests of this machine's own architecture.
pub(crate) const QEMU: &str =
    if cfg!(target_arch = "aarch64") { "qemu-system-aarch64" } else { "qemu-system-x86_64" };
const QEMU_PACKAGE: &str =
    if cfg!(target_arch = "aarch64") { "qemu-system-arm" } else { "qemu-system-x86" };

/// Why no lab can run here, with what to do about it; none when one can.
#[must_use]
pub fn absent() -> Option<String> {
    if !cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
        return Some("guests exist for x86_64 and aarch64 only".to_owned());
    }
    if !nix::unistd::geteuid().is_root() {
        return Some("it needs root, for namespaces and libvirt; run it with sudo".to_owned());
    }
    let missing = PROGRAMS.into_iter().find(|(program, _)| !in_path(program));
    if let Some((program, package)) = missing {
        return Some(format!("{program} is missing; apt-get install {package}"));
    }
    let drivers = ["qemu", "network", "storage"];
    if let Some(driver) = drivers.into_iter().find(|driver| !has_driver(driver)) {
        return Some(format!(
            "libvirt has no {driver} driver; apt-get install libvirt-daemon-system \
             libvirt-daemon-driver-qemu"
        ));
    }
    for kind in ["pid", "net", "mnt", "uts", "ipc"] {
        if !Path::new("/proc/self/ns").join(kind).exists() {
            return Some(format!("the kernel has no {kind} namespaces"));
        }
    }
    None
}

/// Skips a test loudly where no lab can run, and fails it where one must:
/// under `CI`.
///
/// ```no_run
/// # async fn story() -> anyhow::Result<()> {
/// if lab::skipped("a machine survives its site") {
///     return Ok(());
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Panics
/// When no lab can run here and the environment has `CI`.
#[must_use]
pub fn skipped(story: &str) -> bool {
    let Some(reason) = absent() else {
        return false;
    };
    assert!(
        env::var_os("CI").is_none_or(|ci| ci.is_empty()),
        "{story}: no lab can run here, but CI is set: {reason}"
    );
    eprintln!("SKIPPED {story}: no lab can run here: {reason}");
    true
}

fn in_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Debian splits libvirt's drivers into packages; each is one shared object.
fn has_driver(name: &str) -> bool {
    let file = format!("libvirt/connection-driver/libvirt_driver_{name}.so");
    let libraries = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let mut folders = libraries.map(|entry| entry.path()).chain([Path::new("/usr/lib64").into()]);
    folders.any(|folder| folder.join(&file).exists())
}
