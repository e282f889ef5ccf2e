//! The folder that a benchmark works in. It goes when the benchmark ends, were
//! it by an error or by a signal.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::sys::statvfs::statvfs;
use tempfile::TempDir;
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
};

/// A folder of our own.
pub(crate) struct Workplace {
    folder: TempDir,
}

impl Workplace {
    /// Makes one in `parent` (by default /var/tmp, which lies on a disk), if
    /// so many bytes are free there.
    ///
    /// # Errors
    /// There is not enough room, or the folder cannot be made.
    pub(crate) fn new(parent: Option<&Path>, room: u64) -> Result<Self> {
        let parent = parent.unwrap_or(Path::new("/var/tmp"));
        let facts = statvfs(parent).with_context(|| format!("look at {}", parent.display()))?;
        let free = facts.blocks_available().saturating_mul(facts.fragment_size());
        let gib = |bytes: u64| bytes as f64 / (1_u64 << 30) as f64;
        if free < room {
            bail!(
                "{} has {:.1} GiB free and {:.1} GiB are needed; name another with --folder, \
                 or measure less with --quick or --only",
                parent.display(),
                gib(free),
                gib(room)
            );
        }
        let folder = tempfile::Builder::new()
            .prefix("lifeboat-bench-")
            .tempdir_in(parent)
            .with_context(|| format!("make a folder in {}", parent.display()))?;
        eprintln!(
            "   in {}, of {:.1} GiB free at most {:.1}",
            folder.path().display(),
            gib(free),
            gib(room)
        );
        remove_on_signals(folder.path().to_owned())?;
        Ok(Self { folder })
    }

    /// A path inside.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Removes a file or folder inside, if it is there, and waits until the
    /// file system has nothing left to write: what one contender left in
    /// memory is not written out at the expense of the next.
    pub(crate) fn clear(&self, path: &Path) -> Result<()> {
        let removed = match path.is_dir() {
            true => fs::remove_dir_all(path),
            false => fs::remove_file(path),
        };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove {}", path.display()));
            }
            _ => {}
        }
        self.quiesce()
    }

    /// Waits until the file system has nothing left to write.
    pub(crate) fn quiesce(&self) -> Result<()> {
        let folder = File::open(self.folder.path()).context("open the folder")?;
        nix::unistd::syncfs(&folder).context("sync the file system")
    }
}

/// Touches so much memory and gives it back. Where a hypervisor finds memory
/// only when it is touched, whoever comes first pays for the page cache of all
/// who follow: so each contender is made to find it at hand. Only as much as
/// is there in plenty.
pub(crate) fn have_memory_at_hand(bytes: u64) -> Result<()> {
    let facts = fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
    let line = facts.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    let bytes = bytes.min(kib.context("find MemAvailable in /proc/meminfo")? * 1024 / 3);
    std::hint::black_box(vec![1_u8; bytes as usize]);
    Ok(())
}

/// Bytes that a folder's files take on the medium, which is less than their
/// length where they have holes.
pub(crate) fn bytes_on_medium(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let entry = entry?;
        let facts = entry.metadata()?;
        bytes += match facts.is_dir() {
            true => bytes_on_medium(&entry.path())?,
            false => facts.blocks() * 512,
        };
    }
    Ok(bytes)
}

/// Processes that were started die with this one (see [`crate::process`]).
fn remove_on_signals(folder: PathBuf) -> Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let guard = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    drop(guard);
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hang_up.recv() => {}
            }
        });
        eprintln!("stopped; removing {}", folder.display());
        // The measuring goes on meanwhile and may add a file under our hands.
        for _ in 0..20 {
            if fs::remove_dir_all(&folder).is_ok() || !folder.exists() {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        std::process::exit(130);
    });
    Ok(())
}
