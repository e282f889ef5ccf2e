//! What the host itself is.

use std::fs;

use domain::host::HostFacts;
use domain::units::ByteCount;

use super::error::LibvirtError;
use super::ffi;
use super::xml;

/// Asks libvirt and the operating system what this host is.
///
/// # Errors
/// Whatever libvirt said.
pub(super) fn facts(connection: &ffi::Connection) -> Result<HostFacts, LibvirtError> {
    let capabilities = xml::capabilities::parse(&connection.capabilities()?)?;
    let node = connection.node()?;
    let kernel = nix::sys::utsname::uname()
        .map(|names| names.release().to_string_lossy().into_owned())
        .unwrap_or_default();
    Ok(HostFacts {
        hostname: connection.hostname()?,
        hypervisor_uuid: capabilities.host_uuid,
        operating_system: operating_system(),
        kernel,
        architecture: capabilities.architecture,
        cpu_model: capabilities.cpu_model.unwrap_or(node.model),
        cpus: node.cpus,
        memory: ByteCount::from_kib(node.memory_kib),
        kvm: capabilities.kvm,
        libvirt: connection.libvirt_version()?,
        qemu: connection.hypervisor_version()?,
    })
}

/// The name that the operating system gives itself; see os-release(5).
fn operating_system() -> String {
    ["/etc/os-release", "/usr/lib/os-release"]
        .iter()
        .find_map(|path| fs::read_to_string(path).ok())
        .and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
            Some(line.trim_matches(['"', '\'']).to_owned())
        })
        .unwrap_or_else(|| "Linux".to_owned())
}
