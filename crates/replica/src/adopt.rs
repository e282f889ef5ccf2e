//! Existing disk images as the base of a disk, without copying them.
//!
//! The image is read once and hashed; what is kept is where each block lies in
//! it and its hash. From then on the store *reads* the image and never writes
//! it. Nobody else may change it either: a block that was changed no longer
//! has its hash and is damage when it is read, and [`Store::adopted`] tells
//! which files look changed before anybody needs them.
//!
//! Raw images can be adopted, and qcow2 images without backing file,
//! encryption and compressed clusters. Others are imported, which copies.

use std::{
    fs::File,
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::Command,
};

use nix::{
    errno::Errno,
    unistd::{Whence, lseek},
};
use serde::Deserialize;

use crate::{
    error::{StoreError, StoreResult},
    format::{
        Digest,
        entry::Content,
        manifest::AdoptedFacts,
        record::{Header, Kind},
    },
    geometry::{BLOCK, BlockKey, DiskNumber, PAGE},
    medium::Identity,
    offline_copy::ImageKind,
    overlay,
    store::Store,
    writer::{Writer, header},
};

/// Bytes of a disk that lie in a row in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// Where on the disk, in bytes.
    pub disk: u64,
    /// How many bytes.
    pub length: u64,
    /// Where in the file, in bytes.
    pub file: u64,
}

/// An image that can be adopted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Where it lies, absolutely.
    pub path: PathBuf,
    /// Size of the disk in bytes.
    pub size: u64,
    /// What is allocated, in order. What is not is zeroes.
    pub stretches: Vec<Stretch>,
}

/// Finds out where a disk lies in an image.
///
/// # Errors
/// [`NotAdoptable`](StoreError::NotAdoptable), which says why; of qcow2 images
/// also that `qemu-img` cannot be run.
pub fn layout(path: &Path, kind: ImageKind) -> StoreResult<Layout> {
    let path = path.canonicalize().map_err(StoreError::io(format!("open {}", path.display())))?;
    match kind {
        ImageKind::Raw => raw_layout(path),
        ImageKind::Qcow2 => qcow2_layout(path),
        other => Err(StoreError::NotAdoptable {
            path: path.display().to_string(),
            why: format!("it is {}; raw and qcow2 can be", other.name()),
        }),
    }
}

fn raw_layout(path: PathBuf) -> StoreResult<Layout> {
    let doing = || StoreError::io(format!("look for data in {}", path.display()));
    let file = File::open(&path).map_err(doing())?;
    let size = file.metadata().map_err(doing())?.len();
    let seek = |from: u64, whence| match lseek(file.as_fd(), from.cast_signed(), whence) {
        Ok(found) => Ok(Some(found.cast_unsigned())),
        // Nothing but a hole up to the end.
        Err(Errno::ENXIO) => Ok(None),
        Err(errno) => Err(errno.into()),
    };
    let mut stretches = Vec::new();
    let mut at = 0;
    while at < size {
        let Some(start) = seek(at, Whence::SeekData).map_err(doing())? else { break };
        let end = seek(start, Whence::SeekHole).map_err(doing())?.unwrap_or(size);
        // A file system's grain may be finer than a page.
        let start = start / PAGE * PAGE;
        at = (end.div_ceil(PAGE) * PAGE).min(size);
        stretches.push(Stretch { disk: start, length: at - start, file: start });
    }
    Ok(Layout { path, size, stretches })
}

/// What `qemu-img map --output=json` tells of a part of a disk.
#[derive(Deserialize)]
struct Mapped {
    start: u64,
    length: u64,
    depth: u32,
    data: bool,
    #[serde(default)]
    compressed: bool,
    offset: Option<u64>,
}

fn qcow2_layout(path: PathBuf) -> StoreResult<Layout> {
    let refuse = |why: &str| StoreError::NotAdoptable {
        path: path.display().to_string(),
        why: why.to_owned(),
    };
    let tool = |message: String| StoreError::Tool { tool: "qemu-img".to_owned(), message };
    let output = Command::new("qemu-img")
        .args(["map", "--output=json", "-f", "qcow2"])
        .arg(&path)
        .output()
        .map_err(|error| tool(error.to_string()))?;
    if !output.status.success() {
        return Err(refuse(String::from_utf8_lossy(&output.stderr).trim()));
    }
    let map: Vec<Mapped> =
        serde_json::from_slice(&output.stdout).map_err(|error| tool(error.to_string()))?;
    let mut stretches = Vec::new();
    let mut size = 0;
    for part in map {
        size = part.start + part.length;
        if part.depth > 0 && part.data {
            return Err(refuse("it has a backing file"));
        }
        if part.compressed {
            return Err(refuse("it has compressed clusters"));
        }
        if !part.data {
            continue;
        }
        let file = part.offset.ok_or_else(|| refuse("it is encrypted"))?;
        if !part.start.is_multiple_of(PAGE) || !file.is_multiple_of(PAGE) {
            return Err(refuse("its clusters are smaller than 4 KiB"));
        }
        stretches.push(Stretch { disk: part.start, length: part.length, file });
    }
    Ok(Layout { path, size, stretches })
}

/// How an adopted file is found now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// As it was when it was adopted, by all that its folder tells.
    Unchanged,
    /// Its size, its time of modification or its inode is another. Blocks that
    /// kept their hash can still be read.
    Changed,
    /// It cannot be looked at.
    Unreadable(String),
}

/// An adopted file and how it is found now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopted {
    /// What it was when it was adopted.
    pub facts: AdoptedFacts,
    /// What it is now.
    pub condition: Condition,
}

fn identity_of(facts: &AdoptedFacts) -> Identity {
    Identity { size: facts.size, modified: facts.modified, inode: facts.inode }
}

impl Store {
    /// The adopted files, each looked at anew.
    #[must_use]
    pub fn adopted(&self) -> Vec<Adopted> {
        let files = self.shared.state().adopted.clone();
        let look = |facts: AdoptedFacts| {
            let condition = match self.shared.medium.identity(&facts.path) {
                Ok(now) if now == identity_of(&facts) => Condition::Unchanged,
                Ok(_) => Condition::Changed,
                Err(error) => Condition::Unreadable(error.to_string()),
            };
            Adopted { facts, condition }
        };
        files.into_iter().map(look).collect()
    }
}

impl Writer {
    /// Makes a disk, in the attempt that is open, what an image holds: one
    /// change. Reads the image once; `go_on` is told of bytes as they are read
    /// and may end it. The image must not be in use, and must stay as it is while any
    /// point needs it.
    ///
    /// # Errors
    /// [`NotAdoptable`](StoreError::NotAdoptable) if the image's disk has
    /// another size, or it changed meanwhile; and what the medium says.
    pub fn adopt(
        &mut self,
        disk: DiskNumber,
        layout: &Layout,
        mut go_on: impl FnMut(u64) -> bool,
    ) -> StoreResult<u64> {
        let path = layout.path.display().to_string();
        let refuse =
            |why: &str| Err(StoreError::NotAdoptable { path: path.clone(), why: why.to_owned() });
        if Some(layout.size) != self.size_of(disk) {
            return refuse("its disk has another size");
        }
        let medium = std::sync::Arc::clone(&self.shared.medium);
        let look = || medium.identity(&path).map_err(StoreError::io(format!("look at {path}")));
        let identity = look()?;
        let number = self.adopted_number(&path, identity)?;
        let file = medium.adopted(&path).map_err(StoreError::io(format!("open {path}")))?;
        let (cycle, change) = self.accept(disk, 0, layout.size)?;
        // Parts before the last carry the number of the change before, so that
        // the index need not hold all of them in memory.
        let parts = change - 1;
        self.push_clear(Kind::Discard, cycle, disk, 0..layout.size, parts, parts);
        let mut last: Option<Header> = None;
        let mut room = Vec::new();
        for stretch in &layout.stretches {
            let end = stretch.disk + stretch.length;
            let mut at = stretch.disk;
            while at < end {
                let length = (BLOCK - at % BLOCK).min(end - at);
                let place = stretch.file + (at - stretch.disk);
                room.clear();
                room.resize(length.div_ceil(PAGE) as usize * PAGE as usize, 0);
                let wanted = room.get_mut(..length as usize).unwrap_or_default();
                file.read_at(wanted, place)
                    .map_err(StoreError::io(format!("read {path} at byte {place}")))?;
                if !go_on(length) {
                    return refuse("it was not read to its end");
                }
                let digest = Digest::of(&room);
                if room.iter().any(|byte| *byte != 0) {
                    let Ok(page) = u32::try_from(place / PAGE) else {
                        return refuse("it is larger than 16 TiB");
                    };
                    let kind = Kind::Adopted { file: number, page };
                    let header = Header { digest, ..header(kind, cycle, disk, at, length, parts) };
                    if let Some(before) = last.replace(Header { last: true, ..header }) {
                        self.push_record(before)?;
                    }
                }
                at += length;
            }
        }
        match last {
            Some(last) => self.push_record(Header { change, ..last })?,
            None => self.push_clear(Kind::Discard, cycle, disk, 0..layout.size, parts, change),
        }
        if look()? != identity {
            return refuse("it was changed while it was read");
        }
        Ok(change)
    }

    /// The number of a file in the manifest's table, which is durable on
    /// return: records refer to it.
    fn adopted_number(&mut self, path: &str, identity: Identity) -> StoreResult<u32> {
        let number = {
            let mut state = self.shared.state_mut();
            let same = |facts: &&AdoptedFacts| facts.path == path && identity_of(facts) == identity;
            if let Some(known) = state.adopted.iter().find(same) {
                return Ok(known.id);
            }
            let number = state.adopted.last().map_or(0, |facts| facts.id + 1);
            let Identity { size, modified, inode } = identity;
            let path = path.to_owned();
            state.adopted.push(AdoptedFacts { id: number, path, size, modified, inode });
            number
        };
        self.guard(Self::checkpoint)?;
        Ok(number)
    }

    /// Lets go of adopted files that no point reads any more; their paths. Does
    /// nothing while an attempt is open, which may refer to any. Durable on
    /// return.
    ///
    /// # Errors
    /// What the medium says.
    pub fn release_adopted(&mut self) -> StoreResult<Vec<String>> {
        let (files, kept, index) = {
            let state = self.shared.state();
            (state.adopted.clone(), state.kept(), state.index())
        };
        if files.is_empty() || self.open_attempt().is_some() {
            return Ok(Vec::new());
        }
        let mut read = std::collections::BTreeSet::new();
        let mut scan = index.scan(BlockKey(0), BlockKey(u64::MAX))?;
        let mut versions = Vec::new();
        while scan.next(&mut versions)?.is_some() {
            overlay::trim(&mut versions, &kept);
            let living = versions.iter().filter(|version| version.mask != 0);
            read.extend(living.filter_map(|version| match version.content {
                Content::Adopted { file, .. } => Some(file),
                _ => None,
            }));
        }
        let released: Vec<_> = files.iter().filter(|facts| !read.contains(&facts.id)).collect();
        if released.is_empty() {
            return Ok(Vec::new());
        }
        self.shared.state_mut().adopted.retain(|facts| read.contains(&facts.id));
        self.guard(Self::checkpoint)?;
        Ok(released.into_iter().map(|facts| facts.path.clone()).collect())
    }
}
