//! Appends records to all disks in turn and acknowledges them.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use guest::port::Line;
use guest::record::{Record, SIZE};
use guest::sequence::{self, DiskScan};

use crate::{disks, port, service};

/// The file of records on a disk.
pub fn file(disk: u16) -> PathBuf {
    disks::folder(disk).join("records")
}

/// What the disks hold, in order. A disk without the file holds nothing.
pub fn scan(disks: u16) -> Result<Vec<DiskScan>> {
    (0..disks)
        .map(|disk| match File::open(file(disk)) {
            Ok(file) => {
                let reader = std::io::BufReader::with_capacity(1 << 18, file);
                sequence::scan(reader, disk, disks).with_context(|| format!("read disk {disk}"))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(DiskScan::default()),
            Err(error) => Err(error).with_context(|| format!("open the records of disk {disk}")),
        })
        .collect()
}

/// Goes on after the last whole record until asked to stop.
pub fn run(rate: u32) -> Result<()> {
    let ended = go_on(rate);
    if let Err(error) = &ended {
        port::say(&Line::Failed(format!("workload: {error:#}")));
    }
    ended
}

fn go_on(rate: u32) -> Result<()> {
    let disks = u16::try_from(disks::mounted()?.len()).context("count the disks")?;
    if disks == 0 {
        bail!("there is no disk to write to");
    }
    let scans = scan(disks)?;
    let (mut last, faults) = sequence::compare(&scans);
    if let Some(fault) = scans.iter().flat_map(|scan| &scan.faults).chain(&faults).next() {
        bail!("will not write over this: {fault}");
    }
    let mut files =
        scans.iter().zip(0..).map(|(scan, disk)| open(disk, scan)).collect::<Result<Vec<_>>>()?;
    service::at_rate(rate, || {
        let number = last + 1;
        let disk = u16::try_from(number % u64::from(disks)).expect("less than a u16");
        let (file, end) = &mut files[usize::from(disk)];
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let record = Record {
            number,
            disk,
            disks,
            written_at: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        };
        let quiet = service::quiet()?;
        file.write_all_at(&record.encode(), *end)
            .and_then(|()| file.sync_all())
            .with_context(|| format!("write record {number} to disk {disk}"))?;
        drop(quiet);
        *end += SIZE as u64;
        last = number;
        port::say(&Line::Acknowledged(number));
        Ok(())
    })
}

/// Opens the records of a disk and cuts a torn one off.
fn open(disk: u16, scan: &DiskScan) -> Result<(File, u64)> {
    let end = scan.whole * SIZE as u64;
    let mut options = OpenOptions::new();
    let file = options
        .create(true)
        .truncate(false)
        .write(true)
        .open(file(disk))
        .with_context(|| format!("open the records of disk {disk}"))?;
    file.set_len(end)
        .and_then(|()| file.sync_all())
        .and_then(|()| File::open(disks::folder(disk))?.sync_all())
        .with_context(|| format!("cut the records of disk {disk}"))?;
    Ok((file, end))
}
