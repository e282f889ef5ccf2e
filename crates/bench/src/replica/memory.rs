//! Memory with 20 TiB protected: `protected_memory`, and the soak of it.
//!
//! A process of its own takes in a machine with two disks of 10 TiB, sealing
//! points meanwhile, then has views read and points compared, and tells its
//! peak (VmHWM). One page of 4 KiB is written in each block that is populated:
//! what takes memory is the index and what is under way, and each such write
//! costs the index as much as a whole block of 64 KiB. All 335 million blocks
//! would take up to 100 GiB and an hour or more; that is the soak. The benchmark populates
//! fewer, evenly over all of both disks, says how many, and extrapolates
//! nothing.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, Result};
use replica::{diff::Exactness, geometry::DiskNumber};
use serde::{Deserialize, Serialize};

use super::{
    Bench, Group,
    stores::{compression, facts, writer},
};
use crate::{
    content::{Noise, pattern},
    figure::{Better, Figure, Report},
    pairing::Samples,
    process::{peak_memory, probe, told_by},
    workplace::Workplace,
};

const DISK_BYTES: u64 = 10 << 40;
const DISKS: [u64; 2] = [DISK_BYTES; 2];
const BLOCK: u64 = 64 << 10;
const PAGE: usize = 4096;
/// All blocks of both disks.
const ALL: u64 = 2 * (DISK_BYTES / BLOCK);
/// Blocks per point.
const CYCLE: u64 = 1 << 18;
/// Bytes that a block takes on the medium at most: its record, its entry, and
/// once more while the index is merged.
const ROOM: u64 = 300;
const GOAL: f64 = 256.0;

pub(super) const GROUP: Group = Group {
    figures: &["protected_memory"],
    image: |_| 0,
    room: |scale| room(scale.protected_blocks),
    measure,
};

/// How much to soak.
#[derive(Debug, clap::Args)]
pub(crate) struct SoakArguments {
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
    /// Blocks to populate, at most all 335544320 of 20 TiB
    #[arg(long, default_value_t = ALL, value_parser = clap::value_parser!(u64).range(2..=ALL))]
    blocks: u64,
    /// Where to make the folder to work in
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// What the process tells.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Protected {
    peak_mib: f64,
    points: usize,
    seconds: f64,
}

fn measure(bench: &mut Bench) -> Result<()> {
    let figure = figure(&bench.workplace, bench.scale.protected_blocks)?;
    bench.tell(figure)
}

/// Measures with every block.
pub(crate) fn soak(arguments: &SoakArguments) -> Result<()> {
    let workplace = Workplace::new(arguments.folder.as_deref(), room(arguments.blocks))?;
    let mut report = Report::new(arguments.json, Vec::new());
    report.add(figure(&workplace, arguments.blocks)?)?;
    report.finish();
    Ok(())
}

fn room(blocks: u64) -> u64 {
    blocks * ROOM + (512 << 20)
}

fn figure(workplace: &Workplace, blocks: u64) -> Result<Figure> {
    let folder = workplace.path("protected");
    let mut command = probe("memory")?;
    let told: Protected = told_by(command.arg(&folder).arg(blocks.to_string()))?;
    workplace.clear(&folder)?;
    let Protected { peak_mib, points, seconds } = told;
    let peak = Samples::of([peak_mib]);
    Ok(Figure::new("protected_memory", "MiB", Better::Lower, &peak).goal(GOAL).note(format!(
        "two disks of 10 TiB, {blocks} of their {ALL} blocks ({:.2} TiB) in the index, \
         {points} points, in {seconds:.0} s",
        (blocks * BLOCK) as f64 / (1_u64 << 40) as f64,
    )))
}

/// What the process of its own does.
pub(crate) fn protect(folder: &Path, blocks: u64) -> Result<Protected> {
    let begun = Instant::now();
    let mut writer = writer(folder, compression())?;
    let place = |number: u64| {
        let block = (u128::from(number) * u128::from(ALL) / u128::from(blocks)) as u64;
        let offset = block * BLOCK;
        (DiskNumber((offset / DISK_BYTES) as u16), offset % DISK_BYTES)
    };
    let mut bytes = [0; PAGE];
    writer.begin(&DISKS)?;
    for number in 0..blocks {
        if number > 0 && number.is_multiple_of(CYCLE) {
            writer.seal(facts())?;
            writer.begin(&DISKS)?;
            eprintln!("   {number} of {blocks} blocks, {:.0} MiB", peak_memory()?);
        }
        pattern(&mut bytes, number);
        let (disk, offset) = place(number);
        writer.write(disk, offset, &bytes)?;
    }
    writer.seal(facts())?;
    writer.settle()?;
    let store = writer.store();
    let points = store.points();
    let (first, newest) = points.first().zip(points.last()).context("find the points")?;
    let mut noise = Noise::new(20);
    for point in [first, newest] {
        for disk in [DiskNumber(0), DiskNumber(1)] {
            let view = store.view(point.cycle, disk)?;
            for _ in 0..10_000 {
                let (other, offset) = place(noise.below(blocks));
                if other == disk {
                    view.extents(offset, BLOCK)?;
                }
            }
        }
    }
    if let [.., before, _] = points.as_slice() {
        store.diff(DiskNumber(1), before.cycle, newest.cycle, Exactness::Written)?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    Ok(Protected { peak_mib: peak_memory()?, points: points.len(), seconds })
}
