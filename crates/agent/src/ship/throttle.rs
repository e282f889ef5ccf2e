//! Holding back what is above a rate: of one machine, and of all machines of a
//! host together.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// Holds back what is above a rate; at most a tenth of a second's worth goes at
/// once.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    /// Bytes a second.
    pub(super) limit: Option<u64>,
    /// When all that was sent would have gone at the limit.
    due: Option<Instant>,
}

impl Throttle {
    /// Waits until so many bytes may go.
    pub(super) async fn wait(&mut self, bytes: u64) {
        let Some(limit) = self.limit.filter(|limit| *limit > 0) else { return };
        let now = Instant::now();
        let due = self.due.map_or(now, |due| due.max(now));
        let cost = Duration::from_secs_f64(bytes as f64 / limit as f64);
        self.due = Some(due + cost);
        if due > now + Duration::from_millis(100) {
            sleep_until(due).await;
        }
    }
}

/// What all machines of a host may send together, in fair shares: each waits its
/// turn for a frame of at most 64 KiB, and frames go in the order in which they
/// came. Clones are one line.
#[derive(Debug, Clone, Default)]
pub struct Line(Option<Arc<Mutex<Throttle>>>);

impl Line {
    /// A line of so many bytes a second; without limit if there are none.
    #[must_use]
    pub fn of(bytes_per_second: Option<u64>) -> Self {
        let limit = bytes_per_second.filter(|limit| *limit > 0);
        Self(limit.map(|limit| {
            Arc::new(Mutex::new(Throttle { limit: Some(limit), ..Throttle::default() }))
        }))
    }

    /// Waits until it is this frame's turn.
    pub(super) async fn wait(&self, bytes: u64) {
        if let Some(throttle) = &self.0 {
            // The lock is given to whoever has waited longest.
            throttle.lock().await.wait(bytes).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_kept() {
        let mut throttle = Throttle { limit: Some(1000), due: None };
        let start = Instant::now();
        for _ in 0..100 {
            throttle.wait(100).await;
        }
        let took = start.elapsed().as_secs_f64();
        assert!((9.0..=10.1).contains(&took), "{took}");
    }

    /// One that begins later, or has more to send, gets no more than its share.
    #[tokio::test(start_paused = true)]
    async fn a_line_is_shared_fairly() {
        let line = Line::of(Some(100_000));
        let start = Instant::now();
        let send = |frames: u32| {
            let line = line.clone();
            tokio::spawn(async move {
                for _ in 0..frames {
                    line.wait(1000).await;
                }
                start.elapsed().as_secs_f64()
            })
        };
        let (greedy, modest) = (send(1000), send(100));
        let (greedy, modest) = (greedy.await.unwrap(), modest.await.unwrap());
        assert!((1.7..=2.3).contains(&modest), "half of the line until it is done: {modest}");
        assert!((10.5..=11.1).contains(&greedy), "{greedy}");
        Line::of(None).wait(u64::MAX).await;
    }
}
