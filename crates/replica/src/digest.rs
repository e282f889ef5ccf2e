//! What differs between two stores without common history, by question and
//! answer: hashes of ranges, of the hashes of smaller ranges.
//!
//! A *leaf* is the BLAKE3-128 of a block's 64 KiB (padded with zeroes at the
//! disk's end); a block of zeroes has digest 0, however it came to be. A *node*
//! of level n is the hash of its 64 children of level n - 1, and 0 if all of
//! them are 0. So a range says the same in every store that holds the same
//! bytes, whatever records they came in.
//!
//! Leaves come from the index where one record covers the block. Where several
//! do, the block is read: costs follow how fragmented a disk is. A disk of 1
//! TiB has 256 MiB of leaves, of which only those are asked for whose parents
//! differ.

use std::ops::Range;

use crate::{
    error::StoreResult,
    fetch::{Piece, PieceSource, pieces},
    format::{
        Digest,
        entry::{Content, Entry},
    },
    geometry::{BLOCK, BlockKey, PAGE, PageRun, blocks_of},
    state::Shared,
    store::Store,
    view::View,
};

/// Children of a node.
pub const FAN: u64 = 64;
/// Nodes that are asked about at once.
const QUESTION: u64 = 4096;

/// A question: the digests of neighbouring nodes of one level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// 0 for leaves; a node of level n covers 64ⁿ blocks.
    pub level: u8,
    /// The first node.
    pub first: u64,
    /// How many.
    pub count: u64,
}

impl Question {
    /// The blocks that it is about.
    #[must_use]
    pub fn blocks(&self) -> Range<u64> {
        let width = FAN.saturating_pow(u32::from(self.level));
        let start = self.first.saturating_mul(width);
        start..start.saturating_add(self.count.saturating_mul(width))
    }
}

/// The digests of nodes whose leaves are these: each with the number of its
/// block, in order; those that are not there are of zeroes.
#[must_use]
pub fn fold(question: &Question, leaves: impl IntoIterator<Item = (u64, Digest)>) -> Vec<Digest> {
    let mut tree = Tree::new(question);
    for (block, digest) in leaves {
        tree.leaf(block, digest);
    }
    tree.finish()
}

/// Somebody who answers for a disk at a point: a [`View`], or the far side.
pub trait Answers {
    /// Why there is no answer.
    type Error;

    /// One digest for each node; nodes beyond the end of the disk have 0.
    ///
    /// # Errors
    /// The far side is gone, or a disk cannot be read.
    fn answer(&self, question: &Question) -> Result<Vec<Digest>, Self::Error>;
}

/// What a comparison found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Comparison {
    /// Bytes of the disk that differ, in whole blocks.
    pub ranges: Vec<Range<u64>>,
    /// Digests that either side told.
    pub digests: u64,
}

/// Finds what differs between two disks, of which the greater has `size` bytes.
///
/// # Errors
/// Those of either side.
pub fn compare<A, B>(size: u64, ours: &A, theirs: &B) -> Result<Comparison, A::Error>
where
    A: Answers,
    B: Answers<Error = A::Error>,
{
    let blocks = u64::from(blocks_of(size));
    let mut level = 0;
    while FAN.pow(level) < blocks {
        level += 1;
    }
    let mut level = level as u8;
    let mut suspects: Vec<Range<u64>> = std::iter::once(0..1).collect();
    let mut found = Comparison::default();
    loop {
        let mut differing: Vec<Range<u64>> = Vec::new();
        for range in suspects {
            let mut first = range.start;
            while first < range.end {
                let question = Question { level, first, count: QUESTION.min(range.end - first) };
                let (ours, theirs) = (ours.answer(&question)?, theirs.answer(&question)?);
                found.digests += question.count;
                for (node, (ours, theirs)) in (first..).zip(ours.iter().zip(&theirs)) {
                    if ours == theirs {
                        continue;
                    }
                    match differing.last_mut() {
                        Some(last) if last.end == node => last.end += 1,
                        _ => differing.push(node..node + 1),
                    }
                }
                first += question.count;
            }
        }
        if level == 0 {
            let bytes = |range: Range<u64>| range.start * BLOCK..(range.end * BLOCK).min(size);
            found.ranges = differing.into_iter().map(bytes).collect();
            found.ranges.retain(|range| range.start < range.end);
            return Ok(found);
        }
        level -= 1;
        suspects = differing.into_iter().map(|r| r.start * FAN..r.end * FAN).collect();
    }
}

impl Answers for View {
    type Error = crate::error::StoreError;

    /// Blocks while it reads the index, and fragmented blocks.
    fn answer(&self, question: &Question) -> StoreResult<Vec<Digest>> {
        let end = u64::from(blocks_of(self.size()));
        let range = question.blocks();
        let blocks = range.start.min(end)..range.end.min(end);
        let mut tree = Tree::new(question);
        if blocks.start < blocks.end {
            let store = Store { shared: self.shared() };
            let index = store.shared.index();
            let from = BlockKey::new(self.disk(), blocks.start as u32);
            let to = BlockKey(from.0 + (blocks.end - blocks.start));
            let mut scan = index.scan(from, to)?;
            let mut versions = Vec::new();
            while let Some(key) = scan.next_at(self.point(), &mut versions)? {
                let digest = leaf(&store.shared, &versions, key, self.size())?;
                tree.leaf(u64::from(key.block()), digest);
            }
        }
        Ok(tree.finish())
    }
}

fn leaf(shared: &Shared, versions: &[Entry], key: BlockKey, size: u64) -> StoreResult<Digest> {
    let pieces = pieces(versions);
    let whole = size >= key.offset() + BLOCK;
    if let [Piece { source: PieceSource::Bytes(entry), .. }] = pieces.as_slice()
        && whole
        && entry.pages == PageRun::WHOLE
        && let Content::Data { digest, .. } | Content::Adopted { digest, .. } = entry.content
    {
        return Ok(digest);
    }
    let mut block = vec![0; BLOCK as usize];
    for piece in pieces {
        let PieceSource::Bytes(entry) = piece.source else { continue };
        let bytes = shared.bytes_of(&entry)?;
        let skip = usize::from(piece.first - entry.pages.first()) * PAGE as usize;
        let start = usize::from(piece.first) * PAGE as usize;
        let target = block.get_mut(start..start + piece.length() as usize);
        let source = bytes.get(skip..skip + piece.length() as usize);
        if let Some((target, source)) = target.zip(source) {
            target.copy_from_slice(source);
        }
    }
    let length = size.saturating_sub(key.offset()).min(BLOCK) as usize;
    block.get_mut(length..).unwrap_or_default().fill(0);
    if block.iter().all(|byte| *byte == 0) {
        return Ok(Digest::default());
    }
    Ok(Digest::of(&block))
}

/// Folds leaves, which come in order, into the nodes of one level.
struct Tree {
    level: usize,
    /// For each level from the leaves up: the node that is open, and its
    /// children so far (those that are not there are 0).
    open: Vec<Option<(u64, Vec<Digest>)>>,
    first: u64,
    answers: Vec<Digest>,
}

impl Tree {
    fn new(question: &Question) -> Self {
        let answers = vec![Digest::default(); usize::try_from(question.count).unwrap_or(0)];
        let level = usize::from(question.level);
        Self { level, open: vec![None; level], first: question.first, answers }
    }

    fn leaf(&mut self, block: u64, digest: Digest) {
        self.put(0, block, digest);
    }

    fn put(&mut self, level: usize, node: u64, digest: Digest) {
        if digest == Digest::default() {
            return;
        }
        if level == self.level {
            let at = node.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
            if let Some(answer) = at.and_then(|at| self.answers.get_mut(at)) {
                *answer = digest;
            }
            return;
        }
        let parent = node / FAN;
        if self
            .open
            .get(level)
            .is_some_and(|open| open.as_ref().is_some_and(|(current, _)| *current != parent))
        {
            self.close(level);
        }
        if let Some(open) = self.open.get_mut(level) {
            let (_, children) =
                open.get_or_insert_with(|| (parent, vec![Digest::default(); FAN as usize]));
            if let Some(child) = children.get_mut((node % FAN) as usize) {
                *child = digest;
            }
        }
    }

    fn close(&mut self, level: usize) {
        let open = self.open.get_mut(level).and_then(Option::take);
        if let Some((node, children)) = open {
            let mut bytes = Vec::with_capacity(children.len() * 16);
            children.iter().for_each(|child| bytes.extend_from_slice(&child.0));
            self.put(level + 1, node, Digest::of(&bytes));
        }
    }

    fn finish(mut self) -> Vec<Digest> {
        for level in 0..self.level {
            self.close(level);
        }
        self.answers
    }
}
