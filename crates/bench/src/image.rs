//! A realistic image: files of this host as a disk would hold them.

use std::{
    fs::{self, File},
    io::{BufWriter, Read as _, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::content::Noise;

/// The image is made in stretches of this size, each of the same mixture, so
/// that a part of it is as realistic as all of it.
const STRETCH: usize = 16 << 20;
/// Of a stretch, bytes of files.
const FILES: usize = 12 << 20;
/// And bytes of noise, like media and encrypted data; the rest is zeroes.
const NOISE: usize = 1 << 20;
/// No file counts for more: a few giants would be all there is.
const FILE_MAX: u64 = 32 << 20;
/// Where files come from.
const SOURCE: &str = "/usr";

/// A raw file, in the page cache as far as memory reaches.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    path: PathBuf,
    size: u64,
    composition: String,
}

impl Image {
    /// Writes one of `size` bytes: the files under `/usr`, sorted by path,
    /// each from a page's start as file systems lay them, mixed with zeroes
    /// and noise. The same host makes the same image.
    pub(crate) fn make(path: &Path, size: u64) -> Result<Self> {
        let mut files = Files::new();
        let mut noise = Noise::new(0x11fe_b0a7);
        let mut out =
            BufWriter::with_capacity(1 << 20, File::create(path).context("make the image")?);
        let mut stretch = vec![0; STRETCH];
        let mut left = size;
        while left > 0 {
            stretch.fill(0);
            files.fill(&mut stretch[..FILES]);
            noise.fill(&mut stretch[FILES..FILES + NOISE]);
            let length = left.min(STRETCH as u64);
            out.write_all(&stretch[..length as usize]).context("write the image")?;
            left -= length;
        }
        out.flush().context("write the image")?;
        let mib = |bytes: usize| bytes >> 20;
        let composition = format!(
            "{} MiB, of each {} MiB: {} files of {SOURCE} ({}), {} noise, {} zeroes",
            size >> 20,
            mib(STRETCH),
            mib(FILES),
            files.told(),
            mib(NOISE),
            mib(STRETCH - FILES - NOISE)
        );
        Ok(Self { path: path.to_owned(), size, composition })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// What it consists of.
    pub(crate) fn composition(&self) -> &str {
        &self.composition
    }

    /// Calls `each` with offset and bytes of pieces of at most `piece` bytes,
    /// up to `end`.
    pub(crate) fn each(
        &self,
        end: u64,
        piece: usize,
        mut each: impl FnMut(u64, &[u8]) -> Result<()>,
    ) -> Result<()> {
        read_each(&self.path, end.min(self.size), piece, &mut each)
    }
}

/// Reads a file with `pread`, piece by piece.
pub(crate) fn read_each(
    path: &Path,
    end: u64,
    piece: usize,
    each: &mut dyn FnMut(u64, &[u8]) -> Result<()>,
) -> Result<()> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut bytes = vec![0; piece];
    let mut at = 0;
    while at < end {
        let length = (end - at).min(piece as u64) as usize;
        let bytes = &mut bytes[..length];
        file.read_exact_at(bytes, at).with_context(|| format!("read {}", path.display()))?;
        each(at, bytes)?;
        at += length as u64;
    }
    Ok(())
}

/// The files of a folder and those below, in order, over and over.
struct Files {
    paths: Vec<PathBuf>,
    next: usize,
    open: Option<std::io::Take<File>>,
    words: Noise,
}

impl Files {
    fn new() -> Self {
        let mut paths = Vec::new();
        collect(Path::new(SOURCE), &mut paths);
        paths.sort_unstable();
        Self { paths, next: 0, open: None, words: Noise::new(7) }
    }

    fn fill(&mut self, mut room: &mut [u8]) {
        let mut fruitless = 0;
        while !room.is_empty() && fruitless <= self.paths.len() {
            let Some(file) = &mut self.open else {
                fruitless += 1;
                self.open_next();
                continue;
            };
            match file.read(room) {
                Ok(0) | Err(_) => {
                    self.open = None;
                    // What is left of the page stays zero.
                    let rest = room.len() % 4096;
                    room = &mut room[rest..];
                }
                Ok(length) => {
                    fruitless = 0;
                    room = &mut room[length..];
                }
            }
        }
        if !room.is_empty() {
            self.write_text(room);
        }
    }

    fn open_next(&mut self) {
        let Some(path) = self.paths.get(self.next % self.paths.len().max(1)) else { return };
        self.next += 1;
        self.open = File::open(path).ok().map(|file| file.take(FILE_MAX));
    }

    /// Where there are no files: records with numbers.
    fn write_text(&mut self, mut room: &mut [u8]) {
        while !room.is_empty() {
            let number = self.words.below(1 << 24);
            let line = format!("{{\"id\": {number}, \"name\": \"machine-{}\"}}\n", number % 97);
            let length = line.len().min(room.len());
            room[..length].copy_from_slice(&line.as_bytes()[..length]);
            room = &mut room[length..];
        }
    }

    fn told(&self) -> String {
        match self.paths.len() {
            0 => "none there: synthetic records instead".to_owned(),
            all => format!("{} read, {all} there", self.next),
        }
    }
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    // What cannot be read is not part of the image.
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => collect(&entry.path(), paths),
            Ok(kind) if kind.is_file() => paths.push(entry.path()),
            _ => {}
        }
    }
}
