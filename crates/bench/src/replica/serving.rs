//! Reading a point over NBD: `nbd_random_read`, `nbd_sequential_read`.
//!
//! Ours: our server in a process of its own, with a view of the second of two
//! points. The opponent: `qemu-nbd` (`--cache=writeback --aio=threads`) with a
//! qcow2 of the same changes whose backing file is a raw file of the first
//! point. Both listen on unix sockets and are read by the same client, in turn,
//! after each was read through once. `qemu-img compare` finds the same bytes in
//! both before anything counts.
//!
//! Random reads: `fio` with its NBD engine, 4 KiB, 16 at a time, over all of
//! the disk; our own client where this `fio` has none. Sequential reads:
//! `nbdcopy --no-extents` to nowhere, which asks for every byte, zeroes too.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use nbd::client::{Address, Client, ClientOptions, Durability};

use super::{
    Bench, Group,
    stores::{DISK, compression, facts, writer},
};
use crate::{
    content::{Noise, scattered},
    figure::{Better, Figure},
    image::Image,
    pairing::{Contender, in_turn},
    process::{Server, has, output, probe, program},
};

const BLOCK: u64 = 64 << 10;
const PAGE: u64 = 4096;
/// Reads at a time.
const DEPTH: u64 = 16;

pub(super) const GROUP: Group = Group {
    figures: &["nbd_random_read", "nbd_sequential_read"],
    image: |scale| scale.served,
    room: |scale| scale.served * 3,
    measure,
};

fn measure(bench: &mut Bench) -> Result<()> {
    let image = bench.image()?;
    let place = &bench.workplace;
    let size = bench.scale.served;
    let seconds = bench.scale.reading_seconds;
    let rounds = bench.scale.rounds;
    let (folder, base, overlay) =
        (place.path("served"), place.path("base.raw"), place.path("overlay.qcow2"));
    write_store(&image, size, &folder)?;
    write_qcow2(&image, size, &base, &overlay)?;

    let (our_socket, their_socket) = (place.path("ours.sock"), place.path("theirs.sock"));
    let ours = Server::start(probe("serve")?.arg(&folder).arg(&our_socket), &our_socket)?;
    let theirs =
        Server::start(qemu_nbd(&their_socket, &overlay).arg("--read-only"), &their_socket)?;
    let (our_uri, their_uri) = (uri(&our_socket), uri(&their_socket));
    output(program("qemu-img").args(["compare", "-f", "raw", "-F", "raw", &our_uri, &their_uri]))
        .context("find the same bytes at both")?;
    read_through(&our_uri)?;
    read_through(&their_uri)?;

    let by_fio = has("fio")
        && output(program("fio").arg("--enghelp")).is_ok_and(|help| help.contains("nbd"));
    let random = |socket: &Path| match by_fio {
        true => fio(&uri(socket), seconds),
        false => our_client(socket, size, seconds),
    };
    let [our_random, their_random] = in_turn(
        rounds,
        [
            Contender::new("ours, random reads per second", |_| random(&our_socket)),
            Contender::new("qemu-nbd, random reads per second", |_| random(&their_socket)),
        ],
    )?;
    let rate = |seconds: f64| size as f64 / 1e6 / seconds;
    let [our_copy, their_copy] = in_turn(
        rounds,
        [
            Contender::new("ours, sequential MB/s", |_| read_through(&our_uri).map(rate)),
            Contender::new("qemu-nbd, sequential MB/s", |_| read_through(&their_uri).map(rate)),
        ],
    )?;
    ours.stop()?;
    theirs.stop()?;
    for path in [folder, base, overlay] {
        place.clear(&path)?;
    }
    let client = if by_fio { "fio" } else { "our own client" };
    bench.tell(
        Figure::new("nbd_random_read", "/s", Better::Higher, &our_random)
            .against("qemu-nbd", their_random.median())
            .goal(0.7)
            .note(format!("4 KiB, {DEPTH} at a time, by {client}, over {} MiB", size >> 20)),
    )?;
    bench.tell(
        Figure::new("nbd_sequential_read", "MB/s", Better::Higher, &our_copy)
            .against("qemu-nbd", their_copy.median())
            .goal(0.9)
            .note("by nbdcopy --no-extents"),
    )
}

/// What the second point changes: places on the disk and in the image, and
/// lengths. A sixteenth of the blocks, and half as many bytes as single pages.
fn changes(size: u64) -> impl Iterator<Item = (u64, u64, u64)> {
    let blocks =
        (0..size / BLOCK / 16).map(move |number| (scattered(number, size / BLOCK) * BLOCK, BLOCK));
    let pages =
        (0..size / PAGE / 32).map(move |number| (scattered(number, size / PAGE) * PAGE, PAGE));
    blocks.chain(pages).map(move |(at, length)| (at, (at + size / 2) % size, length))
}

fn each_change(
    image: &Image,
    size: u64,
    mut each: impl FnMut(u64, Vec<u8>) -> Result<()>,
) -> Result<()> {
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::File::open(image.path()).context("open the image")?;
    for (at, from, length) in changes(size) {
        let mut bytes = vec![0; length as usize];
        file.read_exact_at(&mut bytes, from).context("read the image")?;
        each(at, bytes)?;
    }
    Ok(())
}

fn write_store(image: &Image, size: u64, folder: &Path) -> Result<()> {
    let mut writer = writer(folder, compression())?;
    writer.begin(&[size])?;
    image.each(size, 1 << 20, |at, bytes| {
        writer.write(DISK, at, bytes)?;
        Ok(())
    })?;
    writer.seal(facts())?;
    writer.begin(&[size])?;
    each_change(image, size, |at, bytes| {
        writer.write(DISK, at, &bytes)?;
        Ok(())
    })?;
    writer.seal(facts())?;
    Ok(())
}

fn write_qcow2(image: &Image, size: u64, base: &Path, overlay: &Path) -> Result<()> {
    std::fs::copy(image.path(), base).context("copy the image")?;
    std::fs::OpenOptions::new().write(true).open(base)?.set_len(size)?;
    output(
        program("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
            .arg(base)
            .arg(overlay),
    )?;
    let socket = overlay.with_extension("sock");
    let server = Server::start(&mut qemu_nbd(&socket, overlay), &socket)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let address = Address::unix(&socket);
    let client = runtime.block_on(Client::connect(&address, ClientOptions::default()))?;
    each_change(image, size, |at, bytes| {
        Ok(runtime.block_on(client.write(at, Bytes::from(bytes), Durability::Cached))?)
    })?;
    runtime.block_on(async {
        client.flush().await?;
        client.disconnect().await;
        anyhow::Ok(())
    })?;
    server.stop()
}

fn qemu_nbd(socket: &Path, image: &Path) -> std::process::Command {
    let mut command = program("qemu-nbd");
    command.args(["--persistent", "--shared=8", "--cache=writeback", "--aio=threads"]);
    command.args(["--format=qcow2", "--socket"]).arg(socket).arg(image);
    command
}

fn uri(socket: &Path) -> String {
    format!("nbd+unix:///?socket={}", socket.display())
}

/// Reads all of it; the seconds that took.
fn read_through(uri: &str) -> Result<f64> {
    let begun = Instant::now();
    output(program("nbdcopy").args(["--no-extents", uri, "null:"]))?;
    Ok(begun.elapsed().as_secs_f64())
}

/// Random reads per second, by fio.
fn fio(uri: &str, seconds: u64) -> Result<f64> {
    let text = output(
        program("fio")
            .args(["--name=random", "--ioengine=nbd", "--rw=randread", "--bs=4k", "--time_based"])
            .args(["--norandommap", "--randrepeat=1", "--output-format=json"])
            .arg(format!("--iodepth={DEPTH}"))
            .arg(format!("--runtime={seconds}"))
            .arg(format!("--uri={uri}")),
    )?;
    // Notes may come before it.
    let json = text.find('{').and_then(|start| text.get(start..)).context("find fio's JSON")?;
    let told: serde_json::Value = serde_json::from_str(json).context("understand fio")?;
    let read = told["jobs"][0]["read"]["iops"].as_f64().context("find fio's figure")?;
    ensure!(told["jobs"][0]["error"] == 0, "fio met an error");
    Ok(read)
}

/// Random reads per second, by our own client.
fn our_client(socket: &Path, size: u64, seconds: u64) -> Result<f64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = Client::connect(&Address::unix(socket), ClientOptions::default()).await?;
        let done = Arc::new(AtomicU64::new(0));
        let begun = Instant::now();
        let end = begun + Duration::from_secs(seconds);
        let readers: Vec<_> = (0..DEPTH)
            .map(|number| {
                let (client, done) = (client.clone(), Arc::clone(&done));
                let mut noise = Noise::new(number);
                tokio::spawn(async move {
                    while Instant::now() < end {
                        client.read(noise.below(size / PAGE) * PAGE, PAGE as u32).await?;
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    anyhow::Ok(())
                })
            })
            .collect();
        for reader in readers {
            reader.await??;
        }
        let rate = done.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64();
        client.disconnect().await;
        Ok(rate)
    })
}
