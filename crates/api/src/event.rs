//! Events: what changed about protected machines.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

/// A change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Grows from event to event.
    pub number: i64,
    /// When it was noticed.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The protection.
    pub protection: Uuid,
    /// The machine's name at that time.
    pub machine: String,
    /// What changed.
    pub aspect: Aspect,
    /// How it was; absent when that was not known.
    pub before: Option<String>,
    /// How it became.
    pub after: String,
    /// Why, where that is known.
    pub detail: String,
}

/// What about a protected machine changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Aspect {
    /// Where it stands.
    State,
    /// How replication goes on.
    Replication,
    /// How healthy it is.
    Health,
    /// Which points are held, whatever the policy says.
    HeldPoints,
}

impl Aspect {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::State, Self::Replication, Self::Health, Self::HeldPoints];

    /// The word as it is sent.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Replication => "replication",
            Self::Health => "health",
            Self::HeldPoints => "held-points",
        }
    }
}

impl std::fmt::Display for Aspect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}
