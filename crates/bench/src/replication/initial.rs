//! The first copy of a disk: `initial_copy`.
//!
//! Ours: from connecting to the keeper until the point is sealed, and so
//! durable; read over NBD, compared with nothing, compressed, encrypted, and at
//! the other end checked and written. The opponents, of which the least counts:
//! `nbdcopy` of the same disk from the same server to nowhere; bytes over a
//! plain TCP connection on the loopback; the codec alone on one core, times
//! cores. All have this machine's cores for both ends.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    thread::{self, available_parallelism},
    time::Instant,
};

use anyhow::{Context as _, Result};
use replica::pipeline::Compression;
use tokio::runtime::Runtime;

use super::{
    Bench, Group,
    machine::{Bitmaps, Disk, Simulated},
    target::{Target, machine},
};
use crate::{
    codec,
    figure::{Better, Figure},
    pairing::{Contender, in_turn},
    process::{output, program},
    workplace::have_memory_at_hand,
};

/// What `fast` in a policy stands for.
const FAST: Compression = Compression::Zstd(-3);

pub(super) const GROUP: Group = Group {
    figures: &["initial_copy"],
    image: |scale| scale.disk,
    // The disk and a store.
    room: |scale| 2 * scale.disk + scale.disk / 8 + (64 << 20),
    measure,
};

fn measure(bench: &mut Bench) -> Result<()> {
    let image = bench.image()?;
    let (place, scale) = (&bench.workplace, bench.scale);
    let runtime = Runtime::new()?;
    let disk = Disk::make(place, "first", &image, scale.disk)?;
    let bitmaps = runtime.block_on(Bitmaps::serve(place))?;
    let bytes = disk.size() as f64;
    let rate = |seconds: f64| bytes / 1e6 / seconds;
    let cores = available_parallelism().map_or(1, usize::from);
    let mut sent = 0.0;
    let mut left = 0.0;
    let [ours, nbdcopy, link, codec] = in_turn(
        scale.rounds,
        [
            Contender::new("ours, MB/s", |_| {
                let target = Target::start(place, 1)?;
                place.quiesce()?;
                have_memory_at_hand(disk.size())?;
                let simulated = Simulated::new(machine(0), &disk, &bitmaps);
                let begun = Instant::now();
                let shipper = runtime.block_on(async {
                    let shipper = target.meet(0, simulated).await?;
                    shipper.point().await?;
                    anyhow::Ok(shipper)
                })?;
                let seconds = begun.elapsed().as_secs_f64();
                sent = shipper.traffic().0 as f64;
                drop(shipper);
                target.stop(place)?;
                Ok(rate(seconds))
            }),
            Contender::new("nbdcopy to nowhere, MB/s", |_| {
                let begun = Instant::now();
                output(program("nbdcopy").args([&disk.uri(), "null:"]))?;
                Ok(rate(begun.elapsed().as_secs_f64()))
            }),
            Contender::new("plain TCP, MB/s", |_| Ok(rate(plain_tcp(disk.size())?))),
            Contender::new("codec alone, MB/s", |_| {
                let (seconds, bytes_left) = codec::alone(&image, FAST, 0, 1)?;
                left = bytes_left as f64 / bytes;
                Ok(rate(seconds))
            }),
        ],
    )?;
    disk.remove()?;
    let opponents = [
        ("nbdcopy to null:", nbdcopy.median()),
        ("plain TCP", link.median()),
        ("cores × codec", cores as f64 * codec.median()),
    ];
    let least = opponents.iter().min_by(|one, other| one.1.total_cmp(&other.1));
    let (name, least) = *least.context("there are opponents")?;
    let told = opponents.map(|(name, rate)| format!("{name} {rate:.0} MB/s")).join(", ");
    let note = format!(
        "{}; {:.2} of it went over the wire, zstd makes {left:.2}; {cores} cores for both ends; {told}",
        image.composition(),
        sent / bytes,
    );
    bench.tell(
        Figure::new("initial_copy", "MB/s", Better::Higher, &ours)
            .against(format!("least: {name}"), least)
            .goal(0.8)
            .note(note),
    )
}

/// Seconds for so many bytes from one thread to another.
fn plain_tcp(bytes: u64) -> Result<f64> {
    const PIECE: usize = 256 << 10;
    let listener = TcpListener::bind("127.0.0.1:0").context("listen")?;
    let address = listener.local_addr()?;
    let receiver = thread::spawn(move || -> Result<()> {
        let (mut stream, _) = listener.accept()?;
        let mut buffer = vec![0; PIECE];
        while stream.read(&mut buffer)? > 0 {}
        stream.write_all(&[1])?;
        Ok(())
    });
    let begun = Instant::now();
    let mut stream = TcpStream::connect(address).context("connect")?;
    let piece = vec![7; PIECE];
    let mut left = bytes;
    while left > 0 {
        let length = left.min(PIECE as u64) as usize;
        stream.write_all(&piece[..length])?;
        left -= length as u64;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    stream.read_exact(&mut [0]).context("hear that all is there")?;
    let seconds = begun.elapsed().as_secs_f64();
    receiver.join().expect("no panic")?;
    Ok(seconds)
}
