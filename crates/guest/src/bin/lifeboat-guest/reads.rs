//! Tells how fast a file on a disk is read, past the page cache.
//!
//! As `fio --direct=1 --iodepth=1` would with `--rw=read --bs=1M` and with
//! `--rw=randread --bs=4k`; for why it is no fio, see [`iops`](crate::iops).

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use guest::record::mix;
use nix::libc::O_DIRECT;

use crate::disks;

const BLOCK: u64 = 4096;
const STEP: u64 = 1 << 20;

/// Reads a file from its beginning to its end, 1 MiB at a time, and prints how
/// many bytes it read in a second.
pub fn sequential(disk: u16, name: &str) -> Result<()> {
    let (file, size) = open(disk, name)?;
    let mut memory = Memory::new(STEP);
    let begun = Instant::now();
    for at in (0..size).step_by(STEP as usize) {
        file.read_exact_at(memory.take((size - at).min(STEP)), at).context("read a step")?;
    }
    println!("{:.2}", size as f64 / begun.elapsed().as_secs_f64());
    Ok(())
}

/// Reads blocks of 4 KiB anywhere in a file, one at a time, for so many seconds,
/// and prints how many it read in each.
pub fn random(disk: u16, name: &str, seconds: u32) -> Result<()> {
    let (file, size) = open(disk, name)?;
    let mut memory = Memory::new(BLOCK);
    let (begun, limit) = (Instant::now(), Duration::from_secs(seconds.into()));
    let mut seed = std::process::id().into();
    let mut reads = 0_u64;
    while begun.elapsed() < limit {
        seed = mix(seed);
        let block = (seed >> 20) % (size / BLOCK);
        file.read_exact_at(memory.take(BLOCK), block * BLOCK).context("read a block")?;
        reads += 1;
    }
    println!("{:.2}", reads as f64 / begun.elapsed().as_secs_f64());
    Ok(())
}

/// The file, and the bytes of its whole blocks.
fn open(disk: u16, name: &str) -> Result<(File, u64)> {
    let path = disks::folder(disk).join(name);
    let file = OpenOptions::new().read(true).custom_flags(O_DIRECT).open(&path);
    let file = file.with_context(|| format!("open {}", path.display()))?;
    let size = file.metadata().context("look at the file")?.len() / BLOCK * BLOCK;
    ensure!(size > 0, "{} has nothing to read", path.display());
    Ok((file, size))
}

/// Reads past the page cache are into aligned memory.
struct Memory {
    bytes: Vec<u8>,
    aligned: usize,
}

impl Memory {
    fn new(size: u64) -> Self {
        let bytes = vec![0; (size + BLOCK) as usize];
        let aligned = bytes.as_ptr().align_offset(BLOCK as usize);
        Self { bytes, aligned }
    }

    fn take(&mut self, size: u64) -> &mut [u8] {
        &mut self.bytes[self.aligned..][..size as usize]
    }
}
