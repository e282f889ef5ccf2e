//! How much of a round is still to be done, and how long that takes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use wire::replication::Progress;

/// A round that is over sooner than this tells nothing of how far it is.
const WORTH_TELLING: Duration = Duration::from_secs(2);

/// What is to be done in a round, in bytes, and what of it is done.
pub(super) struct Backlog<'a> {
    total: u64,
    /// Done by earlier rounds.
    before: u64,
    /// Done by this one.
    done: AtomicU64,
    begun: Instant,
    tell: &'a (dyn Fn(Progress) + Sync),
}

impl<'a> Backlog<'a> {
    /// Of which so much was `done` before.
    pub(super) fn new(done: u64, total: u64, tell: &'a (dyn Fn(Progress) + Sync)) -> Self {
        Self { total, before: done, done: AtomicU64::new(0), begun: Instant::now(), tell }
    }

    /// So many bytes more are done.
    pub(super) fn pass(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let elapsed = self.begun.elapsed();
        if elapsed >= WORTH_TELLING {
            (self.tell)(progress(self.before, done, self.total, elapsed));
        }
    }
}

/// How far it is, when `done` beyond what was done `before` took so long.
fn progress(before: u64, done: u64, total: u64, elapsed: Duration) -> Progress {
    // Pieces of whole pages may be more than what changed.
    let so_far = before.saturating_add(done).min(total);
    let left = u128::from(total - so_far);
    let seconds_left = (left * elapsed.as_millis()).div_ceil(1000).checked_div(done.into());
    let seconds_left = seconds_left.and_then(|seconds| u64::try_from(seconds).ok());
    Progress { done: so_far, total, seconds_left }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_takes_as_long_as_the_pace_so_far_says() {
        let told = |before, done, seconds| {
            let progress = progress(before, done, 100, Duration::from_secs(seconds));
            (progress.done, progress.seconds_left)
        };
        assert_eq!(told(0, 25, 10), (25, Some(30)));
        assert_eq!(
            told(50, 25, 10),
            (75, Some(10)),
            "what was done before says nothing of the pace"
        );
        assert_eq!(told(0, 0, 10), (0, None));
        assert_eq!(told(50, 60, 10), (100, Some(0)));
    }
}
