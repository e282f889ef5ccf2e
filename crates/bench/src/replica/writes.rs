//! Scattered small writes: `partial_writes`, `seal_latency`.
//!
//! Pages of 4 KiB all over a disk of 1 TiB, with bytes of the realistic image,
//! a point every 5000; from before the first write until the last point is
//! durable. Sealing is timed alone in the same runs.

use std::time::Instant;

use anyhow::Result;

use super::{
    Bench, Group,
    stores::{DISK, compression, facts, writer},
};
use crate::{
    content::scattered,
    figure::{Better, Figure},
    pairing::{Contender, Samples, in_turn},
};

const DISK_BYTES: u64 = 1 << 40;
const PAGE: u64 = 4096;
/// Writes per point.
const CYCLE: u64 = 5000;
/// Bytes of the image that are written over and over.
const CONTENT: u64 = 256 << 20;

pub(super) const GROUP: Group = Group {
    figures: &["partial_writes", "seal_latency"],
    image: |scale| CONTENT.min(scale.image),
    room: |scale| scale.small_writes * PAGE * 2 + (64 << 20),
    measure,
};

fn measure(bench: &mut Bench) -> Result<()> {
    let image = bench.image()?;
    let mut content = Vec::new();
    image.each(CONTENT, 1 << 20, |_, bytes| {
        content.extend_from_slice(bytes);
        Ok(())
    })?;
    let pages: Vec<&[u8]> = content.chunks_exact(PAGE as usize).collect();
    let folder = bench.workplace.path("writes");
    let count = bench.scale.small_writes;
    let mut seals = Vec::new();
    let [rate] = in_turn(
        bench.scale.rounds,
        [Contender::new("writes per second", |_| {
            bench.workplace.clear(&folder)?;
            let mut writer = writer(&folder, compression())?;
            let begun = Instant::now();
            for cycle in 0..count / CYCLE {
                writer.begin(&[DISK_BYTES])?;
                for number in cycle * CYCLE..(cycle + 1) * CYCLE {
                    let place = scattered(number, DISK_BYTES / PAGE);
                    let bytes = pages[scattered(number, pages.len() as u64) as usize];
                    writer.write(DISK, place * PAGE, bytes)?;
                }
                let sealing = Instant::now();
                writer.seal(facts())?;
                seals.push(sealing.elapsed().as_secs_f64() * 1e3);
            }
            Ok(count as f64 / begun.elapsed().as_secs_f64())
        })],
    )?;
    bench.workplace.clear(&folder)?;
    bench.tell(
        Figure::new("partial_writes", "/s", Better::Higher, &rate)
            .goal(50_000.0)
            .note(format!("{count} writes of 4 KiB, a durable point every {CYCLE}")),
    )?;
    bench.tell(
        Figure::new("seal_latency", "ms", Better::Lower, &Samples::of(seals))
            .note(format!("with what the last of {CYCLE} writes left to do")),
    )
}
