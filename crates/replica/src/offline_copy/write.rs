//! Writing a point as an offline copy.

use std::{
    fs::{self, File},
    future::Future,
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{task::spawn_blocking, time::sleep};

use super::{
    CONFIGURATION, DiskImage, ImageKind, MANIFEST, OfflineCopy, Stopped, hash_view, proof::NoHash,
};
use crate::{
    error::StoreError,
    export::{self, ImageFormat},
    format::manifest::Point,
    geometry::{Cycle, DiskNumber},
    store::Store,
    view::View,
};

/// How often progress is told.
const TICK: Duration = Duration::from_millis(200);

/// What the disks' images are to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyFormat {
    /// Sparse files with the disks' bytes; needs no tool.
    Raw,
    /// What `qemu-img` writes.
    Image(ImageFormat),
}

impl CopyFormat {
    const fn kind(self) -> ImageKind {
        match self {
            Self::Raw => ImageKind::Raw,
            Self::Image(ImageFormat::Qcow2) => ImageKind::Qcow2,
            Self::Image(ImageFormat::Vhdx) => ImageKind::Vhdx,
        }
    }
}

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The folder has something in it.
    #[error("{} is not empty", _0.display())]
    Taken(PathBuf),
    /// The folder or a file in it cannot be written.
    #[error("write {}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The store cannot be read, or a tool failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Writes a point into a new or empty folder: durable on return. `progress` is
/// told of `(done, total)` in bytes: every disk is read once to prove it, and
/// once to write it.
///
/// If this fails or is dropped, nothing of the copy is left. A process that is
/// killed leaves a folder without manifest.
///
/// # Errors
/// See [`WriteError`].
pub async fn write(
    store: &Store,
    point: Cycle,
    machine: &str,
    format: CopyFormat,
    folder: &Path,
    mut progress: impl FnMut(u64, u64),
) -> Result<OfflineCopy, WriteError> {
    let point = store.point(point)?;
    let mut unfinished = Unfinished::begin(folder)?;
    let total = point.disks.iter().sum::<u64>() * 2;
    let mut before = 0;
    let mut disks = Vec::new();
    for (number, size) in (0..).zip(point.disks.iter()) {
        let view = store.view(point.cycle, DiskNumber(number))?;
        let blake3 = hash(view.clone(), |done| progress(before + done, total)).await?;
        before += size;
        let file = format!("disk{number}.{}", format.kind().name());
        let path = unfinished.file(&file);
        image(view, format, &path, |done| progress(before + done, total)).await?;
        before += size;
        disks.push(DiskImage { file, kind: format.kind(), size: *size, blake3 });
    }
    let configuration = write_configuration(&mut unfinished, &point)?;
    let copy = OfflineCopy {
        machine: machine.to_owned(),
        instant: point.instant,
        consistency: point.consistency,
        origin: point.origin.to_string(),
        configuration,
        disks,
    };
    let manifest = unfinished.file(MANIFEST);
    put(&manifest, copy.encode().as_bytes())?;
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|source| WriteError::Io { path: folder.to_owned(), source })?;
    unfinished.is_whole = true;
    progress(total, total);
    Ok(copy)
}

fn write_configuration(
    unfinished: &mut Unfinished,
    point: &Point,
) -> Result<Option<String>, WriteError> {
    if point.configuration.is_empty() {
        return Ok(None);
    }
    put(&unfinished.file(CONFIGURATION), &point.configuration)?;
    Ok(Some(CONFIGURATION.to_owned()))
}

fn put(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    let write = || {
        let mut file = File::create_new(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|source| WriteError::Io { path: path.to_owned(), source })
}

async fn hash(view: View, mut tell: impl FnMut(u64)) -> Result<blake3::Hash, WriteError> {
    let shared = Arc::new(Shared::default());
    // The thread stops when whoever waits for it is gone.
    let waiting = Waiting(Arc::clone(&shared));
    let work = spawn_blocking(move || {
        hash_view(&view, &mut |done, _| {
            shared.done.store(done, Ordering::Relaxed);
            if shared.stop.load(Ordering::Relaxed) { Err(Stopped) } else { Ok(()) }
        })
    });
    let hash = ticking(work, || tell(waiting.0.done.load(Ordering::Relaxed))).await;
    match hash {
        Ok(Ok(hash)) => Ok(hash),
        Ok(Err(NoHash::Store(error))) => Err(error.into()),
        // Nobody stops it while we wait.
        Ok(Err(NoHash::Stopped)) | Err(_) => Err(StoreError::WriterFailed.into()),
    }
}

#[derive(Default)]
struct Shared {
    done: AtomicU64,
    stop: AtomicBool,
}

struct Waiting(Arc<Shared>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

async fn image(
    view: View,
    format: CopyFormat,
    path: &Path,
    mut tell: impl FnMut(u64),
) -> Result<(), WriteError> {
    let (size, data) = (view.size(), allocated(&view)?.max(1));
    // What the file takes, as a share of what it will take, more or less.
    let tell = || {
        let taken = fs::metadata(path).map_or(0, |facts| facts.blocks() * 512).min(data);
        tell((u128::from(size) * u128::from(taken) / u128::from(data)) as u64);
    };
    match format {
        CopyFormat::Image(format) => {
            ticking(export::to_image(view, format, path), tell).await?;
            // `qemu-img` leaves it to the system when it is written down.
            let synced = File::open(path).and_then(|file| file.sync_all());
            synced.map_err(|source| WriteError::Io { path: path.to_owned(), source })
        }
        CopyFormat::Raw => {
            let path = path.to_owned();
            let work = spawn_blocking(move || export::to_raw(&view, &path));
            Ok(ticking(work, tell).await.map_err(|_| StoreError::WriterFailed)??)
        }
    }
}

fn allocated(view: &View) -> Result<u64, StoreError> {
    let (mut at, mut data) = (0, 0);
    while at < view.size() {
        for stretch in view.allocation(at, view.size() - at, 1024)? {
            at += stretch.length;
            data += if stretch.flags == 0 { stretch.length } else { 0 };
        }
    }
    Ok(data)
}

async fn ticking<T>(work: impl Future<Output = T>, mut tell: impl FnMut()) -> T {
    let mut work = pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            () = sleep(TICK) => tell(),
        }
    }
}

/// Files of a copy that is not whole, which go when this does.
struct Unfinished {
    folder: PathBuf,
    made_folder: bool,
    files: Vec<PathBuf>,
    is_whole: bool,
}

impl Unfinished {
    fn begin(folder: &Path) -> Result<Self, WriteError> {
        let failed = |source| WriteError::Io { path: folder.to_owned(), source };
        let made_folder = match fs::create_dir(folder) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if fs::read_dir(folder).map_err(failed)?.next().is_some() {
                    return Err(WriteError::Taken(folder.to_owned()));
                }
                false
            }
            Err(error) => return Err(failed(error)),
        };
        Ok(Self { folder: folder.to_owned(), made_folder, files: Vec::new(), is_whole: false })
    }

    fn file(&mut self, name: &str) -> PathBuf {
        let path = self.folder.join(name);
        self.files.push(path.clone());
        path
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.is_whole {
            return;
        }
        for file in self.files.iter().rev() {
            let _ = fs::remove_file(file);
        }
        if self.made_folder {
            let _ = fs::remove_dir(&self.folder);
        }
    }
}
