//! Rewrites a region of one disk at random, each write durable before the next.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use guest::blocks::{Region, SIZE};
use guest::port::Line;
use guest::report::Fault;

use crate::{disks, port, service};

fn file(disk: u16) -> PathBuf {
    disks::folder(disk).join("blocks")
}

/// The newest write on `disk` and what contradicts it; none when the load
/// never ran there.
pub fn check(disk: u16) -> Result<Option<(u64, Vec<Fault>)>> {
    let file = match File::open(file(disk)) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("open the blocks of disk {disk}")),
    };
    let Some(region) = header(&file)? else {
        // The header is written last: the region was never finished.
        return Ok(None);
    };
    let found = region.check(disk, |block| read(&file, block));
    found.map(Some).with_context(|| format!("read the blocks of disk {disk}"))
}

fn header(file: &File) -> Result<Option<Region>> {
    let mut bytes = vec![0; SIZE];
    match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => Ok(Region::decode(&bytes)),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error).context("read the region's header"),
    }
}

fn read(file: &File, block: u32) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; SIZE];
    file.read_exact_at(&mut bytes, offset(block))?;
    Ok(bytes)
}

fn offset(block: u32) -> u64 {
    (u64::from(block) + 1) * SIZE as u64
}

/// Goes on after the newest write until asked to stop.
pub fn run(disk: u16, blocks: u32, rate: u32) -> Result<()> {
    let ended = go_on(disk, blocks, rate);
    if let Err(error) = &ended {
        port::say(&Line::Failed(format!("overwrite: {error:#}")));
    }
    ended
}

fn go_on(disk: u16, blocks: u32, rate: u32) -> Result<()> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(file(disk))
        .with_context(|| format!("open the blocks of disk {disk}"))?;
    let region = match header(&file)? {
        Some(region) => region,
        None => prepare(&file, blocks).context("prepare the region")?,
    };
    let (mut newest, faults) = region.check(disk, |block| read(&file, block))?;
    if let Some(fault) = faults.first() {
        bail!("will not write over this: {fault}");
    }
    service::at_rate(rate, || {
        let write = newest + 1;
        let quiet = service::quiet()?;
        file.write_all_at(&region.content(write), offset(region.target(write)))
            .and_then(|()| file.sync_data())
            .with_context(|| format!("write {write} to the blocks of disk {disk}"))?;
        drop(quiet);
        newest = write;
        port::say(&Line::Overwritten(write));
        Ok(())
    })
}

/// Writes zeroes over the whole region first, so that later writes change
/// data only and no map of the file.
fn prepare(file: &File, blocks: u32) -> io::Result<Region> {
    let region = Region { seed: 0x1ab, count: blocks.max(1) };
    let zeroes = vec![0; SIZE];
    for block in 0..region.count {
        file.write_all_at(&zeroes, offset(block))?;
    }
    file.sync_all()?;
    file.write_all_at(&region.encode(), 0)?;
    file.sync_all()?;
    Ok(region)
}
