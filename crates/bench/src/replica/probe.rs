//! What runs in a process of its own, so that memory and state are its own.
//! Each prints what it measured as JSON.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use anyhow::{Context as _, Result};
use clap::Subcommand;
use nbd::server::{Exports, Listener, Server, ServerOptions};
use replica::{geometry::DiskNumber, pipeline::Compression};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};

use super::{
    memory,
    stores::{DISK, compression, facts, store, writer},
};
use crate::{image::read_each, process::peak_memory};

/// A hidden command.
#[derive(Debug, Subcommand)]
pub(crate) enum Probe {
    /// Takes a raw file into a new store
    Ingest {
        image: PathBuf,
        folder: PathBuf,
        #[arg(long)]
        uncompressed: bool,
    },
    /// Opens a store, a view of a point, and reads once
    Open {
        folder: PathBuf,
        /// The point's place among all; by default the newest
        #[arg(long)]
        point: Option<usize>,
        /// Where to read
        #[arg(long, default_value_t = 0)]
        at: u64,
    },
    /// Serves the newest point until it is told to end
    Serve { folder: PathBuf, socket: PathBuf },
    /// Protects much, and tells how much memory that took
    Memory { folder: PathBuf, blocks: u64 },
}

/// What [`Probe::Ingest`] tells.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ingested {
    pub(crate) seconds: f64,
    pub(crate) peak_mib: f64,
    /// Bytes in segments.
    pub(crate) stored: u64,
}

/// What [`Probe::Open`] tells.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Opened {
    pub(crate) store_seconds: f64,
    pub(crate) view_seconds: f64,
    pub(crate) points: usize,
}

impl Probe {
    /// Does it.
    pub(crate) fn run(self) -> Result<()> {
        match self {
            Self::Ingest { image, folder, uncompressed } => {
                let compression = if uncompressed { Compression::None } else { compression() };
                tell(&ingest(&image, &folder, compression)?)
            }
            Self::Open { folder, point, at } => tell(&open(&folder, point, at)?),
            Self::Serve { folder, socket } => serve(&folder, &socket),
            Self::Memory { folder, blocks } => tell(&memory::protect(&folder, blocks)?),
        }
    }
}

fn tell<T: Serialize>(what: &T) -> Result<()> {
    println!("{}", serde_json::to_string(what)?);
    Ok(())
}

/// From an empty folder to a durable point, opening included; the bytes come
/// by `pread` of 1 MiB, on the thread that writes.
fn ingest(image: &Path, folder: &Path, compression: Compression) -> Result<Ingested> {
    let begun = Instant::now();
    let size = image.metadata().context("look at the image")?.len();
    let mut writer = writer(folder, compression)?;
    writer.begin(&[size])?;
    read_each(image, size, 1 << 20, &mut |at, bytes| {
        writer.write(DISK, at, bytes)?;
        Ok(())
    })?;
    writer.seal(facts())?;
    let seconds = begun.elapsed().as_secs_f64();
    let stored = writer.store().usage().data;
    Ok(Ingested { seconds, peak_mib: peak_memory()?, stored })
}

fn open(folder: &Path, point: Option<usize>, at: u64) -> Result<Opened> {
    let begun = Instant::now();
    let store = store(folder)?;
    let store_seconds = begun.elapsed().as_secs_f64();
    let points = store.points();
    let point = point.map_or(points.last(), |place| points.get(place)).context("find the point")?;
    let begun = Instant::now();
    let view = store.view(point.cycle, DISK)?;
    view.extents(at, 4096)?;
    Ok(Opened { store_seconds, view_seconds: begun.elapsed().as_secs_f64(), points: points.len() })
}

fn serve(folder: &Path, socket: &Path) -> Result<()> {
    let store = store(folder)?;
    let newest = store.newest().context("find a point")?;
    let view = store.view(newest.cycle, DiskNumber(0))?;
    tokio::runtime::Runtime::new()?.block_on(async {
        let exports = Exports::new();
        exports.insert("", Arc::new(view))?;
        let mut terminate = signal(SignalKind::terminate())?;
        let listener = Listener::unix(socket, 0o600).await?;
        let server = Server::start(listener, exports, ServerOptions::default());
        terminate.recv().await;
        server.shut_down().await;
        Ok(())
    })
}
