//! The audit log: written in the transaction of the change that it tells of.

use sqlx::SqliteConnection;
use time::OffsetDateTime;

use super::{Database, Result, microseconds, time_of};

/// What an entry says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deed {
    /// Who did it.
    pub actor: String,
    /// What was done: noun and verb.
    pub action: &'static str,
    /// To what.
    pub subject: String,
    /// Anything worth knowing besides; never a secret.
    pub detail: String,
}

/// Longest text of a field that somebody else chose, in characters.
const TEXT_LENGTH_MAX: usize = 500;

pub(super) async fn write(
    connection: &mut SqliteConnection,
    deed: Deed,
    now: OffsetDateTime,
) -> Result<()> {
    let cut = |text: String| text.chars().take(TEXT_LENGTH_MAX).collect::<String>();
    sqlx::query(
        "INSERT INTO audit (at_us, actor, action, subject, detail) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(microseconds(now))
    .bind(cut(deed.actor))
    .bind(deed.action)
    .bind(cut(deed.subject))
    .bind(cut(deed.detail))
    .execute(connection)
    .await?;
    Ok(())
}

impl Database {
    /// Records something that changed nothing else in the database.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn record(&self, deed: Deed, now: OffsetDateTime) -> Result<()> {
        let mut transaction = self.begin().await?;
        write(&mut transaction, deed, now).await?;
        Ok(transaction.commit().await?)
    }

    /// The newest entries, newest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn audit_entries(&self, limit: u32) -> Result<Vec<api::audit::AuditEntry>> {
        let rows: Vec<(i64, i64, String, String, String, String)> = sqlx::query_as(
            "SELECT number, at_us, actor, action, subject, detail FROM audit ORDER BY number DESC LIMIT $1",
        )
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        rows.into_iter()
            .map(|(number, at, actor, action, subject, detail)| {
                Ok(api::audit::AuditEntry {
                    number,
                    at: time_of(at)?,
                    actor,
                    action,
                    subject,
                    detail,
                })
            })
            .collect()
    }
}
