//! Making a point: `point_creation`.
//!
//! 1 % of a disk of 100 GiB changes, as blocks of 64 KiB all over it with bytes
//! of the realistic image; each round adds a point to the same store, with
//! other blocks. Ours: from `begin` until the point is durable. The opponent
//! writes the same bytes to the same places of a sparse file with `pwrite`, and
//! fsyncs it. Both read the bytes from the page cache, which counts.

use std::{fs::File, os::unix::fs::FileExt as _, time::Instant};

use anyhow::{Context as _, Result};

use super::{
    Bench, Group,
    stores::{DISK, compression, facts, writer},
};
use crate::{
    content::scattered,
    figure::{Better, Figure},
    pairing::{Contender, in_turn},
    workplace::have_memory_at_hand,
};

const DISK_BYTES: u64 = 100 << 30;
const BLOCK: u64 = 64 << 10;

pub(super) const GROUP: Group = Group {
    figures: &["point_creation"],
    image: |scale| scale.changed_blocks * BLOCK,
    room: |scale| scale.changed_blocks * BLOCK * (scale.long_rounds as u64 + 1) + (256 << 20),
    measure,
};

fn measure(bench: &mut Bench) -> Result<()> {
    let image = bench.image()?;
    let place = &bench.workplace;
    let changed = bench.scale.changed_blocks;
    let (folder, plain) = (place.path("creation"), place.path("sparse.raw"));
    let target = |round: usize, at: u64| {
        scattered(round as u64 * changed + at / BLOCK, DISK_BYTES / BLOCK) * BLOCK
    };
    let mut writer = writer(&folder, compression())?;
    let [ours, opponent] = in_turn(
        bench.scale.long_rounds,
        [
            Contender::new("ours, s", |round| {
                place.quiesce()?;
                have_memory_at_hand(changed * BLOCK)?;
                let begun = Instant::now();
                writer.begin(&[DISK_BYTES])?;
                image.each(changed * BLOCK, BLOCK as usize, |at, bytes| {
                    writer.write(DISK, target(round, at), bytes)?;
                    Ok(())
                })?;
                writer.seal(facts())?;
                Ok(begun.elapsed().as_secs_f64())
            }),
            Contender::new("pwrite and fsync, s", |round| {
                place.clear(&plain)?;
                let file = File::create(&plain).context("make the file")?;
                file.set_len(DISK_BYTES)?;
                let begun = Instant::now();
                image.each(changed * BLOCK, BLOCK as usize, |at, bytes| {
                    file.write_all_at(bytes, target(round, at)).context("write the file")
                })?;
                file.sync_all().context("sync the file")?;
                let seconds = begun.elapsed().as_secs_f64();
                place.clear(&plain)?;
                Ok(seconds)
            }),
        ],
    )?;
    drop(writer);
    place.clear(&folder)?;
    let figure = Figure::new("point_creation", "s", Better::Lower, &ours)
        .against("pwrite + fsync", opponent.median())
        .goal(2.0)
        .note(format!("{changed} blocks of 64 KiB all over 100 GiB"));
    bench.tell(figure)
}
