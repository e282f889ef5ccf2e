//! Verifications: what was found when source and replica were compared.
//!
//! They outlive their protection, for they are evidence; what is pruned is
//! older, or of more, than any auditor asks for.

use sqlx::{FromRow, SqliteConnection};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;
use wire::replication::VerifyReport;

use super::lookup::{LookupError, Noun};
use super::protections::Protection;
use super::{Database, Result, audit, microseconds, optional_time, reports, time_of, uuid_of};

/// For so long verifications are kept.
pub const KEPT: Duration = Duration::days(3 * 366);
/// Of each machine, so many are kept.
const KEPT_MAX: u32 = 1000;

/// A verification, whether finished or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    /// Its id.
    pub wish: Uuid,
    /// The protection.
    pub protection: Uuid,
    /// The hypervisor's UUID of the machine.
    pub machine: Uuid,
    /// The machine's name at that time.
    pub machine_name: String,
    /// The source's name at that time.
    pub source: String,
    /// The target's name at that time.
    pub target: String,
    /// When it was asked for.
    pub asked: OffsetDateTime,
    /// By whom.
    pub asked_by: String,
    /// When its report came in.
    pub finished: Option<OffsetDateTime>,
    /// The report.
    pub report: Option<VerifyReport>,
}

#[derive(Debug, FromRow)]
struct VerificationRow {
    wish: String,
    protection_id: String,
    machine_uuid: String,
    machine_name: String,
    source_name: String,
    target_name: String,
    asked_us: i64,
    asked_by: String,
    finished_us: Option<i64>,
    format: Option<u16>,
    document: Option<String>,
}

impl TryFrom<VerificationRow> for Verification {
    type Error = super::DatabaseError;

    fn try_from(row: VerificationRow) -> Result<Self> {
        Ok(Self {
            wish: uuid_of(&row.wish)?,
            protection: uuid_of(&row.protection_id)?,
            machine: uuid_of(&row.machine_uuid)?,
            machine_name: row.machine_name,
            source: row.source_name,
            target: row.target_name,
            asked: time_of(row.asked_us)?,
            asked_by: row.asked_by,
            finished: optional_time(row.finished_us)?,
            report: reports::read(row.format, row.document, "a verification")?,
        })
    }
}

/// Keeps the report of a verification that was asked for.
pub(super) async fn finish(connection: &mut SqliteConnection, report: &VerifyReport) -> Result<()> {
    sqlx::query(
        "UPDATE verifications SET finished_us = $2, format = $3, document = $4
         WHERE wish = $1 AND finished_us IS NULL",
    )
    .bind(report.wish.to_string())
    .bind(microseconds(report.finished))
    .bind(reports::FORMAT)
    .bind(serde_json::to_string(report).expect("a report is plain"))
    .execute(connection)
    .await?;
    Ok(())
}

impl Database {
    /// Asks for a verification, unless one is under way. Durable on return.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn ask_to_verify(
        &self,
        protection: &Protection,
        wish: Uuid,
        (source, target): (&str, &str),
        actor: &str,
        now: OffsetDateTime,
    ) -> Result<bool> {
        let mut transaction = self.begin().await?;
        let asked =
            sqlx::query("UPDATE protections SET verify = $2 WHERE id = $1 AND verify IS NULL")
                .bind(protection.id.to_string())
                .bind(wish.to_string())
                .execute(&mut *transaction)
                .await?;
        if asked.rows_affected() == 0 {
            return Ok(false);
        }
        sqlx::query(
            "INSERT INTO verifications (wish, protection_id, machine_uuid, machine_name,
                 source_name, target_name, asked_us, asked_by)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(wish.to_string())
        .bind(protection.id.to_string())
        .bind(protection.machine.to_string())
        .bind(&protection.machine_name)
        .bind(source)
        .bind(target)
        .bind(microseconds(now))
        .bind(actor)
        .execute(&mut *transaction)
        .await?;
        let deed = audit::Deed {
            actor: actor.to_owned(),
            action: "protection verify",
            subject: protection.machine_name.clone(),
            detail: wish.to_string(),
        };
        audit::write(&mut transaction, deed, now).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// The verifications of a protection, the newest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn verifications(&self, protection: &Protection) -> Result<Vec<Verification>> {
        // Those of the machine: it may have been protected before.
        let rows: Vec<VerificationRow> = sqlx::query_as(
            "SELECT wish, protection_id, machine_uuid, machine_name, source_name, target_name,
                    asked_us, asked_by, finished_us, format, document
             FROM verifications WHERE machine_uuid = $1 ORDER BY asked_us DESC LIMIT $2",
        )
        .bind(protection.machine.to_string())
        .bind(KEPT_MAX)
        .fetch_all(&self.readers)
        .await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    /// One verification.
    ///
    /// # Errors
    /// When there is none, or the database fails.
    pub async fn verification(&self, wish: &str) -> Result<Verification> {
        let row: Option<VerificationRow> = sqlx::query_as(
            "SELECT wish, protection_id, machine_uuid, machine_name, source_name, target_name,
                    asked_us, asked_by, finished_us, format, document
             FROM verifications WHERE wish = $1",
        )
        .bind(wish)
        .fetch_optional(&self.readers)
        .await?;
        let not_found =
            LookupError::NotFound { noun: Noun::Verification, reference: wish.to_owned() };
        row.ok_or(not_found)?.try_into()
    }

    pub(super) async fn prune_verifications(&self, now: OffsetDateTime) -> Result<()> {
        sqlx::query("DELETE FROM verifications WHERE asked_us < $1 AND finished_us IS NOT NULL")
            .bind(microseconds(now - KEPT))
            .execute(&self.writer)
            .await?;
        sqlx::query(
            "DELETE FROM verifications WHERE finished_us IS NOT NULL AND (
                 SELECT COUNT(*) FROM verifications newer
                 WHERE newer.machine_uuid = verifications.machine_uuid
                   AND newer.asked_us > verifications.asked_us) >= $1",
        )
        .bind(KEPT_MAX)
        .execute(&self.writer)
        .await?;
        Ok(())
    }
}
