//! Hours of the week: when little bandwidth may be used, when much may be
//! compared.
//!
//! All of it is by the local time of the host that ships, as people at that
//! site mean it. Whoever asks says what the clock there shows.

use std::fmt;
use std::str::FromStr;

use crate::units::ByteCount;

const DAY: u16 = 24 * 60;
const WEEK: u16 = 7 * DAY;
const NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Most windows that a policy has of a kind.
pub const WINDOWS_MAX: usize = 32;

/// A minute of the week; the first is Monday's first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct WeekMinute(u16);

impl WeekMinute {
    /// What a clock shows: days since Monday, hour and minute. What no clock
    /// shows wraps around.
    #[must_use]
    pub fn new(days_since_monday: u8, hour: u8, minute: u8) -> Self {
        let minutes =
            u16::from(days_since_monday % 7) * DAY + u16::from(hour) * 60 + u16::from(minute);
        Self(minutes % WEEK)
    }
}

/// The same hours on some days of the week, such as `mon-fri 08:00-18:00`. Past
/// midnight they belong to the day on which they began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Window {
    /// Bit 0 is Monday.
    days: u8,
    /// Minute of the day on which it opens.
    from: u16,
    /// For so many minutes, up to a whole day.
    minutes: u16,
}

impl Window {
    /// Out of its parts: days with bit 0 for Monday, minute of the day on which
    /// it opens, and for how many minutes. None if no window is like that.
    #[must_use]
    pub const fn new(days: u8, from: u16, minutes: u16) -> Option<Self> {
        if days == 0 || days > 0x7f || from >= DAY || minutes == 0 || minutes > DAY {
            return None;
        }
        Some(Self { days, from, minutes })
    }

    /// Days with bit 0 for Monday, minute of the day on which it opens, and for
    /// how many minutes.
    #[must_use]
    pub const fn parts(self) -> (u8, u16, u16) {
        (self.days, self.from, self.minutes)
    }

    /// Whether it is open.
    #[must_use]
    pub fn contains(self, at: WeekMinute) -> bool {
        self.openings().any(|opening| (at.0 + WEEK - opening) % WEEK < self.minutes)
    }

    /// Minutes until it opens; a whole week at most.
    fn opens_in(self, at: WeekMinute) -> u16 {
        let waits = self.openings().map(|opening| (opening + WEEK - at.0) % WEEK);
        waits.min().unwrap_or(WEEK)
    }

    /// Minutes of the week on which it opens.
    fn openings(self) -> impl Iterator<Item = u16> {
        (0..7).filter(move |day| self.days & (1 << day) != 0).map(move |day| day * DAY + self.from)
    }
}

/// Whether one of some windows is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// One is.
    Now,
    /// The next opens in so many minutes.
    In(u16),
}

/// Whether one of these windows is open; without any, there is no restriction.
#[must_use]
pub fn opening(windows: &[Window], at: WeekMinute) -> Opening {
    if windows.is_empty() || windows.iter().any(|window| window.contains(at)) {
        return Opening::Now;
    }
    let next = windows.iter().map(|window| window.opens_in(at)).min();
    Opening::In(next.unwrap_or(0))
}

/// Another bandwidth limit in some hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BandwidthRule {
    /// The hours.
    pub window: Window,
    /// Bytes a second; no limit without.
    pub limit: Option<ByteCount>,
}

/// What may be used: the limit of the first rule whose window is open, or what
/// holds otherwise.
#[must_use]
pub fn limit_at(
    rules: &[BandwidthRule],
    otherwise: Option<ByteCount>,
    at: WeekMinute,
) -> Option<ByteCount> {
    let rule = rules.iter().find(|rule| rule.window.contains(at));
    rule.map_or(otherwise, |rule| rule.limit)
}

impl fmt::Display for Window {
    /// `mon-fri,sun 22:00-06:00`, `daily 00:00-24:00`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.days == 0x7f {
            f.write_str("daily")?;
        } else {
            let mut separator = "";
            let mut day = 0;
            while day < 7 {
                let run = (day..7).take_while(|day| self.days & (1 << day) != 0).count();
                match run {
                    0 => {}
                    1 => write!(f, "{separator}{}", NAMES[day])?,
                    _ => write!(f, "{separator}{}-{}", NAMES[day], NAMES[day + run - 1])?,
                }
                separator = if run > 0 { "," } else { separator };
                day += run + 1;
            }
        }
        let until = self.from + self.minutes;
        let until = if until > DAY { until - DAY } else { until };
        let clock = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
        write!(f, " {}-{}", clock(self.from), clock(until))
    }
}

/// What is no window.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no window of hours: write days and hours, such as `mon-fri 08:00-18:00`")]
pub struct NoWindow(String);

impl FromStr for Window {
    type Err = NoWindow;

    fn from_str(text: &str) -> Result<Self, NoWindow> {
        let read = || {
            let (days, hours) = text.trim().split_once(char::is_whitespace)?;
            let (from, until) = hours.trim().split_once('-')?;
            let (from, until) = (minute_of_day(from)?, minute_of_day(until)?);
            let minutes = if until > from { until - from } else { until + DAY - from };
            Self::new(days_of(&days.to_ascii_lowercase())?, from, minutes)
        };
        read().ok_or_else(|| NoWindow(text.to_owned()))
    }
}

/// `daily`, `mon`, `mon-fri`, `fri-mon`, and several of them with commas.
fn days_of(text: &str) -> Option<u8> {
    if text == "daily" {
        return Some(0x7f);
    }
    let day = |name: &str| NAMES.iter().position(|known| *known == name);
    text.split(',').try_fold(0, |days, part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        let count = (last + 7 - first) % 7;
        Some((0..=count).fold(days, |days, step| days | 1 << ((first + step) % 7)))
    })
}

/// Up to `24:00`.
fn minute_of_day(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
    let sum = hour.checked_mul(60)?.checked_add(minute)?;
    (minute < 60 && sum <= DAY).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(text: &str) -> Window {
        text.parse().unwrap()
    }

    #[test]
    fn windows_read_as_they_are_written() {
        for text in [
            "mon-fri 08:00-18:00",
            "daily 00:00-24:00",
            "mon-wed,fri,sun 22:00-06:00",
            "sat-sun 23:59-00:01",
            "tue 12:00-12:00",
        ] {
            assert_eq!(window(text).to_string(), text);
        }
        assert_eq!(window(" Fri-Mon  8:00-18:00").to_string(), "mon,fri-sun 08:00-18:00");
        for nonsense in [
            "",
            "mon",
            "8:00-9:00",
            "mon 8-9",
            "mun 08:00-09:00",
            "mon 08:00-24:01",
            "mon 08:60-09:00",
            "mon 24:00-24:00",
            "mon, 08:00-09:00",
        ] {
            let told = nonsense.parse::<Window>().map_err(|error| error.to_string());
            assert!(
                told.as_ref().is_err_and(|error| error.contains("mon-fri")),
                "{nonsense}: {told:?}"
            );
        }
    }

    #[test]
    fn a_window_past_midnight_belongs_to_its_first_day() {
        let nights = window("fri,sun 22:00-06:00");
        let open = |day, hour| nights.contains(WeekMinute::new(day, hour, 0));
        assert!(open(4, 22) && open(5, 5) && open(6, 23));
        assert!(open(0, 5), "Sunday's night is over on Monday");
        assert!(!open(4, 21) && !open(5, 6) && !open(5, 22) && !open(0, 6));
        assert!(window("tue 12:00-12:00").contains(WeekMinute::new(2, 11, 59)));
    }

    #[test]
    fn the_next_opening_is_told() {
        let windows = [window("daily 22:00-06:00"), window("sat 12:00-13:00")];
        let at = |day, hour, minute| opening(&windows, WeekMinute::new(day, hour, minute));
        assert_eq!(at(0, 23, 0), Opening::Now);
        assert_eq!(at(0, 21, 59), Opening::In(1));
        assert_eq!(at(5, 11, 0), Opening::In(60));
        assert_eq!(opening(&[], WeekMinute::new(0, 0, 0)), Opening::Now);
        let once = [window("mon 00:00-00:01")];
        assert_eq!(opening(&once, WeekMinute::new(0, 0, 1)), Opening::In(WEEK - 1));
    }

    #[test]
    fn the_first_rule_that_is_open_counts() {
        let some = |kib| Some(ByteCount::from_kib(kib));
        let rules = [
            BandwidthRule { window: window("mon-fri 08:00-18:00"), limit: some(100) },
            BandwidthRule { window: window("mon 00:00-24:00"), limit: None },
        ];
        let at = |day, hour| limit_at(&rules, some(500), WeekMinute::new(day, hour, 0));
        assert_eq!((at(0, 9), at(0, 19), at(1, 19)), (some(100), None, some(500)));
    }
}
