//! A point as a read-only disk.
//!
//! It starts at once whatever the disk's size: nothing is looked up before it
//! is read. Every record is proved by its hash when it comes from the medium;
//! damage is an error that names disk, range and points. A view keeps its
//! point alive while it exists, in this process.
//!
//! Who reads in order over NBD finds that what follows was read, decoded and proved
//! meanwhile: `streams` says what, `ahead` sees to it.

use std::sync::Arc;

use bytes::Bytes;
use nbd::{
    protocol::{chunk::StatusExtent, constants::STATE_ZERO, errno::Errno, facts::ExportFacts},
    server::{Export, ExportError, ExportResult, Extent},
};
use tokio::task::{JoinError, spawn_blocking};

use crate::{
    error::{StoreError, StoreResult},
    fetch::{Piece, PieceSource, Unread, pieces},
    format::manifest::Point,
    geometry::{BLOCK, BlockKey, Cycle, DiskNumber, PAGE},
    state::Shared,
    store::Store,
};

/// What the makeup of a block takes in memory beside its pieces.
const OVERHEAD: usize = 160;
/// Blocks that one question about allocation looks at, at most.
const STATUS_BLOCKS: u32 = 1 << 20;

/// One disk of a point. Clones share it.
#[derive(Debug, Clone)]
pub struct View {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    shared: Arc<Shared>,
    point: Cycle,
    disk: DiskNumber,
    size: u64,
    description: String,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.unpin(self.point);
    }
}

impl Store {
    /// Opens a disk of a point.
    ///
    /// # Errors
    /// There is no such point or disk.
    pub fn view(&self, point: Cycle, disk: DiskNumber) -> StoreResult<View> {
        // Pinned first: between looking and pinning it could be dropped.
        self.shared.pin(point)?;
        let made = self.point(point).and_then(|found| View::new(&self.shared, &found, disk));
        if made.is_err() {
            self.shared.unpin(point);
        }
        made
    }
}

impl View {
    fn new(shared: &Arc<Shared>, point: &Point, disk: DiskNumber) -> StoreResult<Self> {
        let cycle = point.cycle;
        let size = point.disks.get(usize::from(disk.0)).copied();
        let size = size.ok_or(StoreError::NoSuchDisk { disk, point: cycle })?;
        let inner = Inner {
            shared: Arc::clone(shared),
            point: cycle,
            disk,
            size,
            description: format!("{disk} at {cycle}"),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.inner.size
    }

    /// Its point.
    #[must_use]
    pub fn point(&self) -> Cycle {
        self.inner.point
    }

    /// Its disk.
    #[must_use]
    pub fn disk(&self) -> DiskNumber {
        self.inner.disk
    }

    /// Reads; blocks while it does. The range lies inside the disk.
    ///
    /// # Errors
    /// [`Damaged`](StoreError::Damaged), and what the medium says.
    pub fn extents(&self, offset: u64, length: u64) -> StoreResult<Vec<Extent>> {
        let end = offset.checked_add(length).filter(|end| *end <= self.inner.size);
        let Some(end) = end else {
            let why = "beyond the end of the disk";
            return Err(StoreError::BadRange { disk: self.inner.disk, offset, length, why });
        };
        let mut extents = Vec::new();
        for block in blocks(offset, end) {
            let key = BlockKey::new(self.inner.disk, block);
            self.inner.shared.reading(key, self.inner.point, || {
                let before = extents.len();
                let result = self.inner.read_block(block, offset, end, &mut extents);
                if result.is_err() {
                    extents.truncate(before);
                    self.inner.shared.makeups.forget(&(self.inner.point, key));
                }
                result
            })?;
        }
        Ok(extents)
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.inner.shared)
    }

    /// As [`extents`](Self::extents), if everything is at hand.
    fn extents_at_hand(&self, offset: u64, length: u64) -> Option<Vec<Extent>> {
        let end = offset + length;
        let mut extents = Vec::new();
        for block in blocks(offset, end) {
            let pieces = self.inner.remembered(block)?;
            for (piece, from, to) in parts(&pieces, block, offset, end) {
                extents.push(match piece.source {
                    PieceSource::Bytes(entry) => {
                        slice_of(&self.inner.shared.cached(&entry)?, &entry, from, to)?
                    }
                    _ => Extent::Hole(to - from),
                });
            }
        }
        Some(extents)
    }

    /// Takes note of a read, and has what is likely to be read next read in the
    /// background. Called inside of a runtime.
    fn read_ahead(&self, offset: u64, length: u64) {
        let inner = &self.inner;
        let ahead = &inner.shared.ahead;
        let blocks = ahead.read((inner.point, inner.disk), offset, length, inner.size);
        let missing: Vec<u32> = blocks.filter(|block| !inner.is_at_hand(*block)).collect();
        if missing.is_empty() {
            return;
        }
        for _ in 0..ahead.push(&Arc::downgrade(inner), missing.into_iter()) {
            let shared = Arc::clone(&inner.shared);
            spawn_blocking(move || shared.ahead.work(Inner::fetch));
        }
    }

    /// Reads into memory, for tests and tools.
    ///
    /// # Errors
    /// As with [`extents`](Self::extents).
    pub fn read_to_vec(&self, offset: u64, length: u64) -> StoreResult<Vec<u8>> {
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
        for extent in self.extents(offset, length)? {
            match extent {
                Extent::Data(data) => bytes.extend_from_slice(&data),
                Extent::Hole(length) => bytes.resize(bytes.len() + length as usize, 0),
            }
        }
        Ok(bytes)
    }

    /// What is allocated, from `offset` on: at most `limit` stretches, which
    /// may end early.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn allocation(
        &self,
        offset: u64,
        length: u64,
        limit: usize,
    ) -> StoreResult<Vec<StatusExtent>> {
        let end = offset.saturating_add(length).min(self.inner.size);
        let mut attempts = 0;
        loop {
            attempts += 1;
            match self.inner.allocation(offset, end, limit) {
                Err(error) if attempts == 3 => return Err(error),
                Err(_) => self.inner.shared.look_again()?,
                found => return found,
            }
        }
    }
}

impl Inner {
    /// What a block is made of, if that is at hand.
    fn remembered(&self, block: u32) -> Option<Arc<[Piece]>> {
        self.shared.makeups.get(&(self.point, BlockKey::new(self.disk, block)))
    }

    fn makeup(&self, block: u32) -> StoreResult<Arc<[Piece]>> {
        if let Some(pieces) = self.remembered(block) {
            return Ok(pieces);
        }
        let key = BlockKey::new(self.disk, block);
        let versions = self.shared.index().versions(key, self.point)?;
        let found: Arc<[Piece]> = pieces(&versions).into();
        let weight = size_of_val(&*found) + OVERHEAD;
        self.shared.makeups.put((self.point, key), Arc::clone(&found), weight);
        Ok(found)
    }

    fn is_at_hand(&self, block: u32) -> bool {
        let is_at_hand = |piece: &Piece| match &piece.source {
            PieceSource::Bytes(entry) => self.shared.is_at_hand(entry),
            PieceSource::Hole | PieceSource::Zero => true,
        };
        self.remembered(block).is_some_and(|pieces| pieces.iter().all(is_at_hand))
    }

    /// Has a block at hand, if that can be done. What is wrong is told to whoever
    /// needs the block.
    fn fetch(&self, block: u32) {
        let Ok(pieces) = self.makeup(block) else { return };
        for piece in &*pieces {
            if let PieceSource::Bytes(entry) = &piece.source
                && self.shared.bytes_of(entry).is_err()
            {
                return;
            }
        }
    }

    fn read_block(
        &self,
        block: u32,
        offset: u64,
        end: u64,
        extents: &mut Vec<Extent>,
    ) -> Result<(), Unread> {
        let pieces = self.makeup(block).map_err(Unread::index)?;
        for (piece, from, to) in parts(&pieces, block, offset, end) {
            let extent = match piece.source {
                PieceSource::Bytes(entry) => {
                    let bytes = self.shared.bytes_of(&entry).map_err(Unread::record(entry))?;
                    let short = StoreError::TooLarge("a record is too short for its entry");
                    slice_of(&bytes, &entry, from, to)
                        .ok_or(short)
                        .map_err(Unread::record(entry))?
                }
                _ => Extent::Hole(to - from),
            };
            extents.push(extent);
        }
        Ok(())
    }

    fn allocation(&self, offset: u64, end: u64, limit: usize) -> StoreResult<Vec<StatusExtent>> {
        let mut found = Found { extents: Vec::new(), limit, full: false };
        let first = (offset / BLOCK) as u32;
        let last = (end.div_ceil(BLOCK) as u32).min(first.saturating_add(STATUS_BLOCKS));
        let from = BlockKey::new(self.disk, first);
        let to = BlockKey(from.0 + u64::from(last - first));
        let index = self.shared.index();
        let mut scan = index.scan(from, to)?;
        let mut versions = Vec::new();
        let mut at = offset;
        while !found.full
            && let Some(key) = scan.next_at(self.point, &mut versions)?
        {
            if versions.is_empty() {
                continue;
            }
            if key.offset() > at {
                found.push(StatusExtent::hole(key.offset() - at));
                at = key.offset();
            }
            for (piece, from, to) in parts(&pieces(&versions), key.block(), offset, end) {
                found.push(match piece.source {
                    PieceSource::Hole => StatusExtent::hole(to - from),
                    PieceSource::Zero => StatusExtent { length: to - from, flags: STATE_ZERO },
                    PieceSource::Bytes(_) => StatusExtent::data(to - from),
                });
                at += to - from;
            }
        }
        let looked_at = (u64::from(last) * BLOCK).min(end);
        if !found.full && at < looked_at {
            found.push(StatusExtent::hole(looked_at - at));
        }
        Ok(found.extents)
    }
}

struct Found {
    extents: Vec<StatusExtent>,
    limit: usize,
    full: bool,
}

impl Found {
    fn push(&mut self, extent: StatusExtent) {
        if self.full || extent.length == 0 {
            return;
        }
        let no_room = self.extents.len() >= self.limit.max(1);
        match self.extents.last_mut() {
            Some(last) if last.flags == extent.flags => last.length += extent.length,
            _ if no_room => self.full = true,
            _ => self.extents.push(extent),
        }
    }
}

fn blocks(offset: u64, end: u64) -> std::ops::Range<u32> {
    (offset / BLOCK) as u32..end.div_ceil(BLOCK) as u32
}

/// The pieces of a block that lie in a range of the disk, with the bytes of
/// the block that they cover there.
fn parts(
    pieces: &[Piece],
    block: u32,
    offset: u64,
    end: u64,
) -> impl Iterator<Item = (Piece, u64, u64)> + '_ {
    let start = u64::from(block) * BLOCK;
    pieces.iter().filter_map(move |piece| {
        let first = start + u64::from(piece.first) * PAGE;
        let from = first.max(offset);
        let to = (first + piece.length()).min(end);
        (from < to).then(|| (*piece, from - start, to - start))
    })
}

/// Bytes of a block, out of a record of some of its pages.
fn slice_of(
    bytes: &Bytes,
    entry: &crate::format::entry::Entry,
    from: u64,
    to: u64,
) -> Option<Extent> {
    let first = u64::from(entry.pages.first()) * PAGE;
    let from = usize::try_from(from.checked_sub(first)?).ok()?;
    let to = usize::try_from(to.checked_sub(first)?).ok()?;
    (to <= bytes.len()).then(|| Extent::Data(bytes.slice(from..to)))
}

impl Export for View {
    fn facts(&self) -> ExportFacts {
        ExportFacts::read_only(self.inner.size).described(self.inner.description.clone())
    }

    async fn read(&self, offset: u64, length: u32) -> ExportResult<Vec<Extent>> {
        if let Some(extents) = self.extents_at_hand(offset, length.into()) {
            self.read_ahead(offset, length.into());
            return Ok(extents);
        }
        let view = self.clone();
        let reading = spawn_blocking(move || view.extents(offset, length.into()));
        // Only now: what somebody waits for goes first.
        self.read_ahead(offset, length.into());
        told(reading.await)
    }

    async fn block_status(
        &self,
        _: &str,
        offset: u64,
        length: u64,
        limit: usize,
    ) -> ExportResult<Vec<StatusExtent>> {
        let view = self.clone();
        in_background(move || view.allocation(offset, length, limit)).await
    }
}

async fn in_background<T: Send + 'static>(
    act: impl FnOnce() -> StoreResult<T> + Send + 'static,
) -> ExportResult<T> {
    told(spawn_blocking(act).await)
}

/// What came of something that was done in the background, for a client.
fn told<T>(result: Result<StoreResult<T>, JoinError>) -> ExportResult<T> {
    let result = result.map_err(|_| ExportError::new(Errno::Io, "reading the store failed"))?;
    result.map_err(|error| {
        tracing::error!(error = error.chain(), "a view cannot be read");
        let wire = ExportError::new(Errno::Io, error.chain());
        match error {
            StoreError::Damaged(damage) => wire.at(damage.range.start),
            _ => wire,
        }
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        format::{
            entry::Content,
            record::{Consistency, HEADER},
        },
        medium::simulated::SimulatedMedium,
        segment,
        state::Limits,
        writer::{SealFacts, Writer, WriterOptions},
    };

    const BLOCKS: u32 = 128;

    /// Text, another one in each block.
    fn bytes_of(block: u32) -> Vec<u8> {
        format!("block {block} of a disk. ").into_bytes().repeat(4096)[..BLOCK as usize].to_vec()
    }

    fn facts() -> SealFacts {
        SealFacts {
            instant: 0,
            consistency: Consistency::Crash,
            origin: "test".to_owned(),
            configuration: Vec::new(),
        }
    }

    /// A point of a disk of so many blocks.
    fn view() -> (SimulatedMedium, View) {
        let medium = SimulatedMedium::new(1);
        let mut writer = Writer::open(Arc::new(medium.clone()), WriterOptions::new(1)).unwrap();
        let (disk, size) = (DiskNumber(0), u64::from(BLOCKS) * BLOCK);
        writer.begin(&[size]).unwrap();
        for block in 0..BLOCKS {
            writer.write(disk, u64::from(block) * BLOCK, &bytes_of(block)).unwrap();
        }
        let point = writer.seal(facts()).unwrap();
        writer.settle().unwrap();
        let view = writer.store().view(point.cycle, disk).unwrap();
        (medium, view)
    }

    async fn read(view: &View, block: u32) -> ExportResult<Vec<u8>> {
        let extents = Export::read(view, u64::from(block) * BLOCK, BLOCK as u32).await?;
        let data = extents.iter().map(|extent| match extent {
            Extent::Data(data) => data.to_vec(),
            Extent::Hole(length) => vec![0; *length as usize],
        });
        Ok(data.collect::<Vec<_>>().concat())
    }

    fn at_hand(view: &View) -> Vec<u32> {
        (0..BLOCKS).filter(|block| view.inner.is_at_hand(*block)).collect()
    }

    /// Waits until these blocks, and no others, are at hand.
    async fn expect_at_hand(view: &View, blocks: &[u32]) {
        let waiting = async {
            while at_hand(view) != blocks {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), waiting).await;
        assert!(waited.is_ok(), "at hand: {:?}", at_hand(view));
    }

    #[tokio::test]
    async fn who_reads_in_order_finds_the_next_blocks_at_hand() {
        let (_medium, view) = view();
        for block in 0..4 {
            assert!(read(&view, block).await.unwrap() == bytes_of(block));
        }
        expect_at_hand(&view, &[0, 1, 2, 3, 4, 5, 6, 7]).await;
        for block in 4..BLOCKS {
            assert!(read(&view, block).await.unwrap() == bytes_of(block), "block {block}");
        }
    }

    #[tokio::test]
    async fn of_who_reads_anywhere_nothing_more_is_read() {
        let (_medium, view) = view();
        for block in [100, 3, 55, 120, 20, 80] {
            assert!(read(&view, block).await.unwrap() == bytes_of(block));
        }
        assert_eq!(at_hand(&view), [3, 20, 55, 80, 100, 120]);
    }

    #[tokio::test]
    async fn damage_ahead_is_told_to_who_reads_it_and_nobody_else() {
        let (medium, view) = view();
        let spoilt = view.inner.makeup(5).unwrap();
        let PieceSource::Bytes(entry) = spoilt[0].source else { panic!("{spoilt:?}") };
        let Content::Data { place, .. } = entry.content else { panic!("{entry:?}") };
        let name = segment::file_name(place.segment, 1);
        medium.flip_bit(&name, place.offset as usize + HEADER + 20);
        for block in 0..4 {
            assert!(read(&view, block).await.is_ok());
        }
        expect_at_hand(&view, &[0, 1, 2, 3, 4, 6, 7]).await;
        assert!(read(&view, 4).await.is_ok());
        let told = read(&view, 5).await.unwrap_err();
        assert_eq!(told.offset, Some(5 * BLOCK));
        assert!(told.message.contains("damaged"), "{told}");
        assert!(read(&view, 6).await.unwrap() == bytes_of(6));
    }

    #[test]
    fn what_blocks_are_made_of_is_remembered_for_all_that_the_cache_holds() {
        let medium = SimulatedMedium::new(1);
        let mut writer = Writer::open(Arc::new(medium.clone()), WriterOptions::new(1)).unwrap();
        let (disk, size) = (DiskNumber(0), 16_000 * BLOCK);
        writer.begin(&[size]).unwrap();
        writer.write(disk, 0, &bytes_of(0)).unwrap();
        let point = writer.seal(facts()).unwrap().cycle;
        writer.settle().unwrap();
        let limits = Limits { block_cache: 1 << 30, ..Limits::default() };
        let view = Store::open(Arc::new(medium), limits).unwrap().view(point, disk).unwrap();
        view.extents(0, size).unwrap();
        let found = view.extents_at_hand(0, size).unwrap();
        assert_eq!(found.iter().map(Extent::len).sum::<u64>(), size);
    }
}
