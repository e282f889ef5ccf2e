//! A cycle of a real machine: `cycle_wall`.
//!
//! Two machines of a libvirt of our own, alike; in each round the same 1 % of
//! their disks is overwritten by their QEMU. Ours: a whole round, from the cut
//! by libvirt until the point is durable at the keeper and the cut is let go.
//! The opponent: `virtnbdbackup --level inc` into a folder, from its start to
//! its end, which neither compresses nor encrypts nor syncs. It waits a second
//! before it connects to QEMU; that is part of it.

use std::time::Instant;

use agent::capture::{CaptureSettings, machine};
use anyhow::{Result, ensure};
use tokio::runtime::Runtime;

use super::{
    Bench, Group,
    libvirt::Libvirt,
    machine::BLOCK,
    target::{self, Target},
};
use crate::{
    figure::{Better, Figure},
    pairing::{Contender, in_turn},
    process::{has, output, program},
    workplace::bytes_on_medium,
};

const FIGURES: &[&str] = &["cycle_wall"];

pub(super) const GROUP: Group = Group {
    figures: FIGURES,
    image: |scale| scale.disk,
    // Two disks, a store, a backup.
    room: |scale| 4 * scale.disk + scale.disk / 4 + (64 << 20),
    measure,
};

fn measure(bench: &mut Bench) -> Result<()> {
    let virtnbdbackup =
        (!has("virtnbdbackup")).then(|| "virtnbdbackup is not installed".to_owned());
    if let Some(why) = Libvirt::lacking().or(virtnbdbackup) {
        bench.skip(FIGURES, &why);
        return Ok(());
    }
    let image = bench.image()?;
    let (place, scale) = (&bench.workplace, bench.scale);
    let libvirt = Libvirt::start(place)?;
    // What is under way in libvirt ends before libvirt does.
    let runtime = Runtime::new()?;
    let mut our_machine = libvirt.boot(0, &image, scale.disk)?;
    let mut their_machine = libvirt.boot(1, &image, scale.disk)?;

    let target = Target::start(place, 1)?;
    let shipper = runtime.block_on(async {
        let settings = CaptureSettings::in_folder(place.path("c"));
        let capture = machine::open(libvirt.uri(), target::machine(0), settings).await?;
        let shipper = target.meet(0, capture).await?;
        shipper.point().await?;
        anyhow::Ok(shipper)
    })?;
    let (folder, socket) = (place.path("backup"), place.path("b.sock"));
    let name = their_machine.name().to_owned();
    let back_up = |level: &str| {
        let mut command = program("virtnbdbackup");
        command.args(["--uri", libvirt.uri(), "--domain", &name, "--level", level, "--noprogress"]);
        command.arg("--output").arg(&folder).arg("--socketfile").arg(&socket);
        // It says a lot, and all on stderr.
        command.arg("--scratchdir").arg(place.path("l")).stderr(std::process::Stdio::null());
        output(&mut command)
    };
    back_up("full")?;

    let blocks = (scale.disk / BLOCK / 100).max(1);
    let mut changed = 0;
    let [ours, opponent] = in_turn(
        scale.rounds,
        [
            Contender::new("ours, s", |_| {
                our_machine.overwrite(&image, blocks)?;
                place.quiesce()?;
                let begun = Instant::now();
                let (_, figures) = runtime.block_on(shipper.point())?;
                let seconds = begun.elapsed().as_secs_f64();
                changed = figures.changed;
                Ok(seconds)
            }),
            Contender::new("virtnbdbackup, s", |_| {
                their_machine.overwrite(&image, blocks)?;
                place.quiesce()?;
                let before = bytes_on_medium(&folder)?;
                let begun = Instant::now();
                back_up("inc")?;
                let seconds = begun.elapsed().as_secs_f64();
                let taken = bytes_on_medium(&folder)? - before;
                ensure!(taken >= blocks * BLOCK, "it backed up only {taken} bytes");
                Ok(seconds)
            }),
        ],
    )?;
    ensure!(changed >= blocks * BLOCK, "only {changed} bytes were dirty");
    drop(shipper);
    drop(runtime);
    target.stop(place)?;
    drop(libvirt);
    place.clear(&place.path("l"))?;
    place.clear(&folder)?;
    bench.tell(
        Figure::new("cycle_wall", "s", Better::Lower, &ours)
            .against("virtnbdbackup -l inc", opponent.median())
            .goal(0.5)
            .note(format!(
                "{blocks} blocks of 64 KiB of {} MiB dirty, {:.1} MB told as such; libvirt and \
                 QEMU at the source; virtnbdbackup waits 1 s of its time for QEMU's socket",
                scale.disk >> 20,
                changed as f64 / 1e6,
            )),
    )
}
