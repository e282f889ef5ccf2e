//! A plain model of a store: points are byte arrays.

use std::{collections::BTreeMap, sync::Arc};

use replica::{
    adopt::{Layout, Stretch},
    error::StoreResult,
    format::record::Consistency,
    geometry::{BLOCK, Cycle, DiskNumber, PAGE},
    medium::{Medium, simulated::SimulatedMedium},
    pipeline::{Compression, Encoder},
    state::Limits,
    store::Store,
    writer::{SealFacts, Writer, WriterOptions},
};

/// Disks of the model, in bytes: one of them ends inside a page.
pub const DISKS: [u64; 2] = [3 * 64 * 1024, 70_000];

/// A change to a disk, in pages.
#[derive(Debug, Clone, Copy)]
pub enum Change {
    Write {
        disk: u16,
        page: u64,
        pages: u64,
        seed: u8,
    },
    /// Bytes that are no whole pages, in sectors of 512.
    Odd {
        disk: u16,
        sector: u64,
        sectors: u64,
        seed: u8,
    },
    /// All of a disk, from an image outside of the store.
    Adopt {
        disk: u16,
        seed: u8,
    },
    Zero {
        disk: u16,
        page: u64,
        pages: u64,
    },
    Discard {
        disk: u16,
        page: u64,
        pages: u64,
    },
}

impl Change {
    /// The range in bytes, cut to the disk.
    fn range(self) -> (DiskNumber, u64, u64) {
        if let Self::Odd { disk, sector, sectors, .. } = self {
            let size = DISKS[usize::from(disk)];
            let start = sector * 512 % (size / 512 * 512);
            let end = (start + sectors * 512).min(size);
            return (DiskNumber(disk), start, end - start);
        }
        if let Self::Adopt { disk, .. } = self {
            return (DiskNumber(disk), 0, DISKS[usize::from(disk)]);
        }
        let (Self::Write { disk, page, pages, .. }
        | Self::Zero { disk, page, pages }
        | Self::Discard { disk, page, pages }) = self
        else {
            unreachable!("told above")
        };
        let size = DISKS[usize::from(disk)];
        let total = size.div_ceil(PAGE);
        let page = page % total;
        let start = page * PAGE;
        let end = ((page + pages.clamp(1, total)) * PAGE).min(size);
        (DiskNumber(disk), start, end - start)
    }

    fn bytes(self) -> Vec<u8> {
        let (_, _, length) = self.range();
        match self {
            Self::Write { seed, .. } | Self::Odd { seed, .. } => content(seed, length as usize),
            // Data and zeroes in turn, and a block that is zero for the most part.
            Self::Adopt { seed, .. } => {
                let pieces = content(seed | 3, length as usize);
                let mut bytes = pieces;
                bytes.chunks_mut(24 * 1024).skip(1).step_by(3).for_each(|chunk| chunk.fill(0));
                bytes
            }
            _ => vec![0; length as usize],
        }
    }

    pub fn apply(self, writer: &mut Writer) -> StoreResult<u64> {
        let (disk, offset, length) = self.range();
        match self {
            // As from another site, where it can be so.
            Self::Write { seed, .. } if seed % 2 == 0 && offset % BLOCK + length <= BLOCK => {
                let mut pages = self.bytes();
                pages.resize(pages.len().next_multiple_of(PAGE as usize), 0);
                match Encoder::new(Compression::Zstd(-3)).encode_pages(pages.into()) {
                    Some(encoded) => writer.write_encoded(disk, offset, length, encoded),
                    None => writer.zero(disk, offset, length),
                }
            }
            Self::Write { .. } | Self::Odd { .. } => writer.write(disk, offset, &self.bytes()),
            Self::Adopt { seed, .. } => writer.adopt(disk, &image(self, seed), |_| true),
            Self::Zero { .. } => writer.zero(disk, offset, length),
            Self::Discard { .. } => writer.discard(disk, offset, length),
        }
    }

    pub fn apply_to(self, disks: &mut Image) {
        let (disk, offset, length) = self.range();
        let range = offset as usize..(offset + length) as usize;
        disks[usize::from(disk.0)][range].copy_from_slice(&self.bytes());
    }
}

/// The layout of the image of an [`Change::Adopt`]: two stretches in another
/// order than on the disk.
fn image(change: Change, seed: u8) -> Layout {
    let (disk, _, size) = change.range();
    let half = size / 2 / PAGE * PAGE;
    let stretch = |disk, length, file| Stretch { disk, length, file };
    let rest = (size - half).next_multiple_of(PAGE);
    let stretches = vec![stretch(0, half, PAGE + rest), stretch(half, size - half, PAGE)];
    Layout { path: image_path(disk.0, seed).into(), size, stretches }
}

fn image_path(disk: u16, seed: u8) -> String {
    format!("/images/{disk}-{seed}")
}

/// Puts the images that changes adopt where the medium finds them.
pub fn put_images(medium: &SimulatedMedium, changes: &[Change]) {
    for change in changes {
        let Change::Adopt { disk, seed } = *change else { continue };
        let bytes = change.bytes();
        let half = bytes.len() / 2 / PAGE as usize * PAGE as usize;
        let (front, back) = bytes.split_at(half);
        let mut file = vec![9; PAGE as usize];
        file.extend_from_slice(back);
        file.resize(file.len().next_multiple_of(PAGE as usize), 0);
        file.extend_from_slice(front);
        medium.put_outside(&image_path(disk, seed), &file);
    }
}

/// Some contents compress, some do not, some are zeroes.
fn content(seed: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    match seed % 4 {
        0 => bytes.fill(seed),
        1 => {}
        2 => bytes.iter_mut().enumerate().for_each(|(i, b)| *b = (i / 100) as u8 ^ seed),
        _ => {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&[seed]);
            hasher.finalize_xof().fill(&mut bytes);
        }
    }
    bytes
}

/// All disks of a machine.
pub type Image = Vec<Vec<u8>>;

pub fn blank() -> Image {
    DISKS.iter().map(|size| vec![0; *size as usize]).collect()
}

/// Every point with its contents.
pub type Points = BTreeMap<Cycle, Image>;

pub fn image_of(store: &Store, point: Cycle) -> StoreResult<Image> {
    let sizes = store.point(point)?.disks;
    (0..)
        .zip(sizes.iter())
        .map(|(disk, size)| store.view(point, DiskNumber(disk))?.read_to_vec(0, *size))
        .collect()
}

pub fn check(store: &Store, expected: &Points) {
    let points: Vec<_> = store.points().iter().map(|point| point.cycle).collect();
    let wanted: Vec<_> = expected.keys().copied().collect();
    assert_eq!(points, wanted, "the points");
    for (point, image) in expected {
        let found = image_of(store, *point).unwrap_or_else(|e| panic!("{point}: {}", e.chain()));
        for (disk, (found, image)) in found.iter().zip(image).enumerate() {
            let differs = found.iter().zip(image).position(|(a, b)| a != b);
            assert_eq!(differs, None, "disk {disk} of {point} differs");
        }
    }
}

/// Everything small, so that a few changes roll segments and merge runs.
pub fn small() -> WriterOptions {
    WriterOptions {
        compression: Compression::Zstd(-3),
        threads: 0,
        segment_bytes: 64 * 1024,
        memory_entries: 24,
        memory_cycles: 2,
        replay_segments: 3,
        salt: 5,
        ..WriterOptions::new(1)
    }
}

pub fn open<M: Medium + Clone>(medium: &M) -> Writer {
    try_open(medium).unwrap_or_else(|error| panic!("open the store: {}", error.chain()))
}

pub fn try_open<M: Medium + Clone>(medium: &M) -> StoreResult<Writer> {
    Writer::open(Arc::new(medium.clone()), small())
}

/// As another process that only reads.
pub fn open_beside(medium: &SimulatedMedium) -> Store {
    Store::open(Arc::new(medium.clone()), Limits::default()).unwrap()
}

pub fn facts(instant: i64) -> SealFacts {
    SealFacts {
        instant,
        consistency: Consistency::Crash,
        origin: "test".into(),
        configuration: format!("<domain>{}</domain>", instant / 4).into_bytes(),
    }
}
