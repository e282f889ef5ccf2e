//! From a disk of a cut to frames: reading, comparing, hashing, compressing,
//! many pieces at once and in order all the same.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use domain::fault::Fault;
use futures::StreamExt as _;
use futures::stream;
use replica::format::Digest;
use replica::geometry::{BLOCK, PAGE};
use replica::pipeline::{Compression, Encoder};
use tokio::task::spawn_blocking;
use wire::data::{Pages, Range as WireRange, ShipperFrame};

use super::sender::Sender;
use super::suspects;
use crate::capture::{Changes, DiskReader, Stretch, StretchKind};

/// Bytes that are read and encoded together.
const PIECE: u64 = 1 << 20;
/// Pieces that are under way.
const AT_ONCE: usize = 12;
/// Batches that are compared block by block after one in which many nodes
/// differed.
const AT_ONCE_AFTER: u32 = 8;
/// Stretches that are looked at before anything of them is sent.
const BATCH: usize = 256;

/// What a copy needs to know of a disk.
pub(super) struct Disk<'a> {
    pub(super) number: u16,
    pub(super) size: u64,
    pub(super) reader: &'a DiskReader,
    pub(super) encoders: &'a Encoders,
    /// Bytes of data that are looked at before anything of them is sent.
    pub(super) batch: u64,
    /// Told the bytes of each piece that is done with.
    pub(super) passed: &'a (dyn Fn(u64) + Sync),
}

/// How much was done.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Done {
    /// Bytes that were looked at as changed.
    pub(super) changed: u64,
    /// Bytes that were read.
    pub(super) read: u64,
}

/// What the keeper has in the place of what is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    /// Nothing at all: zeroes need not be sent.
    Nothing,
    /// Something else: all is sent.
    Something,
    /// The newest point: what is the same need not be sent.
    NewestPoint,
    /// The newest point, of which most is likely to be the same.
    MostlyAlike,
}

/// Encoders for threads that have none at the moment.
#[derive(Debug, Clone)]
pub(super) struct Encoders {
    compression: Compression,
    spares: Arc<Mutex<Vec<Encoder>>>,
}

impl Encoders {
    pub(super) fn new(compression: wire::replication::Compression) -> Self {
        Self { compression: crate::compression::of(compression), spares: Arc::default() }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Encoder) -> T) -> T {
        let spares = || self.spares.lock().unwrap_or_else(PoisonError::into_inner);
        let spare = spares().pop();
        let mut encoder = spare.unwrap_or_else(|| Encoder::new(self.compression));
        let done = act(&mut encoder);
        spares().push(encoder);
        done
    }
}

/// A part of a stretch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) kind: StretchKind,
}

/// Sends what a walk tells of, until its end or until `go_on` says no; where it
/// got to. `go_on` is asked between batches with the place that was reached.
pub(super) async fn send(
    disk: &Disk<'_>,
    mut changes: Changes,
    before: Before,
    sender: &mut Sender,
    done: &mut Done,
    mut go_on: impl FnMut(u64) -> bool,
) -> Result<Option<u64>, Fault> {
    let mut reached = 0;
    let mut rest: Option<Stretch> = None;
    // Batches in which nodes are not asked about, for many differed.
    let mut at_once = 0_u32;
    loop {
        let mut pieces = Vec::new();
        let mut ended = false;
        let mut planned = 0;
        while pieces.len() < BATCH && planned < disk.batch {
            let next = match rest.take() {
                Some(rest) => Some(rest),
                None => changes.next().await.map_err(super::fault::of_capture)?,
            };
            let Some(mut stretch) = next else {
                ended = true;
                break;
            };
            // A long stretch of data goes in several batches.
            let room = disk.batch - planned;
            if stretch.kind == StretchKind::Data && stretch.length > room {
                let (offset, length) = (stretch.offset + room, stretch.length - room);
                rest = Some(Stretch { offset, length, ..stretch });
                stretch.length = room;
            }
            done.changed += stretch.length;
            if stretch.kind == StretchKind::Data {
                planned += stretch.length;
            }
            cut_up(
                stretch.offset..stretch.offset + stretch.length,
                stretch.kind,
                disk.size,
                &mut reached,
                &mut pieces,
            );
        }
        if before == Before::MostlyAlike && at_once == 0 {
            let suspects = suspects::find(disk, pieces, sender, done).await?;
            pieces = suspects.pieces;
            at_once = if suspects.are_many { AT_ONCE_AFTER } else { 0 };
        } else {
            at_once = at_once.saturating_sub(1);
        }
        send_pieces(disk, &pieces, before, sender, done).await?;
        if ended {
            return Ok(None);
        }
        if !go_on(reached) {
            return Ok(Some(reached));
        }
    }
}

/// Pieces of whole pages: data grows to them, zeroes shrink. `from` is where
/// the last piece ended.
fn cut_up(
    range: Range<u64>,
    kind: StretchKind,
    size: u64,
    from: &mut u64,
    pieces: &mut Vec<Piece>,
) {
    let (start, end) = match kind {
        StretchKind::Data => {
            (range.start / PAGE * PAGE, range.end.next_multiple_of(PAGE).min(size))
        }
        _ => (
            range.start.next_multiple_of(PAGE),
            if range.end == size { size } else { range.end / PAGE * PAGE },
        ),
    };
    let mut at = start.max(*from);
    while at < end {
        let length = match kind {
            StretchKind::Data => (PIECE - at % PIECE).min(end - at),
            _ => end - at,
        };
        pieces.push(Piece { offset: at, length, kind });
        at += length;
    }
    *from = (*from).max(end);
}

async fn send_pieces(
    disk: &Disk<'_>,
    pieces: &[Piece],
    before: Before,
    sender: &mut Sender,
    done: &mut Done,
) -> Result<(), Fault> {
    let known = match before {
        Before::NewestPoint | Before::MostlyAlike => Known::ask(disk, pieces, sender).await?,
        _ => Known::default(),
    };
    let known = Arc::new(known);
    let mut work = stream::iter(pieces.iter().copied())
        .map(|piece| {
            let (reader, encoders) = (disk.reader.clone(), disk.encoders.clone());
            let (known, number) = (Arc::clone(&known), disk.number);
            // Tasks of their own: they go on while something is being sent.
            tokio::spawn(async move {
                if piece.kind != StretchKind::Data {
                    return Ok((piece, cleared(number, piece, before)));
                }
                let bytes = read(&reader, piece).await?;
                let encode = move || encode(number, piece, &bytes, &encoders, &known);
                let frames = spawn_blocking(encode).await;
                Ok((piece, frames.map_err(|error| Fault::internal("encode changes", &error))?))
            })
        })
        .buffered(AT_ONCE);
    while let Some(result) = work.next().await {
        let result: Result<_, Fault> =
            result.map_err(|error| Fault::internal("read changes", &error))?;
        let (piece, frames): (Piece, Vec<ShipperFrame>) = result?;
        if piece.kind == StretchKind::Data {
            done.read += piece.length;
        }
        for frame in frames {
            sender.send(frame).await?;
        }
        (disk.passed)(piece.length);
    }
    Ok(())
}

/// What is sent for a stretch of zeroes.
fn cleared(disk: u16, piece: Piece, before: Before) -> Vec<ShipperFrame> {
    if before == Before::Nothing {
        return Vec::new();
    }
    let range = WireRange { disk, offset: piece.offset, length: piece.length };
    vec![match piece.kind {
        StretchKind::Hole => ShipperFrame::Discard(range),
        _ => ShipperFrame::Zero(range),
    }]
}

pub(super) async fn read(reader: &DiskReader, piece: Piece) -> Result<Bytes, Fault> {
    let most = u64::from(reader.max_length()).max(PAGE);
    if piece.length <= most {
        let read = reader.read(piece.offset, piece.length as u32).await;
        return read.map_err(super::fault::of_capture);
    }
    let mut whole = Vec::with_capacity(piece.length as usize);
    while (whole.len() as u64) < piece.length {
        let at = piece.offset + whole.len() as u64;
        let length = most.min(piece.length - whole.len() as u64) as u32;
        whole.extend_from_slice(&reader.read(at, length).await.map_err(super::fault::of_capture)?);
    }
    Ok(whole.into())
}

/// Digests of blocks at the keeper, by the number of the block.
#[derive(Debug, Default)]
struct Known(Vec<(u64, Vec<Digest>)>);

impl Known {
    async fn ask(disk: &Disk<'_>, pieces: &[Piece], sender: &mut Sender) -> Result<Self, Fault> {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for piece in pieces.iter().filter(|piece| piece.kind == StretchKind::Data) {
            let first = piece.offset / BLOCK;
            let end = (piece.offset + piece.length).div_ceil(BLOCK);
            match ranges.last_mut() {
                Some((start, count)) if *start + *count >= first => {
                    *count = (*count).max(end - *start);
                }
                _ => ranges.push((first, end - first)),
            }
        }
        if ranges.is_empty() {
            return Ok(Self::default());
        }
        let mut digests = sender.digests(disk.number, 0, ranges.clone()).await?.into_iter();
        let known = ranges
            .into_iter()
            .map(|(first, count)| (first, digests.by_ref().take(count as usize).collect()));
        Ok(Self(known.collect()))
    }

    fn of(&self, block: u64) -> Option<Digest> {
        let at = self.0.partition_point(|(first, _)| *first <= block).checked_sub(1)?;
        let (first, digests) = self.0.get(at)?;
        digests.get((block - first) as usize).copied()
    }
}

fn encode(
    disk: u16,
    piece: Piece,
    bytes: &Bytes,
    encoders: &Encoders,
    known: &Known,
) -> Vec<ShipperFrame> {
    let mut frames = Vec::new();
    let mut at = piece.offset;
    let end = piece.offset + piece.length;
    while at < end {
        let length = (BLOCK - at % BLOCK).min(end - at);
        let start = (at - piece.offset) as usize;
        let block = bytes.slice(start..start + length as usize);
        if known.of(at / BLOCK).is_none_or(|theirs| theirs != leaf(&block, at)) {
            frames.push(pages(disk, at, block, encoders));
        }
        at += length;
    }
    frames
}

/// The digest of a block as stores compare it: padded with zeroes to 64 KiB; of
/// zeroes, nothing. A part of a block has none that anybody knows.
pub(super) fn leaf(block: &[u8], offset: u64) -> Digest {
    if block.iter().all(|byte| *byte == 0) {
        return Digest::default();
    }
    if block.len() as u64 == BLOCK || !offset.is_multiple_of(BLOCK) {
        return Digest::of(block);
    }
    let mut whole = block.to_vec();
    whole.resize(BLOCK as usize, 0);
    Digest::of(&whole)
}

fn pages(disk: u16, offset: u64, block: Bytes, encoders: &Encoders) -> ShipperFrame {
    let length = block.len() as u32;
    let block = match u64::from(length).is_multiple_of(PAGE) {
        true => block,
        false => {
            let mut padded = block.to_vec();
            padded.resize(padded.len().next_multiple_of(PAGE as usize), 0);
            padded.into()
        }
    };
    match encoders.with(|encoder| encoder.encode_pages(block)) {
        None => ShipperFrame::Zero(WireRange { disk, offset, length: length.into() }),
        Some(encoded) => ShipperFrame::Pages(Pages {
            disk,
            codec: encoded.codec.to_byte(),
            offset,
            length,
            digest: encoded.digest.0,
            stored: encoded.stored,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(range: Range<u64>, kind: StretchKind, from: u64) -> Vec<(u64, u64)> {
        let (mut from, mut pieces) = (from, Vec::new());
        cut_up(range, kind, 10 * PAGE + 100, &mut from, &mut pieces);
        pieces.into_iter().map(|piece| (piece.offset, piece.length)).collect()
    }

    #[test]
    fn data_grows_to_whole_pages_and_zeroes_shrink() {
        use StretchKind::{Data, Hole};
        assert_eq!(cut(100..5000, Data, 0), [(0, 2 * PAGE)]);
        assert_eq!(cut(5000..9000, Data, 2 * PAGE), [(2 * PAGE, PAGE)], "not twice");
        assert_eq!(cut(100..4 * PAGE + 1, Hole, 0), [(PAGE, 3 * PAGE)]);
        assert_eq!(cut(9 * PAGE + 1..10 * PAGE + 100, Data, 0), [(9 * PAGE, PAGE + 100)]);
        assert_eq!(cut(9 * PAGE + 1..10 * PAGE + 100, Hole, 0), [(10 * PAGE, 100)]);
        assert_eq!(cut(1..100, Hole, 0), []);
    }

    #[test]
    fn what_the_keeper_has_is_not_sent() {
        let bytes =
            Bytes::from([vec![1; BLOCK as usize], vec![2; BLOCK as usize], vec![3; 4096]].concat());
        let piece = Piece { offset: 0, length: bytes.len() as u64, kind: StretchKind::Data };
        let encoders = Encoders::new(wire::replication::Compression::Fast);
        let known = Known(vec![(
            0,
            vec![leaf(&bytes[..BLOCK as usize], 0), Digest::default(), leaf(&[3; 4096], 2 * BLOCK)],
        )]);
        let frames = encode(0, piece, &bytes, &encoders, &known);
        let told: Vec<_> = frames
            .iter()
            .map(|frame| match frame {
                ShipperFrame::Pages(pages) => (pages.offset, pages.length),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(told, [(BLOCK, BLOCK as u32)]);
        assert_eq!(encode(0, piece, &bytes, &encoders, &Known::default()).len(), 3);
    }
}
