//! Of what is compared with the newest point, what may differ: found by digests
//! of [nodes](replica::digest) of 4 MiB, so that digests of blocks are only
//! asked for where something does.

use std::collections::HashSet;
use std::ops::Range;

use domain::fault::Fault;
use futures::future::try_join_all;
use futures::{FutureExt as _, StreamExt as _, stream};
use replica::digest::{FAN, Question, fold};
use replica::format::Digest;
use replica::geometry::BLOCK;
use tokio::task::spawn_blocking;

use super::copy::{Disk, Done, Piece, leaf, read};
use super::sender::Sender;
use crate::capture::{DiskReader, StretchKind};

/// Bytes of a node.
const NODE: u64 = FAN * BLOCK;
/// Bytes that are read and hashed together.
const PIECE: u64 = 1 << 20;
/// Nodes that are read at once.
const AT_ONCE: usize = 3;
/// One node in so many may differ before asking for blocks at once is better:
/// what differs is read twice.
const FEW: usize = 8;
/// Nodes that are asked about at once.
const QUESTION: usize = 4096;

/// What a look at the nodes came to.
pub(super) struct Suspects {
    /// What may differ.
    pub(super) pieces: Vec<Piece>,
    /// Whether so much may differ that asking for blocks at once is better.
    pub(super) are_many: bool,
}

/// Leaves out what stands in nodes that are the same at the keeper. The pieces
/// are in order and do not overlap.
pub(super) async fn find(
    disk: &Disk<'_>,
    pieces: Vec<Piece>,
    sender: &mut Sender,
    done: &mut Done,
) -> Result<Suspects, Fault> {
    let nodes = whole_nodes(&pieces, disk.size);
    let mut same = HashSet::new();
    for some in nodes.chunks(QUESTION) {
        let ranges = runs(some.iter().map(|node| node.number));
        let theirs = sender.digests(disk.number, 1, ranges).await?;
        let mut work = stream::iter(some.iter().copied().zip(theirs))
            .map(|(node, theirs)| {
                let (reader, size) = (disk.reader.clone(), disk.size);
                // Tasks of their own: hashing goes on while others are read.
                let work = tokio::spawn(async move {
                    let ours = match node.has_data {
                        true => digest_of(&reader, node.number, size).await?,
                        false => Digest::default(),
                    };
                    Ok::<_, Fault>((node, ours == theirs))
                });
                work.map(|done| done.map_err(|error| Fault::internal("compare a disk", &error))?)
            })
            .buffered(AT_ONCE);
        while let Some(compared) = work.next().await {
            let (node, is_same) = compared?;
            if node.has_data {
                let range = range_of(node.number, disk.size);
                done.read += range.end - range.start;
            }
            if is_same {
                same.insert(node.number);
            }
        }
    }
    let are_many = (nodes.len() - same.len()) * FEW > nodes.len();
    let pieces = pieces.into_iter().flat_map(|piece| without(piece, &same)).collect();
    Ok(Suspects { pieces, are_many })
}

/// A node all of whose bytes are to be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Node {
    number: u64,
    has_data: bool,
}

fn range_of(node: u64, size: u64) -> Range<u64> {
    node * NODE..((node + 1) * NODE).min(size)
}

/// The nodes that are covered by pieces from end to end.
fn whole_nodes(pieces: &[Piece], size: u64) -> Vec<Node> {
    let mut nodes = Vec::new();
    // Of the node that is looked at: its number, bytes covered, any of them data.
    let (mut number, mut covered, mut has_data) = (0, 0, false);
    for piece in pieces {
        let (mut at, end) = (piece.offset, piece.offset + piece.length);
        while at < end {
            if at / NODE != number {
                (number, covered, has_data) = (at / NODE, 0, false);
            }
            let range = range_of(number, size);
            let stop = end.min(range.end);
            covered += stop - at;
            has_data |= piece.kind == StretchKind::Data;
            if covered == range.end - range.start {
                nodes.push(Node { number, has_data });
            }
            at = stop;
        }
    }
    nodes
}

/// First and count of neighbours.
fn runs(numbers: impl Iterator<Item = u64>) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((first, count)) if *first + *count == number => *count += 1,
            _ => runs.push((number, 1)),
        }
    }
    runs
}

/// The digest of a node as it stands on the source's disk.
async fn digest_of(reader: &DiskReader, number: u64, size: u64) -> Result<Digest, Fault> {
    let range = range_of(number, size);
    let pieces = range.clone().step_by(PIECE as usize).map(|offset| Piece {
        offset,
        length: PIECE.min(range.end - offset),
        kind: StretchKind::Data,
    });
    let leaves = try_join_all(pieces.map(async |piece| {
        let bytes = read(reader, piece).await?;
        let leaves = spawn_blocking(move || -> Vec<Digest> {
            bytes.chunks(BLOCK as usize).map(|block| leaf(block, 0)).collect()
        });
        leaves.await.map_err(|error| Fault::internal("hash a disk", &error))
    }));
    let leaves = (number * FAN..).zip(leaves.await?.into_iter().flatten());
    let nodes = fold(&Question { level: 1, first: number, count: 1 }, leaves);
    Ok(nodes.first().copied().unwrap_or_default())
}

/// What of a piece does not stand in these nodes.
fn without(piece: Piece, nodes: &HashSet<u64>) -> Vec<Piece> {
    let (mut at, end) = (piece.offset, piece.offset + piece.length);
    let mut left: Vec<Piece> = Vec::new();
    while at < end {
        let stop = end.min((at / NODE + 1) * NODE);
        if !nodes.contains(&(at / NODE)) {
            match left.last_mut() {
                Some(last) if last.offset + last.length == at => last.length += stop - at,
                _ => left.push(Piece { offset: at, length: stop - at, kind: piece.kind }),
            }
        }
        at = stop;
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 3 * NODE + 5000;

    fn piece(offset: u64, length: u64, kind: StretchKind) -> Piece {
        Piece { offset, length, kind }
    }

    #[test]
    fn only_nodes_that_are_compared_from_end_to_end_are_asked_about() {
        use StretchKind::{Data, Hole};
        let pieces = [
            piece(BLOCK, NODE - BLOCK, Data),
            piece(NODE, BLOCK, Hole),
            piece(NODE + BLOCK, 2 * NODE - BLOCK, Data),
            piece(3 * NODE, 5000, Hole),
        ];
        let nodes: Vec<_> =
            whole_nodes(&pieces, SIZE).iter().map(|node| (node.number, node.has_data)).collect();
        assert_eq!(nodes, [(1, true), (2, true), (3, false)]);
        assert_eq!(runs([1, 2, 3, 7].into_iter()), [(1, 3), (7, 1)]);
        let gap = [piece(0, NODE / 2, Data), piece(NODE / 2 + BLOCK, NODE / 2 - BLOCK, Data)];
        assert_eq!(whole_nodes(&gap, SIZE), []);
    }

    #[test]
    fn what_is_the_same_is_cut_out() {
        let whole = piece(BLOCK, SIZE - BLOCK, StretchKind::Hole);
        let left: Vec<_> = without(whole, &HashSet::from([1, 3]))
            .iter()
            .map(|piece| (piece.offset, piece.length))
            .collect();
        assert_eq!(left, [(BLOCK, NODE - BLOCK), (2 * NODE, NODE)]);
    }
}
