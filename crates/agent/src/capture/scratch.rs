//! Keeping the guest safe from a full scratch file.
//!
//! While a cut is open, QEMU copies what the guest overwrites into scratch
//! files first. When there is no more room for them, QEMU holds the *guest*, or
//! fails its write, as the disk's `error_policy` says. So they are watched, and the
//! cut is given up long before.

use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::statvfs::statvfs;
use tokio::task::spawn_blocking;

use super::error::Filled;

/// How often one looks: what a guest may write meanwhile must fit into the
/// reserve that [`judge`] leaves.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Per cent of the room at which a cut is given up.
const GIVE_UP_AT: u64 = 70;
/// Bytes that must stay free on the file system however small it is: 64 MiB, of
/// which a guest takes a quarter of a second and more, whatever disks it has.
pub const RESERVE: u64 = 64 << 20;

/// Bytes that scratch files take up, and that are free beside them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Taken up by all scratch files of the cut.
    pub used: u64,
    /// Free on their file system for those who are not root.
    pub free: u64,
}

/// How full it is, once that is too full: above 70 % of the configured limit,
/// or of what the file system has room for if that is less; or with less than
/// [`RESERVE`] free.
#[must_use]
pub fn judge(usage: Usage, limit: u64) -> Option<Filled> {
    let Usage { used, free } = usage;
    let too_much = |room: u64| u128::from(used) * 100 >= u128::from(room) * u128::from(GIVE_UP_AT);
    if too_much(limit) {
        return Some(Filled::Limit { used, limit });
    }
    let too_little = free < RESERVE || too_much(used.saturating_add(free));
    too_little.then_some(Filled::System { used, free })
}

/// Measures scratch files in a folder, which need not be there yet.
pub(super) async fn measure(folder: PathBuf, files: Vec<PathBuf>) -> io::Result<Usage> {
    // It takes as long as the file system does.
    let measured = spawn_blocking(move || measured(&folder, &files)).await;
    measured.expect("measuring does not panic")
}

fn measured(folder: &Path, files: &[PathBuf]) -> io::Result<Usage> {
    let mut used = 0;
    for file in files {
        match std::fs::metadata(file) {
            Ok(metadata) => used += metadata.blocks() * 512,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let system = statvfs(folder)?;
    Ok(Usage { used, free: system.blocks_available() * system.fragment_size() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_is_given_up_at_seventy_per_cent_of_the_scarcer_room() {
        let judge = |used, free, limit| judge(Usage { used, free }, limit);
        let percent = RESERVE;
        assert_eq!(judge(69, RESERVE, 100), None);
        assert_eq!(judge(70, RESERVE, 100), Some(Filled::Limit { used: 70, limit: 100 }));
        let (used, free) = (70 * percent, 30 * percent);
        assert_eq!(judge(used - 1, free + 1, u64::MAX), None);
        assert_eq!(judge(used, free, u64::MAX), Some(Filled::System { used, free }));
        let huge = Filled::Limit { used: u64::MAX, limit: u64::MAX };
        assert_eq!(judge(u64::MAX, RESERVE, u64::MAX), Some(huge));
    }

    #[test]
    fn a_small_file_system_is_not_used_to_its_end() {
        let judge = |used, free| judge(Usage { used, free }, 8 << 30);
        assert_eq!(judge(0, RESERVE), None);
        let free = RESERVE - 1;
        assert_eq!(judge(0, free), Some(Filled::System { used: 0, free }));
    }

    #[test]
    fn what_is_not_there_takes_up_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("vda");
        assert_eq!(measured(folder.path(), std::slice::from_ref(&file)).unwrap().used, 0);
        std::fs::write(&file, [1; 8192]).unwrap();
        let usage = measured(folder.path(), &[file, folder.path().join("vdb")]).unwrap();
        assert!(usage.used >= 8192 && usage.free > 0, "{usage:?}");
    }
}
