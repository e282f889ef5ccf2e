//! What is around the devices: processor, machine type, firmware, and what ties
//! a machine to the processors and memory of one host.

use std::path::Path;

use super::super::tree::Element;
use super::super::variables::Variables;
use super::{Host, Unfit};

pub(super) fn adapt(
    domain: &mut Element,
    host: &Host,
    flash: Flash<'_>,
    exists: &dyn Fn(&Path) -> bool,
    remarks: &mut Vec<String>,
) -> Result<Option<Vec<u8>>, Unfit> {
    let mut variables = None;
    if domain.attribute("type") == Some("kvm") && !host.kvm {
        domain.set("type", "qemu");
        remarks.push("this host has no KVM: the machine is emulated, and slow".into());
    }
    if let Some(os) = domain.child_mut("os") {
        machine_type(os, host, remarks);
        variables = firmware(os, flash, exists, remarks)?;
        for name in ["kernel", "initrd", "dtb"] {
            let file = os.child(name).map(Element::text).unwrap_or_default();
            if !file.is_empty() && !exists(Path::new(&file)) {
                return Err(Unfit::File(file));
            }
        }
    }
    if let Some(cpu) = domain.child_mut("cpu") {
        processor(cpu, remarks);
    }
    unpin(domain, remarks);
    // A guest that knows generations sees that it was set back in time.
    if let Some(generation) = domain.child_mut("genid") {
        generation.inside.clear();
    }
    let before = domain.inside.len();
    domain
        .retain(|element| element.name != "seclabel" || element.attribute("type") == Some("none"));
    if domain.inside.len() < before {
        remarks.push("labels for SELinux or AppArmor are this host's own".into());
    }
    Ok(variables)
}

fn machine_type(os: &mut Element, host: &Host, remarks: &mut Vec<String>) {
    let Some(kind) = os.child_mut("type") else { return };
    let Some(machine) = kind.attribute("machine").map(ToOwned::to_owned) else { return };
    if host.machine_types.is_empty() || host.machine_types.contains(&machine) {
        return;
    }
    let family = match machine.as_str() {
        name if name.contains("q35") => "q35",
        name if name.starts_with("pc") => "pc",
        name => name.split('-').next().unwrap_or(name),
    };
    if host.machine_types.contains(family) {
        kind.set("machine", family);
        remarks.push(format!(
            "this host has no machine type {machine}: it is the newest {family}, and the guest may find its devices anew"
        ));
    }
}

/// The flash with the variables of UEFI firmware.
pub(super) struct Flash<'a> {
    /// Where they go.
    pub nvram: &'a str,
    /// What the point has of them.
    pub carried: Variables,
}

/// What goes into the flash; fresh ones of the firmware without.
fn firmware(
    os: &mut Element,
    flash: Flash<'_>,
    exists: &dyn Fn(&Path) -> bool,
    remarks: &mut Vec<String>,
) -> Result<Option<Vec<u8>>, Unfit> {
    let loader = os.child("loader").map(Element::text).unwrap_or_default();
    let is_here = !loader.is_empty() && exists(Path::new(&loader));
    let chosen_by_libvirt = os.attribute("firmware").map(|kind| kind == "efi");
    let has_variables = match chosen_by_libvirt {
        Some(is_efi) => is_efi,
        None if loader.is_empty() => false,
        None if !is_here => return Err(Unfit::File(loader)),
        None => os.child("nvram").is_some(),
    };
    let format = os.of_child("nvram", "format").map(ToOwned::to_owned);
    let template = os.of_child("nvram", "template").map(ToOwned::to_owned);
    let fresh = |why: &str, remarks: &mut Vec<String>| {
        remarks.push(format!(
            "the variables of its UEFI firmware {why}: it starts with fresh ones, and boots what its disks offer"
        ));
        None
    };
    let carried = match flash.carried {
        _ if !has_variables => None,
        Variables::Carried(_) if !is_here && !loader.is_empty() => {
            fresh(&format!("are those of {loader}, which this host has not"), remarks)
        }
        Variables::Carried(bytes) => Some(bytes),
        Variables::Missing(why) => fresh(&format!("are not in the point ({why})"), remarks),
        Variables::None => fresh("are not in the point", remarks),
    };
    if chosen_by_libvirt.is_some() {
        if carried.is_some() && is_here {
            // The very firmware whose variables they are.
            os.unset("firmware");
            os.remove("firmware");
        } else {
            // Chosen anew among what this host has.
            os.remove("loader");
        }
    }
    if has_variables || chosen_by_libvirt.is_some() {
        os.remove("nvram");
    }
    if has_variables {
        let mut nvram = Element::new("nvram");
        nvram.set_text(flash.nvram);
        match (&carried, format, template) {
            (Some(_), Some(format), _) => nvram.set("format", &format),
            (None, _, Some(template)) if chosen_by_libvirt.is_none() => {
                nvram.set("template", &template);
            }
            _ => {}
        }
        os.push(nvram);
    }
    Ok(carried)
}

fn processor(cpu: &mut Element, remarks: &mut Vec<String>) {
    if cpu.attribute("mode") == Some("host-passthrough") {
        cpu.set("mode", "host-model");
        cpu.set("check", "partial");
        cpu.unset("migratable");
        remarks.push(
            "its processor was the other host's own (host-passthrough); it is this host's model now"
                .into(),
        );
    }
}

/// Takes away what ties it to processors and memory of the other host.
fn unpin(domain: &mut Element, remarks: &mut Vec<String>) {
    let mut gone = domain.remove("numatune");
    if let Some(vcpu) = domain.child_mut("vcpu") {
        gone += usize::from(vcpu.unset("cpuset"));
    }
    if let Some(tuning) = domain.child_mut("cputune") {
        let pins = ["vcpupin", "emulatorpin", "iothreadpin", "cachetune", "memorytune"];
        gone += tuning.retain(|element| !pins.contains(&element.name.as_str()));
    }
    if let Some(memory) = domain.child_mut("memoryBacking") {
        gone += memory.remove("hugepages");
    }
    if gone > 0 {
        remarks.push("it is pinned to no processors and has no huge pages of this host".into());
    }
}
