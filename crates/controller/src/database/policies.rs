//! Policies.

use std::collections::HashMap;

use domain::calendar::BandwidthRule;
use domain::failover::Alone;
use domain::id::PolicyId;
use domain::name::Name;
use domain::policy::{Compression, PointsAtCommit, Policy, Retention, Tier};
use domain::units::{ByteCount, Hours, Seconds};
use serde::{Deserialize, Serialize};
use sqlx::{FromRow, SqliteConnection};
use time::OffsetDateTime;
use wire::heritage::Document;

use super::lookup::{LookupError, Noun};
use super::{
    Database, DatabaseError, Result, audit, count, microseconds, name_taken, nonsense, uuid_of,
};

/// Version of [`PolicyDocument`].
const FORMAT: u16 = 1;

/// A policy that has a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedPolicy {
    /// Never changes.
    pub id: PolicyId,
    /// Unique among policies.
    pub name: String,
    /// What it says.
    pub policy: Policy,
    /// How many protections follow it.
    pub protections: u32,
}

#[derive(Debug, FromRow)]
struct PolicyRow {
    id: String,
    name: String,
    format: u16,
    document: String,
    protections: u32,
}

/// A policy as it is stored, format 1.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyDocument {
    every_seconds: u32,
    all_hours: u32,
    /// Hours of a slot, and up to which age.
    tiers: Vec<(u32, u32)>,
    app_extra_hours: u32,
    app_consistent_seconds: Option<u32>,
    freeze_seconds: u32,
    compression: StoredCompression,
    bytes_per_second: Option<u64>,
    /// Windows and bytes a second.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    calendar: Vec<(String, Option<u64>)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    resynchronise_in: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hydration_bytes_per_second: Option<u64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    points_stay_at_commit: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    starts_alone: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredCompression {
    None,
    Fast,
    Strong,
}

/// A stored policy's text, read.
pub(super) fn read(format: u16, document: &str) -> Result<Policy> {
    if format != FORMAT {
        return Err(nonsense("a policy", &format_args!("format {format} is not known")));
    }
    let stored: PolicyDocument =
        serde_json::from_str(document).map_err(|error| nonsense("a policy", &error))?;
    stored.try_into()
}

impl TryFrom<PolicyDocument> for Policy {
    type Error = DatabaseError;

    fn try_from(stored: PolicyDocument) -> Result<Self> {
        let window = |text: &String| text.parse().map_err(|error| nonsense("a policy", &error));
        let rule = |(text, limit): &(String, Option<u64>)| {
            Ok(BandwidthRule { window: window(text)?, limit: limit.map(ByteCount::new) })
        };
        let tier = |(slot, age)| Tier { slot: Hours(slot), age: Hours(age) };
        Ok(Self {
            every: Seconds(stored.every_seconds),
            retention: Retention {
                all: Hours(stored.all_hours),
                tiers: stored.tiers.into_iter().map(tier).collect(),
                app_extra: Hours(stored.app_extra_hours),
            },
            app_consistent: stored.app_consistent_seconds.map(Seconds),
            freeze_limit: Seconds(stored.freeze_seconds),
            compression: match stored.compression {
                StoredCompression::None => Compression::None,
                StoredCompression::Fast => Compression::Fast,
                StoredCompression::Strong => Compression::Strong,
            },
            bandwidth: stored.bytes_per_second.map(ByteCount::new),
            calendar: stored.calendar.iter().map(rule).collect::<Result<_>>()?,
            resynchronise_in: stored.resynchronise_in.iter().map(window).collect::<Result<_>>()?,
            hydration: stored.hydration_bytes_per_second.map(ByteCount::new),
            points_at_commit: match stored.points_stay_at_commit {
                true => PointsAtCommit::Kept,
                false => PointsAtCommit::Dropped,
            },
            alone: match stored.starts_alone {
                true => Alone::StartIfLastActive,
                false => Alone::StayDown,
            },
        })
    }
}

impl From<&Policy> for PolicyDocument {
    fn from(policy: &Policy) -> Self {
        Self {
            every_seconds: policy.every.0,
            all_hours: policy.retention.all.0,
            tiers: policy.retention.tiers.iter().map(|tier| (tier.slot.0, tier.age.0)).collect(),
            app_extra_hours: policy.retention.app_extra.0,
            app_consistent_seconds: policy.app_consistent.map(|every| every.0),
            freeze_seconds: policy.freeze_limit.0,
            compression: match policy.compression {
                Compression::None => StoredCompression::None,
                Compression::Fast => StoredCompression::Fast,
                Compression::Strong => StoredCompression::Strong,
            },
            bytes_per_second: policy.bandwidth.map(ByteCount::bytes),
            calendar: policy
                .calendar
                .iter()
                .map(|rule| (rule.window.to_string(), rule.limit.map(ByteCount::bytes)))
                .collect(),
            resynchronise_in: policy.resynchronise_in.iter().map(ToString::to_string).collect(),
            hydration_bytes_per_second: policy.hydration.map(ByteCount::bytes),
            points_stay_at_commit: policy.points_at_commit == PointsAtCommit::Kept,
            starts_alone: policy.alone == Alone::StartIfLastActive,
        }
    }
}

fn write(policy: &Policy) -> String {
    serde_json::to_string(&PolicyDocument::from(policy)).expect("a policy is plain")
}

pub(super) async fn insert(
    connection: &mut SqliteConnection,
    id: PolicyId,
    name: &str,
    said: &Document,
    now: OffsetDateTime,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO policies (id, name, format, document, created_us) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(id.to_string())
    .bind(name)
    .bind(said.format)
    .bind(&said.document)
    .bind(microseconds(now))
    .execute(connection)
    .await
    .map_err(name_taken)?;
    Ok(())
}

/// A policy as another controller may read it.
pub(super) fn document(policy: &Policy) -> Document {
    Document { format: FORMAT, document: write(policy) }
}

impl Database {
    /// All policies, by name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn policies(&self) -> Result<Vec<NamedPolicy>> {
        let rows: Vec<PolicyRow> = sqlx::query_as(
            "SELECT po.id, po.name, po.format, po.document,
                    (SELECT COUNT(*) FROM protections p WHERE p.policy_id = po.id) AS protections
             FROM policies po ORDER BY po.name",
        )
        .fetch_all(&self.readers)
        .await?;
        rows.into_iter()
            .map(|row| {
                Ok(NamedPolicy {
                    id: PolicyId::new(uuid_of(&row.id)?),
                    policy: read(row.format, &row.document)?,
                    name: row.name,
                    protections: row.protections,
                })
            })
            .collect()
    }

    /// What all policies say, as it is stored, by name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn policy_documents(&self) -> Result<HashMap<String, String>> {
        let rows: Vec<(String, String)> =
            sqlx::query_as("SELECT name, document FROM policies").fetch_all(&self.readers).await?;
        Ok(rows.into_iter().collect())
    }

    /// The policy of this name or id.
    ///
    /// # Errors
    /// When there is none, or the database fails.
    pub async fn policy(&self, reference: &str) -> Result<NamedPolicy> {
        let id = PolicyId::new(self.find(Noun::Policy, reference).await?);
        self.policies().await?.into_iter().find(|policy| policy.id == id).ok_or_else(|| {
            LookupError::NotFound { noun: Noun::Policy, reference: reference.to_owned() }.into()
        })
    }

    /// Makes a policy. Durable on return.
    ///
    /// # Errors
    /// When the name is taken, or the database fails.
    pub async fn create_policy(
        &self,
        id: PolicyId,
        name: &Name,
        policy: &Policy,
        actor: &str,
        now: OffsetDateTime,
    ) -> Result<()> {
        let mut transaction = self.begin().await?;
        let document = document(policy);
        insert(&mut transaction, id, name.as_str(), &document, now).await?;
        let deed = deed(actor, "policy create", name.as_str(), document.document);
        audit::write(&mut transaction, deed, now).await?;
        Ok(transaction.commit().await?)
    }

    /// Changes a policy's name or what it says. Durable on return.
    ///
    /// # Errors
    /// When the name is taken, or the database fails.
    pub async fn change_policy(
        &self,
        policy: &NamedPolicy,
        name: Option<&Name>,
        to: &Policy,
        actor: &str,
        now: OffsetDateTime,
    ) -> Result<()> {
        let mut transaction = self.begin().await?;
        let document = write(to);
        sqlx::query("UPDATE policies SET name = COALESCE($2, name), format = $3, document = $4 WHERE id = $1")
            .bind(policy.id.to_string())
            .bind(name.map(Name::as_str))
            .bind(FORMAT)
            .bind(&document)
            .execute(&mut *transaction)
            .await
            .map_err(name_taken)?;
        let renamed = name.map(|name| format!("renamed to {name}; ")).unwrap_or_default();
        let detail = format!("{renamed}{} became {document}", write(&policy.policy));
        audit::write(&mut transaction, deed(actor, "policy change", &policy.name, detail), now)
            .await?;
        Ok(transaction.commit().await?)
    }

    /// Deletes a policy that no protection follows.
    ///
    /// # Errors
    /// When one follows it, or the database fails.
    pub async fn delete_policy(
        &self,
        policy: &NamedPolicy,
        actor: &str,
        now: OffsetDateTime,
    ) -> Result<()> {
        let mut transaction = self.begin().await?;
        let id = policy.id.uuid();
        let protections =
            count(&mut transaction, "SELECT COUNT(*) FROM protections WHERE policy_id = $1", id)
                .await?;
        if protections > 0 {
            return Err(DatabaseError::StillInUse(format!("{protections} protections")));
        }
        sqlx::query("DELETE FROM policies WHERE id = $1")
            .bind(id.to_string())
            .execute(&mut *transaction)
            .await?;
        let deed = deed(actor, "policy delete", &policy.name, write(&policy.policy));
        audit::write(&mut transaction, deed, now).await?;
        Ok(transaction.commit().await?)
    }
}

fn deed(actor: &str, action: &'static str, subject: &str, detail: String) -> audit::Deed {
    audit::Deed { actor: actor.to_owned(), action, subject: subject.to_owned(), detail }
}

#[cfg(test)]
mod tests {
    use super::super::tests::database;
    use super::*;

    #[test]
    fn what_a_commit_does_comes_back() {
        let policy = Policy {
            hydration: Some(ByteCount::new(50_000_000)),
            points_at_commit: PointsAtCommit::Kept,
            alone: Alone::StartIfLastActive,
            ..Policy::default()
        };
        let golden = r#""hydration_bytes_per_second":50000000,"points_stay_at_commit":true,"starts_alone":true}"#;
        let document = write(&policy);
        assert!(document.ends_with(golden), "{document}");
        assert_eq!(read(FORMAT, &document).unwrap(), policy);
    }

    #[tokio::test]
    async fn a_new_database_has_the_default_policy_as_this_version_writes_it() {
        let (_folder, database) = database().await;
        let policies = database.policies().await.unwrap();
        assert_eq!(policies.len(), 1);
        assert_eq!(policies[0].name, "default");
        assert_eq!(policies[0].policy, Policy::default());
        let (document,): (String,) = sqlx::query_as("SELECT document FROM policies")
            .fetch_one(&database.readers)
            .await
            .unwrap();
        assert_eq!(document, write(&Policy::default()));
    }
}
