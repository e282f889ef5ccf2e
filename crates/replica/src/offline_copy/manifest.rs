//! `copy.json`, version 1.

use std::{fs, io, path::Path};

use serde::{Deserialize, Serialize};

use super::MANIFEST;
use crate::format::record::Consistency;

const FORMAT: &str = "lifeboat-offline-copy";
const VERSION: u32 = 1;
/// The most bytes of a manifest: 65 535 disks take less.
const MAX: u64 = 32 << 20;

/// What an offline copy holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfflineCopy {
    /// The machine's name in its store.
    pub machine: String,
    /// Milliseconds since 1970 by the source's clock: a label.
    pub instant: i64,
    /// How still the machine was.
    pub consistency: Consistency,
    /// Where the point came from, for people.
    pub origin: String,
    /// The file with the machine's configuration.
    pub configuration: Option<String>,
    /// In order of their numbers.
    pub disks: Vec<DiskImage>,
}

/// A disk's image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskImage {
    /// The file.
    pub file: String,
    /// How it is to be read.
    pub kind: ImageKind,
    /// Bytes of the disk, which may be less than the image's: some formats
    /// round up.
    pub size: u64,
    /// Of the disk's bytes, whatever format they are kept in.
    pub blake3: blake3::Hash,
}

/// The format of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageKind {
    /// The disk's bytes.
    Raw,
    /// QEMU's own.
    Qcow2,
    /// Hyper-V's.
    Vhdx,
    /// Hyper-V's old one.
    Vpc,
    /// VMware's.
    Vmdk,
    /// VirtualBox's.
    Vdi,
}

impl ImageKind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Raw, Self::Qcow2, Self::Vhdx, Self::Vpc, Self::Vmdk, Self::Vdi];

    /// QEMU's name for it, which is ours too.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vhdx => "vhdx",
            Self::Vpc => "vpc",
            Self::Vmdk => "vmdk",
            Self::Vdi => "vdi",
        }
    }

    /// The format of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Why a folder is no copy that can be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyFault {
    /// It is not there, or cannot be read.
    #[error("read {MANIFEST}")]
    Io(#[from] io::Error),
    /// It is no JSON, or lacks something.
    #[error("understand {MANIFEST}")]
    Json(#[from] serde_json::Error),
    /// It says something impossible.
    #[error("{MANIFEST} {0}")]
    Wrong(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    format: String,
    version: u32,
    machine: String,
    instant_ms: i64,
    consistency: ConsistencyRecord,
    origin: String,
    configuration: Option<String>,
    disks: Vec<DiskRecord>,
}

/// What every version begins with, to tell a newer one from a damaged one.
#[derive(Deserialize)]
struct Heading {
    format: String,
    version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ConsistencyRecord {
    Crash,
    Application,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DiskRecord {
    number: u16,
    file: String,
    image: String,
    size_bytes: u64,
    blake3: String,
}

impl OfflineCopy {
    /// The manifest's text.
    #[must_use]
    pub fn encode(&self) -> String {
        let disks = (0..).zip(&self.disks).map(|(number, disk)| DiskRecord {
            number,
            file: disk.file.clone(),
            image: disk.kind.name().to_owned(),
            size_bytes: disk.size,
            blake3: disk.blake3.to_hex().to_string(),
        });
        let record = Record {
            format: FORMAT.to_owned(),
            version: VERSION,
            machine: self.machine.clone(),
            instant_ms: self.instant,
            consistency: match self.consistency {
                Consistency::Crash => ConsistencyRecord::Crash,
                Consistency::App => ConsistencyRecord::Application,
            },
            origin: self.origin.clone(),
            configuration: self.configuration.clone(),
            disks: disks.collect(),
        };
        // Strings and numbers: nothing in it can fail.
        let mut text = serde_json::to_string_pretty(&record).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Reads a manifest's text.
    ///
    /// # Errors
    /// It is none, of a version that we do not know, or names files outside
    /// its folder.
    pub fn decode(text: &str) -> Result<Self, CopyFault> {
        let heading: Heading = serde_json::from_str(text)?;
        if heading.format != FORMAT {
            return Err(CopyFault::Wrong(format!("says that it is {:?}", heading.format)));
        }
        if heading.version != VERSION {
            let version = heading.version;
            return Err(CopyFault::Wrong(format!("has version {version}, and we know {VERSION}")));
        }
        let record: Record = serde_json::from_str(text)?;
        let mut disks = Vec::with_capacity(record.disks.len());
        for (number, disk) in (0_u16..).zip(record.disks) {
            if disk.number != number {
                return Err(CopyFault::Wrong(format!("lacks disk {number}")));
            }
            disks.push(DiskImage {
                kind: ImageKind::named(&disk.image).ok_or_else(|| {
                    CopyFault::Wrong(format!("names an image format {:?}", disk.image))
                })?,
                file: inside(disk.file)?,
                size: disk.size_bytes,
                blake3: blake3::Hash::from_hex(&disk.blake3).map_err(|_| {
                    CopyFault::Wrong(format!("has no proper BLAKE3 of disk {number}"))
                })?,
            });
        }
        Ok(Self {
            machine: record.machine,
            instant: record.instant_ms,
            consistency: match record.consistency {
                ConsistencyRecord::Crash => Consistency::Crash,
                ConsistencyRecord::Application => Consistency::App,
            },
            origin: record.origin,
            configuration: record.configuration.map(inside).transpose()?,
            disks,
        })
    }

    /// Reads the manifest of a folder.
    ///
    /// # Errors
    /// See [`CopyFault`].
    pub fn read(folder: &Path) -> Result<Self, CopyFault> {
        let path = folder.join(MANIFEST);
        if fs::metadata(&path)?.len() > MAX {
            return Err(CopyFault::Wrong("is too long for what it is".to_owned()));
        }
        Self::decode(&fs::read_to_string(path)?)
    }
}

/// A copy may come from anywhere: it names files of its own folder only.
fn inside(file: String) -> Result<String, CopyFault> {
    let plain = !file.is_empty() && !file.contains(['/', '\0']) && file != "." && file != "..";
    match plain {
        true => Ok(file),
        false => Err(CopyFault::Wrong(format!("names {file:?}, which is no file of its folder"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &str = include_str!("../format/golden/offline-copy.json");

    fn sample() -> OfflineCopy {
        let disk = |number: u16, kind: ImageKind, size| DiskImage {
            file: format!("disk{number}.{}", kind.name()),
            kind,
            size,
            blake3: blake3::hash(&number.to_le_bytes()),
        };
        OfflineCopy {
            machine: "web".to_owned(),
            instant: 1_795_228_062_250,
            consistency: Consistency::App,
            origin: "agent kvm1 at east".to_owned(),
            configuration: Some("configuration.xml".to_owned()),
            disks: vec![disk(0, ImageKind::Qcow2, 10 << 30), disk(1, ImageKind::Raw, 12345)],
        }
    }

    #[test]
    fn the_golden_sample_is_written_and_read() {
        assert_eq!(sample().encode(), GOLDEN);
        assert_eq!(OfflineCopy::decode(GOLDEN).unwrap(), sample());
    }

    #[test]
    fn what_is_not_ours_is_refused_with_its_reason() {
        for (from, to, why) in [
            ("\"version\": 1", "\"version\": 2", "has version 2"),
            ("lifeboat-offline-copy", "tar", "says that it is \"tar\""),
            ("disk1.raw", "../disk1.raw", "which is no file of its folder"),
            ("\"number\": 1", "\"number\": 2", "lacks disk 1"),
            ("\"image\": \"raw\"", "\"image\": \"nbd\"", "an image format \"nbd\""),
        ] {
            let error = OfflineCopy::decode(&GOLDEN.replace(from, to)).unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
        }
        assert!(OfflineCopy::decode("{}").is_err());
    }
}
