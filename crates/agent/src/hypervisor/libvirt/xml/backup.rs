//! `<domainbackup>`: a backup job. See <https://libvirt.org/formatbackup.html>.

use std::fmt;

use roxmltree::Document;

use super::{Escaped, XmlError, attribute};

/// A pull-mode backup, as libvirt wants it described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// Path of the unix socket on which QEMU serves the disks.
    pub socket: String,
    /// Every disk that is held still. The others are left alone.
    pub disks: Vec<BackupDisk>,
}

/// A disk of a backup. Its export has the name of its target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupDisk {
    /// Such as `vda`.
    pub target: String,
    /// Where QEMU keeps what the guest overwrites. libvirt makes and removes it.
    pub scratch: String,
    /// The checkpoint whose changes are told; none tells nothing of changes.
    pub since: Option<String>,
}

/// The name of the bitmap with a disk's changes, unique in the machine.
#[must_use]
pub fn bitmap(target: &str) -> String {
    format!("changes-{target}")
}

impl fmt::Display for Backup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let socket = Escaped(&self.socket);
        write!(f, "<domainbackup mode='pull'><server transport='unix' socket='{socket}'/><disks>")?;
        for disk in &self.disks {
            let (target, bitmap) = (Escaped(&disk.target), bitmap(&disk.target));
            write!(f, "<disk name='{target}' backup='yes' type='file' exportname='{target}'")?;
            match &disk.since {
                None => write!(f, " backupmode='full'>")?,
                Some(since) => write!(
                    f,
                    " backupmode='incremental' incremental='{}' exportbitmap='{}'>",
                    Escaped(since),
                    Escaped(&bitmap)
                )?,
            }
            // The driver's type is that of the scratch file, not of the disk.
            write!(f, "<driver type='qcow2'/><scratch file='{}'/></disk>", Escaped(&disk.scratch))?;
        }
        write!(f, "</disks></domainbackup>")
    }
}

/// The path of the unix socket of a backup job that runs; none for one that
/// has no such socket.
///
/// # Errors
/// When it is not XML.
pub fn socket(xml: &str) -> Result<Option<String>, XmlError> {
    let document = Document::parse(xml)?;
    Ok(attribute(document.root_element(), "server", "socket"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_names_each_disk_and_escapes_what_it_names() {
        let backup = Backup {
            socket: "/run/a&b/'s.sock".into(),
            disks: vec![
                BackupDisk { target: "vda".into(), scratch: "/s/<vda>".into(), since: None },
                BackupDisk {
                    target: "vdb".into(),
                    scratch: "/s/vdb".into(),
                    since: Some("lifeboat-1".into()),
                },
            ],
        };
        assert_eq!(
            backup.to_string(),
            "<domainbackup mode='pull'>\
             <server transport='unix' socket='/run/a&amp;b/&apos;s.sock'/><disks>\
             <disk name='vda' backup='yes' type='file' exportname='vda' backupmode='full'>\
             <driver type='qcow2'/><scratch file='/s/&lt;vda&gt;'/></disk>\
             <disk name='vdb' backup='yes' type='file' exportname='vdb' \
             backupmode='incremental' incremental='lifeboat-1' exportbitmap='changes-vdb'>\
             <driver type='qcow2'/><scratch file='/s/vdb'/></disk></disks></domainbackup>"
        );
        assert_eq!(socket(&backup.to_string()), Ok(Some(backup.socket)));
    }

    #[test]
    fn a_push_mode_backup_has_no_socket() {
        let push = "<domainbackup mode='push'><disks/></domainbackup>";
        assert_eq!(socket(push), Ok(None));
        assert!(socket("no XML").is_err());
    }
}
