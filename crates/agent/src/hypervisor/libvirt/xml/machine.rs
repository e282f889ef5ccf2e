//! `<domain>`: a machine. See <https://libvirt.org/formatdomain.html>.

use domain::id::MachineUuid;
use domain::machine::{
    Disk, DiskFormat, DiskSource, Firmware, GuestAgent, Machine, Nic, NicAttachment, PowerState,
};
use roxmltree::{Document, Node};

use super::{XmlError, attribute, child, children, required, size, text};

/// The channel on which QEMU's guest agent listens.
const GUEST_AGENT_CHANNEL: &str = "org.qemu.guest_agent.0";

/// What libvirt tells outside the XML.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aspects {
    /// Whether it runs.
    pub power: PowerState,
    /// Whether libvirt keeps it when it stops.
    pub persistent: bool,
    /// Whether libvirt starts it at boot.
    pub autostart: bool,
}

impl Aspects {
    /// What the description of a machine that is off does not say, and we know.
    pub const OFF: Self = Self { power: PowerState::Off, persistent: true, autostart: false };
}

/// Reads a machine. Sizes of disks are not in the XML and are left open.
///
/// # Errors
/// When it is not XML, or lacks what every machine has.
pub fn parse(xml: &str, aspects: Aspects) -> Result<Machine, XmlError> {
    let document = Document::parse(xml)?;
    let root = document.root_element();
    let missing = |element| XmlError::Missing { object: "a machine", element };
    let devices = child(root, "devices").ok_or(missing("devices"))?;
    Ok(Machine {
        uuid: MachineUuid::new(required(root, "a machine", "uuid")?),
        name: required(root, "a machine", "name")?,
        power: aspects.power,
        persistent: aspects.persistent,
        autostart: aspects.autostart,
        firmware: child(root, "os").map_or(Firmware::Bios, firmware),
        has_tpm: child(devices, "tpm").is_some(),
        passed_through: children(devices, "hostdev").map(passed_through).collect(),
        vcpus: required(root, "a machine", "vcpu")?,
        memory: child(root, "memory").and_then(size).ok_or(missing("memory"))?,
        disks: children(devices, "disk").filter(holds_data).map(disk).collect(),
        nics: children(devices, "interface").map(nic).collect(),
        guest_agent: guest_agent(devices, aspects.power),
    })
}

/// Whom QEMU runs this machine as, `USER:GROUP`: names, or numbers behind a
/// `+`. Only told of a machine that runs, where libvirt changes owners.
///
/// # Errors
/// When it is not XML.
pub fn qemu_user(xml: &str) -> Result<Option<String>, XmlError> {
    let document = Document::parse(xml)?;
    let mut labels = children(document.root_element(), "seclabel");
    let dac = labels.find(|label| label.attribute("model") == Some("dac"));
    Ok(dac.and_then(|dac| text(dac, "label")))
}

fn firmware(os: Node<'_, '_>) -> Firmware {
    if child(os, "kernel").is_some() {
        return Firmware::DirectKernel;
    }
    let loader = child(os, "loader");
    let by_flash = loader.is_some_and(|loader| loader.attribute("type") == Some("pflash"));
    if os.attribute("firmware") != Some("efi") && !by_flash {
        return Firmware::Bios;
    }
    let demanded = child(os, "firmware")
        .into_iter()
        .flat_map(|firmware| children(firmware, "feature"))
        .any(|feature| {
            feature.attribute("name") == Some("secure-boot")
                && feature.attribute("enabled") == Some("yes")
        });
    let by_loader = loader.is_some_and(|loader| loader.attribute("secure") == Some("yes"));
    Firmware::Uefi { secure_boot: demanded || by_loader }
}

/// Removable media are no data of the machine's.
fn holds_data(disk: &Node<'_, '_>) -> bool {
    !matches!(disk.attribute("device"), Some("cdrom" | "floppy"))
}

fn disk(disk: Node<'_, '_>) -> Disk {
    let target = |name| attribute(disk, "target", name);
    let format = attribute(disk, "driver", "type").unwrap_or_else(|| "raw".to_owned());
    Disk {
        target: target("dev").unwrap_or_default(),
        bus: target("bus").unwrap_or_else(|| "unknown".to_owned()),
        serial: text(disk, "serial"),
        source: disk_source(disk),
        format: match format.as_str() {
            "qcow2" => DiskFormat::Qcow2,
            "raw" => DiskFormat::Raw,
            _ => DiskFormat::Other(format),
        },
        capacity: None,
        allocation: None,
        read_only: child(disk, "readonly").is_some(),
        shareable: child(disk, "shareable").is_some(),
        raw_device: disk.attribute("device") == Some("lun"),
    }
}

fn disk_source(disk: Node<'_, '_>) -> DiskSource {
    let kind = disk.attribute("type").unwrap_or("none");
    let of_source = |name| attribute(disk, "source", name);
    let known = match kind {
        "file" => of_source("file").map(DiskSource::File),
        "block" => of_source("dev").map(DiskSource::Block),
        "volume" => of_source("pool")
            .zip(of_source("volume"))
            .map(|(pool, volume)| DiskSource::Volume { pool, volume }),
        "network" => of_source("protocol").map(|protocol| DiskSource::Network {
            protocol,
            name: of_source("name").unwrap_or_default(),
        }),
        _ => None,
    };
    known.unwrap_or_else(|| DiskSource::Other(kind.to_owned()))
}

fn nic(interface: Node<'_, '_>) -> Nic {
    let of_source = |name| attribute(interface, "source", name);
    let kind = interface.attribute("type").unwrap_or("unknown");
    let known = match kind {
        "network" => of_source("network").map(NicAttachment::Network),
        "bridge" => of_source("bridge").map(NicAttachment::Bridge),
        _ => None,
    };
    Nic {
        mac: attribute(interface, "mac", "address").unwrap_or_default(),
        attachment: known.unwrap_or_else(|| NicAttachment::Other(kind.to_owned())),
        model: attribute(interface, "model", "type"),
        link_up: attribute(interface, "link", "state").as_deref() != Some("down"),
    }
}

fn passed_through(device: Node<'_, '_>) -> String {
    let kind = device.attribute("type").unwrap_or("unknown");
    let address = child(device, "source").and_then(|source| child(source, "address"));
    let part = |name: &str| {
        address
            .and_then(|address| address.attribute(name))
            .map(|text| text.trim_start_matches("0x"))
    };
    match (part("domain"), part("bus"), part("slot"), part("function")) {
        (Some(domain), Some(bus), Some(slot), Some(function)) => {
            format!("{kind} device {domain}:{bus}:{slot}.{function}")
        }
        _ => match part("uuid") {
            Some(uuid) => format!("{kind} device {uuid}"),
            None => format!("{kind} device"),
        },
    }
}

fn guest_agent(devices: Node<'_, '_>, power: PowerState) -> GuestAgent {
    let channel = children(devices, "channel")
        .filter_map(|channel| child(channel, "target"))
        .find(|target| target.attribute("name") == Some(GUEST_AGENT_CHANNEL));
    match channel {
        None => GuestAgent::NoChannel,
        // The state in the XML of a machine that is off is that of its last run.
        Some(target)
            if target.attribute("state") == Some("connected") && power != PowerState::Off =>
        {
            GuestAgent::Connected
        }
        Some(_) => GuestAgent::NotAnswering,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNNING: Aspects =
        Aspects { power: PowerState::Running, persistent: true, autostart: false };

    fn machine(os: &str, devices: &str) -> Machine {
        let xml = format!(
            "<domain type='qemu' id='1'><name>web</name>
             <uuid>3c2b9f3e-0000-4000-8000-000000000004</uuid>
             <memory unit='KiB'>131072</memory><vcpu placement='static'>2</vcpu>
             <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type>{os}</os>
             <devices>{devices}</devices></domain>"
        );
        parse(&xml, RUNNING).unwrap()
    }

    #[test]
    fn disks_come_in_order_and_without_removable_media() {
        let machine = machine(
            "<boot dev='hd'/>",
            "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>
               <source file='/images/a.qcow2' index='2'/><backingStore/>
               <target dev='vda' bus='virtio'/><serial>A1</serial></disk>
             <disk type='file' device='cdrom'><target dev='sda' bus='sata'/><readonly/></disk>
             <disk type='block' device='lun'><driver name='qemu' type='raw'/>
               <source dev='/dev/sdx'/><target dev='sdb' bus='scsi'/><shareable/></disk>
             <disk type='network' device='disk'><driver name='qemu' type='raw'/>
               <source protocol='rbd' name='pool/web'><host name='m' port='6789'/></source>
               <target dev='vdb' bus='virtio'/></disk>
             <disk type='volume' device='disk'><driver name='qemu' type='vmdk'/>
               <source pool='default' volume='b.vmdk'/><target dev='vdc' bus='virtio'/></disk>",
        );
        let shown: Vec<_> = machine
            .disks
            .iter()
            .map(|disk| {
                format!(
                    "{} {} {} {}{}{}",
                    disk.target,
                    disk.bus,
                    disk.source,
                    disk.format,
                    if disk.shareable { " shareable" } else { "" },
                    if disk.raw_device { " raw-device" } else { "" },
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                "vda virtio /images/a.qcow2 qcow2",
                "sdb scsi /dev/sdx raw shareable raw-device",
                "vdb virtio rbd:pool/web raw",
                "vdc virtio default/b.vmdk vmdk",
            ]
        );
        assert_eq!(machine.disks[0].serial.as_deref(), Some("A1"));
        assert_eq!((machine.vcpus, machine.memory.bytes()), (2, 128 << 20));
    }

    #[test]
    fn nics_say_where_they_are_plugged_in() {
        let machine = machine(
            "",
            "<interface type='network'><mac address='52:54:00:00:00:01'/>
               <source network='default' portid='x' bridge='virbr0'/><model type='virtio'/></interface>
             <interface type='bridge'><mac address='52:54:00:00:00:02'/><source bridge='br0'/>
               <link state='down'/></interface>
             <interface type='user'><mac address='52:54:00:00:00:03'/></interface>",
        );
        let shown: Vec<_> = machine
            .nics
            .iter()
            .map(|nic| format!("{} {} {}", nic.mac, nic.attachment, nic.link_up))
            .collect();
        assert_eq!(
            shown,
            [
                "52:54:00:00:00:01 default true",
                "52:54:00:00:00:02 bridge br0 false",
                "52:54:00:00:00:03 (user) true",
            ]
        );
    }

    #[test]
    fn firmware_is_told_apart_however_it_was_asked_for() {
        let firmware = |os| machine(os, "").firmware;
        assert_eq!(firmware("<boot dev='hd'/>"), Firmware::Bios);
        assert_eq!(
            firmware("<loader readonly='yes' type='rom'>/bios.bin</loader>"),
            Firmware::Bios
        );
        assert_eq!(
            firmware("<kernel>/vmlinuz</kernel><initrd>/initrd</initrd>"),
            Firmware::DirectKernel
        );
        assert_eq!(
            firmware("<loader readonly='yes' secure='yes' type='pflash'>/OVMF.fd</loader>"),
            Firmware::Uefi { secure_boot: true }
        );
        let automatic = machine("", "");
        assert_eq!(automatic.firmware, Firmware::Bios);
        let xml = "<domain><name>w</name><uuid>3c2b9f3e-0000-4000-8000-000000000004</uuid>
            <memory unit='GiB'>1</memory><vcpu>1</vcpu>
            <os firmware='efi'><firmware><feature enabled='yes' name='secure-boot'/></firmware></os>
            <devices/></domain>";
        assert_eq!(parse(xml, RUNNING).unwrap().firmware, Firmware::Uefi { secure_boot: true });
    }

    #[test]
    fn what_ties_a_machine_to_its_host_is_seen() {
        let machine = machine(
            "",
            "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>
             <hostdev mode='subsystem' type='pci' managed='yes'><source>
               <address domain='0x0000' bus='0x03' slot='0x00' function='0x0'/></source></hostdev>
             <hostdev mode='subsystem' type='usb'><source><vendor id='0x1'/></source></hostdev>",
        );
        assert!(machine.has_tpm);
        assert_eq!(machine.passed_through, ["pci device 0000:03:00.0", "usb device"]);
    }

    #[test]
    fn the_guest_agent_answers_only_in_a_machine_that_runs() {
        let channel = |state: &str| {
            format!(
                "<channel type='unix'><source mode='bind' path='/x'/>
                 <target type='virtio' name='org.qemu.guest_agent.0'{state}/></channel>"
            )
        };
        let agent = |devices: &str| machine("", devices).guest_agent;
        assert_eq!(agent(""), GuestAgent::NoChannel);
        assert_eq!(agent(&channel("")), GuestAgent::NotAnswering);
        assert_eq!(agent(&channel(" state='disconnected'")), GuestAgent::NotAnswering);
        assert_eq!(agent(&channel(" state='connected'")), GuestAgent::Connected);
    }

    #[test]
    fn whom_qemu_runs_as_stands_in_its_label() {
        let xml = "<domain><seclabel type='dynamic' model='apparmor'><label>x</label></seclabel>
            <seclabel type='dynamic' model='dac' relabel='yes'>
              <label>+64055:+993</label><imagelabel>+64055:+993</imagelabel></seclabel></domain>";
        assert_eq!(qemu_user(xml), Ok(Some("+64055:+993".to_owned())));
        assert_eq!(qemu_user("<domain/>"), Ok(None));
    }

    #[test]
    fn xml_that_is_no_machine_is_an_error_that_says_so() {
        assert_eq!(
            parse("<domain><devices/></domain>", RUNNING).unwrap_err().to_string(),
            "libvirt's XML of a machine has no usable <uuid>"
        );
        assert!(matches!(parse("<domain>", RUNNING), Err(XmlError::Malformed(_))));
    }
}
