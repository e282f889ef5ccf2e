//! Devices other than disks: NICs by wish, and nothing of the other host's.

use std::path::{Path, PathBuf};

use super::super::tree::Element;
use super::{Unfit, Wish};

/// Of a NIC, what the guest sees or what is not about the network.
const NIC_KEPT: [&str; 11] = [
    "mac", "model", "driver", "boot", "address", "alias", "mtu", "rom", "coalesce", "acpi", "link",
];

pub(super) fn adapt(
    devices: &mut Element,
    wish: &Wish<'_>,
    old_name: &str,
    exists: &dyn Fn(&Path) -> bool,
    remarks: &mut Vec<String>,
) -> Result<(), Unfit> {
    // An emulated one's secrets, too, lie in a file of the other host's.
    if devices.child("tpm").is_some() {
        return Err(Unfit::Tpm);
    }
    if devices.child("emulator").is_some_and(|emulator| !exists(Path::new(&emulator.text()))) {
        devices.remove("emulator");
    }
    let before = devices.elements().filter(|element| element.name == "hostdev").count();
    if before > 0 {
        devices.remove("hostdev");
        remarks.push(format!("{before} devices of the other host's are not passed through"));
    }
    let shares = devices.remove("filesystem");
    if shares > 0 {
        remarks.push(format!("{shares} folders of the other host's are not shared"));
    }
    if devices.retain(|element| !is_host_nic(element)) > 0 {
        remarks.push("a NIC of the other host's is not passed through".into());
    }
    for device in devices.elements_mut() {
        match device.name.as_str() {
            "interface" => nic(device, wish, remarks),
            "serial" | "parallel" | "console" => port(device, wish, old_name, exists, remarks),
            "channel" if device.attribute("type") == Some("unix") => {
                // libvirt chooses a path here.
                device.remove("source");
            }
            "graphics" => screen(device, wish.alias.is_some()),
            "rng" => random(device, exists),
            _ => {}
        }
    }
    Ok(())
}

fn is_host_nic(element: &Element) -> bool {
    element.name == "interface"
        && matches!(element.attribute("type"), Some("hostdev" | "vdpa" | "vhostuser"))
}

fn nic(nic: &mut Element, wish: &Wish<'_>, remarks: &mut Vec<String>) {
    let mac = nic.of_child("mac", "address").unwrap_or_default().to_owned();
    let network = wish.nics.iter().find(|(of, _)| of.eq_ignore_ascii_case(&mac));
    if nic.child("filterref").is_some() {
        remarks.push(format!("the filter of NIC {mac} is not set: filters are this host's own"));
    }
    nic.retain(|element| NIC_KEPT.contains(&element.name.as_str()));
    nic.unset("trustGuestRxFilters");
    match network {
        Some((_, network)) => {
            nic.set("type", "network");
            nic.push(Element::new("source").with("network", network));
        }
        None => {
            // The one kind that needs nothing of the host; its cable is out.
            nic.set("type", "user");
            nic.remove("link");
            nic.push(Element::new("link").with("state", "down"));
            // A test's are meant to be.
            if wish.alias.is_none() {
                remarks.push(format!("NIC {mac} is disconnected"));
            }
        }
    }
}

/// A serial port or the like: a file stays a file where its folder exists; what
/// else it was led to is the other host's.
fn port(
    port: &mut Element,
    wish: &Wish<'_>,
    old_name: &str,
    exists: &dyn Fn(&Path) -> bool,
    remarks: &mut Vec<String>,
) {
    let kind = port.attribute("type").unwrap_or("pty").to_owned();
    match kind.as_str() {
        "pty" => {
            port.remove("source");
        }
        "file" => {
            let path = port.of_child("source", "path").unwrap_or_default().to_owned();
            let path = PathBuf::from(path);
            if !path.parent().is_some_and(exists) {
                to_terminal(port, &kind, remarks);
            } else if let (Some((name, _)), Some(source)) = (wish.alias, port.child_mut("source")) {
                source.set("path", &renamed(&path, old_name, name).to_string_lossy());
            }
        }
        "null" | "vc" | "stdio" | "spicevmc" | "spiceport" | "qemu-vdagent" => {}
        _ => to_terminal(port, &kind, remarks),
    }
}

fn to_terminal(port: &mut Element, kind: &str, remarks: &mut Vec<String>) {
    port.set("type", "pty");
    for gone in ["source", "log", "protocol"] {
        port.remove(gone);
    }
    remarks.push(format!(
        "a {} port of the kind {kind} leads to a terminal (virsh console)",
        port.name
    ));
}

/// A path that is the test's own: two machines must not write to one file.
fn renamed(path: &Path, old: &str, new: &str) -> PathBuf {
    let file = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let file = file.unwrap_or_default();
    let own = match file.contains(old) && !old.is_empty() {
        true => file.replacen(old, new, 1),
        false => format!("{file}.{new}"),
    };
    path.with_file_name(own)
}

fn screen(screen: &mut Element, is_test: bool) {
    let everywhere = |address: &str| {
        matches!(address, "" | "0.0.0.0" | "127.0.0.1" | "::" | "::1" | "localhost")
    };
    if !everywhere(screen.attribute("listen").unwrap_or_default()) {
        screen.unset("listen");
    }
    screen.retain(|listen| {
        listen.name != "listen"
            || (listen.attribute("type") == Some("none")
                || everywhere(listen.attribute("address").unwrap_or_default())
                    && listen.attribute("type") == Some("address"))
    });
    // Its number belongs to the production machine.
    if is_test && screen.unset("port") {
        screen.unset("tlsPort");
        screen.set("autoport", "yes");
    }
}

fn random(random: &mut Element, exists: &dyn Fn(&Path) -> bool) {
    let Some(backend) = random.child_mut("backend") else { return };
    let is_file = backend.attribute("model") == Some("random");
    if is_file && !exists(Path::new(&backend.text())) {
        backend.set_text("/dev/urandom");
    }
}
