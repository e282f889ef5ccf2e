//! Without a record of changes: `resync_bytes`, `resync_wall`.
//!
//! 1 % of a disk changes, as blocks of 64 KiB all over it, and nobody knows
//! which. Ours compares by digests with the newest point and makes another. The
//! opponent is `rsync --inplace --no-whole-file` of the raw disk to a copy on
//! the same file system, which has nothing to encrypt and does not wait until
//! the copy is durable.

use std::{cell::Cell, fs, time::Instant};

use anyhow::{Context as _, Result};
use tokio::runtime::Runtime;

use super::{
    Bench, Group,
    machine::{BLOCK, Bitmaps, Disk, Simulated},
    target::{Target, machine},
};
use crate::{
    figure::{Better, Figure},
    pairing::{Contender, Samples, in_turn},
    process::{has, output, program},
};

const FIGURES: &[&str] = &["resync_bytes", "resync_wall"];

pub(super) const GROUP: Group = Group {
    figures: FIGURES,
    image: |scale| scale.disk,
    // The disk, a store, the copy.
    room: |scale| 3 * scale.disk + scale.disk / 4 + (64 << 20),
    measure,
};

fn measure(bench: &mut Bench) -> Result<()> {
    if !has("rsync") {
        bench.skip(FIGURES, "rsync is not installed");
        return Ok(());
    }
    let image = bench.image()?;
    let (place, scale) = (&bench.workplace, bench.scale);
    let runtime = Runtime::new()?;
    let disk = Disk::make(place, "resync", &image, scale.disk)?;
    let bitmaps = runtime.block_on(Bitmaps::serve(place))?;
    let target = Target::start(place, 1)?;
    let simulated = Simulated::new(machine(0), &disk, &bitmaps);
    let shipper = runtime.block_on(async {
        let shipper = target.meet(0, simulated).await?;
        shipper.point().await?;
        anyhow::Ok(shipper)
    })?;
    let copy = place.path("copy.raw");
    fs::copy(disk.path(), &copy).context("copy the disk")?;

    let blocks = (disk.size() / BLOCK / 100).max(1);
    // Whoever comes first in a round finds the disk as both had it before.
    let changed_in = Cell::new(None);
    let change = |round: usize| -> Result<()> {
        if changed_in.replace(Some(round)) != Some(round) {
            disk.overwrite(&image, blocks)?;
        }
        place.quiesce()
    };
    let changed = (blocks * BLOCK) as f64 / 1e6;
    let (mut sent, mut received) = (Vec::new(), 0);
    let [ours, opponent] = in_turn(
        scale.rounds,
        [
            Contender::new("ours, s", |round| {
                change(round)?;
                runtime.block_on(shipper.resynchronise());
                let before = shipper.traffic();
                let begun = Instant::now();
                runtime.block_on(shipper.point())?;
                let seconds = begun.elapsed().as_secs_f64();
                let after = shipper.traffic();
                sent.push((after.0 - before.0) as f64 / 1e6);
                received = after.1 - before.1;
                Ok(seconds)
            }),
            Contender::new("rsync, s", |round| {
                change(round)?;
                let begun = Instant::now();
                output(
                    program("rsync")
                        .args(["--inplace", "--no-whole-file", "--ignore-times"])
                        .arg(disk.path())
                        .arg(&copy),
                )?;
                Ok(begun.elapsed().as_secs_f64())
            }),
        ],
    )?;
    drop(shipper);
    target.stop(place)?;
    disk.remove()?;
    place.clear(&copy)?;
    let what = format!("{blocks} blocks of 64 KiB of {} MiB changed", scale.disk >> 20);
    bench.tell(
        Figure::new("resync_bytes", "MB", Better::Lower, &Samples::of(sent))
            .against("bytes that changed", changed)
            .goal(1.2)
            .note(format!(
                "{what}; sent with TLS and all; {:.2} MB of digests and answers came back",
                received as f64 / 1e6
            )),
    )?;
    bench.tell(
        Figure::new("resync_wall", "s", Better::Lower, &ours)
            .against("rsync --inplace --no-whole-file", opponent.median())
            .goal(0.5)
            .note(format!("{what}; rsync locally, neither encrypted nor durable")),
    )
}
