//! `<domaincheckpoint>`: an instant since which QEMU notes changes. See
//! <https://libvirt.org/formatcheckpoint.html>.

use std::collections::BTreeSet;
use std::fmt;

use roxmltree::Document;

use super::{Escaped, XmlError, child, children, required, text};

/// A checkpoint to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCheckpoint {
    /// Its name, which is that of its bitmaps too.
    pub name: String,
    /// Kept by libvirt and given back as it is.
    pub description: String,
    /// Targets of the disks whose changes are noted. The others' are not.
    pub tracked: Vec<String>,
}

impl fmt::Display for NewCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, description) = (Escaped(&self.name), Escaped(&self.description));
        write!(f, "<domaincheckpoint><name>{name}</name>")?;
        write!(f, "<description>{description}</description><disks>")?;
        for target in &self.tracked {
            write!(f, "<disk name='{}' checkpoint='bitmap'/>", Escaped(target))?;
        }
        write!(f, "</disks></domaincheckpoint>")
    }
}

/// A checkpoint that libvirt has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Its name.
    pub name: String,
    /// What was noted when it was made; empty when nothing was.
    pub description: String,
    /// Targets of the disks whose changes it notes.
    pub tracked: BTreeSet<String>,
}

/// Reads a checkpoint.
///
/// # Errors
/// When it is not XML, or has no name.
pub fn parse(xml: &str) -> Result<Checkpoint, XmlError> {
    let document = Document::parse(xml)?;
    let root = document.root_element();
    let disks = child(root, "disks").into_iter().flat_map(|disks| children(disks, "disk"));
    let tracked = disks.filter(|disk| disk.attribute("checkpoint") == Some("bitmap"));
    Ok(Checkpoint {
        name: required(root, "a checkpoint", "name")?,
        description: text(root, "description").unwrap_or_default(),
        tracked: tracked.filter_map(|disk| Some(disk.attribute("name")?.to_owned())).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let new = NewCheckpoint {
            name: "lifeboat-1".into(),
            description: r#"{"vda":"</a&b>"}"#.into(),
            tracked: vec!["vda".into(), "vdb".into()],
        };
        let read = parse(&new.to_string()).unwrap();
        assert_eq!((read.name, read.description), (new.name, new.description));
        assert_eq!(read.tracked, BTreeSet::from(["vda".into(), "vdb".into()]));
    }

    #[test]
    fn libvirts_own_words_are_read() {
        let read = parse(
            "<domaincheckpoint><name>daily</name><parent><name>first</name></parent>
             <creationTime>1700000000</creationTime><disks>
               <disk name='vda' checkpoint='bitmap' bitmap='daily'/>
               <disk name='vdb' checkpoint='no'/></disks></domaincheckpoint>",
        );
        let tracked = BTreeSet::from(["vda".to_owned()]);
        let daily = Checkpoint { name: "daily".into(), description: String::new(), tracked };
        assert_eq!(read, Ok(daily));
        assert!(parse("<domaincheckpoint/>").is_err());
    }
}
