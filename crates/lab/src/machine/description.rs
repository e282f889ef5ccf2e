//! The description of a machine as libvirt wants it.

use std::fmt::Write as _;

use guest::parameters::{Interface, Parameters};

use super::spec::{Bus, GuestSpec, PORTS};
use crate::Acceleration;
use crate::image::{INITRD, KERNEL};

/// What the emulated machine is, by the host's architecture.
struct Board {
    arch: &'static str,
    machine: &'static str,
    /// Names of the first and the second serial port in the guest.
    console: &'static str,
    port: &'static str,
    /// Kind of the second serial port.
    port_kind: &'static str,
}

#[cfg(target_arch = "aarch64")]
const BOARD: Board = Board {
    arch: "aarch64",
    machine: "virt",
    console: "ttyAMA0",
    port: "ttyS0",
    port_kind: "pci-serial",
};
#[cfg(not(target_arch = "aarch64"))]
const BOARD: Board = Board {
    arch: "x86_64",
    machine: "pc",
    console: "ttyS0",
    port: "ttyS1",
    port_kind: "isa-serial",
};

/// Words that shorten a boot under emulation by a third: no self-tests of
/// ciphers, no certificates, no probes for what is not there.
const QUICK: &str = "quiet panic=-1 cryptomgr.notests tsc=reliable apparmor=0 lsm= \
    mitigations=off no_timer_check ipv6.disable=1 8250.nr_uarts=4 \
    initcall_blacklist=init_kprobe_trace,load_system_certificate_list";

/// The XML that `virsh define` reads.
pub(super) fn domain(spec: &GuestSpec, acceleration: Acceleration) -> String {
    let kind = match acceleration {
        Acceleration::Kvm => "kvm",
        Acceleration::Emulated => "qemu",
    };
    let Board { arch, machine, .. } = BOARD;
    let (firmware, features) = match spec.uefi {
        true => {
            (" firmware='efi'", "<firmware><feature enabled='no' name='secure-boot'/></firmware>")
        }
        false => ("", ""),
    };
    format!(
        "<domain type='{kind}'>\
         <name>{name}</name><uuid>{uuid}</uuid>\
         <memory unit='MiB'>{memory}</memory><vcpu>{processors}</vcpu>\
         <os{firmware}><type arch='{arch}' machine='{machine}'>hvm</type>{features}\
         <kernel>{KERNEL}</kernel><initrd>{INITRD}</initrd>\
         <cmdline>{command_line}</cmdline></os>\
         <features><acpi/></features>{cpu}\
         <on_poweroff>destroy</on_poweroff><on_reboot>restart</on_reboot>\
         <on_crash>destroy</on_crash>\
         <devices>{devices}</devices></domain>",
        name = spec.name,
        uuid = spec.uuid,
        memory = spec.memory,
        processors = spec.processors,
        command_line = command_line(spec),
        cpu = cpu(acceleration),
        devices = devices(spec),
    )
}

fn cpu(acceleration: Acceleration) -> &'static str {
    match acceleration {
        Acceleration::Kvm => "<cpu mode='host-passthrough'/>",
        // Emulating the newest processor makes every boot slower. Without its
        // random numbers the guest would wait for some.
        Acceleration::Emulated if cfg!(target_arch = "x86_64") => {
            "<cpu mode='custom' match='exact' check='none'><model>qemu64</model>\
             <feature policy='require' name='rdrand'/></cpu>"
        }
        Acceleration::Emulated => "<cpu mode='maximum'/>",
    }
}

fn command_line(spec: &GuestSpec) -> String {
    let nics = spec.resolved_nics();
    let interface = |(nic, mac): (super::Nic, String)| Interface { mac, address: nic.address };
    let parameters = Parameters {
        name: spec.name.clone(),
        disks: u16::try_from(spec.disks.len()).expect("a machine has few disks"),
        port: BOARD.port.to_owned(),
        interfaces: nics.into_iter().map(interface).collect(),
        workload: spec.workload,
        overwrite: spec.overwrite,
        check_filesystems: spec.check_filesystems,
    };
    format!("console={} {QUICK} {parameters}", BOARD.console)
}

fn devices(spec: &GuestSpec) -> String {
    let mut xml = String::from("<controller type='usb' model='none'/>");
    if spec.bus == Bus::Scsi {
        xml.push_str("<controller type='scsi' model='virtio-scsi'/>");
    }
    let (prefix, bus) = match spec.bus {
        Bus::Virtio => ("vd", "virtio"),
        Bus::Scsi => ("sd", "scsi"),
        Bus::Sata => ("sd", "sata"),
        Bus::Ide => ("hd", "ide"),
    };
    for ((disk, index), letter) in spec.disks.iter().zip(0..).zip('a'..='z') {
        let (format, file) = (disk.format.name(), spec.disk_file(index));
        add(
            &mut xml,
            format_args!(
                "<disk type='file' device='disk'><driver name='qemu' type='{format}'/>\
                 <source file='{file}'/><target dev='{prefix}{letter}' bus='{bus}'/>\
                 <serial>data{index}</serial></disk>"
            ),
        );
    }
    for (nic, mac) in spec.resolved_nics() {
        let network = nic.network;
        add(
            &mut xml,
            format_args!(
                "<interface type='network'><mac address='{mac}'/>\
                 <source network='{network}'/><model type='virtio'/></interface>"
            ),
        );
    }
    let (name, kind) = (&spec.name, BOARD.port_kind);
    add(
        &mut xml,
        format_args!(
            "<serial type='file'><source path='{PORTS}/{name}.console' append='on'/>\
             <target port='0'/></serial>\
             <serial type='file'><source path='{PORTS}/{name}.port' append='on'/>\
             <target type='{kind}' port='1'/></serial>"
        ),
    );
    xml.push_str(
        "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>\
         <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>\
         <memballoon model='none'/>",
    );
    xml
}

fn add(xml: &mut String, part: std::fmt::Arguments<'_>) {
    xml.write_fmt(part).expect("a string takes everything");
}
