//! From the `<domain>` of a recovery point to the `<domain>` of a machine that
//! is made of it on this host. See <https://libvirt.org/formatdomain.html>.
//!
//! What a guest sees stays: name and UUID (but for a test), MAC addresses, the
//! order, bus, address and serial of disks, firmware, machine type. What belongs
//! to the other host goes: files, passed-through devices, pinned processors, host
//! interfaces. Each change that somebody may miss is told in words.

use std::collections::BTreeSet;
use std::path::Path;

use uuid::Uuid;

use super::tree::Element;
use super::{XmlError, variables};

mod devices;
mod disks;
mod platform;

pub use disks::{data_disks, standing_on_views, stands_below, without_backing, without_disks};

/// What a machine is to be made of.
#[derive(Debug, Clone)]
pub struct Wish<'a> {
    /// The configuration that is in the point.
    pub configuration: &'a str,
    /// The name and UUID of a test; its own without.
    pub alias: Option<(&'a str, Uuid)>,
    /// Networks by MAC address.
    pub nics: &'a [(String, String)],
    /// Its disks, in order.
    pub disks: &'a [DiskPlace],
    /// Where its UEFI variables go, if it has any.
    pub nvram: &'a str,
}

/// Where a disk of the machine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskPlace {
    /// The hypervisor's name for it, such as `vda`.
    pub target: String,
    /// The qcow2 file that takes what is written.
    pub overlay: String,
    /// The unix socket on which the point's disks are served, by their targets.
    pub socket: String,
}

/// What this host can do.
#[derive(Debug, Clone, Default)]
pub struct Host {
    /// Whether guests can use KVM.
    pub kvm: bool,
    /// Kinds of machines that guests can be.
    pub machine_types: BTreeSet<String>,
}

/// A machine as libvirt wants it described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// For libvirt to define.
    pub xml: String,
    /// What is to be in the file with its UEFI variables before it starts; libvirt
    /// makes fresh ones without.
    pub variables: Option<Vec<u8>>,
    /// What is otherwise than at the source, in words.
    pub remarks: Vec<String>,
}

/// Why no machine can be made of a configuration on this host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It cannot be read.
    #[error(transparent)]
    Xml(#[from] XmlError),
    /// It is no machine's.
    #[error("the point has no configuration of a machine")]
    NoMachine,
    /// The TPM's secrets are not in the point.
    #[error("the machine has a TPM, whose secrets are not in a recovery point")]
    Tpm,
    /// Its disks are not those of the point.
    #[error("the point has {disks} disks and its configuration tells of {told}")]
    Disks {
        /// In the point.
        disks: usize,
        /// In its configuration.
        told: usize,
    },
    /// A file without which it cannot start.
    #[error("this host has no {0}, which the machine starts from")]
    File(String),
}

/// Who a configuration says that the machine is: its name and UUID.
///
/// # Errors
/// When it is no machine's.
pub fn identity(configuration: &str) -> Result<(String, Uuid), Unfit> {
    let domain = read(configuration)?;
    let text = |name| domain.child(name).map(Element::text).unwrap_or_default();
    let uuid = text("uuid").parse().map_err(|_| Unfit::NoMachine)?;
    Ok((text("name"), uuid))
}

/// Describes the machine that is made of a point. `exists` tells whether a file
/// is on this host.
///
/// # Errors
/// When no such machine can be made here.
pub fn recover(
    wish: &Wish<'_>,
    host: &Host,
    exists: &dyn Fn(&Path) -> bool,
) -> Result<Recovered, Unfit> {
    let mut domain = read(wish.configuration)?;
    let mut remarks = Vec::new();
    let old_name = domain.child("name").map(Element::text).unwrap_or_default();
    if let Some((name, uuid)) = wish.alias {
        rename(&mut domain, name, uuid);
    }
    let carried = variables::of(wish.configuration);
    let flash = platform::Flash { nvram: wish.nvram, carried };
    let variables = platform::adapt(&mut domain, host, flash, exists, &mut remarks)?;
    let devices = domain.child_mut("devices").ok_or(Unfit::NoMachine)?;
    disks::replace(devices, wish.disks, &mut remarks)?;
    devices::adapt(devices, wish, &old_name, exists, &mut remarks)?;
    Ok(Recovered { xml: domain.to_string(), variables, remarks })
}

fn read(configuration: &str) -> Result<Element, Unfit> {
    let mut domain = Element::parse(configuration)?;
    if domain.name != "domain" {
        return Err(Unfit::NoMachine);
    }
    domain.unset("id");
    Ok(domain)
}

fn rename(domain: &mut Element, name: &str, uuid: Uuid) {
    let uuid = uuid.to_string();
    for (element, text) in [("name", name), ("uuid", uuid.as_str())] {
        match domain.child_mut(element) {
            Some(child) => child.set_text(text),
            None => {
                let mut child = Element::new(element);
                child.set_text(text);
                domain.push(child);
            }
        }
    }
    // libvirt insists that the firmware tells the same UUID.
    for system in domain.elements_mut().filter(|element| element.name == "sysinfo") {
        for table in system.elements_mut().filter(|table| table.name == "system") {
            table.retain(|entry| entry.attribute("name") != Some("uuid"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(target: &str) -> DiskPlace {
        DiskPlace {
            target: target.to_owned(),
            overlay: format!("/recovered/{target}.qcow2"),
            socket: "/recovered/views.s".into(),
        }
    }

    fn made(configuration: &str, alias: Option<(&str, Uuid)>) -> Result<Recovered, Unfit> {
        let disks: Vec<_> = data_disks(configuration)?.iter().map(|name| place(name)).collect();
        let nics = [("52:54:00:00:00:01".to_owned(), "lan".to_owned())];
        let nvram = "/recovered/nvram.fd";
        let wish = Wish { configuration, alias, nics: &nics, disks: &disks, nvram };
        let machine_types = ["pc-q35-9.0", "q35", "pc"].map(ToOwned::to_owned).into();
        let host = Host { kvm: true, machine_types };
        recover(&wish, &host, &|path| path.starts_with("/here"))
    }

    /// As an editor would lay it out, so that a change of the golden samples can
    /// be read.
    fn lines(xml: &str) -> String {
        xml.replace("><", ">\n<")
    }

    const SOURCE: &str = include_str!("../../../../../tests/golden/recovered/source.xml");

    #[test]
    fn a_machine_keeps_what_its_guest_sees_and_loses_what_belongs_to_the_other_host() {
        let production = made(SOURCE, None).unwrap();
        let expected = include_str!("../../../../../tests/golden/recovered/production.xml");
        assert_eq!(lines(&production.xml), expected.trim(), "{}", lines(&production.xml));
        let expected = include_str!("../../../../../tests/golden/recovered/remarks.txt");
        assert_eq!(production.remarks.join("\n"), expected.trim());
    }

    #[test]
    fn a_test_has_a_name_of_its_own_everywhere() {
        let uuid = Uuid::from_u128(7);
        let test = made(SOURCE, Some(("web-test", uuid))).unwrap();
        assert_eq!(identity(&test.xml), Ok(("web-test".to_owned(), uuid)));
        assert!(test.xml.contains("/here/web-test.log"), "{}", test.xml);
        assert!(!test.xml.contains("name='uuid'"), "the firmware's tables tell no other UUID");
        assert!(test.xml.contains("52:54:00:00:00:01"));
    }

    #[test]
    fn what_cannot_be_made_is_refused() {
        let with = |devices: &str| {
            format!(
                "<domain type='kvm'><name>w</name><uuid>{}</uuid><os><type>hvm</type></os>
                 <devices>{devices}</devices></domain>",
                Uuid::nil()
            )
        };
        assert_eq!(made(&with("<tpm model='tpm-crb'/>"), None), Err(Unfit::Tpm));
        assert_eq!(made("<network/>", None), Err(Unfit::NoMachine));
        let firmware = with("").replace(
            "</os>",
            "<loader type='pflash'>/usr/OVMF.fd</loader><nvram>/v.fd</nvram></os>",
        );
        assert_eq!(made(&firmware, None), Err(Unfit::File("/usr/OVMF.fd".into())));
        let disk = "<disk><target dev='vda'/></disk>";
        let wish = Wish {
            configuration: &with(disk),
            alias: None,
            nics: &[],
            disks: &[place("vda"), place("vdb")],
            nvram: "",
        };
        let refused = recover(&wish, &Host::default(), &|_| true);
        assert_eq!(refused, Err(Unfit::Disks { disks: 2, told: 1 }));
    }

    #[test]
    fn variables_of_firmware_go_along_where_the_firmware_is_the_same() {
        let of = |os: &str, variables: Result<&[u8], &str>| {
            let os = format!("<os{os}</os>");
            let xml = format!("<domain>{os}<devices/></domain>");
            made(&variables::with(&xml, variables), None).unwrap()
        };
        let bytes: &[u8] = b"BootOrder";
        let efi = |loader: &str| {
            format!(
                " firmware='efi'><firmware><feature name='x'/></firmware>\
                 <loader type='pflash'>{loader}</loader>\
                 <nvram template='/t.fd' format='raw'>/v.fd</nvram>"
            )
        };
        let same = of(&efi("/here/OVMF.fd"), Ok(bytes));
        assert_eq!(same.variables.as_deref(), Some(bytes));
        assert_eq!(same.remarks, [""; 0]);
        let os = "<os><loader type='pflash'>/here/OVMF.fd</loader>\
                  <nvram format='raw'>/recovered/nvram.fd</nvram></os>";
        assert!(same.xml.contains(os), "{}", same.xml);
        // Chosen anew; of another the variables may have another size.
        let other = of(&efi("/there/OVMF.fd"), Ok(bytes));
        assert_eq!(other.variables, None);
        assert!(other.remarks[0].contains("/there/OVMF.fd"), "{:?}", other.remarks);
        assert!(other.xml.contains("<os firmware='efi'>"), "{}", other.xml);
        let untold = of(" firmware='efi'>", Ok(bytes));
        assert_eq!(untold.variables.as_deref(), Some(bytes));
        let unread = of(&efi("/here/OVMF.fd"), Err("/v.fd: permission denied"));
        assert_eq!(unread.variables, None);
        assert!(unread.remarks[0].contains("permission denied"), "{:?}", unread.remarks);
    }

    #[test]
    fn excluded_disks_and_removable_media_are_no_disks_of_a_point() {
        assert_eq!(data_disks(SOURCE).unwrap(), ["vda", "sdb"]);
        let fewer = without_disks(SOURCE, &BTreeSet::from(["sdb".to_owned()])).unwrap();
        assert_eq!(data_disks(&fewer).unwrap(), ["vda"]);
    }

    #[test]
    fn disks_that_were_made_their_own_stand_on_nothing() {
        let production = made(SOURCE, None).unwrap().xml;
        assert!(stands_below(&production, Path::new("/recovered")).unwrap());
        assert!(!stands_below(SOURCE, Path::new("/recovered")).unwrap());
        assert_eq!(standing_on_views(&production).unwrap(), ["vda", "sdb"]);
        let own = without_backing(&production).unwrap();
        assert!(standing_on_views(&own).unwrap().is_empty());
        assert!(!own.contains("nbd") && own.contains("/recovered/vda.qcow2"));
    }
}
