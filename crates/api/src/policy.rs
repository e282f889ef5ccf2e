//! Policies.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::words;

words! {
    /// How data is compressed.
    Compression = domain::policy::Compression {
        None = "none",
        Fast = "fast",
        Strong = "strong",
    }
}

words! {
    /// What becomes, at a commit, of the points that nothing holds: the newest stays
    /// in any case.
    PointsAtCommit = domain::policy::PointsAtCommit {
        Dropped = "dropped",
        Kept = "kept",
    }
}

words! {
    /// What an agent does with a machine that was failed over before, after a restart
    /// of its host, if nobody can be asked whose the machine is.
    WhenAlone = domain::failover::Alone {
        StayDown = "stay-down",
        StartIfLastActive = "start-if-last-active",
    }
}

/// How machines are protected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Policy {
    /// Never changes.
    pub id: Uuid,
    /// Unique among policies.
    pub name: String,
    /// Seconds from one recovery point to the next.
    pub every_seconds: u32,
    /// Which points stay.
    pub retention: Retention,
    /// Seconds from one app-consistent point to the next; absent for none.
    pub app_consistent_seconds: Option<u32>,
    /// Seconds that the guest's file systems may stay frozen for one.
    pub freeze_seconds: u32,
    /// How data travels and is kept.
    pub compression: Compression,
    /// At most so many bytes a second; absent for no limit.
    pub bytes_per_second: Option<u64>,
    /// Other limits in some hours; the first that holds counts.
    pub calendar: Vec<BandwidthRule>,
    /// Resynchronisations wait for one of these windows, such as `daily
    /// 22:00-06:00` by the local time of the source's host; for none if empty.
    pub resynchronise_in: Vec<String>,
    /// At most so many bytes a second when, at a commit, disks are made a machine's
    /// own; absent for no limit.
    pub hydration_bytes_per_second: Option<u64>,
    /// What becomes of points at a commit.
    pub points_at_commit: PointsAtCommit,
    /// What an agent does when its host was restarted and nobody can be asked.
    pub when_alone: WhenAlone,
    /// How many protections follow it.
    pub protections: u32,
}

/// Another bandwidth limit in some hours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BandwidthRule {
    /// Days and hours by the local time of the source's host, such as `mon-fri
    /// 08:00-18:00`.
    pub window: String,
    /// Bytes a second; absent for no limit.
    pub bytes_per_second: Option<u64>,
}

/// Which points stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Retention {
    /// All points younger than so many hours.
    pub all_hours: u32,
    /// Beyond, the finest first, one point per slot.
    pub tiers: Vec<RetentionTier>,
    /// App-consistent points stay so many hours longer.
    pub app_extra_hours: u32,
}

/// One point per slot, back to an age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RetentionTier {
    /// Hours of a slot.
    pub slot_hours: u32,
    /// Up to this age in hours.
    pub hours: u32,
}

/// What a policy shall say. What is absent stays as it is; in a new policy, as
/// the default has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyTerms {
    /// Seconds from one recovery point to the next, 5 to 900.
    pub every_seconds: Option<u32>,
    /// All points younger than so many hours stay.
    pub all_hours: Option<u32>,
    /// The tiers of retention, all of them, the finest first.
    pub tiers: Option<Vec<RetentionTier>>,
    /// App-consistent points stay so many hours longer.
    pub app_extra_hours: Option<u32>,
    /// Seconds from one app-consistent point to the next; 0 for none.
    pub app_consistent_seconds: Option<u32>,
    /// Seconds that the guest's file systems may stay frozen for one.
    pub freeze_seconds: Option<u32>,
    /// How data travels and is kept.
    pub compression: Option<Compression>,
    /// At most so many bytes a second; 0 for no limit.
    pub bytes_per_second: Option<u64>,
    /// Other limits in some hours, all of them.
    pub calendar: Option<Vec<BandwidthRule>>,
    /// When resynchronisations may go on, all windows.
    pub resynchronise_in: Option<Vec<String>>,
    /// At most so many bytes a second when, at a commit, disks are made a machine's
    /// own; 0 for no limit.
    pub hydration_bytes_per_second: Option<u64>,
    /// What becomes of points at a commit.
    pub points_at_commit: Option<PointsAtCommit>,
    /// What an agent does when its host was restarted and nobody can be asked.
    pub when_alone: Option<WhenAlone>,
}

/// Makes a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreatePolicy {
    /// Unique among policies.
    pub name: String,
    /// Where it differs from the default.
    #[serde(default)]
    pub terms: PolicyTerms,
}

/// Changes a policy, for all protections that follow it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangePolicy {
    /// The new name; absent to keep it.
    pub name: Option<String>,
    /// What changes.
    #[serde(default)]
    pub terms: PolicyTerms,
}

impl TryFrom<PolicyTerms> for domain::policy::Change {
    type Error = domain::calendar::NoWindow;

    fn try_from(terms: PolicyTerms) -> Result<Self, Self::Error> {
        use domain::policy::Tier;
        use domain::units::{ByteCount, Hours, Seconds};
        let tier =
            |tier: RetentionTier| Tier { slot: Hours(tier.slot_hours), age: Hours(tier.hours) };
        let rule = |rule: BandwidthRule| {
            let limit = rule.bytes_per_second.map(ByteCount::new);
            rule.window.parse().map(|window| domain::calendar::BandwidthRule { window, limit })
        };
        let windows = |windows: Vec<String>| windows.iter().map(|text| text.parse()).collect();
        Ok(Self {
            every: terms.every_seconds.map(Seconds),
            all: terms.all_hours.map(Hours),
            tiers: terms.tiers.map(|tiers| tiers.into_iter().map(tier).collect()),
            app_extra: terms.app_extra_hours.map(Hours),
            app_consistent: terms.app_consistent_seconds.map(Seconds),
            freeze_limit: terms.freeze_seconds.map(Seconds),
            compression: terms.compression.map(Into::into),
            bandwidth: terms.bytes_per_second.map(ByteCount::new),
            calendar: terms
                .calendar
                .map(|rules| rules.into_iter().map(rule).collect())
                .transpose()?,
            resynchronise_in: terms.resynchronise_in.map(windows).transpose()?,
            hydration: terms.hydration_bytes_per_second.map(ByteCount::new),
            points_at_commit: terms.points_at_commit.map(Into::into),
            alone: terms.when_alone.map(Into::into),
        })
    }
}

impl From<domain::policy::Retention> for Retention {
    fn from(retention: domain::policy::Retention) -> Self {
        let tiers = retention.tiers.into_iter();
        Self {
            all_hours: retention.all.0,
            tiers: tiers
                .map(|tier| RetentionTier { slot_hours: tier.slot.0, hours: tier.age.0 })
                .collect(),
            app_extra_hours: retention.app_extra.0,
        }
    }
}

impl From<Retention> for domain::policy::Retention {
    fn from(retention: Retention) -> Self {
        use domain::units::Hours;
        let tiers = retention.tiers.into_iter();
        Self {
            all: Hours(retention.all_hours),
            tiers: tiers
                .map(|tier| domain::policy::Tier {
                    slot: Hours(tier.slot_hours),
                    age: Hours(tier.hours),
                })
                .collect(),
            app_extra: Hours(retention.app_extra_hours),
        }
    }
}
