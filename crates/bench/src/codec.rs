//! The codec alone: what compression costs when nothing else is done.

use std::{fs::File, os::unix::fs::FileExt as _, time::Instant};

use anyhow::{Context as _, Result};
use replica::pipeline::Compression;

use crate::image::Image;

/// Bytes of a block.
const BLOCK: usize = 64 << 10;
/// Bytes that are read at once.
const PIECE: usize = 1 << 20;

/// Compresses one of `parts` of the image: seconds in the codec, bytes that are
/// left.
pub(crate) fn alone(
    image: &Image,
    compression: Compression,
    part: usize,
    parts: usize,
) -> Result<(f64, usize)> {
    let level = match compression {
        Compression::Zstd(level) => level,
        Compression::None => anyhow::bail!("nothing is compressed"),
    };
    let mut compressor = zstd::bulk::Compressor::new(level)?;
    let mut out = vec![0; 2 * BLOCK];
    let mut bytes = vec![0; PIECE];
    let (mut seconds, mut left) = (0.0, 0);
    let file = File::open(image.path()).context("open the image")?;
    for piece in (part..(image.size() as usize).div_ceil(PIECE)).step_by(parts) {
        let at = piece * PIECE;
        let length = PIECE.min(image.size() as usize - at);
        let bytes = &mut bytes[..length];
        file.read_exact_at(bytes, at as u64).context("read the image")?;
        let begun = Instant::now();
        for block in bytes.chunks(BLOCK) {
            left += compressor.compress_to_buffer(block, out.as_mut_slice())?.min(block.len());
        }
        seconds += begun.elapsed().as_secs_f64();
    }
    Ok((seconds, left))
}
