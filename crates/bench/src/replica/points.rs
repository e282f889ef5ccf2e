//! Many points: `view_open`, `view_open_alone`, `diff_blocks`,
//! `diff_blocks_compared`, `diff_pages` on a sparse disk of 1 TiB, and
//! `store_open_many`.
//!
//! Opening is timed inside a new process each, from before the store is opened
//! until a first read of 4 KiB came back (the medium's files are in the page
//! cache). Stores are as their writer left them, not tidied up for the
//! occasion. What is written compresses to almost nothing: here it counts how
//! much there is, not what.

use std::{path::Path, time::Instant};

use anyhow::{Context as _, Result};
use replica::{diff::Exactness, geometry::Cycle, writer::Writer};

use super::{
    Bench, Group,
    probe::Opened,
    stores::{DISK, compression, facts, store, writer},
};
use crate::{
    content::{pattern, scattered},
    figure::{Better, Figure},
    pairing::{Contender, Samples, in_turn},
    process::{probe, told_by},
};

const DISK_BYTES: u64 = 1 << 40;
const BLOCK: u64 = 64 << 10;
const PAGE: u64 = 4096;
/// Blocks that each of the many points changes.
const PER_POINT: u64 = 16;

pub(super) const MANY: Group = Group {
    figures: &["store_open_many"],
    image: |_| 0,
    room: |scale| scale.many_points * (64 << 10),
    measure: measure_many,
};

pub(super) const HUGE: Group = Group {
    figures: &["view_open", "view_open_alone", "diff_blocks", "diff_blocks_compared", "diff_pages"],
    image: |_| 0,
    room: |_| 1 << 30,
    measure: measure_huge,
};

/// Writes that go to other places each time.
struct Changes {
    writer: Writer,
    number: u64,
    bytes: Vec<u8>,
}

impl Changes {
    fn new(writer: Writer) -> Self {
        Self { writer, number: 0, bytes: vec![0; BLOCK as usize] }
    }

    /// A point that changes so many stretches of `length` bytes.
    fn point(&mut self, count: u64, length: u64) -> Result<Cycle> {
        self.writer.begin(&[DISK_BYTES])?;
        for _ in 0..count {
            self.number += 1;
            let bytes = &mut self.bytes[..length as usize];
            pattern(bytes, self.number);
            let place = scattered(self.number, DISK_BYTES / length);
            self.writer.write(DISK, place * length, bytes)?;
        }
        Ok(self.writer.seal(facts())?.cycle)
    }
}

fn opened(folder: &Path, point: usize, at: u64) -> Result<Opened> {
    let mut command = probe("open")?;
    command.arg(folder).arg(format!("--point={point}")).arg(format!("--at={at}"));
    told_by(&mut command)
}

fn measure_many(bench: &mut Bench) -> Result<()> {
    let folder = bench.workplace.path("many");
    let count = bench.scale.many_points;
    let mut changes = Changes::new(writer(&folder, compression())?);
    let begun = Instant::now();
    for _ in 0..count {
        changes.point(1, PAGE)?;
    }
    eprintln!("   {:.0} points sealed per second", count as f64 / begun.elapsed().as_secs_f64());
    drop(changes);
    let [open] = in_turn(
        bench.scale.rounds,
        [Contender::new("store, ms", |_| {
            Ok(opened(&folder, count as usize / 2, 0)?.store_seconds * 1e3)
        })],
    )?;
    bench.workplace.clear(&folder)?;
    bench.tell(
        Figure::new("store_open_many", "ms", Better::Lower, &open)
            .note(format!("for reading, in a new process; {count} points")),
    )
}

fn measure_huge(bench: &mut Bench) -> Result<()> {
    let folder = bench.workplace.path("huge");
    let (points, differing) = (bench.scale.huge_points, bench.scale.differing_blocks);
    let mut changes = Changes::new(writer(&folder, compression())?);
    for _ in 0..points {
        changes.point(PER_POINT, BLOCK)?;
    }
    drop(changes);
    // Where the point in the middle wrote first.
    let middle = points / 2;
    let at = scattered(middle * PER_POINT + 1, DISK_BYTES / BLOCK) * BLOCK;
    let mut alone = Vec::new();
    let [open] = in_turn(
        bench.scale.rounds,
        [Contender::new("store and view, ms", |_| {
            let Opened { store_seconds, view_seconds, .. } = opened(&folder, middle as usize, at)?;
            alone.push(view_seconds * 1e3);
            Ok((store_seconds + view_seconds) * 1e3)
        })],
    )?;
    let note = format!("{points} points of {PER_POINT} blocks each on 1 TiB");
    bench.tell(
        Figure::new("view_open", "ms", Better::Lower, &open)
            .goal(20.0)
            .note(format!("store, view and a first read, in a new process; {note}")),
    )?;
    bench.tell(
        Figure::new("view_open_alone", "ms", Better::Lower, &Samples::of(alone))
            .goal(20.0)
            .note("view and a first read, after the store was opened"),
    )?;

    let mut changes = Changes::new(writer(&folder, compression())?);
    changes.number = points * PER_POINT;
    let older = changes.point(PER_POINT, BLOCK)?;
    let blocks = changes.point(differing, BLOCK)?;
    let pages = changes.point(differing * (BLOCK / PAGE), PAGE)?;
    drop(changes);
    let diff = |from: Cycle, to: Cycle, exactness| -> Result<f64> {
        // A store that was just opened has nothing at hand yet.
        let store = store(&folder)?;
        let begun = Instant::now();
        let ranges = store.diff(DISK, from, to, exactness)?;
        let seconds = begun.elapsed().as_secs_f64();
        let bytes: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        // Places in a dozen cycles may meet; much less is a fault of ours.
        (bytes >= differing * BLOCK / 2).then_some(seconds * 1e3).context("find what differs")
    };
    let [written, compared, scattered_pages] = in_turn(
        bench.scale.rounds,
        [
            Contender::new("diff of blocks, ms", |_| diff(older, blocks, Exactness::Written)),
            Contender::new("compared, ms", |_| diff(older, blocks, Exactness::Compared)),
            Contender::new("diff of pages, ms", |_| diff(blocks, pages, Exactness::Written)),
        ],
    )?;
    bench.workplace.clear(&folder)?;
    bench.tell(
        Figure::new("diff_blocks", "ms", Better::Lower, &written)
            .goal(100.0)
            .note(format!("{differing} blocks of 64 KiB all over 1 TiB; store just opened")),
    )?;
    bench.tell(
        Figure::new("diff_blocks_compared", "ms", Better::Lower, &compared)
            .goal(100.0)
            .note("the same, leaving out what was written with the same bytes"),
    )?;
    bench.tell(
        Figure::new("diff_pages", "ms", Better::Lower, &scattered_pages)
            .goal(100.0)
            .note(format!("{} pages of 4 KiB, as many bytes", differing * (BLOCK / PAGE))),
    )
}
