//! Keeping the guest safe from a full scratch file.
//!
//! While a cut is open, QEMU copies what the guest overwrites into scratch
//! files first. When there is no more room for them, QEMU fails the *guest's*
//! write. So they are watched, and the cut is given up long before.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::statvfs::statvfs;

use super::error::Filled;

/// How often one looks: what a guest may write meanwhile must fit into the
/// reserve that [`judge`] leaves.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Per cent of the room at which a cut is given up.
const GIVE_UP_AT: u64 = 70;

/// Bytes that scratch files take up, and that are free beside them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Taken up by all scratch files of the cut.
    pub used: u64,
    /// Free on their file system for those who are not root.
    pub free: u64,
}

/// How full it is, once that is too full: above 70 % of the configured limit,
/// or of what the file system has room for if that is less.
#[must_use]
pub fn judge(usage: Usage, limit: u64) -> Option<Filled> {
    let Usage { used, free } = usage;
    let limit = limit.min(used.saturating_add(free));
    let too_much = u128::from(used) * 100 >= u128::from(limit) * u128::from(GIVE_UP_AT);
    too_much.then_some(Filled { used, limit })
}

/// Measures scratch files, which need not be there yet. Blocks as long as the
/// file system does.
pub(super) fn measure(files: &[PathBuf]) -> std::io::Result<Usage> {
    let mut used = 0;
    for file in files {
        match std::fs::metadata(file) {
            Ok(metadata) => used += metadata.blocks() * 512,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let folder = files.first().and_then(|file| file.parent()).unwrap_or(Path::new("/"));
    let system = statvfs(folder)?;
    Ok(Usage { used, free: system.blocks_available() * system.fragment_size() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_is_given_up_at_seventy_per_cent_of_the_scarcer_room() {
        let judge = |used, free, limit| judge(Usage { used, free }, limit);
        assert_eq!(judge(69, 1000, 100), None);
        assert_eq!(judge(70, 1000, 100), Some(Filled { used: 70, limit: 100 }));
        assert_eq!(judge(69, 31, 1000), None);
        assert_eq!(judge(70, 30, 1000), Some(Filled { used: 70, limit: 100 }));
        assert_eq!(judge(0, 0, 1000), Some(Filled { used: 0, limit: 0 }));
        assert_eq!(judge(u64::MAX, 1, u64::MAX).map(|filled| filled.limit), Some(u64::MAX));
    }

    #[test]
    fn what_is_not_there_takes_up_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("vda");
        assert_eq!(measure(std::slice::from_ref(&file)).unwrap().used, 0);
        std::fs::write(&file, [1; 8192]).unwrap();
        let usage = measure(&[file, folder.path().join("vdb")]).unwrap();
        assert!(usage.used >= 8192 && usage.free > 0, "{usage:?}");
    }
}
