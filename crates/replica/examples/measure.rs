//! Measures the store, for `cargo xtask bench replica` and by hand:
//!
//! ```text
//! cargo run --release -p replica --example measure -- FOLDER
//! ```
//! Each line is a name, a number and its unit. FOLDER is made and removed; it
//! needs about 1 GiB. Files are compared with plain writes of the same bytes
//! to the same place.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use replica::{
    diff::Exactness,
    error::StoreError,
    format::record::Consistency,
    geometry::{BLOCK, Cycle, DiskNumber},
    medium::folder::Folder,
    pipeline::Compression,
    state::Limits,
    store::Store,
    writer::{SealFacts, Writer, WriterOptions},
};

const DISK: DiskNumber = DiskNumber(0);
const TIB: u64 = 1 << 40;
const IMAGE: u64 = 768 << 20;

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> Outcome {
    let Some(folder) = std::env::args().nth(1).map(PathBuf::from) else {
        return Err("usage: measure FOLDER (which must not exist)".into());
    };
    fs::create_dir(&folder)?;
    let result = all(&folder);
    fs::remove_dir_all(&folder)?;
    result
}

fn all(folder: &Path) -> Outcome {
    let image = realistic(8 << 20);
    plain(&folder.join("plain"), &image)?;
    for (name, compression) in [
        ("none", Compression::None),
        ("zstd -3", Compression::Zstd(-3)),
        ("zstd 1", Compression::Zstd(1)),
    ] {
        ingest(&folder.join(name), name, compression, &image)?;
    }
    codec(&image)?;
    random(&folder.join("random"))?;
    points(&folder.join("points"))?;
    many(&folder.join("many"))
}

/// A third text, a third records of numbers, a sixth noise, a sixth zeroes.
fn realistic(bytes: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes);
    let mut noise = blake3::Hasher::new().finalize_xof();
    let mut n = 0_u64;
    while out.len() < bytes {
        n += 1;
        let mut block = vec![0; BLOCK as usize];
        match n % 6 {
            0 | 1 => {
                let mut text = Vec::new();
                while text.len() < block.len() {
                    let mut word = [0; 2];
                    noise.fill(&mut word);
                    let word = u16::from_le_bytes(word);
                    writeln!(text, "{{\"id\": {word}, \"name\": \"machine-{}\"}}", word % 97).ok();
                }
                text.truncate(BLOCK as usize);
                block = text;
            }
            2 | 3 => {
                for chunk in block.chunks_mut(16) {
                    noise.fill(&mut chunk[..5]);
                    chunk[8..16].copy_from_slice(&n.to_le_bytes());
                }
            }
            4 => noise.fill(&mut block),
            _ => {}
        }
        out.extend_from_slice(&block);
    }
    out
}

fn tell(name: &str, value: f64, unit: &str) {
    println!("{name:<44} {value:>12.2} {unit}");
}

fn plain(path: &Path, image: &[u8]) -> Outcome {
    let start = Instant::now();
    let mut file = fs::File::create(path)?;
    for _ in 0..IMAGE / image.len() as u64 {
        file.write_all(image)?;
    }
    file.sync_all()?;
    tell("plain file, write and fsync", rate(start), "MB/s");
    fs::remove_file(path)?;
    Ok(())
}

fn rate(start: Instant) -> f64 {
    IMAGE as f64 / 1e6 / start.elapsed().as_secs_f64()
}

fn codec(image: &[u8]) -> Outcome {
    let mut compressor = zstd::bulk::Compressor::new(-3)?;
    let start = Instant::now();
    for block in image.chunks(BLOCK as usize) {
        compressor.compress(block)?;
    }
    let speed = image.len() as f64 / 1e6 / start.elapsed().as_secs_f64();
    tell("zstd -3 alone, one core", speed, "MB/s");
    Ok(())
}

fn writer(folder: &Path, compression: Compression) -> Result<Writer, Box<dyn std::error::Error>> {
    let medium = Folder::create(folder)?;
    let options = WriterOptions { compression, reserve_percent: 0, ..WriterOptions::new(1) };
    Ok(Writer::open(Arc::new(medium), options)?)
}

fn facts() -> SealFacts {
    SealFacts {
        instant: 0,
        consistency: Consistency::Crash,
        origin: String::new(),
        configuration: vec![b'x'; 4000],
    }
}

fn ingest(folder: &Path, name: &str, compression: Compression, image: &[u8]) -> Outcome {
    let mut writer = writer(folder, compression)?;
    let start = Instant::now();
    writer.begin(&[IMAGE])?;
    for round in 0..IMAGE / image.len() as u64 {
        for (number, piece) in (0..).zip(image.chunks(1 << 20)) {
            let offset = round * image.len() as u64 + number * (1 << 20);
            writer.write(DISK, offset, piece)?;
        }
    }
    writer.seal(facts())?;
    tell(&format!("ingest, {name}, durable"), rate(start), "MB/s");
    let usage = writer.store().usage();
    tell(&format!("stored / written, {name}"), usage.data as f64 / IMAGE as f64, "");
    drop(writer);
    fs::remove_dir_all(folder)?;
    Ok(())
}

/// 4 KiB writes all over a disk, a point every 5000.
fn random(folder: &Path) -> Outcome {
    let mut writer = writer(folder, Compression::Zstd(-3))?;
    let bytes = realistic(1 << 20);
    let (count, cycle) = (200_000_u64, 5_000);
    let start = Instant::now();
    writer.begin(&[TIB])?;
    let mut seal = 0.0_f64;
    for n in 0..count {
        let page = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % (TIB / 4096);
        let at = (n as usize % 256) * 4096;
        writer.write(DISK, page * 4096, &bytes[at..at + 4096])?;
        if n % cycle == cycle - 1 {
            let before = Instant::now();
            writer.seal(facts())?;
            seal = seal.max(before.elapsed().as_secs_f64());
            writer.begin(&[TIB])?;
        }
    }
    writer.sync()?;
    tell("random 4 KiB writes", count as f64 / start.elapsed().as_secs_f64(), "/s");
    tell("longest seal", seal * 1e3, "ms");
    tell("memory, peak", memory(), "MiB");
    drop(writer);
    fs::remove_dir_all(folder)?;
    Ok(())
}

/// 1 TiB, 1000 points of which each changes 0.001 % and the last 0.1 %.
fn points(folder: &Path) -> Outcome {
    let mut writer = writer(folder, Compression::Zstd(-3))?;
    let block = realistic(BLOCK as usize * 2);
    let block = &block[..BLOCK as usize];
    let blocks = TIB / BLOCK;
    let mut n = 0_u64;
    let mut change = |writer: &mut Writer, count: u64| -> Result<Cycle, StoreError> {
        writer.begin(&[TIB])?;
        for _ in 0..count {
            n += 1;
            let at = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % blocks;
            writer.write(DISK, at * BLOCK, block)?;
        }
        Ok(writer.seal(facts())?.cycle)
    };
    for _ in 0..998 {
        change(&mut writer, 16)?;
    }
    let older = change(&mut writer, blocks / 1000)?;
    let newer = change(&mut writer, blocks / 1000)?;
    let store = writer.store();
    let start = Instant::now();
    let ranges = store.diff(DISK, older, newer, Exactness::Written)?;
    tell("diff of points 0.1 % apart on 1 TiB", start.elapsed().as_secs_f64() * 1e3, "ms");
    tell("stretches that differ", ranges.len() as f64, "");
    let start = Instant::now();
    store.diff(DISK, older, newer, Exactness::Compared)?;
    tell("the same, compared by hash", start.elapsed().as_secs_f64() * 1e3, "ms");
    drop((store, writer));
    let start = Instant::now();
    let store = Store::open(Arc::new(Folder::existing(folder)?), Limits::default())?;
    tell("opening a store with 1000 points", start.elapsed().as_secs_f64() * 1e3, "ms");
    let start = Instant::now();
    let view = store.view(newer, DISK)?;
    view.extents(0, 4096)?;
    tell("opening a view, with a first read", start.elapsed().as_secs_f64() * 1e3, "ms");
    let start = Instant::now();
    let mut at = 0;
    let mut stretches = 0;
    while at < TIB {
        for stretch in view.allocation(at, TIB - at, 1000)? {
            at += stretch.length;
            stretches += 1;
        }
    }
    tell("allocation of all of it", start.elapsed().as_secs_f64() * 1e3, "ms");
    tell("its stretches", f64::from(stretches), "");
    tell("memory, peak", memory(), "MiB");
    Ok(())
}

/// Ten thousand points of one small change each.
fn many(folder: &Path) -> Outcome {
    let mut writer = writer(folder, Compression::Zstd(-3))?;
    let start = Instant::now();
    for n in 0..10_000_u64 {
        writer.begin(&[TIB])?;
        writer.write(DISK, n % 500 * 4096, &[n as u8 | 1; 4096])?;
        writer.seal(facts())?;
    }
    tell("points sealed, one after another", 10_000.0 / start.elapsed().as_secs_f64(), "/s");
    drop(writer);
    let start = Instant::now();
    let writer = self::writer(folder, Compression::Zstd(-3))?;
    tell("opening 10,000 points to write", start.elapsed().as_secs_f64() * 1e3, "ms");
    let store = writer.store();
    let start = Instant::now();
    let middle = store.points().get(5000).map_or(Cycle(1), |point| point.cycle);
    store.view(middle, DISK)?.extents(0, 4096)?;
    tell("a view of the 5000th, with a first read", start.elapsed().as_secs_f64() * 1e3, "ms");
    Ok(())
}

/// The most memory that this process has had, in MiB.
fn memory() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.unwrap_or_default() / 1024.0
}
