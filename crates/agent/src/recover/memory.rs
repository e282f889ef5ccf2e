//! How much memory the views of a recovery may take for decoded blocks.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of decoded blocks that a recovery's views keep at least: many may stand on
/// views at once, on a host that has no memory to spare.
pub(super) const LEAST_BLOCK_CACHE: usize = 32 << 20;
/// And at most: what a machine reads time and again after its start, not its disks.
const MOST_BLOCK_CACHE: usize = 2 << 30;
/// A recovery gets one of so many parts of what the host has to spare. A local image
/// would be read through the host's page cache, which takes whatever is free and gives
/// it back; ours gives nothing back before the machine has disks of its own, so most is
/// left to machines that grow or are started next, and to the page cache, out of which
/// we read ourselves.
const PARTS: usize = 8;

/// Bytes that caches of this process may grow to, all recoveries together.
static PROMISED: AtomicUsize = AtomicUsize::new(0);

/// Memory that a recovery's views may take, until this is dropped.
pub(super) struct Promise {
    pub(super) bytes: usize,
}

impl Promise {
    /// As much as suits the host now.
    pub(super) fn of_host() -> Self {
        // Where nobody tells, nothing is to spare.
        let facts = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let mut bytes = 0;
        let promise = |promised| {
            bytes = block_cache(&facts, promised);
            Some(promised + bytes)
        };
        // Many may be served at the same instant: each counts on what is left.
        let _ = PROMISED.fetch_update(Ordering::Relaxed, Ordering::Relaxed, promise);
        Self { bytes }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        PROMISED.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Bytes of decoded blocks for one recovery more, on a host with this `/proc/meminfo`
/// that promised so many to others.
///
/// What is to spare is what is available, but no more than what nobody has reserved: a
/// machine that was just started has touched little of its memory, and will.
fn block_cache(facts: &str, promised: usize) -> usize {
    let bytes = |name: &str| {
        let told = facts.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib = told?.trim().strip_suffix(" kB")?.parse::<usize>().ok()?;
        kib.checked_mul(1024)
    };
    let to_spare = || {
        let unreserved = bytes("MemTotal")?.saturating_sub(bytes("Committed_AS")?);
        Some(bytes("MemAvailable")?.min(unreserved).saturating_sub(promised))
    };
    (to_spare().unwrap_or(0) / PARTS).clamp(LEAST_BLOCK_CACHE, MOST_BLOCK_CACHE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: usize = 1 << 30;

    /// As the kernel writes it, in GiB.
    fn host(total: usize, available: usize, committed: usize) -> String {
        let line = |name, gib: usize| format!("{name}: {:>12} kB\n", gib << 20);
        ["MemTotal", "MemFree", "MemAvailable", "CommitLimit", "Committed_AS"]
            .into_iter()
            .zip([total, 1, available, total / 2, committed])
            .map(|(name, gib)| line(name, gib))
            .collect()
    }

    #[test]
    fn a_cache_takes_an_eighth_of_what_is_to_spare() {
        assert_eq!(block_cache(&host(64, 8, 40), 0), GIB);
        assert_eq!(block_cache(&host(64, 60, 56), 0), GIB, "machines will touch what they have");
        assert_eq!(block_cache(&host(64, 16, 40), 8 * GIB), GIB, "others will fill theirs");
        assert_eq!(block_cache(&host(512, 400, 50), 0), MOST_BLOCK_CACHE);
        assert_eq!(block_cache(&host(64, 30, 90), 0), LEAST_BLOCK_CACHE);
        assert_eq!(block_cache(&host(64, 16, 40), 20 * GIB), LEAST_BLOCK_CACHE);
        assert_eq!(block_cache("", 0), LEAST_BLOCK_CACHE, "nobody tells");
    }

    #[test]
    fn what_was_promised_is_given_back() {
        let before = PROMISED.load(Ordering::Relaxed);
        let (first, second) = (Promise::of_host(), Promise::of_host());
        let promised = PROMISED.load(Ordering::Relaxed);
        assert_eq!(promised - before, first.bytes + second.bytes);
        drop((first, second));
        assert_eq!(PROMISED.load(Ordering::Relaxed), before);
    }
}
