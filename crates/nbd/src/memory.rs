//! A disk in memory, with holes: for tests, here and in other crates, and as
//! the plainest example of an [`Export`].

use std::{
    collections::BTreeMap,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use bytes::{Bytes, BytesMut};

use crate::{
    protocol::{
        chunk::StatusExtent,
        constants::{BASE_ALLOCATION, TransmissionFlags},
        facts::ExportFacts,
        write_mode::{Durability, ZeroEffort, ZeroMode},
    },
    server::{Export, ExportResult, Extent},
};

/// Bytes that are allocated together.
pub const BLOCK: u64 = 64 * 1024;

/// A sparse disk in memory. Reads hand out its blocks without copying.
#[derive(Debug)]
pub struct MemoryExport {
    facts: ExportFacts,
    /// What is absent is a hole. Every block has [`BLOCK`] bytes, also the
    /// last one of a disk of odd size.
    blocks: RwLock<BTreeMap<u64, Bytes>>,
    /// Answers of contexts other than `base:allocation`.
    maps: BTreeMap<String, Vec<StatusExtent>>,
}

impl MemoryExport {
    /// A writable disk of `size` bytes, all of it a hole.
    #[must_use]
    pub fn new(size: u64) -> Self {
        let facts = ExportFacts::writable(size)
            .with(TransmissionFlags::CAN_MULTI_CONN)
            .with(TransmissionFlags::SEND_FAST_ZERO)
            .with(TransmissionFlags::SEND_CACHE);
        Self { facts, blocks: RwLock::default(), maps: BTreeMap::new() }
    }

    /// The same disk, read-only for clients.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.facts = ExportFacts {
            description: self.facts.description,
            contexts: self.facts.contexts,
            ..ExportFacts::read_only(self.facts.size)
        };
        self
    }

    /// With a description for people.
    #[must_use]
    pub fn described(mut self, description: impl Into<String>) -> Self {
        self.facts.description = description.into();
        self
    }

    /// With a metadata context (such as `qemu:dirty-bitmap:NAME`) that always
    /// answers with `map`, which begins at byte 0.
    #[must_use]
    pub fn with_map(mut self, context: impl Into<String>, map: Vec<StatusExtent>) -> Self {
        let context = context.into();
        self.facts = self.facts.context(context.clone());
        self.maps.insert(context, map);
        self
    }

    /// Size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.facts.size
    }

    /// Bytes that are not holes, in whole blocks.
    #[must_use]
    pub fn allocated(&self) -> u64 {
        self.read_blocks().len() as u64 * BLOCK
    }

    /// Puts bytes onto the disk, as a guest would; what lies beyond the end
    /// is left out.
    pub fn fill(&self, offset: u64, data: &[u8]) {
        let mut blocks = self.write_blocks();
        let length = self.facts.size.saturating_sub(offset);
        let mut data = data.get(..usize::try_from(length).unwrap_or(usize::MAX)).unwrap_or(data);
        for piece in pieces(offset, data.len() as u64) {
            let (head, rest) = data.split_at(piece.length);
            piece.write(&mut blocks, |target| target.copy_from_slice(head));
            data = rest;
        }
    }

    /// What a client would read.
    #[must_use]
    pub fn contents(&self, offset: u64, length: u64) -> Vec<u8> {
        let mut contents = Vec::new();
        for extent in self.extents(offset, length) {
            match extent {
                Extent::Data(data) => contents.extend_from_slice(&data),
                Extent::Hole(length) => {
                    contents.resize(contents.len() + length as usize, 0);
                }
            }
        }
        contents
    }

    fn extents(&self, offset: u64, length: u64) -> Vec<Extent> {
        let blocks = self.read_blocks();
        pieces(offset, length)
            .map(|piece| {
                let block = blocks.get(&piece.block);
                match block.and_then(|block| piece.of(block)) {
                    Some(data) => Extent::Data(data),
                    None => Extent::Hole(piece.length as u64),
                }
            })
            .collect()
    }

    fn zero(&self, offset: u64, length: u64, mode: ZeroMode) {
        let mut blocks = self.write_blocks();
        for piece in pieces(offset, length) {
            if mode == ZeroMode::KeepAllocated {
                piece.write(&mut blocks, |target| target.fill(0));
            } else if piece.length as u64 == BLOCK {
                blocks.remove(&piece.block);
            } else if blocks.contains_key(&piece.block) {
                piece.write(&mut blocks, |target| target.fill(0));
            }
        }
    }

    fn allocation(&self, offset: u64, length: u64, limit: usize) -> Vec<StatusExtent> {
        let blocks = self.read_blocks();
        let mut extents: Vec<StatusExtent> = Vec::new();
        for piece in pieces(offset, length) {
            let length = piece.length as u64;
            let extent = match blocks.contains_key(&piece.block) {
                true => StatusExtent::data(length),
                false => StatusExtent::hole(length),
            };
            let full = extents.len() == limit;
            match extents.last_mut() {
                Some(last) if last.flags == extent.flags => last.length += length,
                _ if full => break,
                _ => extents.push(extent),
            }
        }
        extents
    }

    fn read_blocks(&self) -> RwLockReadGuard<'_, BTreeMap<u64, Bytes>> {
        self.blocks.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_blocks(&self) -> RwLockWriteGuard<'_, BTreeMap<u64, Bytes>> {
        self.blocks.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Export for MemoryExport {
    fn facts(&self) -> ExportFacts {
        self.facts.clone()
    }

    async fn read(&self, offset: u64, length: u32) -> ExportResult<Vec<Extent>> {
        Ok(self.extents(offset, length.into()))
    }

    async fn block_status(
        &self,
        context: &str,
        offset: u64,
        length: u64,
        limit: usize,
    ) -> ExportResult<Vec<StatusExtent>> {
        if context == BASE_ALLOCATION {
            return Ok(self.allocation(offset, length, limit));
        }
        let map = self.maps.get(context).map(Vec::as_slice);
        Ok(cut(map.unwrap_or_default(), offset, length, limit))
    }

    async fn write(&self, offset: u64, data: Bytes, _: Durability) -> ExportResult<()> {
        self.fill(offset, &data);
        Ok(())
    }

    async fn write_zeroes(
        &self,
        offset: u64,
        length: u64,
        mode: ZeroMode,
        _: ZeroEffort,
        _: Durability,
    ) -> ExportResult<()> {
        self.zero(offset, length, mode);
        Ok(())
    }

    async fn trim(&self, offset: u64, length: u64, _: Durability) -> ExportResult<()> {
        self.zero(offset, length, ZeroMode::MayPunch);
        Ok(())
    }
}

/// The part of a range that lies in one block.
#[derive(Debug, Clone, Copy)]
struct Piece {
    block: u64,
    start: usize,
    length: usize,
}

impl Piece {
    fn of(self, block: &Bytes) -> Option<Bytes> {
        let end = self.start + self.length;
        (end <= block.len()).then(|| block.slice(self.start..end))
    }

    /// Changes the piece's bytes. Whoever still reads the old block keeps it.
    fn write(self, blocks: &mut BTreeMap<u64, Bytes>, change: impl FnOnce(&mut [u8])) {
        let mut block = match blocks.remove(&self.block) {
            Some(block) => block.try_into_mut().unwrap_or_else(|shared| {
                let copy: &[u8] = &shared;
                BytesMut::from(copy)
            }),
            None => BytesMut::zeroed(BLOCK as usize),
        };
        if let Some(target) = block.get_mut(self.start..self.start + self.length) {
            change(target);
        }
        blocks.insert(self.block, block.freeze());
    }
}

fn pieces(offset: u64, length: u64) -> impl Iterator<Item = Piece> {
    let end = offset.saturating_add(length);
    let mut at = offset;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let start = at % BLOCK;
        let length = (BLOCK - start).min(end - at);
        let piece = Piece { block: at / BLOCK, start: start as usize, length: length as usize };
        at += length;
        Some(piece)
    })
}

/// The part of `map` from `offset` on.
fn cut(map: &[StatusExtent], offset: u64, length: u64, limit: usize) -> Vec<StatusExtent> {
    let end = offset.saturating_add(length);
    let mut start = 0;
    let mut found = Vec::new();
    for extent in map {
        let stop = start + extent.length;
        let inside = stop.min(end).saturating_sub(start.max(offset));
        if inside > 0 && found.len() < limit {
            found.push(StatusExtent { length: inside, flags: extent.flags });
        }
        start = stop;
    }
    // A map that is too short says nothing about the rest.
    if start < end && found.len() < limit {
        found.push(StatusExtent::data(end - start.max(offset)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_appear_and_vanish_by_whole_blocks() {
        let disk = MemoryExport::new(4 * BLOCK);
        disk.fill(BLOCK - 1, &[1, 2]);
        assert_eq!(disk.allocated(), 2 * BLOCK);
        assert_eq!(disk.contents(BLOCK - 2, 4), [0, 1, 2, 0]);
        disk.zero(0, BLOCK, ZeroMode::MayPunch);
        assert_eq!(disk.allocated(), BLOCK);
        disk.zero(BLOCK, 10, ZeroMode::MayPunch);
        assert_eq!(disk.allocated(), BLOCK, "part of a block is not punched");
        disk.zero(0, BLOCK, ZeroMode::KeepAllocated);
        assert_eq!(disk.allocated(), 2 * BLOCK);
        assert_eq!(disk.contents(0, 4 * BLOCK), vec![0; 4 * BLOCK as usize]);
    }

    #[test]
    fn a_reader_keeps_what_it_read() {
        let disk = MemoryExport::new(BLOCK);
        disk.fill(0, b"old");
        let read = disk.extents(0, 3);
        disk.fill(0, b"new");
        assert_eq!(read, [Extent::Data(Bytes::from_static(b"old"))]);
        assert_eq!(disk.contents(0, 3), b"new");
    }

    #[test]
    fn writes_end_at_the_end() {
        let disk = MemoryExport::new(5);
        disk.fill(3, b"abc");
        assert_eq!(disk.contents(0, 5), b"\0\0\0ab");
    }

    #[test]
    fn a_map_answers_from_any_offset() {
        let map = [StatusExtent { length: 100, flags: 0 }, StatusExtent { length: 50, flags: 1 }];
        let text = |offset, length, limit| {
            let found = cut(&map, offset, length, limit);
            let parts: Vec<_> = found.iter().map(|e| format!("{}:{}", e.length, e.flags)).collect();
            parts.join(" ")
        };
        assert_eq!(text(0, 150, 9), "100:0 50:1");
        assert_eq!(text(90, 20, 9), "10:0 10:1");
        assert_eq!(text(90, 20, 1), "10:0");
        assert_eq!(text(140, 100, 9), "10:1 90:0");
    }
}
