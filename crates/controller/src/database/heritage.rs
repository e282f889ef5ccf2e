//! What hosts of a lost controller told, and taking it over.

use domain::id::{HostId, PolicyId, ProtectionId};
use sqlx::SqliteConnection;
use time::OffsetDateTime;
use wire::heritage::{Document, HERITAGE_FORMAT, Heritage, NamedPolicy, Place};

use super::hosts::new_id;
use super::protections::Protection;
use super::{
    Database, DatabaseError, Result, audit, failover, microseconds, nonsense, policies, uuid_of,
};
use crate::adoption::{Adoption, Seat};

/// What a host told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The host.
    pub by: HostId,
    /// What it told.
    pub heritage: Heritage,
}

/// What a controller after this one must know of a protection.
#[must_use]
pub fn heritage_of(protection: &Protection, place: impl Fn(HostId) -> Place) -> Heritage {
    let Protection { failover, .. } = protection;
    Heritage {
        protection: protection.id,
        machine: protection.machine,
        name: protection.machine_name.clone(),
        source: place(protection.source),
        target: place(protection.target),
        compute: protection.compute.map(&place),
        policy: NamedPolicy {
            name: protection.policy_name.clone(),
            document: policies::document(&protection.policy),
        },
        excluded_disks: protection.excluded.clone(),
        generation: protection.generation,
        paused: protection.paused,
        epoch: failover.epoch.number(),
        reversed: failover.reversed,
        state: failover.state.and_then(failover::document),
        recovery: failover.recovery,
        unsent: failover.unsent,
        former_hosts: protection.former_hosts.iter().map(|host| host.uuid()).collect(),
        created: protection.created,
    }
}

impl Database {
    /// Whether a host waits to be adopted, with what a lost controller left.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn inherits(&self, host: HostId) -> Result<bool> {
        let inherits: Option<bool> = sqlx::query_scalar("SELECT inherits FROM hosts WHERE id = $1")
            .bind(host.to_string())
            .fetch_optional(&self.readers)
            .await?;
        Ok(inherits.unwrap_or(false))
    }

    /// Keeps what a host told, but for what is protected here already or was
    /// renounced. Whether nothing is left to be adopted of it. Durable on return.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn keep_heritage(&self, host: HostId, told: &[Heritage]) -> Result<bool> {
        let mut transaction = self.begin().await?;
        let inherits: Option<bool> = sqlx::query_scalar("SELECT inherits FROM hosts WHERE id = $1")
            .bind(host.to_string())
            .fetch_optional(&mut *transaction)
            .await?;
        if inherits != Some(true) {
            return Ok(false);
        }
        sqlx::query("DELETE FROM heritage WHERE host_id = $1")
            .bind(host.to_string())
            .execute(&mut *transaction)
            .await?;
        for heritage in told {
            sqlx::query(
                "INSERT INTO heritage (host_id, protection_id, format, document)
                 SELECT $1, $2, $3, $4
                 WHERE NOT EXISTS (SELECT 1 FROM protections WHERE id = $2)
                   AND NOT EXISTS (SELECT 1 FROM renounced WHERE protection_id = $2)",
            )
            .bind(host.to_string())
            .bind(heritage.protection.to_string())
            .bind(HERITAGE_FORMAT)
            .bind(serde_json::to_string(heritage).expect("a heritage is plain"))
            .execute(&mut *transaction)
            .await?;
        }
        sqlx::query("UPDATE hosts SET heritage_told = TRUE WHERE id = $1")
            .bind(host.to_string())
            .execute(&mut *transaction)
            .await?;
        let done = release(&mut transaction).await?;
        transaction.commit().await?;
        Ok(done)
    }

    /// All that was told and is neither adopted nor renounced.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn heritage(&self) -> Result<Vec<Told>> {
        let rows: Vec<(String, u16, String)> = sqlx::query_as(
            "SELECT host_id, format, document FROM heritage ORDER BY host_id, protection_id",
        )
        .fetch_all(&self.readers)
        .await?;
        let read = |(host, format, document): (String, u16, String)| {
            if format != HERITAGE_FORMAT {
                return Err(nonsense("a heritage", &format_args!("format {format} is not known")));
            }
            let heritage = serde_json::from_str(&document);
            let heritage = heritage.map_err(|error| nonsense("a heritage", &error))?;
            Ok(Told { by: HostId::new(uuid_of(&host)?), heritage })
        };
        rows.into_iter().map(read).collect()
    }

    /// Goes on with protections of a lost controller: all of them or none.
    /// Durable on return.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn adopt(
        &self,
        adoptions: &[Adoption],
        actor: &str,
        now: OffsetDateTime,
    ) -> Result<()> {
        let mut transaction = self.begin().await?;
        for adoption in adoptions {
            adopt(&mut transaction, adoption, actor, now).await?;
        }
        release(&mut transaction).await?;
        Ok(transaction.commit().await?)
    }

    /// Forgets what was told of protections, for good: their hosts end what they do
    /// for them once they have duties, and the points stay. Durable on return.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn renounce(
        &self,
        renounced: &[Heritage],
        actor: &str,
        now: OffsetDateTime,
    ) -> Result<()> {
        let mut transaction = self.begin().await?;
        for heritage in renounced {
            sqlx::query("INSERT INTO renounced (protection_id) VALUES ($1) ON CONFLICT DO NOTHING")
                .bind(heritage.protection.to_string())
                .execute(&mut *transaction)
                .await?;
            drop_told(&mut transaction, heritage.protection).await?;
            let deed = audit::Deed {
                actor: actor.to_owned(),
                action: "protection renounce",
                subject: heritage.name.clone(),
                detail: format!("protection {}", heritage.protection),
            };
            audit::write(&mut transaction, deed, now).await?;
        }
        release(&mut transaction).await?;
        Ok(transaction.commit().await?)
    }
}

async fn drop_told(connection: &mut SqliteConnection, protection: ProtectionId) -> Result<()> {
    sqlx::query("DELETE FROM heritage WHERE protection_id = $1")
        .bind(protection.to_string())
        .execute(connection)
        .await?;
    Ok(())
}

/// Hosts that have told, and of which nothing is left to be adopted, are told duties
/// again; whether there are any.
async fn release(connection: &mut SqliteConnection) -> Result<bool> {
    let released = sqlx::query(
        "UPDATE hosts SET inherits = FALSE
         WHERE inherits AND heritage_told AND NOT EXISTS (SELECT 1 FROM heritage h WHERE h.host_id = hosts.id)",
    )
    .execute(connection)
    .await?;
    Ok(released.rows_affected() > 0)
}

async fn adopt(
    connection: &mut SqliteConnection,
    adoption: &Adoption,
    actor: &str,
    now: OffsetDateTime,
) -> Result<()> {
    let heritage = &adoption.heritage;
    let source = seat(connection, &adoption.source, now).await?;
    let target = seat(connection, &adoption.target, now).await?;
    let compute = match &adoption.compute {
        Some(compute) => Some(seat(connection, compute, now).await?),
        None => None,
    };
    let policy = policy(connection, &adoption.policy_name, &heritage.policy.document, now).await?;
    let generation = i64::try_from(heritage.generation).unwrap_or(i64::MAX);
    sqlx::query(
        "INSERT INTO generations (machine_uuid, generation) VALUES ($1, $2)
         ON CONFLICT (machine_uuid) DO UPDATE SET
             generation = MAX(generations.generation, excluded.generation)",
    )
    .bind(heritage.machine.to_string())
    .bind(generation)
    .execute(&mut *connection)
    .await?;
    let state = failover::document(adoption.standing.state);
    sqlx::query(
        "INSERT INTO protections (id, machine_uuid, machine_name, source_host_id,
             target_host_id, policy_id, excluded_disks, generation, paused, created_us,
             source_ended, target_ended, epoch, reversed, failover_format, failover, recovery,
             unsent, former_hosts, compute_host_id)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, FALSE, FALSE, $11, $12, $13, $14, $15,
             $16, $17, $18)",
    )
    .bind(heritage.protection.to_string())
    .bind(heritage.machine.to_string())
    .bind(&heritage.name)
    .bind(source.to_string())
    .bind(target.to_string())
    .bind(policy.to_string())
    .bind(serde_json::to_string(&heritage.excluded_disks).expect("names are plain"))
    .bind(generation)
    .bind(heritage.paused)
    .bind(microseconds(heritage.created))
    .bind(i64::try_from(adoption.standing.epoch.number()).unwrap_or(i64::MAX))
    .bind(heritage.reversed)
    .bind(state.as_ref().map(|document| document.format))
    .bind(state.as_ref().map(|document| &document.document))
    .bind(heritage.recovery.map(|recovery| recovery.to_string()))
    .bind(heritage.unsent)
    .bind(serde_json::to_string(&heritage.former_hosts).expect("ids are plain"))
    .bind(compute.map(|compute| compute.to_string()))
    .execute(&mut *connection)
    .await
    .map_err(super::name_taken)?;
    drop_told(connection, heritage.protection).await?;
    let deed = audit::Deed {
        actor: actor.to_owned(),
        action: "protection adopt",
        subject: heritage.name.clone(),
        detail: format!(
            "from {} to {}, {}; epoch {}",
            heritage.source.name,
            heritage.target.name,
            adoption.standing.state.name(),
            adoption.standing.epoch
        ),
    };
    audit::write(connection, deed, now).await
}

/// The host of a side; one that was never enrolled here is made known, so that
/// its agent can be enrolled as it.
async fn seat(
    connection: &mut SqliteConnection,
    seat: &Seat,
    now: OffsetDateTime,
) -> Result<HostId> {
    let place = match seat {
        Seat::Known(host) => return Ok(*host),
        Seat::New(place) => place,
    };
    // Both sides of several protections may be the same new host.
    let known: Option<i64> = sqlx::query_scalar("SELECT 1 FROM hosts WHERE id = $1")
        .bind(place.host.to_string())
        .fetch_optional(&mut *connection)
        .await?;
    if known.is_some() {
        return Ok(place.host);
    }
    sqlx::query(
        "INSERT INTO sites (id, name, kind, description, created_us)
         VALUES ($1, $2, 'managed', '', $3) ON CONFLICT (name) DO NOTHING",
    )
    .bind(new_id().to_string())
    .bind(&place.site)
    .bind(microseconds(now))
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "INSERT INTO hosts (id, site_id, name, enrolled_us, certificate_serial,
             certificate_expires_us)
         SELECT $1, id, $2, $3, '', $3 FROM sites WHERE name = $4",
    )
    .bind(place.host.to_string())
    .bind(&place.name)
    .bind(microseconds(now))
    .bind(&place.site)
    .execute(&mut *connection)
    .await
    .map_err(super::name_taken)?;
    Ok(place.host)
}

/// The policy of this name, which is made if there is none.
async fn policy(
    connection: &mut SqliteConnection,
    name: &str,
    said: &Document,
    now: OffsetDateTime,
) -> Result<PolicyId, DatabaseError> {
    let known: Option<(String,)> = sqlx::query_as("SELECT id FROM policies WHERE name = $1")
        .bind(name)
        .fetch_optional(&mut *connection)
        .await?;
    if let Some((id,)) = known {
        return Ok(PolicyId::new(uuid_of(&id)?));
    }
    // What does not make sense must not get in.
    policies::read(said.format, &said.document)?;
    let id = PolicyId::new(new_id());
    policies::insert(connection, id, name, said, now).await?;
    Ok(id)
}
