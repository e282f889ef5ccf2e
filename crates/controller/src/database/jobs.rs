//! What jobs did, line by line.

use futures::FutureExt as _;
use futures::future::BoxFuture;
use jobs::{Entry, Event, JobId, Journal, JournalError, Stored};
use uuid::Uuid;

use super::{Database, Result, microseconds, uuid_of};

/// Jobs that are listed at once.
pub const LISTED_MAX: u32 = 500;

impl Journal for Database {
    fn append<'a>(
        &'a self,
        job: JobId,
        entry: &'a Entry,
    ) -> BoxFuture<'a, Result<(), JournalError>> {
        self.append_entry(job, entry).boxed()
    }

    fn unfinished(&self) -> BoxFuture<'_, Result<Vec<Stored>, JournalError>> {
        async move {
            let ids: Vec<(String,)> = sqlx::query_as(
                "SELECT id FROM jobs WHERE ended_us IS NULL ORDER BY ordered_us, id",
            )
            .fetch_all(&self.readers)
            .await
            .map_err(failed)?;
            let mut found = Vec::new();
            for (id,) in ids {
                let id = JobId::new(uuid_of(&id).map_err(failed)?);
                found.extend(self.load(id).await?);
            }
            Ok(found)
        }
        .boxed()
    }

    fn load(&self, job: JobId) -> BoxFuture<'_, Result<Option<Stored>, JournalError>> {
        async move {
            let lines: Vec<(String,)> =
                sqlx::query_as("SELECT line FROM job_entries WHERE job_id = $1 ORDER BY number")
                    .bind(job.to_string())
                    .fetch_all(&self.readers)
                    .await
                    .map_err(failed)?;
            let lines: Vec<String> = lines.into_iter().map(|(line,)| line).collect();
            Ok((!lines.is_empty()).then_some(Stored { job, lines }))
        }
        .boxed()
    }
}

fn failed(error: impl std::fmt::Display) -> JournalError {
    JournalError::Failed(error.to_string())
}

impl Database {
    async fn append_entry(&self, job: JobId, entry: &Entry) -> Result<(), JournalError> {
        let line = entry.encode();
        let mut transaction = self.begin().await.map_err(failed)?;
        if let Event::Ordered(order) = &entry.event {
            sqlx::query(
                "INSERT INTO jobs (id, runbook, target, ordered_us) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (id) DO NOTHING",
            )
            .bind(job.to_string())
            .bind(&order.runbook)
            .bind(&order.target)
            .bind(microseconds(entry.at))
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        }
        let known: Option<(String,)> =
            sqlx::query_as("SELECT line FROM job_entries WHERE job_id = $1 AND number = $2")
                .bind(job.to_string())
                .bind(entry.number)
                .fetch_optional(&mut *transaction)
                .await
                .map_err(failed)?;
        match known {
            Some((known,)) if known == line => return Ok(()),
            Some(_) => return Err(JournalError::NumberTaken),
            None => {}
        }
        sqlx::query("INSERT INTO job_entries (job_id, number, line) VALUES ($1, $2, $3)")
            .bind(job.to_string())
            .bind(entry.number)
            .bind(line)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        if matches!(entry.event, Event::Ended { .. }) {
            sqlx::query("UPDATE jobs SET ended_us = $2 WHERE id = $1")
                .bind(job.to_string())
                .bind(microseconds(entry.at))
                .execute(&mut *transaction)
                .await
                .map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)
    }

    /// The newest jobs, the newest first, at most [`LISTED_MAX`].
    ///
    /// # Errors
    /// When the database fails.
    pub async fn newest_jobs(&self) -> Result<Vec<Uuid>> {
        let ids: Vec<(String,)> =
            sqlx::query_as("SELECT id FROM jobs ORDER BY ordered_us DESC, id DESC LIMIT $1")
                .bind(LISTED_MAX)
                .fetch_all(&self.readers)
                .await?;
        ids.iter().map(|(id,)| uuid_of(id)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::database;
    use super::*;
    use jobs::{End, log::Order};
    use time::OffsetDateTime;

    fn entry(number: u32, event: Event) -> Entry {
        Entry::new(number, OffsetDateTime::UNIX_EPOCH, event)
    }

    #[tokio::test]
    async fn a_log_has_each_number_once_and_is_unfinished_until_its_end() {
        let (_folder, database) = database().await;
        let job = JobId::new(Uuid::from_u128(7));
        let order = Order {
            runbook: "lend".into(),
            version: 1,
            steps: vec!["take".into()],
            target: "a book".into(),
            by: "admin".into(),
            parent: None,
            keys: vec![],
            state: serde_json::json!({}),
        };
        let lines = [
            entry(0, Event::Ordered(order)),
            entry(1, Event::Begun { step: "take".into(), attempt: 1 }),
        ];
        for line in &lines {
            database.append(job, line).await.unwrap();
            database.append(job, line).await.unwrap();
        }
        let other = entry(1, Event::Begun { step: "take".into(), attempt: 2 });
        assert_eq!(database.append(job, &other).await, Err(JournalError::NumberTaken));
        let stored = database.unfinished().await.unwrap();
        assert_eq!(stored.len(), 1);
        assert_eq!(stored[0].lines, lines.map(|line| line.encode()));
        let end = entry(2, Event::Ended { end: End::Succeeded });
        database.append(job, &end).await.unwrap();
        assert!(database.unfinished().await.unwrap().is_empty());
        assert_eq!(database.load(job).await.unwrap().unwrap().lines.len(), 3);
        assert_eq!(database.newest_jobs().await.unwrap(), [job.uuid()]);
    }
}
