//! Finding the one thing that an operator means by a name or an id.
//!
//! A name may stand alone when only one thing has it, or be qualified by what
//! it belongs to: `site/cloud`, `site/host`, `host/machine`, `site/host/machine`.

use domain::id::{HostId, MachineId, MachineUuid};
use sqlx::SqliteConnection;
use uuid::Uuid;

use super::{Result, uuid_of};

/// Nouns that can be looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noun {
    /// A site.
    Site,
    /// A cloud, `SITE/CLOUD`.
    Cloud,
    /// A host, `SITE/HOST`.
    Host,
    /// A machine, `HOST/MACHINE` or `SITE/HOST/MACHINE`.
    Machine,
    /// A network, as a machine.
    Network,
    /// A pool, as a machine.
    Pool,
    /// A policy.
    Policy,
    /// A protection, by its machine: as that, or by its UUID.
    Protection,
    /// A verification, by its id.
    Verification,
}

/// There is not exactly one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// Nothing has that name or id.
    #[error("there is no {} {reference}", .noun.word())]
    NotFound {
        /// What was looked for.
        noun: Noun,
        /// By what.
        reference: String,
    },
    /// Several have that name.
    #[error("{} {}s have the name {reference}: {}", .candidates.len(), .noun.word(), .candidates.join(", "))]
    Ambiguous {
        /// What was looked for.
        noun: Noun,
        /// By what.
        reference: String,
        /// The qualified names of what was found.
        candidates: Vec<String>,
    },
}

impl Noun {
    /// The word for one.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Site => "site",
            Self::Cloud => "cloud",
            Self::Host => "host",
            Self::Machine => "machine",
            Self::Network => "network",
            Self::Pool => "pool",
            Self::Policy => "policy",
            Self::Protection => "protected machine",
            Self::Verification => "verification",
        }
    }

    /// The command that shows what there is.
    #[must_use]
    pub const fn listing(self) -> &'static str {
        match self {
            Self::Site => "lifeboat site list",
            Self::Cloud => "lifeboat cloud list",
            Self::Host => "lifeboat host list",
            Self::Machine => "lifeboat machine list",
            Self::Network => "lifeboat network list",
            Self::Pool => "lifeboat pool list",
            Self::Policy => "lifeboat policy list",
            Self::Protection | Self::Verification => "lifeboat protected list",
        }
    }

    const fn query(self) -> &'static str {
        match self {
            Self::Site => "SELECT id, name FROM sites WHERE id = $1 OR name = $1",
            Self::Cloud => {
                "SELECT c.id, s.name || '/' || c.name FROM clouds c JOIN sites s ON s.id = c.site_id
                 WHERE c.id = $1 OR c.name = $1 OR s.name || '/' || c.name = $1"
            }
            Self::Host => {
                "SELECT h.id, s.name || '/' || h.name FROM hosts h JOIN sites s ON s.id = h.site_id
                 WHERE h.id = $1 OR h.name = $1 OR s.name || '/' || h.name = $1"
            }
            Self::Machine => {
                "SELECT m.id, s.name || '/' || h.name || '/' || m.name
                 FROM machines m JOIN hosts h ON h.id = m.host_id JOIN sites s ON s.id = h.site_id
                 WHERE m.id = $1 OR m.name = $1 OR h.name || '/' || m.name = $1
                    OR s.name || '/' || h.name || '/' || m.name = $1"
            }
            Self::Network => {
                "SELECT n.id, s.name || '/' || h.name || '/' || n.name
                 FROM networks n JOIN hosts h ON h.id = n.host_id JOIN sites s ON s.id = h.site_id
                 WHERE n.id = $1 OR n.name = $1 OR h.name || '/' || n.name = $1
                    OR s.name || '/' || h.name || '/' || n.name = $1"
            }
            Self::Policy => "SELECT id, name FROM policies WHERE id = $1 OR name = $1",
            Self::Protection => {
                "SELECT p.id, s.name || '/' || h.name || '/' || p.machine_name
                 FROM protections p JOIN hosts h ON h.id = p.source_host_id
                 JOIN sites s ON s.id = h.site_id
                 WHERE p.id = $1 OR p.machine_uuid = $1 OR p.machine_name = $1
                    OR h.name || '/' || p.machine_name = $1
                    OR s.name || '/' || h.name || '/' || p.machine_name = $1"
            }
            Self::Verification => "SELECT wish, wish FROM verifications WHERE wish = $1",
            Self::Pool => {
                "SELECT p.id, s.name || '/' || h.name || '/' || p.name
                 FROM pools p JOIN hosts h ON h.id = p.host_id JOIN sites s ON s.id = h.site_id
                 WHERE p.id = $1 OR p.name = $1 OR h.name || '/' || p.name = $1
                    OR s.name || '/' || h.name || '/' || p.name = $1"
            }
        }
    }
}

/// The id of the one thing that has this name or id.
pub(super) async fn find(
    connection: &mut SqliteConnection,
    noun: Noun,
    reference: &str,
) -> Result<Uuid> {
    let mut found: Vec<(String, String)> =
        sqlx::query_as(noun.query()).bind(reference).fetch_all(&mut *connection).await?;
    if found.is_empty() && noun == Noun::Machine {
        found = machines_of_uuid(connection, reference).await?;
    }
    match found.as_mut_slice() {
        [] => Err(LookupError::NotFound { noun, reference: reference.to_owned() }.into()),
        [(id, _)] => uuid_of(id),
        several => {
            several.sort_by(|one, other| one.1.cmp(&other.1));
            let candidates = several.iter().map(|(_, name)| name.clone()).collect();
            Err(LookupError::Ambiguous { noun, reference: reference.to_owned(), candidates }.into())
        }
    }
}

/// The machines with this UUID of the hypervisor's, on whichever host: their
/// ids follow from it.
async fn machines_of_uuid(
    connection: &mut SqliteConnection,
    reference: &str,
) -> Result<Vec<(String, String)>> {
    let Ok(uuid) = reference.parse::<MachineUuid>() else { return Ok(vec![]) };
    let hosts: Vec<(String,)> =
        sqlx::query_as("SELECT id FROM hosts").fetch_all(&mut *connection).await?;
    let mut found = Vec::new();
    for (host,) in hosts {
        let id = MachineId::on_host(HostId::new(uuid_of(&host)?), uuid).to_string();
        let on_host: Option<(String, String)> =
            sqlx::query_as(Noun::Machine.query()).bind(id).fetch_optional(&mut *connection).await?;
        found.extend(on_host);
    }
    Ok(found)
}
