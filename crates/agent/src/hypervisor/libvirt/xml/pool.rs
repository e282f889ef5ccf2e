//! `<pool>`: a storage pool. See <https://libvirt.org/formatstorage.html>.

use domain::storage::StoragePool;
use domain::units::ByteCount;
use roxmltree::Document;

use super::{XmlError, child, required, text};

/// What libvirt tells outside the XML.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aspects {
    /// Whether it can be used now.
    pub active: bool,
    /// Whether libvirt opens it at boot.
    pub autostart: bool,
    /// Its size.
    pub capacity: ByteCount,
    /// What is left of it.
    pub available: ByteCount,
}

/// Reads a storage pool.
///
/// # Errors
/// When it is not XML, or has no name or UUID.
pub fn parse(xml: &str, aspects: Aspects) -> Result<StoragePool, XmlError> {
    let document = Document::parse(xml)?;
    let root = document.root_element();
    Ok(StoragePool {
        uuid: required(root, "a storage pool", "uuid")?,
        name: required(root, "a storage pool", "name")?,
        kind: root.attribute("type").unwrap_or("unknown").to_owned(),
        active: aspects.active,
        autostart: aspects.autostart,
        path: child(root, "target").and_then(|target| text(target, "path")),
        capacity: aspects.capacity,
        available: aspects.available,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_pool_has_its_path() {
        let aspects = Aspects {
            active: true,
            autostart: false,
            capacity: ByteCount::from_kib(4),
            available: ByteCount::from_kib(1),
        };
        let pool = parse(
            "<pool type='dir'><name>default</name><uuid>3c2b9f3e-0000-4000-8000-000000000002</uuid>
             <source/><target><path>/var/lib/libvirt/images</path></target></pool>",
            aspects,
        )
        .unwrap();
        assert_eq!(
            (pool.name.as_str(), pool.kind.as_str(), pool.path.as_deref(), pool.available.bytes()),
            ("default", "dir", Some("/var/lib/libvirt/images"), 1024)
        );
        assert_eq!(
            parse("<pool type='dir'><name>x</name></pool>", aspects).unwrap_err().to_string(),
            "libvirt's XML of a storage pool has no usable <uuid>"
        );
    }
}
