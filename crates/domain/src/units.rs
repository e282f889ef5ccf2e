//! Sizes with a unit, and times as people read them.

use std::fmt;
use std::ops::Add;

use time::macros::format_description;
use time::{OffsetDateTime, UtcOffset};

/// A time to the second, in UTC: `2026-11-21 03:07:42Z`.
#[must_use]
pub fn utc(at: OffsetDateTime) -> String {
    at.to_offset(UtcOffset::UTC)
        .format(format_description!("[year]-[month]-[day] [hour]:[minute]:[second]Z"))
        .unwrap_or_else(|_| at.to_string())
}

/// Milliseconds since 1970, as recovery points are labelled.
#[must_use]
pub fn milliseconds(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}

/// The time of a label; of one that no calendar has, the beginning of time.
#[must_use]
pub fn instant(milliseconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(milliseconds) * 1_000_000)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// A number of bytes. Shown with binary units, one decimal from KiB on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteCount(u64);

impl ByteCount {
    /// So many bytes.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// So many KiB; saturates.
    #[must_use]
    pub const fn from_kib(kib: u64) -> Self {
        Self(kib.saturating_mul(1024))
    }

    /// The bare number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl Add for ByteCount {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl std::iter::Sum for ByteCount {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self(0), Add::add)
    }
}

impl fmt::Display for ByteCount {
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
        if self.0 < 1024 {
            return f.pad(&format!("{} B", self.0));
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut unit = 0;
        // 1023.95 would be shown as "1024.0 KiB".
        while value >= 1023.95 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        f.pad(&format!("{value:.1} {}", UNITS[unit]))
    }
}

/// A span of whole seconds. Shown in its largest whole unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Seconds(pub u32);

impl Seconds {
    /// The span, to reckon with.
    #[must_use]
    pub fn duration(self) -> time::Duration {
        time::Duration::seconds(i64::from(self.0))
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            seconds if seconds == 0 || !seconds.is_multiple_of(60) => write!(f, "{seconds} s"),
            seconds if !seconds.is_multiple_of(3600) => write!(f, "{} min", seconds / 60),
            seconds => Hours(seconds / 3600).fmt(f),
        }
    }
}

/// A span of whole hours. Shown in days from two whole ones on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hours(pub u32);

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            hours if hours >= 48 && hours.is_multiple_of(24) => write!(f, "{} days", hours / 24),
            hours => write!(f, "{hours} h"),
        }
    }
}

/// A span as people read it, in its largest unit: `40 s`, `3 min`, `5 h`,
/// `2 days`. A negative one is none.
#[must_use]
pub fn span(span: time::Duration) -> String {
    match span.whole_seconds().max(0) {
        seconds @ 0..=119 => format!("{seconds} s"),
        seconds @ 120..=7199 => format!("{} min", seconds / 60),
        seconds @ 7200..=172_799 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_times_and_absurd_ones_the_beginning() {
        let at = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        assert_eq!(milliseconds(at), 1_800_000_000_000);
        assert_eq!(instant(1_800_000_000_000), at);
        assert_eq!([i64::MIN, i64::MAX].map(instant), [OffsetDateTime::UNIX_EPOCH; 2]);
    }

    #[test]
    fn times_are_in_utc() {
        let at = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let elsewhere = at.to_offset(UtcOffset::from_hms(5, 30, 0).unwrap());
        assert_eq!(utc(elsewhere), "2027-01-15 08:00:00Z");
    }

    #[test]
    fn spans_read_well() {
        let seconds = [0, 30, 90, 60, 900, 3600, 86_400, 172_800].map(|s| Seconds(s).to_string());
        assert_eq!(seconds, ["0 s", "30 s", "90 s", "1 min", "15 min", "1 h", "24 h", "2 days"]);
        assert_eq!(
            [24, 47, 48, 49].map(|h| Hours(h).to_string()),
            ["24 h", "47 h", "2 days", "49 h"]
        );
        let spans = [-5, 119, 120, 7200, 172_800].map(|s| span(time::Duration::seconds(s)));
        assert_eq!(spans, ["0 s", "119 s", "2 min", "2 h", "2 days"]);
    }

    #[test]
    fn sizes_read_well() {
        let shown = [0, 1023, 1024, 1536, 1 << 20, (1 << 20) - 1, 10 << 30, u64::MAX]
            .map(|bytes| ByteCount::new(bytes).to_string());
        assert_eq!(
            shown,
            [
                "0 B",
                "1023 B",
                "1.0 KiB",
                "1.5 KiB",
                "1.0 MiB",
                "1.0 MiB",
                "10.0 GiB",
                "16384.0 PiB"
            ]
        );
    }
}
