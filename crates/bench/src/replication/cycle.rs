//! What a cycle with 1 % dirty sends: `cycle_bytes`. The machine is simulated,
//! which shows what libvirt and QEMU add to the time of [`backup`](super::backup).

use std::time::Instant;

use anyhow::Result;
use tokio::runtime::Runtime;

use super::{
    Bench, Group,
    machine::{BLOCK, Bitmaps, Disk, Simulated},
    target::{Target, machine},
};
use crate::{
    figure::{Better, Figure},
    pairing::{Contender, Samples, in_turn},
};

pub(super) const GROUP: Group = Group {
    figures: &["cycle_bytes"],
    image: |scale| scale.disk,
    // The disk and a store.
    room: |scale| 2 * scale.disk + scale.disk / 4 + (64 << 20),
    measure,
};

fn measure(bench: &mut Bench) -> Result<()> {
    let image = bench.image()?;
    let (place, scale) = (&bench.workplace, bench.scale);
    let runtime = Runtime::new()?;
    let disk = Disk::make(place, "cycle", &image, scale.disk)?;
    let bitmaps = runtime.block_on(Bitmaps::serve(place))?;
    let target = Target::start(place, 1)?;
    let simulated = Simulated::new(machine(0), &disk, &bitmaps);
    let shipper = runtime.block_on(async {
        let shipper = target.meet(0, simulated).await?;
        shipper.point().await?;
        anyhow::Ok(shipper)
    })?;
    let blocks = (disk.size() / BLOCK / 100).max(1);
    let dirty = (blocks * BLOCK) as f64 / 1e6;
    let mut sent = Vec::new();
    let [ours] = in_turn(
        scale.rounds,
        [Contender::new("ours, s", |_| {
            disk.overwrite(&image, blocks)?;
            place.quiesce()?;
            let before = shipper.traffic().0;
            let begun = Instant::now();
            runtime.block_on(shipper.point())?;
            let seconds = begun.elapsed().as_secs_f64();
            sent.push((shipper.traffic().0 - before) as f64 / 1e6);
            Ok(seconds)
        })],
    )?;
    drop(shipper);
    target.stop(place)?;
    disk.remove()?;
    let what = format!("{blocks} blocks of 64 KiB of {} MiB dirty", scale.disk >> 20);
    bench.tell(
        Figure::new("cycle_bytes", "MB", Better::Lower, &Samples::of(sent))
            .against("dirty bytes", dirty)
            .goal(0.7)
            .note(format!("{what}; with TLS and all; a round takes {:.2} s", ours.median())),
    )
}
