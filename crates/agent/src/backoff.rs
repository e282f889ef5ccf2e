//! Growing pauses between attempts.

use std::time::Duration;

/// Doubles the pause from the first to the longest, with a random quarter
/// taken off, so that many agents do not come back in step.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    pause: Duration,
}

impl Backoff {
    /// Pauses from `first` up to `longest`.
    #[must_use]
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, pause: first }
    }

    /// The pause before the next attempt.
    pub fn next_pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(self.longest);
        pause.mul_f64(rand::random_range(0.75..=1.0))
    }

    /// Begins anew, after a success.
    pub const fn reset(&mut self) {
        self.pause = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(4));
        let pauses: Vec<f64> = (0..4).map(|_| backoff.next_pause().as_secs_f64()).collect();
        for (pause, longest) in pauses.iter().zip([1.0, 2.0, 4.0, 4.0]) {
            assert!((longest * 0.75..=longest).contains(pause), "{pauses:?}");
        }
        backoff.reset();
        assert!(backoff.next_pause() <= Duration::from_secs(1));
    }
}
