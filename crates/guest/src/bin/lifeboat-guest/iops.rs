//! Counts how many random writes a disk takes in a second.
//!
//! As `fio --rw=randwrite --bs=4k --direct=1 --iodepth=1` would: one write of
//! 4 KiB after the other, past the page cache, over the whole of a file that is
//! there in full. It is no fio: that one is built with libraries which would
//! make the guest's image many times as large.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use guest::record::mix;
use nix::libc::O_DIRECT;

use crate::disks;

const BLOCK: usize = 4096;
/// Bytes that the writes take their content from.
const NOISE: usize = 1 << 20;
/// Bytes that are written at once to make the file.
const STEP: usize = 64 << 10;

/// Writes into a file of so many MiB on a disk for so many seconds, and prints
/// how many writes it took in each.
pub fn run(disk: u16, mib: u32, seconds: u32) -> Result<()> {
    let mut noise = vec![0; NOISE + BLOCK];
    for (place, word) in (0..).zip(noise.chunks_exact_mut(8)) {
        word.copy_from_slice(&mix(place).to_le_bytes());
    }
    // Writes past the page cache are of aligned memory.
    let aligned = noise.as_ptr().align_offset(BLOCK);
    let noise = noise.get(aligned..aligned + NOISE).context("align memory")?;
    let (file, blocks) = open(disk, mib, noise)?;
    let (begun, limit) = (Instant::now(), Duration::from_secs(seconds.into()));
    let mut seed = std::process::id().into();
    let mut writes = 0_u64;
    while begun.elapsed() < limit {
        seed = mix(seed);
        let block = (seed >> 20) % blocks;
        let from = (seed as usize % (NOISE / BLOCK)) * BLOCK;
        file.write_all_at(&noise[from..from + BLOCK], block * BLOCK as u64)
            .context("write a block")?;
        writes += 1;
    }
    println!("{:.2}", writes as f64 / begun.elapsed().as_secs_f64());
    Ok(())
}

/// The file, written in full, and its blocks.
fn open(disk: u16, mib: u32, noise: &[u8]) -> Result<(File, u64)> {
    let path = disks::folder(disk).join("iops");
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).custom_flags(O_DIRECT);
    let file = options.open(&path).with_context(|| format!("open {}", path.display()))?;
    let size = u64::from(mib) << 20;
    if size == 0 {
        bail!("a file of nothing takes no writes");
    }
    if file.metadata().context("look at the file")?.len() != size {
        for at in (0..size).step_by(STEP) {
            let from = at as usize % NOISE;
            file.write_all_at(&noise[from..from + STEP], at).context("make the file")?;
        }
        file.sync_all().context("make the file")?;
    }
    Ok((file, size / BLOCK as u64))
}
