//! Disks: those of the point in the place of those of the other host.

use std::collections::BTreeSet;
use std::path::Path;

use super::super::tree::Element;
use super::{DiskPlace, Unfit, read};

/// For so long, in seconds, QEMU holds requests back while the agent that serves
/// a point's disks is away; afterwards the guest sees errors. An agent that is
/// upgraded or starts anew is there within seconds.
const RECONNECT_SECONDS: u32 = 3600;
/// What stays of how QEMU treats a disk's file; the rest is about the old one.
const DRIVER_KEPT: [&str; 9] = [
    "name",
    "cache",
    "discard",
    "detect_zeroes",
    "error_policy",
    "rerror_policy",
    "iothread",
    "queues",
    "discard_no_unref",
];

/// Targets of the disks that are in points, in order.
///
/// # Errors
/// When it is no machine's configuration.
pub fn data_disks(configuration: &str) -> Result<Vec<String>, Unfit> {
    let domain = read(configuration)?;
    let devices = domain.child("devices").ok_or(Unfit::NoMachine)?;
    let disks = devices.elements().filter(|element| holds_data(element));
    Ok(disks.map(target).collect())
}

/// A configuration without some disks, which points do not have.
///
/// # Errors
/// When it is no machine's configuration.
pub fn without_disks(configuration: &str, targets: &BTreeSet<String>) -> Result<String, Unfit> {
    let mut domain = read(configuration)?;
    let devices = domain.child_mut("devices").ok_or(Unfit::NoMachine)?;
    devices.retain(|element| !(holds_data(element) && targets.contains(&target(element))));
    Ok(domain.to_string())
}

/// Whether a disk of a machine lies below a folder.
///
/// # Errors
/// When it is no machine's configuration.
pub fn stands_below(configuration: &str, folder: &Path) -> Result<bool, Unfit> {
    let domain = read(configuration)?;
    let devices = domain.child("devices").ok_or(Unfit::NoMachine)?;
    let mut files = devices.elements().filter_map(|disk| disk.of_child("source", "file"));
    Ok(files.any(|file| Path::new(file).starts_with(folder)))
}

/// Targets of the disks that stand on a view of a point.
///
/// # Errors
/// When it is no machine's configuration.
pub fn standing_on_views(configuration: &str) -> Result<Vec<String>, Unfit> {
    let domain = read(configuration)?;
    let devices = domain.child("devices").ok_or(Unfit::NoMachine)?;
    let on_view = |disk: &&Element| {
        holds_data(disk) && disk.of_child("backingStore", "type") == Some("network")
    };
    Ok(devices.elements().filter(on_view).map(target).collect())
}

/// The configuration of a machine whose disks stand on nothing else.
///
/// # Errors
/// When it is no machine's configuration.
pub fn without_backing(configuration: &str) -> Result<String, Unfit> {
    let mut domain = read(configuration)?;
    let devices = domain.child_mut("devices").ok_or(Unfit::NoMachine)?;
    for disk in devices.elements_mut().filter(|element| holds_data(element)) {
        disk.remove("backingStore");
        disk.push(Element::new("backingStore"));
    }
    Ok(domain.to_string())
}

fn holds_data(element: &Element) -> bool {
    element.name == "disk" && !matches!(element.attribute("device"), Some("cdrom" | "floppy"))
}

fn target(disk: &Element) -> String {
    disk.of_child("target", "dev").unwrap_or_default().to_owned()
}

pub(super) fn replace(
    devices: &mut Element,
    places: &[DiskPlace],
    remarks: &mut Vec<String>,
) -> Result<(), Unfit> {
    let told: Vec<String> = devices.elements().filter(|e| holds_data(e)).map(target).collect();
    if told.len() != places.len() || told.iter().zip(places).any(|(a, b)| *a != b.target) {
        return Err(Unfit::Disks { disks: places.len(), told: told.len() });
    }
    let disks = devices.elements_mut().filter(|element| element.name == "disk");
    let mut places = places.iter();
    for disk in disks {
        match holds_data(disk) {
            true => stand_on(disk, places.next(), remarks),
            false if disk.remove("source") > 0 => {
                disk.set("type", "file");
                disk.remove("backingStore");
                remarks.push(format!("the drive {} is empty", target(disk)));
            }
            false => {}
        }
    }
    Ok(())
}

fn stand_on(disk: &mut Element, place: Option<&DiskPlace>, remarks: &mut Vec<String>) {
    let Some(DiskPlace { target, overlay, socket }) = place else { return };
    disk.set("type", "file");
    if disk.attribute("device") == Some("lun") {
        disk.set("device", "disk");
        remarks.push(format!("disk {target} is an ordinary disk, and takes no SCSI commands"));
    }
    for gone in ["rawio", "sgio", "snapshot"] {
        disk.unset(gone);
    }
    if disk.remove("shareable") > 0 {
        remarks.push(format!("disk {target} is shared with no other machine"));
    }
    for gone in ["source", "backingStore", "mirror", "auth", "encryption", "transient"] {
        disk.remove(gone);
    }
    let mut driver = disk.child("driver").cloned().unwrap_or_else(|| Element::new("driver"));
    driver.attributes.retain(|(name, _)| DRIVER_KEPT.contains(&name.as_str()));
    driver.inside.clear();
    disk.remove("driver");
    driver.set("name", "qemu");
    driver.set("type", "qcow2");
    let view = Element::new("source")
        .with("protocol", "nbd")
        .with("name", target)
        .holding(Element::new("host").with("transport", "unix").with("socket", socket))
        .holding(Element::new("reconnect").with("delay", &RECONNECT_SECONDS.to_string()));
    let backing = Element::new("backingStore")
        .with("type", "network")
        .holding(Element::new("format").with("type", "raw"))
        .holding(view)
        .holding(Element::new("backingStore"));
    disk.push(driver);
    disk.push(Element::new("source").with("file", overlay));
    disk.push(backing);
}
