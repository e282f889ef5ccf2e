//! The messages of the control connection, protocol versions 1 to 5.
//!
//! A field that is unknown is passed over, so that a newer side may say more;
//! a message whose *type* is unknown ends the connection, so nobody sends one
//! before both sides agreed on a version that has it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::command::{Answered, Command};
use crate::heritage::Heritage;
use crate::inventory::{HostFacts, Inventory};
use crate::replication::{Duties, Replication};

/// Oldest version of the protocol that this build speaks.
pub const PROTOCOL_OLDEST: u16 = 1;
/// Newest version of the protocol that this build speaks.
pub const PROTOCOL_NEWEST: u16 = 5;
/// The first version with [`Duties`] and [`Replication`].
pub const PROTOCOL_REPLICATION: u16 = 2;
/// The first version with [`Command`] and [`Answered`].
pub const PROTOCOL_COMMANDS: u16 = 3;
/// The first version with [`AgentMessage::Heritage`].
pub const PROTOCOL_HERITAGE: u16 = 4;
/// The first version with [`Work::Lend`](crate::command::Work::Lend).
pub const PROTOCOL_LOANS: u16 = 5;

/// How often an agent says that it is there.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(2);
/// How long a side hears nothing before it takes the other for gone.
pub const SILENCE_MAX: Duration = Duration::from_secs(6);

/// From an agent to its controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum AgentMessage {
    /// First on a connection without a certificate: asks for one.
    Enrol(Box<Enrol>),
    /// First on a connection with a certificate.
    Hello(Hello),
    /// All that the agent sees; its hypervisor answers.
    Inventory(Box<Inventory>),
    /// The hypervisor stopped answering; the last inventory stands.
    HypervisorLost(HypervisorLost),
    /// The agent is there.
    Heartbeat {
        /// What time it is by the agent's clock; not told by older agents.
        #[serde(default, with = "time::serde::rfc3339::option")]
        #[serde(skip_serializing_if = "Option::is_none")]
        now: Option<OffsetDateTime>,
    },
    /// How replication is. From version 2 on.
    Replication(Box<Replication>),
    /// What has become of a command. From version 3 on.
    Answered(Box<Answered>),
    /// What a former controller left with the host, told until the host is given
    /// duties. From version 4 on.
    Heritage {
        /// One for each protection.
        heritage: Vec<Heritage>,
    },
    /// Asks for a fresh certificate before the present one ends.
    Renew {
        /// Certificate signing request, PEM.
        request: String,
    },
}

/// Asks to become a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrol {
    /// Versions of the protocol that the agent speaks.
    pub protocol: ProtocolRange,
    /// The whole enrolment token.
    pub token: SecretText,
    /// The name that the host shall have; its hostname when none is given.
    pub name: Option<String>,
    /// Certificate signing request, PEM. Its names are ignored.
    pub request: String,
    /// What the host is.
    pub facts: HostFacts,
    /// The id that it had at a controller that is lost; its points and its peers
    /// know it by that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former_host: Option<Uuid>,
}

/// Begins a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Versions of the protocol that the agent speaks.
    pub protocol: ProtocolRange,
    /// Version of Lifeboat that the agent is.
    pub agent_version: String,
    /// Drawn anew each time the agent's process starts.
    pub instance: Uuid,
    /// Where other agents reach this one, `HOST:PORT`, or `:PORT` at the address
    /// that it comes from; none if it takes nothing from others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_address: Option<String>,
}

/// The hypervisor stopped answering.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HypervisorLost {
    /// When it last answered, by the agent's clock.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
    /// What its library said.
    pub reason: String,
}

/// From the controller to an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ControllerMessage {
    /// The answer to `Enrol`.
    Enrolled(Enrolled),
    /// The answer to `Hello`.
    Welcome(Welcome),
    /// The answer to `Heartbeat`.
    Heartbeat,
    /// All that the agent is to do. From version 2 on.
    Duties(Box<Duties>),
    /// Do something at once. From version 3 on.
    Command(Box<Command>),
    /// The answer to `Renew`.
    Renewed {
        /// The certificate chain, PEM.
        certificate: String,
    },
    /// The controller has nothing more to do with this agent, for this
    /// reason. The connection ends.
    Refused(Refused),
}

impl ControllerMessage {
    /// The message's type as it is sent, for an error about it.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Enrolled(_) => "enrolled",
            Self::Welcome(_) => "welcome",
            Self::Heartbeat => "heartbeat",
            Self::Duties(_) => "duties",
            Self::Command(_) => "command",
            Self::Renewed { .. } => "renewed",
            Self::Refused(_) => "refused",
        }
    }
}

impl AgentMessage {
    /// The message's type as it is sent, for an error about it.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Enrol(_) => "enrol",
            Self::Hello(_) => "hello",
            Self::Inventory(_) => "inventory",
            Self::HypervisorLost(_) => "hypervisor_lost",
            Self::Heartbeat { .. } => "heartbeat",
            Self::Replication(_) => "replication",
            Self::Answered(_) => "answered",
            Self::Heritage { .. } => "heritage",
            Self::Renew { .. } => "renew",
        }
    }
}

/// An agent became a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    /// The host's id.
    pub host: Uuid,
    /// The host's name.
    pub name: String,
    /// The name of its site.
    pub site: String,
    /// The certificate chain, PEM.
    pub certificate: String,
    /// The authority's certificate, PEM.
    pub authority: String,
}

/// The connection is good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The version of the protocol that is spoken from here on.
    pub protocol: u16,
    /// The host's name, which an operator may have changed.
    pub name: String,
    /// The name of its site.
    pub site: String,
}

/// Why the controller refuses an agent, as an operator reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The error's code, `LB` and four digits.
    pub code: String,
    /// What was being done to what.
    pub doing: String,
    /// Why it did not work.
    pub cause: String,
    /// The way out.
    pub advice: String,
}

/// Versions of the protocol, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProtocolRange {
    /// The oldest.
    pub oldest: u16,
    /// The newest.
    pub newest: u16,
}

impl ProtocolRange {
    /// What this build speaks.
    pub const OURS: Self = Self { oldest: PROTOCOL_OLDEST, newest: PROTOCOL_NEWEST };

    /// The newest version that both sides speak, if there is one.
    #[must_use]
    pub fn agree(self, other: Self) -> Option<u16> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest && newest >= other.oldest).then_some(newest)
    }
}

/// A text that `Debug` does not show.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretText(pub String);

impl std::fmt::Debug for SecretText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretText(…)")
    }
}

impl From<domain::fault::Fault> for Refused {
    fn from(fault: domain::fault::Fault) -> Self {
        Self {
            code: fault.code.to_string(),
            doing: fault.doing,
            cause: fault.cause,
            advice: fault.advice,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ProtocolRange;

    #[test]
    fn two_sides_agree_on_the_newest_version_that_both_speak() {
        let range = |oldest, newest| ProtocolRange { oldest, newest };
        assert_eq!(range(1, 3).agree(range(2, 5)), Some(3));
        assert_eq!(range(2, 5).agree(range(1, 3)), Some(3));
        assert_eq!(range(1, 1).agree(range(1, 1)), Some(1));
        assert_eq!(range(1, 2).agree(range(3, 4)), None);
        assert_eq!(range(3, 4).agree(range(1, 2)), None);
    }
}
