//! Room that a day of points takes: `database_room`, `database_room_with_first`.
//!
//! A database on a disk of its own: tables of 8 KiB pages full of rows, and a
//! log. A point is made every "5 minutes", 288 in a day. In between, 500 to
//! 2000 rows are changed in place, on pages that are chosen by Zipf's law (few
//! pages are changed again and again, most now and then). Each change puts a
//! record with the row into the log, and a page's first change since the last
//! point all of the page, as PostgreSQL does after a checkpoint. The log goes
//! round its part of the disk.
//!
//! *Changed blocks* are the distinct pages of 4 KiB that were written since the
//! point before, log included, times 4096, added up over all points. The
//! store's *room* is what its files take on the medium (`du`), index and
//! manifests included, after `settle` and `reclaim` as an agent has them done;
//! no point is dropped. `database_room` is what the store grew by after the
//! first full point ÷ changed blocks: the point of the goal.
//! `database_room_with_first` counts the first point in both: all of the store
//! ÷ (bytes of the tables + changed blocks).

use std::{collections::BTreeSet, fs::File, os::unix::fs::FileExt as _, path::Path};

use anyhow::{Context as _, Result};
use replica::writer::Writer;

use super::{
    Bench, Group,
    stores::{DISK, compression, facts, writer},
};
use crate::{
    content::{Noise, scattered},
    figure::{Better, Figure},
    pairing::Samples,
    workplace::bytes_on_medium,
};

const PAGE: u64 = 4096;
/// A page of the database.
const LEAF: usize = 8192;
/// The rows begin here; before them are the log's position and a checksum.
const ROWS: usize = 64;
const ROW: usize = 128;
/// The last part of a page is free.
const ROWS_IN_LEAF: u64 = 56;
const GOAL: f64 = 0.6;
/// What people write into databases.
const WORDS: &str = "the order was shipped to customer on invoice paid pending returned \
    address street north south market payment card transfer account balance refund \
    item quantity price discount total delivery warehouse status open closed note \
    please call again before friday morning left with neighbour signed by manager";

pub(super) const GROUP: Group = Group {
    figures: &["database_room", "database_room_with_first"],
    image: |_| 0,
    room: |scale| scale.database * 2 + scale.database_points * (24 << 20),
    measure,
};

fn measure(bench: &mut Bench) -> Result<()> {
    let (size, points) = (bench.scale.database, bench.scale.database_points);
    let folder = bench.workplace.path("database");
    let path = bench.workplace.path("database.raw");
    let mut database = Database::create(&path, size)?;
    let mut writer = writer(&folder, compression())?;
    database.ship_all(&mut writer)?;
    writer.settle()?;
    let first = bytes_on_medium(&folder)?;
    let mut changed = 0;
    for point in 1..=points {
        database.work()?;
        changed += database.ship(&mut writer)?;
        if point.is_multiple_of(48) {
            eprintln!("   {point} points, {} MiB changed", changed >> 20);
        }
    }
    writer.settle()?;
    while writer.reclaim(64)?.deleted > 0 {}
    // Files go with the manifest after the next.
    writer.settle()?;
    writer.settle()?;
    drop(writer);
    let all = bytes_on_medium(&folder)?;
    bench.workplace.clear(&folder)?;
    bench.workplace.clear(&path)?;
    let grown = Samples::of([all.saturating_sub(first) as f64 / changed as f64]);
    let whole = Samples::of([all as f64 / (database.tables + changed) as f64]);
    let mib = |bytes: u64| bytes >> 20;
    bench.tell(
        Figure::new("database_room", "of what changed", Better::Lower, &grown).goal(GOAL).note(
            format!(
                "{points} points: {} MiB changed, {} MiB taken",
                mib(changed),
                mib(all.saturating_sub(first))
            ),
        ),
    )?;
    bench.tell(Figure::new("database_room_with_first", "of all", Better::Lower, &whole).note(
        format!(
            "with a first point of {} MiB, which takes {} MiB",
            mib(database.tables),
            mib(first)
        ),
    ))
}

/// The disk, in a raw file.
struct Database {
    file: File,
    size: u64,
    /// Bytes of tables; the log comes behind.
    tables: u64,
    /// Where the log is; it only grows.
    log: u64,
    noise: Noise,
    /// Pages of 4 KiB that were written since the last point.
    dirty: BTreeSet<u64>,
}

impl Database {
    fn create(path: &Path, size: u64) -> Result<Self> {
        let file = File::options().read(true).write(true).create_new(true).open(path)?;
        file.set_len(size)?;
        let mut database = Self {
            file,
            size,
            tables: size / 8 * 7,
            log: 0,
            noise: Noise::new(288),
            dirty: BTreeSet::new(),
        };
        let mut leaf = [0; LEAF];
        for number in 0..database.tables / LEAF as u64 {
            for row in 0..ROWS_IN_LEAF {
                database.fill_row(&mut leaf, number * ROWS_IN_LEAF + row, row);
            }
            database.file.write_all_at(&leaf, number * LEAF as u64).context("write the tables")?;
        }
        Ok(database)
    }

    /// Gives a row a new value.
    fn fill_row(&mut self, leaf: &mut [u8; LEAF], id: u64, row: u64) {
        let at = ROWS + row as usize * ROW;
        let Some(bytes) = leaf.get_mut(at..at + ROW) else { return };
        bytes.fill(b' ');
        bytes[..8].copy_from_slice(&id.to_le_bytes());
        // Microseconds of some day, and an amount of money.
        let moment = 1_790_000_000_000_000 + self.noise.below(86_400_000_000);
        bytes[8..16].copy_from_slice(&moment.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.noise.below(1_000_000).to_le_bytes());
        let words: Vec<&str> = WORDS.split_ascii_whitespace().collect();
        let mut end = 24;
        while end < ROW - 16 {
            let word = words[self.noise.below(words.len() as u64) as usize];
            let length = word.len().min(ROW - end - 1);
            bytes[end..end + length].copy_from_slice(&word.as_bytes()[..length]);
            end += length + 1;
        }
    }

    /// What happens between two points.
    fn work(&mut self) -> Result<()> {
        let leaves = self.tables / LEAF as u64;
        let mut touched = BTreeSet::new();
        for _ in 0..500 + self.noise.below(1500) {
            // Hot pages lie anywhere.
            let number = scattered(self.noise.ranked(leaves), leaves);
            let mut leaf = [0; LEAF];
            self.file.read_exact_at(&mut leaf, number * LEAF as u64).context("read a page")?;
            let row = self.noise.below(ROWS_IN_LEAF);
            self.fill_row(&mut leaf, number * ROWS_IN_LEAF + row, row);
            leaf[..8].copy_from_slice(&self.log.to_le_bytes());
            let checksum = self.noise.next().to_le_bytes();
            leaf[8..12].copy_from_slice(&checksum[..4]);
            self.put(number * LEAF as u64, &leaf)?;
            let mut record = vec![0; 32];
            record[..8].copy_from_slice(&self.log.to_le_bytes());
            record[8..16].copy_from_slice(&number.to_le_bytes());
            self.noise.fill(&mut record[16..20]);
            if touched.insert(number) {
                record.extend_from_slice(&leaf);
            } else {
                let at = ROWS + row as usize * ROW;
                record.extend_from_slice(&leaf[at..at + ROW]);
            }
            self.append(&record)?;
        }
        Ok(())
    }

    fn append(&mut self, record: &[u8]) -> Result<()> {
        let room = self.size - self.tables;
        let until_the_end = (room - self.log % room).min(record.len() as u64) as usize;
        let (first, rest) = record.split_at(until_the_end);
        for piece in [first, rest].into_iter().filter(|piece| !piece.is_empty()) {
            self.put(self.tables + self.log % room, piece)?;
            self.log += piece.len() as u64;
        }
        Ok(())
    }

    fn put(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        self.file.write_all_at(bytes, at).context("write the database")?;
        self.dirty.extend(at / PAGE..(at + bytes.len() as u64).div_ceil(PAGE));
        Ok(())
    }

    /// The first point: all of the disk.
    fn ship_all(&mut self, writer: &mut Writer) -> Result<()> {
        self.dirty = (0..self.tables / PAGE).collect();
        self.ship(writer).map(drop)
    }

    /// Makes a point of what was written; its bytes. Neighbouring pages go in
    /// one write, as they would come from a bitmap.
    fn ship(&mut self, writer: &mut Writer) -> Result<u64> {
        const MOST: u64 = (1 << 20) / PAGE;
        writer.begin(&[self.size])?;
        let pages: Vec<u64> = std::mem::take(&mut self.dirty).into_iter().collect();
        let mut bytes = Vec::new();
        for run in pages.chunk_by(|a, b| a + 1 == *b).flat_map(|run| run.chunks(MOST as usize)) {
            bytes.resize(run.len() * PAGE as usize, 0);
            self.file.read_exact_at(&mut bytes, run[0] * PAGE).context("read the database")?;
            writer.write(DISK, run[0] * PAGE, &bytes)?;
        }
        writer.seal(facts())?;
        Ok(pages.len() as u64 * PAGE)
    }
}
