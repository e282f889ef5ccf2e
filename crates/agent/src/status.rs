//! What `lifeboat agent status` shows: a small file in the state folder,
//! rewritten at each change of the connection.

use std::path::Path;

use domain::fault::{Code, Fault};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tracing::warn;

use crate::identity::StateFolder;

/// Version of the file's format.
const FORMAT: u16 = 1;
const STATUS: &str = "status.json";

/// How the agent's connection stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum ConnectionStatus {
    /// The agent has just started.
    Starting,
    /// It is connected.
    Connected {
        /// Since when.
        #[serde(with = "time::serde::rfc3339")]
        since: OffsetDateTime,
    },
    /// It is not.
    NotConnected {
        /// Since when, for this reason.
        #[serde(with = "time::serde::rfc3339")]
        since: OffsetDateTime,
        /// The error's code.
        code: String,
        /// Why.
        cause: String,
        /// The way out.
        advice: String,
    },
}

impl ConnectionStatus {
    /// Not connected, from now on, because of this.
    #[must_use]
    pub fn not_connected(fault: &Fault) -> Self {
        Self::NotConnected {
            since: OffsetDateTime::now_utc(),
            code: fault.code.to_string(),
            cause: fault.cause.clone(),
            advice: fault.advice.clone(),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct File {
    format: u16,
    connection: ConnectionStatus,
}

/// Writes how things stand. A failure is logged: it must not stop the agent.
pub fn write(folder: &StateFolder, connection: ConnectionStatus) {
    let text = serde_json::to_vec_pretty(&File { format: FORMAT, connection })
        .expect("the file's form is plain");
    if let Err(error) = folder.write(STATUS, &text) {
        warn!(%error, "cannot write the agent's status");
    }
}

/// Reads how the agent of a state folder stands; none when it never ran.
///
/// # Errors
/// [`Code::DataFolderUnusable`] when the file cannot be read or understood.
pub fn read(folder: &Path) -> Result<Option<ConnectionStatus>, Fault> {
    let path = folder.join(STATUS);
    let unusable = |cause: String| {
        Fault::new(
            Code::DataFolderUnusable,
            format!("read the agent's status from {}", path.display()),
            cause,
            "Run as the agent's user or as root.",
        )
    };
    match std::fs::read(&path) {
        Ok(text) => serde_json::from_slice::<File>(&text)
            .map(|file| Some(file.connection))
            .map_err(|error| unusable(error.to_string())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unusable(error.to_string())),
    }
}
