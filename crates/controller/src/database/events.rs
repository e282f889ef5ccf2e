//! What changed about protected machines.

use std::collections::HashMap;

use api::event::{Aspect, Event};
use sqlx::SqliteConnection;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{Database, Result, microseconds, nonsense, time_of, uuid_of};

/// Events are kept for so long.
pub const KEPT: Duration = Duration::days(90);

/// A change that is to be written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// The protection.
    pub protection: Uuid,
    /// The machine's name.
    pub machine: String,
    /// What changed.
    pub aspect: Aspect,
    /// How it was, if that is known.
    pub before: Option<String>,
    /// How it became.
    pub after: String,
    /// Why, where that is known.
    pub detail: String,
}

impl Database {
    /// Writes changes down. Durable on return.
    ///
    /// # Errors
    /// When the database fails; none is written then.
    pub async fn write_events(&self, events: &[NewEvent], now: OffsetDateTime) -> Result<()> {
        let mut transaction = self.begin().await?;
        for event in events {
            sqlx::query(
                "INSERT INTO events (at_us, protection_id, machine_name, aspect, before, after, detail)
                 VALUES ($1, $2, $3, $4, $5, $6, $7)",
            )
            .bind(microseconds(now))
            .bind(event.protection.to_string())
            .bind(&event.machine)
            .bind(event.aspect.as_str())
            .bind(&event.before)
            .bind(&event.after)
            .bind(&event.detail)
            .execute(&mut *transaction)
            .await?;
        }
        Ok(transaction.commit().await?)
    }

    /// The newest events, the newest first, of all machines or of one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn events(&self, protection: Option<Uuid>, limit: u32) -> Result<Vec<Event>> {
        type Row = (i64, i64, String, String, String, Option<String>, String, String);
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT number, at_us, protection_id, machine_name, aspect, before, after, detail
             FROM events WHERE $1 IS NULL OR protection_id = $1 ORDER BY number DESC LIMIT $2",
        )
        .bind(protection.map(|protection| protection.to_string()))
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        let event = |(number, at, protection, machine, aspect, before, after, detail): Row| {
            let protection = uuid_of(&protection)?;
            let (at, aspect) = (time_of(at)?, aspect_of(&aspect)?);
            Ok(Event { number, at, protection, machine, aspect, before, after, detail })
        };
        rows.into_iter().map(event).collect()
    }

    /// How everything was when it last changed.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn last_events(&self) -> Result<HashMap<(Uuid, Aspect), String>> {
        let rows: Vec<(String, String, String)> = sqlx::query_as(
            "SELECT e.protection_id, e.aspect, e.after FROM events e
             WHERE e.number = (SELECT MAX(l.number) FROM events l
                               WHERE l.protection_id = e.protection_id AND l.aspect = e.aspect)",
        )
        .fetch_all(&self.readers)
        .await?;
        rows.into_iter()
            .map(|(protection, aspect, after)| {
                Ok(((uuid_of(&protection)?, aspect_of(&aspect)?), after))
            })
            .collect()
    }
}

fn aspect_of(text: &str) -> Result<Aspect> {
    let found = Aspect::ALL.into_iter().find(|aspect| aspect.as_str() == text);
    found.ok_or_else(|| nonsense("an event", &format_args!("it is of {text}")))
}

/// Drops events that are older than they are kept.
pub(super) async fn prune(connection: &mut SqliteConnection, now: OffsetDateTime) -> Result<()> {
    sqlx::query("DELETE FROM events WHERE at_us < $1")
        .bind(microseconds(now - KEPT))
        .execute(connection)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::database;
    use super::*;

    #[tokio::test]
    async fn events_are_kept_by_machine_and_pruned_by_age() {
        let (_folder, database) = database().await;
        let now = OffsetDateTime::UNIX_EPOCH + Duration::days(20_000);
        let event = |machine: u128, before: Option<&str>, after: &str| NewEvent {
            protection: Uuid::from_u128(machine),
            machine: format!("machine-{machine}"),
            aspect: Aspect::Health,
            before: before.map(Into::into),
            after: after.into(),
            detail: "the WAN is cut".into(),
        };
        database.write_events(&[event(1, None, "normal")], now - Duration::DAY).await.unwrap();
        let later = [event(2, None, "normal"), event(1, Some("normal"), "critical")];
        database.write_events(&later, now).await.unwrap();
        let told = |events: Vec<Event>| -> Vec<String> {
            events.into_iter().map(|event| format!("{} {}", event.machine, event.after)).collect()
        };
        let all = told(database.events(None, 10).await.unwrap());
        assert_eq!(all, ["machine-1 critical", "machine-2 normal", "machine-1 normal"]);
        let one = Some(Uuid::from_u128(1));
        assert_eq!(told(database.events(one, 1).await.unwrap()), ["machine-1 critical"]);
        let last = database.last_events().await.unwrap();
        assert_eq!(last[&(Uuid::from_u128(1), Aspect::Health)], "critical");
        database.prune_history(now + KEPT - Duration::HOUR).await.unwrap();
        assert_eq!(database.events(None, 10).await.unwrap().len(), 2);
    }
}
