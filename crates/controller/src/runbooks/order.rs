//! What is ordered of a failover, and what its steps put down for later ones.

use domain::id::{HostId, ProtectionId};
use jobs::Key;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;
use wire::command::{LifeSign, NicWish};

/// The state of every runbook about one machine, version 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// The protection.
    pub protection: Uuid,
    /// Who asked.
    pub by: String,
    /// What is made at the target, by an id that was drawn for it.
    pub recovery: Uuid,
    /// From which point.
    pub point: PointWish,
    /// What its NICs are connected to.
    pub nics: Vec<NicWish>,
    /// Whether others are connected to networks of the names that the point tells.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub same_networks: bool,
    /// For a test: its name, UUID, and when it ends by itself.
    pub test: Option<TestOrder>,
    /// How long the source may take to shut down; it is not asked to without.
    pub shut_down_seconds: Option<u32>,
    /// Whether the source is switched off if it takes longer.
    pub force: bool,
    /// Whether somebody vouches that the source is without power.
    pub vouched: bool,
    /// The point that was chosen.
    #[serde(default)]
    pub chosen: Option<Chosen>,
    /// Whether the machine ran at the source before.
    #[serde(default)]
    pub ran: bool,
    /// How it was seen to live, and after how many milliseconds.
    #[serde(default)]
    pub alive: Option<Alive>,
    /// What it was made of before, where another point is chosen.
    #[serde(default)]
    pub former: Option<Uuid>,
    /// The job, by an id that was drawn for it, that reverses the replication after a
    /// commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reversal: Option<Uuid>,
    /// The host that keeps the points after a reversal, if it is not the one where
    /// the machine ran before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Uuid>,
    /// The host on which the machine is made, if it is not the one that keeps its
    /// points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Uuid>,
    /// Where the former was made, if another host is to take its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former_at: Option<FormerHost>,
}

/// A host that is to have no part any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FormerHost {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
}

/// A test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestOrder {
    /// The name of the copy.
    pub name: String,
    /// Its UUID.
    pub uuid: Uuid,
    /// When it is completed by force.
    #[serde(with = "time::serde::rfc3339")]
    pub until: OffsetDateTime,
}

/// From which point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PointWish {
    /// The newest.
    Latest,
    /// The newest that is app-consistent.
    LatestApp,
    /// This one.
    Number(u32),
}

/// A point that was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chosen {
    /// Its number.
    pub point: u32,
    /// Its instant.
    #[serde(with = "time::serde::rfc3339")]
    pub instant: OffsetDateTime,
}

/// A sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alive {
    /// By what.
    pub by: LifeSign,
    /// Milliseconds since it was started.
    pub after_ms: u64,
}

impl Order {
    /// About a machine, and nothing else yet; what is made for it has this id.
    #[must_use]
    pub const fn new(protection: Uuid, by: String, recovery: Uuid) -> Self {
        Self {
            protection,
            by,
            recovery,
            point: PointWish::Latest,
            nics: Vec::new(),
            same_networks: false,
            test: None,
            shut_down_seconds: None,
            force: false,
            vouched: false,
            chosen: None,
            ran: false,
            alive: None,
            former: None,
            reversal: None,
            to: None,
            at: None,
            former_at: None,
        }
    }

    /// The protection.
    #[must_use]
    pub const fn protection(&self) -> ProtectionId {
        ProtectionId::new(self.protection)
    }

    /// The host on which the machine is made, if another than the one that keeps its
    /// points was asked for.
    #[must_use]
    pub fn at(&self) -> Option<HostId> {
        self.at.map(HostId::new)
    }

    /// Whether the machine goes on at the target with what it was made of before.
    #[must_use]
    pub fn goes_on_with_former(&self) -> bool {
        self.former == Some(self.recovery)
    }

    /// One job at a time changes where a machine stands.
    #[must_use]
    pub fn keys(&self) -> Vec<Key> {
        let id = self.protection;
        match &self.test {
            // Any number of tests, each with a name of its own, beside the rest.
            Some(test) => vec![Key::exclusive(format!("test/{id}/{}", test.name))],
            None => vec![Key::exclusive(format!("protection/{id}"))],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What version 1 wrote; jobs that it began are gone on with for ever.
    const GOLDEN: &str = r#"{"protection":"00000000-0000-0000-0000-000000000001","by":"admin","recovery":"00000000-0000-0000-0000-000000000002","point":{"number":7},"nics":[{"mac":"52:54:00:12:34:56","network":"default"}],"test":{"name":"web-test","uuid":"00000000-0000-0000-0000-000000000003","until":"2027-01-15T08:00:00Z"},"shut_down_seconds":300,"force":false,"vouched":true,"chosen":{"point":7,"instant":"2027-01-15T08:00:00Z"},"ran":true,"alive":{"by":"guest_agent","after_ms":4000},"former":null}"#;

    #[test]
    fn an_order_is_read_as_it_was_written() {
        let order: Order = serde_json::from_str(GOLDEN).unwrap();
        assert_eq!(serde_json::to_string(&order).unwrap(), GOLDEN);
        assert_eq!(order.point, PointWish::Number(7));
    }
}
