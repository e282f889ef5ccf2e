//! Finding the one thing that an operator means by a name or an id.
//!
//! A name may stand alone when only one thing has it, or be qualified by what
//! it belongs to: `site/cloud`, `site/host`, `host/machine`, `site/host/machine`.

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
        sqlx::query_as(noun.query()).bind(reference).fetch_all(connection).await?;
    match found.as_mut_slice() {
        [] => Err(LookupError::NotFound { noun, reference: reference.to_owned() }.into()),
        [(id, _)] => uuid_of(id),
        several => {
            several.sort();
            let candidates = several.iter().map(|(_, name)| name.clone()).collect();
            Err(LookupError::Ambiguous { noun, reference: reference.to_owned(), candidates }.into())
        }
    }
}
