//! How old the newest durable data is, now and over the last day.

use std::collections::VecDeque;

/// Minutes that are remembered.
const MINUTES: usize = 24 * 60;

/// The worst of each minute of a day. Times are milliseconds since 1970, by one
/// clock.
#[derive(Debug, Clone, Default)]
pub struct RpoHistory {
    /// Minutes since 1970, and the worst age in it.
    minutes: VecDeque<(i64, u64)>,
}

impl RpoHistory {
    /// Takes note of an age in milliseconds.
    pub fn note(&mut self, now: i64, age: u64) {
        let minute = now / 60_000;
        match self.minutes.back_mut() {
            Some((last, worst)) if *last == minute => *worst = (*worst).max(age),
            _ => self.minutes.push_back((minute, age)),
        }
        while self.minutes.len() > MINUTES {
            self.minutes.pop_front();
        }
    }

    /// The worst of the day.
    #[must_use]
    pub fn worst(&self) -> Option<u64> {
        self.minutes.iter().map(|(_, worst)| *worst).max()
    }

    /// What 99 of 100 minutes were not above.
    #[must_use]
    pub fn p99(&self) -> Option<u64> {
        let mut ages: Vec<_> = self.minutes.iter().map(|(_, worst)| *worst).collect();
        ages.sort_unstable();
        ages.get((ages.len() * 99).div_ceil(100).saturating_sub(1)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_remembered_by_its_minutes() {
        let mut history = RpoHistory::default();
        assert_eq!((history.worst(), history.p99()), (None, None));
        for minute in 0..2000_i64 {
            history.note(minute * 60_000, 30);
            history.note(minute * 60_000 + 5, if minute == 1500 { 900 } else { 40 });
        }
        assert_eq!((history.worst(), history.p99()), (Some(900), Some(40)));
        history.minutes.truncate(10);
        assert_eq!(history.p99(), Some(40));
    }
}
