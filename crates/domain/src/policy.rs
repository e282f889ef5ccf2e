//! Policies: how machines are protected.
//!
//! A policy is always sound: [`Policy::changed`] is the only way to another
//! one, and it refuses with every [`Flaw`] at once.

use crate::failover::Alone;
use std::fmt;

use crate::calendar::{BandwidthRule, WINDOWS_MAX, Window};
use crate::units::{ByteCount, Hours, Seconds};

/// How machines are protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// From one recovery point to the next.
    pub every: Seconds,
    /// Which points stay.
    pub retention: Retention,
    /// From one app-consistent point to the next; none of these without.
    pub app_consistent: Option<Seconds>,
    /// How long the guest's file systems may stay frozen for one.
    pub freeze_limit: Seconds,
    /// How data travels and is kept.
    pub compression: Compression,
    /// At most so many bytes a second.
    pub bandwidth: Option<ByteCount>,
    /// Other limits in some hours; the first that holds counts.
    pub calendar: Vec<BandwidthRule>,
    /// Resynchronisations wait for one of these hours; for none without.
    pub resynchronise_in: Vec<Window>,
    /// At most so many bytes a second when, at a commit, disks are made a machine's
    /// own.
    pub hydration: Option<ByteCount>,
    /// What becomes of points at a commit.
    pub points_at_commit: PointsAtCommit,
    /// What an agent does with a machine that was failed over before, after a restart
    /// of its host, if nobody can be asked whose the machine is.
    pub alone: Alone,
}

/// What becomes, at a commit, of the points that nothing holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PointsAtCommit {
    /// They are dropped, but for the newest.
    #[default]
    Dropped,
    /// They stay.
    Kept,
}

/// Which points stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// All points younger than this.
    pub all: Hours,
    /// Beyond, the finest first, one point per slot.
    pub tiers: Vec<Tier>,
    /// App-consistent points stay so much longer.
    pub app_extra: Hours,
}

/// One point per slot, back to an age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tier {
    /// Length of a slot.
    pub slot: Hours,
    /// Up to this age.
    pub age: Hours,
}

/// How data is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    None,
    /// With little work.
    Fast,
    /// With more work, into less.
    Strong,
}

/// Shortest copy frequency.
pub const EVERY_MIN: Seconds = Seconds(5);
/// Longest copy frequency.
pub const EVERY_MAX: Seconds = Seconds(15 * 60);
/// App-consistent points are not taken more often: each freezes the guest.
pub const APP_CONSISTENT_MIN: Seconds = Seconds(60);
/// App-consistent points are taken at least so often, if at all.
pub const APP_CONSISTENT_MAX: Seconds = Seconds(7 * 24 * 3600);
/// Longest freeze of a guest's file systems; clients of its services time out
/// beyond.
pub const FREEZE_MAX: Seconds = Seconds(60);
/// All points are kept at most for so long: 30 days.
pub const ALL_MAX: Hours = Hours(30 * 24);
/// The oldest age of a tier, and of what is added for app-consistent points:
/// ten years.
pub const AGE_MAX: Hours = Hours(10 * 366 * 24);
/// Most tiers.
pub const TIERS_MAX: usize = 8;
/// Lowest bandwidth limit a second; below, not even small changes get through.
pub const BANDWIDTH_MIN: ByteCount = ByteCount::from_kib(64);

impl Default for Policy {
    /// A point each 30 seconds; all of them for a day, then one an hour for
    /// two days, then one a day for 30 days.
    fn default() -> Self {
        Self {
            every: Seconds(30),
            retention: Retention {
                all: Hours(24),
                tiers: vec![
                    Tier { slot: Hours(1), age: Hours(48) },
                    Tier { slot: Hours(24), age: Hours(30 * 24) },
                ],
                app_extra: Hours(24),
            },
            app_consistent: None,
            freeze_limit: Seconds(10),
            compression: Compression::Fast,
            bandwidth: None,
            calendar: Vec::new(),
            resynchronise_in: Vec::new(),
            hydration: None,
            points_at_commit: PointsAtCommit::Dropped,
            alone: Alone::StayDown,
        }
    }
}

/// What to change of a policy; what is none stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// From one point to the next.
    pub every: Option<Seconds>,
    /// All points younger than this stay.
    pub all: Option<Hours>,
    /// The tiers, all of them.
    pub tiers: Option<Vec<Tier>>,
    /// How much longer app-consistent points stay.
    pub app_extra: Option<Hours>,
    /// From one app-consistent point to the next; zero for none of these.
    pub app_consistent: Option<Seconds>,
    /// How long a freeze may last.
    pub freeze_limit: Option<Seconds>,
    /// How data is compressed.
    pub compression: Option<Compression>,
    /// Bytes a second; zero for no limit.
    pub bandwidth: Option<ByteCount>,
    /// The calendar, all of it.
    pub calendar: Option<Vec<BandwidthRule>>,
    /// When resynchronisations may go on, all windows.
    pub resynchronise_in: Option<Vec<Window>>,
    /// Bytes a second at a commit; zero for no limit.
    pub hydration: Option<ByteCount>,
    /// What becomes of points at a commit.
    pub points_at_commit: Option<PointsAtCommit>,
    /// What an agent does when nobody can be asked.
    pub alone: Option<Alone>,
}

impl Policy {
    /// The policy with a change.
    ///
    /// # Errors
    /// All that would make no sense, never empty.
    pub fn changed(&self, change: Change) -> Result<Self, Vec<Flaw>> {
        let Retention { all, tiers, app_extra } = self.retention.clone();
        let (calendar, hours) = (self.calendar.clone(), self.resynchronise_in.clone());
        let changed = Self {
            every: change.every.unwrap_or(self.every),
            retention: Retention {
                all: change.all.unwrap_or(all),
                tiers: change.tiers.unwrap_or(tiers),
                app_extra: change.app_extra.unwrap_or(app_extra),
            },
            app_consistent: match change.app_consistent {
                None => self.app_consistent,
                Some(Seconds(0)) => None,
                some => some,
            },
            freeze_limit: change.freeze_limit.unwrap_or(self.freeze_limit),
            compression: change.compression.unwrap_or(self.compression),
            bandwidth: limit(change.bandwidth, self.bandwidth),
            calendar: change.calendar.unwrap_or(calendar),
            resynchronise_in: change.resynchronise_in.unwrap_or(hours),
            hydration: limit(change.hydration, self.hydration),
            points_at_commit: change.points_at_commit.unwrap_or(self.points_at_commit),
            alone: change.alone.unwrap_or(self.alone),
        };
        let flaws = changed.flaws();
        if flaws.is_empty() { Ok(changed) } else { Err(flaws) }
    }

    /// Everything about the policy that makes no sense; empty for a sound one.
    #[must_use]
    pub fn flaws(&self) -> Vec<Flaw> {
        let mut flaws = Vec::new();
        if !(EVERY_MIN..=EVERY_MAX).contains(&self.every) {
            flaws.push(Flaw::Every(self.every));
        }
        if let Some(every) = self.app_consistent {
            if !(APP_CONSISTENT_MIN..=APP_CONSISTENT_MAX).contains(&every) {
                flaws.push(Flaw::AppConsistent(every));
            } else if every < self.every {
                flaws.push(Flaw::AppConsistentOftener { app: every, every: self.every });
            }
        }
        if !(Seconds(1)..=FREEZE_MAX).contains(&self.freeze_limit) {
            flaws.push(Flaw::Freeze(self.freeze_limit));
        }
        let limits = self.calendar.iter().map(|rule| rule.limit).chain([self.bandwidth]);
        for limit in limits.flatten().filter(|limit| *limit < BANDWIDTH_MIN) {
            flaws.push(Flaw::Bandwidth(limit));
        }
        if let Some(rate) = self.hydration.filter(|rate| *rate < BANDWIDTH_MIN) {
            flaws.push(Flaw::Hydration(rate));
        }
        for windows in [self.calendar.len(), self.resynchronise_in.len()] {
            if windows > WINDOWS_MAX {
                flaws.push(Flaw::TooManyWindows(windows));
            }
        }
        self.retention.find_flaws(&mut flaws);
        flaws
    }
}

/// A limit with a change, in which zero takes it away.
fn limit(change: Option<ByteCount>, now: Option<ByteCount>) -> Option<ByteCount> {
    match change {
        None => now,
        some => some.filter(|limit| *limit != ByteCount::default()),
    }
}

impl Retention {
    fn find_flaws(&self, flaws: &mut Vec<Flaw>) {
        if !(Hours(1)..=ALL_MAX).contains(&self.all) {
            flaws.push(Flaw::All(self.all));
        }
        if self.app_extra > AGE_MAX {
            flaws.push(Flaw::AppExtra(self.app_extra));
        }
        if self.tiers.len() > TIERS_MAX {
            flaws.push(Flaw::TooManyTiers(self.tiers.len()));
        }
        let mut reach = self.all;
        let mut finest = Hours(0);
        for tier in &self.tiers {
            if tier.slot == Hours(0) || tier.slot > tier.age || tier.age > AGE_MAX {
                flaws.push(Flaw::Tier(*tier));
            } else if tier.slot <= finest || tier.age <= reach {
                flaws.push(Flaw::TierOrder { tier: *tier, reach });
            }
            reach = reach.max(tier.age);
            finest = finest.max(tier.slot);
        }
    }
}

/// What makes no sense about a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// Too often or too seldom.
    #[error("a copy every {0} is not possible: from {EVERY_MIN} to {EVERY_MAX} is")]
    Every(Seconds),
    /// Too often or too seldom.
    #[error(
        "an app-consistent point every {0} is not possible: from {APP_CONSISTENT_MIN} to {APP_CONSISTENT_MAX} is, or none"
    )]
    AppConsistent(Seconds),
    /// More often than points at all.
    #[error("app-consistent points every {app} are more often than points every {every}")]
    AppConsistentOftener {
        /// Of app-consistent points.
        app: Seconds,
        /// Of all points.
        every: Seconds,
    },
    /// No time at all, or longer than a service bears.
    #[error("a freeze limit of {0} is not possible: from 1 s to {FREEZE_MAX} is")]
    Freeze(Seconds),
    /// Too little to get anything through.
    #[error("a bandwidth limit of {0} a second is too low: from {BANDWIDTH_MIN} on, or none")]
    Bandwidth(ByteCount),
    /// Too little for a commit to end.
    #[error("a hydration rate of {0} a second is too low: from {BANDWIDTH_MIN} on, or none")]
    Hydration(ByteCount),
    /// More than anybody follows.
    #[error("{0} windows of hours are too many: up to {WINDOWS_MAX}")]
    TooManyWindows(usize),
    /// Not at all, or too long.
    #[error("keeping all points for {0} is not possible: from 1 h to {ALL_MAX} is")]
    All(Hours),
    /// Too long.
    #[error("keeping app-consistent points {0} longer is too long: up to {AGE_MAX}")]
    AppExtra(Hours),
    /// More than anybody follows.
    #[error("{0} tiers are too many: up to {TIERS_MAX}")]
    TooManyTiers(usize),
    /// A slot without length, or longer than its tier, or too old.
    #[error("the tier \"one point per {} for {}\" makes no sense", .0.slot, .0.age)]
    Tier(Tier),
    /// Does not continue what stands before it.
    #[error(
        "the tier \"one point per {} for {}\" does not reach further, with longer slots, than what is kept before it for {reach}",
        .tier.slot, .tier.age
    )]
    TierOrder {
        /// The tier.
        tier: Tier,
        /// How far back the former ones reach.
        reach: Hours,
    },
}

impl fmt::Display for Retention {
    /// One line: `all for 24 h, then one per 1 h for 2 days`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "all for {}", self.all)?;
        for tier in &self.tiers {
            write!(f, ", then one per {} for {}", tier.slot, tier.age)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_sound_and_reads_well() {
        let policy = Policy::default();
        assert_eq!(policy.flaws(), []);
        assert_eq!(
            policy.retention.to_string(),
            "all for 24 h, then one per 1 h for 2 days, then one per 24 h for 30 days"
        );
        assert_eq!(policy.changed(Change::default()), Ok(policy));
    }

    #[test]
    fn zero_takes_back_what_may_be_absent() {
        let with = Policy::default()
            .changed(Change {
                app_consistent: Some(Seconds(3600)),
                bandwidth: Some(ByteCount::from_kib(1024)),
                hydration: Some(ByteCount::from_kib(2048)),
                ..Change::default()
            })
            .unwrap();
        assert_eq!(with.hydration, Some(ByteCount::from_kib(2048)));
        assert_eq!(with.app_consistent, Some(Seconds(3600)));
        let without = with.changed(Change {
            app_consistent: Some(Seconds(0)),
            bandwidth: Some(ByteCount::new(0)),
            hydration: Some(ByteCount::new(0)),
            ..Change::default()
        });
        assert_eq!(without, Ok(Policy::default()));
    }

    #[test]
    fn every_flaw_is_told_at_once_and_bounds_are_allowed() {
        let tier = |slot, age| Tier { slot: Hours(slot), age: Hours(age) };
        let change = Change {
            every: Some(Seconds(4)),
            app_consistent: Some(Seconds(59)),
            freeze_limit: Some(Seconds(61)),
            bandwidth: Some(ByteCount::new(1000)),
            hydration: Some(ByteCount::new(9)),
            all: Some(Hours(0)),
            tiers: Some(vec![tier(2, 1), tier(24, 48), tier(24, 72), tier(48, 72)]),
            calendar: Some(vec![BandwidthRule {
                window: "daily 08:00-18:00".parse().unwrap(),
                limit: Some(ByteCount::new(7)),
            }]),
            resynchronise_in: Some(vec!["daily 22:00-06:00".parse().unwrap(); 33]),
            app_extra: Some(Hours(u32::MAX)),
            ..Change::default()
        };
        let flaws = Policy::default().changed(change).unwrap_err();
        let told: Vec<String> = flaws.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "a copy every 4 s is not possible: from 5 s to 15 min is",
                "an app-consistent point every 59 s is not possible: from 1 min to 7 days is, or none",
                "a freeze limit of 61 s is not possible: from 1 s to 1 min is",
                "a bandwidth limit of 7 B a second is too low: from 64.0 KiB on, or none",
                "a bandwidth limit of 1000 B a second is too low: from 64.0 KiB on, or none",
                "a hydration rate of 9 B a second is too low: from 64.0 KiB on, or none",
                "33 windows of hours are too many: up to 32",
                "keeping all points for 0 h is not possible: from 1 h to 30 days is",
                "keeping app-consistent points 4294967295 h longer is too long: up to 3660 days",
                "the tier \"one point per 2 h for 1 h\" makes no sense",
                "the tier \"one point per 24 h for 3 days\" does not reach further, with longer slots, than what is kept before it for 2 days",
                "the tier \"one point per 2 days for 3 days\" does not reach further, with longer slots, than what is kept before it for 3 days",
            ]
        );
        let bounds = Change {
            every: Some(EVERY_MAX),
            app_consistent: Some(EVERY_MAX),
            freeze_limit: Some(FREEZE_MAX),
            bandwidth: Some(BANDWIDTH_MIN),
            all: Some(ALL_MAX),
            tiers: Some(vec![]),
            ..Change::default()
        };
        assert!(Policy::default().changed(bounds).is_ok());
        let oftener = Change {
            every: Some(Seconds(120)),
            app_consistent: Some(Seconds(60)),
            ..Change::default()
        };
        assert_eq!(
            Policy::default().changed(oftener),
            Err(vec![Flaw::AppConsistentOftener { app: Seconds(60), every: Seconds(120) }])
        );
    }
}
