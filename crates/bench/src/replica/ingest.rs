//! Taking a whole image in: `ingest_compressed`, `ingest_uncompressed`,
//! `ingest_memory`.
//!
//! Ours: a process that reads the raw image from the page cache (`pread` of
//! 1 MiB), writes it into a new store and seals a point: hashed, compressed (or
//! not), durable. Timed inside the process, from before the store is made.
//!
//! The opponent: `nbdcopy --flush` from nbdkit's file plugin, which has the
//! same raw image in the same page cache, to a plain file on the same disk,
//! and an fsync of the file. The image has no holes, so that both have all of
//! its bytes to read; zeroes are found by both.
//!
//! Before each of these runs the file system has nothing left to write, and as
//! much memory as the image was touched and given back.
//!
//! The codec: the default compression of the same image in blocks of 64 KiB,
//! alone, on one thread, without reading and hashing. All of its blocks count,
//! also those that the store never gives to the codec because they are zero.
//! "Cores × codec" takes it that cores do not slow one another down; the note
//! says what they really compress together.

use std::{
    fs::File,
    path::Path,
    thread::{self, available_parallelism},
    time::Instant,
};

use anyhow::{Context as _, Result};

use super::{Bench, Group, probe::Ingested, scale::Scale, stores};
use crate::{
    codec,
    figure::{Better, Figure},
    pairing::{Contender, Samples, in_turn},
    process::{Server, output, probe, program, told_by},
    workplace::have_memory_at_hand,
};

pub(super) const GROUP: Group = Group {
    figures: &["ingest_compressed", "ingest_uncompressed", "ingest_memory"],
    image: |scale| scale.image,
    // One contender's result at a time.
    room: |scale| scale.image + scale.image / 8 + (64 << 20),
    measure,
};

fn measure(bench: &mut Bench) -> Result<()> {
    let image = bench.image()?;
    let Scale { long_rounds, .. } = bench.scale;
    let place = &bench.workplace;
    let bytes = image.size() as f64;
    let rate = |seconds: f64| bytes / 1e6 / seconds;
    let socket = place.path("image.sock");
    let _server = Server::start(
        program("nbdkit")
            .args(["--foreground", "--exit-with-parent", "--readonly", "--unix"])
            .arg(&socket)
            .arg("file")
            .arg(image.path()),
        &socket,
    )?;
    let (store, copy) = (place.path("ingest"), place.path("copy.raw"));
    let mut compressed: Option<Ingested> = None;
    let mut codec_ratio = 0.0;
    let ours = |uncompressed: bool| -> Result<Ingested> {
        place.clear(&store)?;
        have_memory_at_hand(image.size())?;
        let mut command = probe("ingest")?;
        command.arg(image.path()).arg(&store);
        if uncompressed {
            command.arg("--uncompressed");
        }
        told_by(&mut command)
    };
    let cores = available_parallelism().map_or(1, usize::from);
    let [with, without, opponent, codec, together] = in_turn(
        long_rounds,
        [
            Contender::new("ours, MB/s", |_| {
                let ingested = ours(false)?;
                let seconds = ingested.seconds;
                let peak = compressed.as_ref().map_or(0.0, |before| before.peak_mib);
                compressed = Some(Ingested { peak_mib: ingested.peak_mib.max(peak), ..ingested });
                place.clear(&store)?;
                Ok(rate(seconds))
            }),
            Contender::new("ours without compression, MB/s", |_| {
                let seconds = ours(true)?.seconds;
                place.clear(&store)?;
                Ok(rate(seconds))
            }),
            Contender::new("nbdcopy and fsync, MB/s", |_| {
                place.clear(&copy)?;
                let seconds = nbdcopy(&socket, &copy)?;
                place.clear(&copy)?;
                Ok(rate(seconds))
            }),
            Contender::new("codec alone, MB/s", |_| {
                let (seconds, left) = codec::alone(&image, stores::compression(), 0, 1)?;
                codec_ratio = left as f64 / bytes;
                Ok(rate(seconds))
            }),
            Contender::new("codec on all cores, MB/s", |_| {
                let image = &image;
                let begun = Instant::now();
                let parts: Result<Vec<_>> = thread::scope(|scope| {
                    let threads: Vec<_> = (0..cores)
                        .map(|part| {
                            scope.spawn(move || {
                                codec::alone(image, stores::compression(), part, cores)
                            })
                        })
                        .collect();
                    threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
                });
                parts?;
                Ok(rate(begun.elapsed().as_secs_f64()))
            }),
        ],
    )?;
    let codec = codec.median() * cores as f64;
    let (name, lesser) = match opponent.median() <= codec {
        true => ("nbdcopy + fsync".to_owned(), opponent.median()),
        false => (format!("{cores} cores × codec"), codec),
    };
    let ingested = compressed.context("rounds were made")?;
    let note = format!(
        "{}; zstd makes {codec_ratio:.2} of it, the store {:.2}; nbdcopy + fsync {:.0} MB/s, \
         {cores} cores × codec {codec:.0} MB/s, which together make {:.0} MB/s",
        image.composition(),
        ingested.stored as f64 / bytes,
        opponent.median(),
        together.median(),
    );
    bench.tell(
        Figure::new("ingest_compressed", "MB/s", Better::Higher, &with)
            .against(name, lesser)
            .goal(0.8)
            .note(note),
    )?;
    bench.tell(
        Figure::new("ingest_uncompressed", "MB/s", Better::Higher, &without)
            .against("nbdcopy + fsync", opponent.median())
            .goal(0.9),
    )?;
    let peak = Samples::of([ingested.peak_mib]);
    bench.tell(
        Figure::new("ingest_memory", "MiB", Better::Lower, &peak)
            .note("VmHWM of the process that takes the image in, compressed"),
    )
}

fn nbdcopy(socket: &Path, copy: &Path) -> Result<f64> {
    let begun = Instant::now();
    let uri = format!("nbd+unix:///?socket={}", socket.display());
    output(program("nbdcopy").args(["--flush", &uri]).arg(copy))?;
    File::open(copy).and_then(|file| file.sync_all()).context("sync the copy")?;
    Ok(begun.elapsed().as_secs_f64())
}
