//! A store's machines and points as they are shown.

use domain::units::{instant, utc};
use replica::format::manifest::{Hold, Point};
use replica::format::record::Consistency;
use replica::store::Store;
use serde::Serialize;
use time::OffsetDateTime;

/// So many of something.
pub(super) fn count(number: usize, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

/// How still the machine was.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ConsistencyView {
    Crash,
    Application,
}

impl ConsistencyView {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Application => "application",
        }
    }
}

impl From<Consistency> for ConsistencyView {
    fn from(consistency: Consistency) -> Self {
        match consistency {
            Consistency::Crash => Self::Crash,
            Consistency::App => Self::Application,
        }
    }
}

/// What keeps a point.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case", tag = "by")]
pub(super) enum HoldView {
    Nothing,
    Operator,
    /// A site had it when it was lost, and may never have sent it.
    Lost,
    WriteOnce {
        #[serde(with = "time::serde::rfc3339")]
        until: OffsetDateTime,
    },
}

impl HoldView {
    pub(super) fn words(&self) -> String {
        match self {
            Self::Nothing => "-".into(),
            Self::Operator => "operator".into(),
            Self::Lost => "what a lost site had".into(),
            Self::WriteOnce { until } => format!("write-once until {}", utc(*until)),
        }
    }
}

impl From<Hold> for HoldView {
    fn from(hold: Hold) -> Self {
        match hold {
            Hold::None => Self::Nothing,
            Hold::Operator => Self::Operator,
            Hold::Lost => Self::Lost,
            Hold::Until(at) => Self::WriteOnce { until: instant(at) },
        }
    }
}

/// A point.
#[derive(Debug, Serialize)]
pub(super) struct PointView {
    pub(super) point: u32,
    #[serde(with = "time::serde::rfc3339")]
    pub(super) instant: OffsetDateTime,
    pub(super) consistency: ConsistencyView,
    pub(super) origin: String,
    pub(super) hold: HoldView,
    pub(super) generation: u64,
    /// By number.
    pub(super) disks_bytes: Vec<u64>,
    /// What its records took when they arrived.
    pub(super) arrived_bytes: u64,
    /// What dropping it alone would free; absent if the index is damaged.
    pub(super) freed_bytes: Option<u64>,
    pub(super) configuration_bytes: usize,
}

impl PointView {
    pub(super) fn of(store: &Store, point: &Point) -> Self {
        Self {
            point: point.cycle.0,
            instant: instant(point.instant),
            consistency: point.consistency.into(),
            origin: point.origin.to_string(),
            hold: point.hold.into(),
            generation: point.generation,
            disks_bytes: point.disks.to_vec(),
            arrived_bytes: point.stored,
            freed_bytes: store.bytes_freed_by(point.cycle).ok(),
            configuration_bytes: point.configuration.len(),
        }
    }
}

/// How a machine's store is, as far as opening it tells.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub(super) enum StateView {
    Whole,
    /// It can be read, up to the damage.
    Damaged {
        reason: String,
    },
    Unreadable {
        reason: String,
    },
}

impl StateView {
    pub(super) fn of(store: &Store) -> Self {
        match store.damage() {
            Some(reason) => Self::Damaged { reason: reason.to_owned() },
            None => Self::Whole,
        }
    }

    pub(super) fn words(&self) -> String {
        match self {
            Self::Whole => "whole".into(),
            Self::Damaged { reason } => format!("damaged: {reason}"),
            Self::Unreadable { reason } => format!("cannot be opened: {reason}"),
        }
    }
}
