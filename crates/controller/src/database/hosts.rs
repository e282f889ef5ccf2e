//! Hosts: enrolment, certificates, what is known of them.

use domain::host::{HostFacts, HostOperation, Hypervisor, Reachability, permit};
use domain::id::{HostId, TokenId};
use domain::name::Name;
use domain::protection::Side;
use domain::token::{EnrolmentRefusal, EnrolmentToken, Secret, judge_enrolment};
use sqlx::FromRow;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;
use wire::inventory as sent;
use wire::message::{PROTOCOL_LOANS, PROTOCOL_REPLICATION};

use super::lookup::{LookupError, Noun};
use super::{
    Database, DatabaseError, Result, audit, count, microseconds, nonsense, optional_time, time_of,
    tokens, uuid_of,
};
use crate::authority::Issued;

/// A stored host.
#[derive(Debug, FromRow)]
pub struct HostRow {
    id: String,
    name: String,
    site_id: String,
    site_name: String,
    cloud_id: Option<String>,
    cloud_name: Option<String>,
    enrolled_us: i64,
    last_heard_us: Option<i64>,
    revoked_us: Option<i64>,
    certificate_expires_us: i64,
    agent_version: Option<String>,
    facts: Option<String>,
    inventory_seen_us: Option<i64>,
    hypervisor_lost_us: Option<i64>,
    hypervisor_lost_reason: Option<String>,
    peer_address: Option<String>,
    protocol: Option<u16>,
    machines: u32,
}

/// How a certificate stands with the host that it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// The host is unknown: it was removed.
    Unknown,
    /// The host was revoked.
    Revoked,
    /// Another certificate has taken this one's place.
    Replaced,
    /// It is good.
    Good {
        /// The host's name.
        name: String,
        /// The name of its site.
        site: String,
    },
}

/// How an enrolment ended.
#[derive(Debug)]
pub enum Enrolment {
    /// The agent is a host now.
    Done {
        /// The host's name.
        name: Name,
        /// The name of its site.
        site: String,
        /// Its certificate.
        issued: Issued,
    },
    /// The token is no good.
    Refused(EnrolmentRefusal),
    /// The host that the agent was is known here, and not under that name.
    FormerTaken {
        /// Its name.
        name: String,
    },
    /// The site has a host of that name.
    NameTaken {
        /// The name of the site.
        site: String,
    },
}

/// What an agent says of itself when it connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Greeting<'a> {
    /// Version of Lifeboat that it is.
    pub version: &'a str,
    /// Version of the protocol that is spoken.
    pub protocol: u16,
    /// Where it takes data from others, `HOST:PORT`.
    pub peer_address: Option<&'a str>,
}

/// What an enrolment asks for.
#[derive(Debug)]
pub struct Candidate<'a> {
    /// The id that the host gets, unless it replaces another.
    pub host: HostId,
    /// Whether that is the one that it had at a controller that is lost.
    pub inherits: bool,
    /// The name that it gets, unless it replaces another.
    pub name: Name,
    /// The token.
    pub token: TokenId,
    /// Proof of the token.
    pub secret: &'a Secret,
    /// What the host is.
    pub facts: sent::HostFacts,
    /// For the audit log.
    pub address: String,
}

impl HostRow {
    /// The host's id.
    ///
    /// # Errors
    /// When the row makes no sense.
    pub fn id(&self) -> Result<HostId> {
        Ok(HostId::new(uuid_of(&self.id)?))
    }

    /// The id of the host's site.
    ///
    /// # Errors
    /// When the row makes no sense.
    pub fn site(&self) -> Result<api::Reference> {
        Ok(api::Reference { id: uuid_of(&self.site_id)?, name: self.site_name.clone() })
    }

    /// Whether the host can be reached, when its agent is connected since then
    /// or not at all.
    ///
    /// # Errors
    /// When the row makes no sense.
    pub fn reachability(&self, connected: Option<OffsetDateTime>) -> Result<Reachability> {
        if let Some(revoked) = self.revoked_us {
            return Ok(Reachability::Revoked { since: time_of(revoked)? });
        }
        match (connected, self.last_heard_us) {
            (Some(since), _) => Ok(Reachability::Connected { since }),
            (None, Some(heard)) => Ok(Reachability::NotReachable { since: time_of(heard)? }),
            (None, None) => Ok(Reachability::Enrolled { since: time_of(self.enrolled_us)? }),
        }
    }

    /// The host as a side of a protection, when its agent is connected since
    /// then or not at all.
    ///
    /// # Errors
    /// When the row makes no sense.
    pub fn side(
        &self,
        connected: Option<OffsetDateTime>,
        clock_ahead: Option<Duration>,
    ) -> Result<Side> {
        Ok(Side {
            name: self.name.clone(),
            reachability: self.reachability(connected)?,
            replicates: self.protocol.is_some_and(|version| version >= PROTOCOL_REPLICATION),
            has_address: self.peer_address.is_some(),
            clock_ahead,
        })
    }

    /// Whether its agent knows of points that one host lends another.
    #[must_use]
    pub fn knows_loans(&self) -> bool {
        self.protocol.is_some_and(|version| version >= PROTOCOL_LOANS)
    }

    /// The host by its id and name.
    ///
    /// # Errors
    /// When the row makes no sense.
    pub fn reference(&self) -> Result<api::Reference> {
        Ok(api::Reference { id: uuid_of(&self.id)?, name: self.name.clone() })
    }

    /// The id of the host's cloud, if it is in one.
    #[must_use]
    pub fn cloud_id(&self) -> Option<&str> {
        self.cloud_id.as_deref()
    }

    /// Whether its certificate is refused for good.
    #[must_use]
    pub const fn is_revoked(&self) -> bool {
        self.revoked_us.is_some()
    }

    /// Where its agent takes data from others.
    #[must_use]
    pub fn peer_address(&self) -> Option<&str> {
        self.peer_address.as_deref()
    }

    fn hypervisor(&self) -> Result<Hypervisor> {
        match self.hypervisor_lost_us {
            None => Ok(Hypervisor::Answering),
            Some(since) => Ok(Hypervisor::NotAnswering {
                since: time_of(since)?,
                reason: self.hypervisor_lost_reason.clone().unwrap_or_default(),
            }),
        }
    }

    /// The view of the host, whose agent is connected since then or not at all.
    ///
    /// # Errors
    /// When the row makes no sense.
    pub fn view(self, connected: Option<OffsetDateTime>) -> Result<api::host::Host> {
        let reachability = self.reachability(connected)?;
        let operations = HostOperation::ALL
            .into_iter()
            .map(|operation| api::Operation {
                name: api::host::HostOperation::from(operation).to_string(),
                refused: permit(operation, &reachability).err().map(|refusal| api::Reason {
                    reason: refusal.reason.to_owned(),
                    advice: refusal.advice.to_owned(),
                }),
            })
            .collect();
        let facts = self
            .facts
            .as_deref()
            .map(serde_json::from_str::<sent::HostFacts>)
            .transpose()
            .map_err(|error| nonsense("the facts of a host", &error))?
            .map(HostFacts::from);
        let cloud = match (&self.cloud_id, &self.cloud_name) {
            (Some(id), Some(name)) => Some(api::Reference { id: uuid_of(id)?, name: name.clone() }),
            _ => None,
        };
        Ok(api::host::Host {
            id: self.id()?.uuid(),
            site: self.site()?,
            cloud,
            reachability: reachability.into(),
            hypervisor: self.hypervisor()?.into(),
            agent_version: self.agent_version,
            facts: facts.map(Into::into),
            inventory_seen: optional_time(self.inventory_seen_us)?,
            certificate_expires: time_of(self.certificate_expires_us)?,
            machines: self.machines,
            peer_address: self.peer_address,
            operations,
            name: self.name,
        })
    }
}

impl Database {
    /// All hosts, by site and name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn hosts(&self) -> Result<Vec<HostRow>> {
        Ok(sqlx::query_as(
            "SELECT h.id, h.name, s.id AS site_id, s.name AS site_name,
                    c.id AS cloud_id, c.name AS cloud_name,
                    h.enrolled_us, h.last_heard_us, h.revoked_us, h.certificate_expires_us,
                    h.agent_version, h.facts, h.inventory_seen_us,
                    h.hypervisor_lost_us, h.hypervisor_lost_reason, h.peer_address, h.protocol,
                    (SELECT COUNT(*) FROM machines m WHERE m.host_id = h.id) AS machines
             FROM hosts h JOIN sites s ON s.id = h.site_id LEFT JOIN clouds c ON c.id = h.cloud_id
             ORDER BY s.name, h.name",
        )
        .fetch_all(&self.readers)
        .await?)
    }

    /// The host of this name or id.
    ///
    /// # Errors
    /// When there is not exactly one, or the database fails.
    pub async fn host(&self, reference: &str) -> Result<HostRow> {
        let id = self.find(Noun::Host, reference).await?.to_string();
        self.hosts().await?.into_iter().find(|host| host.id == id).ok_or_else(|| {
            LookupError::NotFound { noun: Noun::Host, reference: reference.to_owned() }.into()
        })
    }

    /// Makes an agent a host, if its token is good: in one transaction the
    /// token is used, the host is there, and its certificate counts.
    ///
    /// A host that was enrolled and never connected may be enrolled again
    /// under its name: its agent did not live to keep its certificate.
    ///
    /// # Errors
    /// When `issue` fails, or the database does; the token is then unused.
    pub async fn enrol<E: From<DatabaseError>>(
        &self,
        candidate: Candidate<'_>,
        now: OffsetDateTime,
        issue: impl FnOnce(HostId) -> Result<Issued, E>,
    ) -> Result<Enrolment, E> {
        let failed = |error: sqlx::Error| E::from(error.into());
        let mut transaction = self.begin().await?;
        let token =
            tokens::enrolment_token(&mut transaction, candidate.token, candidate.secret).await?;
        let Some(token) = token else { return Ok(Enrolment::Refused(EnrolmentRefusal::Unknown)) };
        if let Err(refusal) = judge_enrolment(&token, now) {
            return Ok(Enrolment::Refused(refusal));
        }
        let (site,): (String,) = sqlx::query_as("SELECT name FROM sites WHERE id = $1")
            .bind(token.site.to_string())
            .fetch_one(&mut *transaction)
            .await
            .map_err(failed)?;
        let existing = existing_host(&mut transaction, &token, &candidate.name).await?;
        let replaces_itself =
            matches!(&existing, Existing::MayBeReplaced { host, .. } if *host == candidate.host);
        let (host, name) = match existing {
            Existing::None => (candidate.host, candidate.name),
            Existing::MayBeReplaced { host, name } => (host, name),
            Existing::InTheWay => return Ok(Enrolment::NameTaken { site }),
        };
        // Nobody becomes another host by saying that they were it.
        if candidate.inherits && !replaces_itself {
            let known = name_of(&mut transaction, candidate.host).await.map_err(failed)?;
            if let Some(name) = known {
                return Ok(Enrolment::FormerTaken { name });
            }
        }
        let issued = issue(host)?;
        let facts = serde_json::to_string(&candidate.facts).expect("facts are plain");
        sqlx::query(
            "INSERT INTO hosts (id, site_id, cloud_id, name, enrolled_us, certificate_serial,
                                certificate_expires_us, format, facts, inherits)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
             ON CONFLICT (id) DO UPDATE SET
                 cloud_id = COALESCE(excluded.cloud_id, hosts.cloud_id),
                 enrolled_us = excluded.enrolled_us, revoked_us = NULL,
                 certificate_serial = excluded.certificate_serial, previous_serial = NULL,
                 certificate_expires_us = excluded.certificate_expires_us,
                 format = excluded.format, facts = excluded.facts,
                 inherits = excluded.inherits, heritage_told = FALSE",
        )
        .bind(host.to_string())
        .bind(token.site.to_string())
        .bind(token.cloud.map(|cloud| cloud.to_string()))
        .bind(name.as_str())
        .bind(microseconds(now))
        .bind(&issued.serial)
        .bind(microseconds(issued.expires))
        .bind(sent::FORMAT)
        .bind(facts)
        .bind(candidate.inherits)
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
        tokens::use_enrolment_token(&mut transaction, token.id, now).await?;
        let deed = audit::Deed {
            actor: format!("host {name}"),
            action: "host enrol",
            subject: format!("{site}/{name}"),
            detail: format!("from {}, token {}", candidate.address, token.id),
        };
        audit::write(&mut transaction, deed, now).await?;
        transaction.commit().await.map_err(failed)?;
        Ok(Enrolment::Done { name, site, issued })
    }

    /// How a certificate stands. Showing a renewed one ends the previous one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn standing(&self, host: HostId, serial: &str) -> Result<Standing> {
        type Row = (String, String, Option<i64>, String, Option<String>);
        let row: Option<Row> = sqlx::query_as(
            "SELECT h.name, s.name, h.revoked_us, h.certificate_serial, h.previous_serial
             FROM hosts h JOIN sites s ON s.id = h.site_id WHERE h.id = $1",
        )
        .bind(host.to_string())
        .fetch_optional(&self.readers)
        .await?;
        let Some((name, site, revoked, current, previous)) = row else {
            return Ok(Standing::Unknown);
        };
        if revoked.is_some() {
            return Ok(Standing::Revoked);
        }
        if serial == current {
            if previous.is_some() {
                sqlx::query("UPDATE hosts SET previous_serial = NULL WHERE id = $1 AND certificate_serial = $2")
                    .bind(host.to_string())
                    .bind(serial)
                    .execute(&self.writer)
                    .await?;
            }
            return Ok(Standing::Good { name, site });
        }
        if previous.as_deref() == Some(serial) {
            return Ok(Standing::Good { name, site });
        }
        Ok(Standing::Replaced)
    }

    /// Keeps that a host was given a new certificate; the one that it showed
    /// stays good until it shows the new one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn renewed(&self, host: HostId, shown: &str, issued: &Issued) -> Result<()> {
        sqlx::query("UPDATE hosts SET previous_serial = $2, certificate_serial = $3, certificate_expires_us = $4 WHERE id = $1")
            .bind(host.to_string())
            .bind(shown)
            .bind(&issued.serial)
            .bind(microseconds(issued.expires))
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    /// Keeps that a host's agent said hello. Tells whether others need to know:
    /// where it takes data has changed.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn greeted(
        &self,
        host: HostId,
        greeting: Greeting<'_>,
        now: OffsetDateTime,
    ) -> Result<bool> {
        let mut transaction = self.begin().await?;
        let before: Option<Option<String>> =
            sqlx::query_scalar("SELECT peer_address FROM hosts WHERE id = $1")
                .bind(host.to_string())
                .fetch_optional(&mut *transaction)
                .await?;
        sqlx::query(
            "UPDATE hosts SET agent_version = $2, last_heard_us = $3, protocol = $4,
                    peer_address = $5 WHERE id = $1",
        )
        .bind(host.to_string())
        .bind(greeting.version)
        .bind(microseconds(now))
        .bind(greeting.protocol)
        .bind(greeting.peer_address)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(before.flatten().as_deref() != greeting.peer_address)
    }

    /// Keeps when a host was last heard.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn heard(&self, host: HostId, at: OffsetDateTime) -> Result<()> {
        sqlx::query(
            "UPDATE hosts SET last_heard_us = $2 WHERE id = $1 AND COALESCE(last_heard_us, 0) < $2",
        )
        .bind(host.to_string())
        .bind(microseconds(at))
        .execute(&self.writer)
        .await?;
        Ok(())
    }

    /// Keeps that a host's hypervisor does not answer.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn hypervisor_lost(
        &self,
        host: HostId,
        since: OffsetDateTime,
        reason: &str,
    ) -> Result<()> {
        sqlx::query(
            "UPDATE hosts SET hypervisor_lost_us = $2, hypervisor_lost_reason = $3 WHERE id = $1",
        )
        .bind(host.to_string())
        .bind(microseconds(since))
        .bind(reason)
        .execute(&self.writer)
        .await?;
        Ok(())
    }

    /// Puts a host into a cloud of its site, or out of any.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn move_host(
        &self,
        host: &api::host::Host,
        cloud: Option<&api::Reference>,
        actor: &str,
        now: OffsetDateTime,
    ) -> Result<()> {
        let mut transaction = self.begin().await?;
        sqlx::query("UPDATE hosts SET cloud_id = $2 WHERE id = $1")
            .bind(host.id.to_string())
            .bind(cloud.map(|cloud| cloud.id.to_string()))
            .execute(&mut *transaction)
            .await?;
        let detail = cloud
            .map_or_else(|| "out of any cloud".to_owned(), |cloud| format!("into {}", cloud.name));
        audit::write(&mut transaction, deed("host move", host, actor, detail), now).await?;
        Ok(transaction.commit().await?)
    }

    /// Refuses a host's certificate from now on. Durable on return.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn revoke_host(
        &self,
        host: &api::host::Host,
        actor: &str,
        now: OffsetDateTime,
    ) -> Result<()> {
        let mut transaction = self.begin().await?;
        sqlx::query("UPDATE hosts SET revoked_us = $2 WHERE id = $1 AND revoked_us IS NULL")
            .bind(host.id.to_string())
            .bind(microseconds(now))
            .execute(&mut *transaction)
            .await?;
        audit::write(&mut transaction, deed("host revoke", host, actor, String::new()), now)
            .await?;
        Ok(transaction.commit().await?)
    }

    /// Forgets a host and its inventory.
    ///
    /// # Errors
    /// When a protection needs it, or the database fails.
    pub async fn remove_host(
        &self,
        host: &api::host::Host,
        actor: &str,
        now: OffsetDateTime,
    ) -> Result<()> {
        let mut transaction = self.begin().await?;
        let protections = count(
            &mut transaction,
            "SELECT COUNT(*) FROM protections
             WHERE source_host_id = $1 OR target_host_id = $1 OR compute_host_id = $1
                OR former_hosts LIKE '%' || $1 || '%'",
            host.id,
        )
        .await?;
        if protections > 0 {
            return Err(DatabaseError::StillInUse(format!("{protections} protections")));
        }
        sqlx::query("DELETE FROM hosts WHERE id = $1")
            .bind(host.id.to_string())
            .execute(&mut *transaction)
            .await?;
        let detail = format!("with {} machines as last known", host.machines);
        audit::write(&mut transaction, deed("host remove", host, actor, detail), now).await?;
        Ok(transaction.commit().await?)
    }
}

fn deed(action: &'static str, host: &api::host::Host, actor: &str, detail: String) -> audit::Deed {
    audit::Deed {
        actor: actor.to_owned(),
        action,
        subject: format!("{}/{}", host.site.name, host.name),
        detail,
    }
}

/// What stands under the name that a candidate wants.
enum Existing {
    None,
    MayBeReplaced { host: HostId, name: Name },
    InTheWay,
}

async fn existing_host(
    connection: &mut sqlx::SqliteConnection,
    token: &EnrolmentToken,
    name: &Name,
) -> Result<Existing> {
    let row: Option<(String, String, Option<i64>)> = match token.replaces {
        Some(host) => {
            sqlx::query_as("SELECT id, name, last_heard_us FROM hosts WHERE id = $1")
                .bind(host.to_string())
                .fetch_optional(connection)
                .await?
        }
        None => {
            sqlx::query_as(
                "SELECT id, name, last_heard_us FROM hosts WHERE site_id = $1 AND name = $2",
            )
            .bind(token.site.to_string())
            .bind(name.as_str())
            .fetch_optional(connection)
            .await?
        }
    };
    let Some((id, name, heard)) = row else { return Ok(Existing::None) };
    if token.replaces.is_none() && heard.is_some() {
        return Ok(Existing::InTheWay);
    }
    let name = name.parse().map_err(|error| nonsense("the name of a host", &error))?;
    Ok(Existing::MayBeReplaced { host: HostId::new(uuid_of(&id)?), name })
}

/// The name of the host of this id.
async fn name_of(
    connection: &mut sqlx::SqliteConnection,
    host: HostId,
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT name FROM hosts WHERE id = $1")
        .bind(host.to_string())
        .fetch_optional(connection)
        .await
}

/// Ids for what is made here, drawn by the caller's side of the API.
#[must_use]
pub fn new_id() -> Uuid {
    Uuid::now_v7()
}
