//! What is around the devices: processor, machine type, firmware, and what ties
//! a machine to the processors and memory of one host.

use std::path::Path;

use super::super::tree::Element;
use super::{Host, Unfit};

pub(super) fn adapt(
    domain: &mut Element,
    host: &Host,
    nvram: &str,
    exists: &dyn Fn(&Path) -> bool,
    remarks: &mut Vec<String>,
) -> Result<(), Unfit> {
    if domain.attribute("type") == Some("kvm") && !host.kvm {
        domain.set("type", "qemu");
        remarks.push("this host has no KVM: the machine is emulated, and slow".into());
    }
    if let Some(os) = domain.child_mut("os") {
        machine_type(os, host, remarks);
        firmware(os, nvram, exists, remarks)?;
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
    Ok(())
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

fn firmware(
    os: &mut Element,
    nvram: &str,
    exists: &dyn Fn(&Path) -> bool,
    remarks: &mut Vec<String>,
) -> Result<(), Unfit> {
    let mut has_variables = false;
    if os.attribute("firmware").is_some() {
        // Chosen anew among what this host has.
        has_variables = os.attribute("firmware") == Some("efi");
        os.remove("loader");
        os.remove("nvram");
    } else if let Some(loader) = os.child("loader") {
        let file = loader.text();
        if !file.is_empty() && !exists(Path::new(&file)) {
            return Err(Unfit::File(file));
        }
        has_variables = os.child("nvram").is_some();
    }
    if has_variables {
        let mut variables = Element::new("nvram");
        if let Some(template) = os.of_child("nvram", "template") {
            variables.set("template", template);
        }
        variables.set_text(nvram);
        os.remove("nvram");
        os.push(variables);
        remarks.push(
            "the variables of its UEFI firmware are not in the point: it starts with fresh ones, and boots what its disks offer".into(),
        );
    }
    Ok(())
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
