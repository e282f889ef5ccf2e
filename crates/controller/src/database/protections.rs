//! Protections: what operators want.

use domain::id::{HostId, MachineUuid, PolicyId, ProtectionId};
use domain::policy::Policy;
use domain::protection::{Intent, Newest};
use sqlx::{FromRow, SqliteConnection};
use time::OffsetDateTime;
use uuid::Uuid;
use wire::replication::{KeepingReport, OfflineCopy, ShippingReport, VerifyReport};

use super::failover::Failover;
use super::hosts::new_id;
use super::lookup::{LookupError, Noun};
use super::{
    Database, DatabaseError, Result, audit, microseconds, nonsense, optional_time, policies,
    reports, time_of, uuid_of,
};

/// A protection, with what agents last told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protection {
    /// Never changes.
    pub id: ProtectionId,
    /// The hypervisor's UUID of the machine.
    pub machine: MachineUuid,
    /// The machine's name when it was protected.
    pub machine_name: String,
    /// The host that the machine runs on.
    pub source: HostId,
    /// The host that keeps its points.
    pub target: HostId,
    /// Its policy.
    pub policy_id: PolicyId,
    /// That one's name.
    pub policy_name: String,
    /// What it says.
    pub policy: Policy,
    /// Disks that are left out.
    pub excluded: Vec<String>,
    /// A writer with a greater one takes over.
    pub generation: u64,
    /// Whether it is paused.
    pub paused: bool,
    /// The initial replication waits for this.
    pub not_before: Option<OffsetDateTime>,
    /// The resynchronisation that was asked for and has not begun.
    pub resynchronise: Option<Uuid>,
    /// The verification that was asked for and is not finished.
    pub verify: Option<Uuid>,
    /// The first copy is carried in a folder at the source.
    pub offline: Option<OfflineCopy>,
    /// The first copy that is to be taken in from a folder at the target, until
    /// that is done.
    pub import: Option<OfflineCopy>,
    /// How it stands in a failover.
    pub failover: Failover,
    /// Where it is made when it fails over, if that is not the target.
    pub compute: Option<HostId>,
    /// Hosts that the machine has left for another, where it stays fenced.
    pub former_hosts: Vec<HostId>,
    /// When it was made.
    pub created: OffsetDateTime,
    /// Since when it is to end.
    pub disabling: Option<OffsetDateTime>,
    /// What the source's agent last told, and when.
    pub shipping: Option<(ShippingReport, OffsetDateTime)>,
    /// What the target's agent last told, and when; without its points.
    pub keeping: Option<(KeepingReport, OffsetDateTime)>,
    /// The instant of the newest point that the target told of.
    pub newest_kept: Option<Newest>,
    /// The verification that was finished last.
    pub verified: Option<VerifyReport>,
}

/// What a new protection is.
#[derive(Debug, Clone)]
pub struct NewProtection<'a> {
    /// Its id.
    pub id: ProtectionId,
    /// The hypervisor's UUID of the machine.
    pub machine: MachineUuid,
    /// The machine's name.
    pub machine_name: &'a str,
    /// The host that the machine runs on.
    pub source: &'a api::Reference,
    /// The host that will keep its points.
    pub target: &'a api::Reference,
    /// Its policy.
    pub policy: &'a api::Reference,
    /// Disks to leave out.
    pub excluded: &'a [String],
    /// The initial replication waits for this.
    pub not_before: Option<OffsetDateTime>,
    /// The first copy is carried in this folder at the source.
    pub offline_folder: Option<&'a str>,
}

/// A change of what an operator wants of a protection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// Take no more points.
    Pause,
    /// Go on.
    Resume,
    /// Take in the first copy that is in a folder at the target.
    ImportCopy(OfflineCopy),
    /// Send the first copy over the network after all.
    CopyOverNetwork,
    /// Compare once and send what differs.
    Resynchronise(Uuid),
    /// Follow another policy.
    ChangePolicy(api::Reference),
    /// End it once both agents have.
    Disable,
}

#[derive(Debug, FromRow)]
struct ProtectionRow {
    id: String,
    machine_uuid: String,
    machine_name: String,
    source_host_id: String,
    target_host_id: String,
    policy_id: String,
    policy_name: String,
    policy_format: u16,
    policy_document: String,
    excluded_disks: String,
    generation: i64,
    paused: bool,
    not_before_us: Option<i64>,
    resynchronise: Option<String>,
    verify: Option<String>,
    offline_wish: Option<String>,
    offline_folder: Option<String>,
    import_wish: Option<String>,
    import_folder: Option<String>,
    epoch: i64,
    reversed: bool,
    failover_format: Option<u16>,
    failover: Option<String>,
    recovery: Option<String>,
    held: bool,
    unsent: bool,
    compute_host_id: Option<String>,
    former_hosts: String,
    created_us: i64,
    disabling_us: Option<i64>,
    shipping_format: Option<u16>,
    shipping: Option<String>,
    shipping_us: Option<i64>,
    keeping_format: Option<u16>,
    keeping: Option<String>,
    keeping_us: Option<i64>,
    newest_kept: Option<u32>,
    newest_kept_us: Option<i64>,
    verified_format: Option<u16>,
    verified: Option<String>,
}

impl TryFrom<ProtectionRow> for Protection {
    type Error = DatabaseError;

    fn try_from(row: ProtectionRow) -> Result<Self> {
        let uuid = |text: Option<String>| text.as_deref().map(uuid_of).transpose();
        let copy = |wish, folder: Option<String>| {
            let wish = uuid(wish)?;
            Ok::<_, DatabaseError>(
                wish.zip(folder).map(|(wish, folder)| OfflineCopy { wish, folder }),
            )
        };
        let excluded = serde_json::from_str(&row.excluded_disks)
            .map_err(|error| nonsense("the excluded disks of a protection", &error))?;
        let former: Vec<Uuid> = serde_json::from_str(&row.former_hosts)
            .map_err(|error| nonsense("the former hosts of a machine", &error))?;
        let shipping = reports::read(row.shipping_format, row.shipping, "a shipping report")?;
        let keeping = reports::read(row.keeping_format, row.keeping, "a keeping report")?;
        Ok(Self {
            id: ProtectionId::new(uuid_of(&row.id)?),
            machine: MachineUuid::new(uuid_of(&row.machine_uuid)?),
            machine_name: row.machine_name,
            source: HostId::new(uuid_of(&row.source_host_id)?),
            target: HostId::new(uuid_of(&row.target_host_id)?),
            policy_id: PolicyId::new(uuid_of(&row.policy_id)?),
            policy_name: row.policy_name,
            policy: policies::read(row.policy_format, &row.policy_document)?,
            excluded,
            generation: row.generation.try_into().map_err(|e| nonsense("a generation", &e))?,
            paused: row.paused,
            not_before: optional_time(row.not_before_us)?,
            resynchronise: uuid(row.resynchronise)?,
            verify: uuid(row.verify)?,
            offline: copy(row.offline_wish, row.offline_folder)?,
            import: copy(row.import_wish, row.import_folder)?,
            failover: Failover::read(
                row.epoch,
                row.reversed,
                (row.failover_format, row.failover),
                uuid(row.recovery)?,
                (row.held, row.unsent),
            )?,
            compute: uuid(row.compute_host_id)?.map(HostId::new),
            former_hosts: former.into_iter().map(HostId::new).collect(),
            created: time_of(row.created_us)?,
            disabling: optional_time(row.disabling_us)?,
            shipping: shipping.zip(optional_time(row.shipping_us)?),
            keeping: keeping.zip(optional_time(row.keeping_us)?),
            newest_kept: reports::newest_kept(row.newest_kept, row.newest_kept_us)?,
            verified: reports::read(row.verified_format, row.verified, "a verification")?,
        })
    }
}

impl Protection {
    /// What operators want of it, to judge by.
    #[must_use]
    pub fn intent(&self) -> Intent {
        Intent {
            every: self.policy.every,
            created: self.created,
            not_before: self.not_before,
            paused: self.paused,
            resynchronise_asked: self.resynchronise.is_some(),
            verify_asked: self.verify.is_some(),
            disabling: self.disabling,
            offline: self.offline.is_some(),
            import_asked: self.import.is_some(),
        }
    }

    /// The host that runs the machine when it is failed over.
    #[must_use]
    pub fn away(&self) -> HostId {
        self.compute.unwrap_or(self.target)
    }

    /// The instant of the newest point, by whichever side knows a newer one.
    #[must_use]
    pub fn newest(&self) -> Option<OffsetDateTime> {
        let shipped = self.shipping.as_ref().and_then(|(report, _)| report.newest);
        let newest = shipped.map(Into::into).max(self.newest_kept);
        newest.map(|newest| newest.instant)
    }
}

const SELECT: &str = "
    SELECT p.id, p.machine_uuid, p.machine_name, p.source_host_id, p.target_host_id,
           p.policy_id, po.name AS policy_name, po.format AS policy_format,
           po.document AS policy_document, p.excluded_disks, p.generation, p.paused,
           p.not_before_us, p.resynchronise, p.verify, p.offline_wish, p.offline_folder,
           p.import_wish, p.import_folder, p.epoch, p.reversed, p.failover_format,
           p.failover, p.recovery, p.held, p.unsent, p.former_hosts,
           p.compute_host_id,
           p.created_us, p.disabling_us,
           s.format AS shipping_format, s.document AS shipping, s.received_us AS shipping_us,
           k.format AS keeping_format, k.document AS keeping, k.received_us AS keeping_us,
           (SELECT MAX(t.point) FROM points t WHERE t.protection_id = p.id) AS newest_kept,
           (SELECT t.instant_us FROM points t WHERE t.protection_id = p.id
            ORDER BY t.point DESC LIMIT 1) AS newest_kept_us,
           v.format AS verified_format, v.document AS verified
    FROM protections p
    JOIN policies po ON po.id = p.policy_id
    LEFT JOIN shipping_reports s ON s.protection_id = p.id
    LEFT JOIN keeping_reports k ON k.protection_id = p.id
    LEFT JOIN verifications v ON v.wish = (
        SELECT w.wish FROM verifications w
        WHERE w.protection_id = p.id AND w.finished_us IS NOT NULL
        ORDER BY w.finished_us DESC LIMIT 1)
    ORDER BY p.machine_name, p.id";

impl Database {
    /// All protections, by the machine's name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn protections(&self) -> Result<Vec<Protection>> {
        let rows: Vec<ProtectionRow> = sqlx::query_as(SELECT).fetch_all(&self.readers).await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    /// The protection of this machine, by the machine's name, UUID or id, or
    /// the protection's id.
    ///
    /// # Errors
    /// When there is not exactly one, or the database fails.
    pub async fn protection(&self, reference: &str) -> Result<Protection> {
        let not_found =
            || LookupError::NotFound { noun: Noun::Protection, reference: reference.to_owned() };
        let found = match self.find(Noun::Protection, reference).await {
            // By the id of the machine on its host.
            Err(DatabaseError::Lookup(LookupError::NotFound { .. })) => {
                let protections = self.protections().await?;
                let by_machine = protections.into_iter().find(|protection| {
                    domain::id::MachineId::on_host(protection.source, protection.machine)
                        .to_string()
                        == reference
                });
                return by_machine.ok_or_else(|| not_found().into());
            }
            found => ProtectionId::new(found?),
        };
        let protections = self.protections().await?;
        let found = protections.into_iter().find(|protection| protection.id == found);
        found.ok_or_else(|| not_found().into())
    }

    /// Protects a machine. Durable on return.
    ///
    /// # Errors
    /// [`DatabaseError::NameTaken`] if the machine is protected already, or the
    /// database fails.
    pub async fn create_protection(
        &self,
        new: NewProtection<'_>,
        actor: &str,
        now: OffsetDateTime,
    ) -> Result<()> {
        let mut transaction = self.begin().await?;
        let generation = next_generation(&mut transaction, new.machine, now).await?;
        sqlx::query(
            "INSERT INTO protections (id, machine_uuid, machine_name, source_host_id,
                 target_host_id, policy_id, excluded_disks, generation, paused, not_before_us,
                 created_us, source_ended, target_ended, offline_wish, offline_folder)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, FALSE, $9, $10, FALSE, FALSE, $11, $12)",
        )
        .bind(new.id.to_string())
        .bind(new.machine.to_string())
        .bind(new.machine_name)
        .bind(new.source.id.to_string())
        .bind(new.target.id.to_string())
        .bind(new.policy.id.to_string())
        .bind(serde_json::to_string(new.excluded).expect("names are plain"))
        .bind(generation)
        .bind(new.not_before.map(microseconds))
        .bind(microseconds(now))
        .bind(new.offline_folder.map(|_| new_id().to_string()))
        .bind(new.offline_folder)
        .execute(&mut *transaction)
        .await
        .map_err(super::name_taken)?;
        let mut detail =
            format!("from {} to {}, policy {}", new.source.name, new.target.name, new.policy.name);
        if let Some(folder) = new.offline_folder {
            detail.push_str(&format!(", first copy into {folder}"));
        }
        if !new.excluded.is_empty() {
            detail.push_str(&format!(", without {}", new.excluded.join(", ")));
        }
        let deed = audit::Deed {
            actor: actor.to_owned(),
            action: "protection create",
            subject: new.machine_name.to_owned(),
            detail,
        };
        audit::write(&mut transaction, deed, now).await?;
        Ok(transaction.commit().await?)
    }

    /// Keeps what an operator wants of a protection. Durable on return.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn wish(
        &self,
        protection: &Protection,
        wish: Wish,
        actor: &str,
        now: OffsetDateTime,
    ) -> Result<()> {
        let id = protection.id.to_string();
        let mut transaction = self.begin().await?;
        let (query, action, detail) = match &wish {
            Wish::Pause => (
                sqlx::query("UPDATE protections SET paused = TRUE WHERE id = $1").bind(id),
                "protection pause",
                String::new(),
            ),
            Wish::Resume => (
                sqlx::query("UPDATE protections SET paused = FALSE WHERE id = $1").bind(id),
                "protection resume",
                String::new(),
            ),
            Wish::ImportCopy(copy) => (
                sqlx::query(
                    "UPDATE protections SET import_wish = $2, import_folder = $3 WHERE id = $1",
                )
                .bind(id)
                .bind(copy.wish.to_string())
                .bind(copy.folder.clone()),
                "protection import",
                copy.folder.clone(),
            ),
            Wish::CopyOverNetwork => (
                sqlx::query(
                    "UPDATE protections SET offline_wish = NULL, offline_folder = NULL
                     WHERE id = $1",
                )
                .bind(id),
                "protection copy over network",
                String::new(),
            ),
            Wish::Resynchronise(wish) => (
                sqlx::query("UPDATE protections SET resynchronise = $2 WHERE id = $1")
                    .bind(id)
                    .bind(wish.to_string()),
                "protection resynchronise",
                wish.to_string(),
            ),
            Wish::ChangePolicy(policy) => (
                sqlx::query("UPDATE protections SET policy_id = $2 WHERE id = $1")
                    .bind(id)
                    .bind(policy.id.to_string()),
                "protection change",
                format!("policy {} became {}", protection.policy_name, policy.name),
            ),
            Wish::Disable => (
                sqlx::query("UPDATE protections SET disabling_us = $2 WHERE id = $1")
                    .bind(id)
                    .bind(microseconds(now)),
                "protection disable",
                String::new(),
            ),
        };
        query.execute(&mut *transaction).await?;
        let deed = audit::Deed {
            actor: actor.to_owned(),
            action,
            subject: protection.machine_name.clone(),
            detail,
        };
        audit::write(&mut transaction, deed, now).await?;
        Ok(transaction.commit().await?)
    }

    /// Forgets a protection without waiting for anybody. Durable on return.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn end_protection(
        &self,
        protection: &Protection,
        left_behind: &[String],
        actor: &str,
        now: OffsetDateTime,
    ) -> Result<()> {
        let mut transaction = self.begin().await?;
        let detail = format!("forced; left behind: {}", left_behind.join("; "));
        let name = &protection.machine_name;
        forget(&mut transaction, protection.id, name, actor, detail, now).await?;
        Ok(transaction.commit().await?)
    }
}

/// Removes a protection and all that hangs on it, but for finished
/// verifications: those are evidence.
pub(super) async fn forget(
    connection: &mut SqliteConnection,
    protection: ProtectionId,
    machine_name: &str,
    actor: &str,
    detail: String,
    now: OffsetDateTime,
) -> Result<()> {
    sqlx::query("DELETE FROM verifications WHERE protection_id = $1 AND finished_us IS NULL")
        .bind(protection.to_string())
        .execute(&mut *connection)
        .await?;
    sqlx::query("DELETE FROM protections WHERE id = $1")
        .bind(protection.to_string())
        .execute(&mut *connection)
        .await?;
    let deed = audit::Deed {
        actor: actor.to_owned(),
        action: "protection end",
        subject: machine_name.to_owned(),
        detail,
    };
    audit::write(connection, deed, now).await
}

/// A generation that is greater than any that the machine had, even if this
/// database was lost in between: seconds since 1970, or one more than the last.
pub(super) async fn next_generation(
    connection: &mut SqliteConnection,
    machine: MachineUuid,
    now: OffsetDateTime,
) -> Result<i64> {
    let last: Option<(i64,)> =
        sqlx::query_as("SELECT generation FROM generations WHERE machine_uuid = $1")
            .bind(machine.to_string())
            .fetch_optional(&mut *connection)
            .await?;
    let next = now.unix_timestamp().max(1).max(last.map_or(0, |(last,)| last + 1));
    sqlx::query(
        "INSERT INTO generations (machine_uuid, generation) VALUES ($1, $2)
         ON CONFLICT (machine_uuid) DO UPDATE SET generation = excluded.generation",
    )
    .bind(machine.to_string())
    .bind(next)
    .execute(connection)
    .await?;
    Ok(next)
}
