//! Machines, networks and pools: for each host, exactly what it last reported.

use domain::id::{HostId, MachineId, MachineUuid, NetworkId, PoolId};
use domain::machine::Machine;
use domain::network::VirtualNetwork;
use domain::protectability;
use domain::storage::StoragePool;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::{FromRow, SqliteConnection};
use time::OffsetDateTime;
use uuid::Uuid;
use wire::inventory as sent;

use super::{Database, Result, microseconds, nonsense, time_of, uuid_of};

/// A stored document, with the host that reported it.
#[derive(Debug, FromRow)]
pub struct ItemRow {
    id: String,
    document: String,
    host_id: String,
    host_name: String,
    site_id: String,
    site_name: String,
    last_heard_us: Option<i64>,
    inventory_seen_us: Option<i64>,
    hypervisor_lost_us: Option<i64>,
    revoked: bool,
}

/// Which items are wanted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter {
    /// Only of this site.
    pub site: Option<Uuid>,
    /// Only of this host.
    pub host: Option<Uuid>,
}

/// Where an item is and how fresh it is; the part that all views share.
struct Place {
    id: Uuid,
    host: api::Reference,
    site: api::Reference,
    current: bool,
    seen: OffsetDateTime,
}

macro_rules! items_query {
    ($table:literal) => {
        concat!(
            "SELECT i.id, i.document, h.id AS host_id, h.name AS host_name,
                    s.id AS site_id, s.name AS site_name, h.last_heard_us, h.inventory_seen_us,
                    h.hypervisor_lost_us, h.revoked_us IS NOT NULL AS revoked
             FROM ",
            $table,
            " i JOIN hosts h ON h.id = i.host_id JOIN sites s ON s.id = h.site_id
             WHERE ($1 IS NULL OR s.id = $1) AND ($2 IS NULL OR h.id = $2)
             ORDER BY i.name, s.name, h.name"
        )
    };
}

macro_rules! replace_queries {
    ($table:literal) => {
        Queries {
            existing: concat!("SELECT id, document FROM ", $table, " WHERE host_id = $1"),
            upsert: concat!(
                "INSERT INTO ",
                $table,
                " (id, host_id, name, format, document) VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (id) DO UPDATE SET
                     name = excluded.name, format = excluded.format, document = excluded.document"
            ),
            delete: concat!("DELETE FROM ", $table, " WHERE id = $1"),
        }
    };
}

struct Queries {
    existing: &'static str,
    upsert: &'static str,
    delete: &'static str,
}

/// Gives protections the names that their machines have now.
async fn rename_protected(
    connection: &mut SqliteConnection,
    host: HostId,
    machines: &[sent::Machine],
) -> Result<bool> {
    let known: Vec<(String, String, String)> = sqlx::query_as(
        "SELECT id, machine_uuid, machine_name FROM protections WHERE source_host_id = $1",
    )
    .bind(host.to_string())
    .fetch_all(&mut *connection)
    .await?;
    let mut renamed = false;
    for (protection, uuid, before) in known {
        let now = machines.iter().find(|machine| machine.uuid.to_string() == uuid);
        let Some(now) = now.filter(|machine| machine.name != before) else { continue };
        sqlx::query("UPDATE protections SET machine_name = $2 WHERE id = $1")
            .bind(protection)
            .bind(&now.name)
            .execute(&mut *connection)
            .await?;
        renamed = true;
    }
    Ok(renamed)
}

impl Database {
    /// Takes a whole inventory as the truth about a host: what it names is
    /// there afterwards, and nothing else. Writes only what changed. A protected
    /// machine that was renamed is protected under its new name from then on;
    /// tells whether one was.
    ///
    /// # Errors
    /// When the database fails; the former inventory then still stands.
    pub async fn apply_inventory(
        &self,
        host: HostId,
        inventory: sent::Inventory,
        now: OffsetDateTime,
    ) -> Result<bool> {
        let mut transaction = self.begin().await?;
        let renamed = rename_protected(&mut transaction, host, &inventory.machines).await?;
        let machines = inventory.machines.into_iter().map(|machine| {
            let id = MachineId::on_host(host, MachineUuid::new(machine.uuid)).uuid();
            (id, machine.name.clone(), machine)
        });
        replace(&mut transaction, replace_queries!("machines"), host, machines).await?;
        let networks = inventory.networks.into_iter().map(|network| {
            (NetworkId::on_host(host, network.uuid).uuid(), network.name.clone(), network)
        });
        replace(&mut transaction, replace_queries!("networks"), host, networks).await?;
        let pools = inventory
            .pools
            .into_iter()
            .map(|pool| (PoolId::on_host(host, pool.uuid).uuid(), pool.name.clone(), pool));
        replace(&mut transaction, replace_queries!("pools"), host, pools).await?;
        let facts = serde_json::to_string(&inventory.facts).expect("facts are plain");
        sqlx::query(
            "UPDATE hosts SET format = $2, facts = $3, inventory_seen_us = $4, last_heard_us = $4,
                    hypervisor_lost_us = NULL, hypervisor_lost_reason = NULL WHERE id = $1",
        )
        .bind(host.to_string())
        .bind(sent::FORMAT)
        .bind(facts)
        .bind(microseconds(now))
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(renamed)
    }

    /// Machines, by name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn machines(
        &self,
        filter: Filter,
        connected: impl Fn(HostId) -> bool,
    ) -> Result<Vec<api::machine::Machine>> {
        let rows = self.items(items_query!("machines"), filter).await?;
        rows.into_iter()
            .map(|row| {
                let place = row.place(&connected)?;
                let machine = Machine::from(row.read::<sent::Machine>("a machine")?);
                let protectability = protectability::judge(&machine).into();
                Ok(api::machine::Machine {
                    id: place.id,
                    uuid: machine.uuid.uuid(),
                    name: machine.name,
                    host: place.host,
                    site: place.site,
                    power: machine.power.into(),
                    current: place.current,
                    seen: place.seen,
                    persistent: machine.persistent,
                    autostart: machine.autostart,
                    firmware: machine.firmware.into(),
                    tpm: machine.has_tpm,
                    vcpus: machine.vcpus,
                    memory_bytes: machine.memory.bytes(),
                    disks: machine.disks.into_iter().map(Into::into).collect(),
                    nics: machine.nics.into_iter().map(Into::into).collect(),
                    guest_agent: machine.guest_agent.into(),
                    protectability,
                })
            })
            .collect()
    }

    /// A machine as its host last saw it, and that host.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn machine_at(&self, id: MachineId) -> Result<Option<(Machine, HostId)>> {
        let row: Option<(String, String)> =
            sqlx::query_as("SELECT document, host_id FROM machines WHERE id = $1")
                .bind(id.to_string())
                .fetch_optional(&self.readers)
                .await?;
        row.map(|(document, host)| Ok((read_machine(&document)?, HostId::new(uuid_of(&host)?))))
            .transpose()
    }

    /// The machines of a host as it last saw them.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn machines_at(&self, host: HostId) -> Result<Vec<Machine>> {
        let rows: Vec<(String,)> =
            sqlx::query_as("SELECT document FROM machines WHERE host_id = $1")
                .bind(host.to_string())
                .fetch_all(&self.readers)
                .await?;
        rows.into_iter().map(|(document,)| read_machine(&document)).collect()
    }

    /// Virtual networks, by name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn networks(
        &self,
        filter: Filter,
        connected: impl Fn(HostId) -> bool,
    ) -> Result<Vec<api::network::Network>> {
        let rows = self.items(items_query!("networks"), filter).await?;
        rows.into_iter()
            .map(|row| {
                let place = row.place(&connected)?;
                let network = VirtualNetwork::from(row.read::<sent::Network>("a network")?);
                Ok(api::network::Network {
                    id: place.id,
                    uuid: network.uuid,
                    name: network.name,
                    host: place.host,
                    site: place.site,
                    current: place.current,
                    seen: place.seen,
                    active: network.active,
                    autostart: network.autostart,
                    isolation: network.isolation.into(),
                    reach: api::network::reach_word(&network.reach),
                    bridge: network.bridge,
                    subnets: network.subnets.into_iter().map(Into::into).collect(),
                })
            })
            .collect()
    }

    /// Storage pools, by name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn pools(
        &self,
        filter: Filter,
        connected: impl Fn(HostId) -> bool,
    ) -> Result<Vec<api::pool::Pool>> {
        let rows = self.items(items_query!("pools"), filter).await?;
        rows.into_iter()
            .map(|row| {
                let place = row.place(&connected)?;
                let pool = StoragePool::from(row.read::<sent::Pool>("a storage pool")?);
                Ok(api::pool::Pool {
                    id: place.id,
                    uuid: pool.uuid,
                    name: pool.name,
                    host: place.host,
                    site: place.site,
                    current: place.current,
                    seen: place.seen,
                    kind: pool.kind,
                    active: pool.active,
                    autostart: pool.autostart,
                    path: pool.path,
                    capacity_bytes: pool.capacity.bytes(),
                    available_bytes: pool.available.bytes(),
                })
            })
            .collect()
    }

    async fn items(&self, query: &'static str, filter: Filter) -> Result<Vec<ItemRow>> {
        Ok(sqlx::query_as(query)
            .bind(filter.site.map(|id| id.to_string()))
            .bind(filter.host.map(|id| id.to_string()))
            .fetch_all(&self.readers)
            .await?)
    }
}

impl ItemRow {
    fn place(&self, connected: impl Fn(HostId) -> bool) -> Result<Place> {
        let host = uuid_of(&self.host_id)?;
        let current =
            !self.revoked && self.hypervisor_lost_us.is_none() && connected(HostId::new(host));
        // While its agent is connected and says nothing else, nothing changed.
        let seen = match (self.hypervisor_lost_us, self.last_heard_us, self.inventory_seen_us) {
            (Some(lost), _, _) => lost,
            (None, Some(heard), _) => heard,
            (None, None, seen) => seen.unwrap_or_default(),
        };
        Ok(Place {
            id: uuid_of(&self.id)?,
            host: api::Reference { id: host, name: self.host_name.clone() },
            site: api::Reference { id: uuid_of(&self.site_id)?, name: self.site_name.clone() },
            current,
            seen: time_of(seen)?,
        })
    }

    fn read<T: DeserializeOwned>(&self, what: &'static str) -> Result<T> {
        serde_json::from_str(&self.document).map_err(|error| nonsense(what, &error))
    }
}

fn read_machine(document: &str) -> Result<Machine> {
    let machine: sent::Machine =
        serde_json::from_str(document).map_err(|error| nonsense("a machine", &error))?;
    Ok(machine.into())
}

/// Makes a host's rows of one table exactly these.
async fn replace<T: Serialize>(
    connection: &mut SqliteConnection,
    queries: Queries,
    host: HostId,
    items: impl Iterator<Item = (Uuid, String, T)>,
) -> Result<()> {
    let existing: Vec<(String, String)> =
        sqlx::query_as(queries.existing).bind(host.to_string()).fetch_all(&mut *connection).await?;
    let mut existing: std::collections::HashMap<String, String> = existing.into_iter().collect();
    for (id, name, item) in items {
        let document = serde_json::to_string(&item).expect("documents are plain");
        let id = id.to_string();
        if existing.remove(&id).as_ref() == Some(&document) {
            continue;
        }
        sqlx::query(queries.upsert)
            .bind(id)
            .bind(host.to_string())
            .bind(name)
            .bind(sent::FORMAT)
            .bind(document)
            .execute(&mut *connection)
            .await?;
    }
    for gone in existing.into_keys() {
        sqlx::query(queries.delete).bind(gone).execute(&mut *connection).await?;
    }
    Ok(())
}
