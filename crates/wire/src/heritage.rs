//! What a controller leaves with the hosts of a protection, so that another one
//! can go on where it is lost.
//!
//! Agents keep it with their duties and beside the points, and understand none
//! of it: only a controller that they are enrolled at anew is told.

use domain::id::{HostId, MachineUuid, ProtectionId};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::replication::plain;

/// Version of the form in which agents keep a [`Heritage`] in files.
pub const HERITAGE_FORMAT: u16 = 1;

/// All that a controller must know of a protection to go on with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heritage {
    /// The protection.
    #[serde(with = "plain::protection")]
    pub protection: ProtectionId,
    /// The hypervisor's UUID of the machine.
    #[serde(with = "plain::machine")]
    pub machine: MachineUuid,
    /// Its name.
    pub name: String,
    /// Where its changes come from.
    pub source: Place,
    /// Where its points are kept.
    pub target: Place,
    /// Where it is made when it fails over, if that is not where its points are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute: Option<Place>,
    /// How it is protected.
    pub policy: NamedPolicy,
    /// Disks that are left out, by the hypervisor's names.
    pub excluded_disks: Vec<String>,
    /// A writer with a greater one takes over.
    pub generation: u64,
    /// Whether an operator paused it.
    pub paused: bool,
    /// Raised with each change of the side that may run the machine.
    pub epoch: u64,
    /// Whether the source is where the machine was not when it was protected.
    pub reversed: bool,
    /// Where it stands in a failover, as controllers store it; none while it is
    /// only replicated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<Document>,
    /// What it was made of at the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<Uuid>,
    /// Whether the side that it was last failed over from may have what never
    /// arrived.
    pub unsent: bool,
    /// Hosts that the machine has left for another, where it stays fenced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former_hosts: Vec<Uuid>,
    /// When it was protected.
    #[serde(with = "time::serde::rfc3339")]
    pub created: OffsetDateTime,
}

/// A host, for a controller that may not know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The host's id.
    #[serde(with = "plain::host")]
    pub host: HostId,
    /// Its name.
    pub name: String,
    /// The name of its site.
    pub site: String,
}

/// A policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedPolicy {
    /// Its name.
    pub name: String,
    /// What it says.
    #[serde(flatten)]
    pub document: Document,
}

/// Text in a form of the controllers' own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// The form's version.
    pub format: u16,
    /// The text, JSON.
    pub document: String,
}

/// What was left, as agents keep it in files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeritageFile {
    /// [`HERITAGE_FORMAT`].
    pub format: u16,
    /// One for each protection.
    pub heritage: Vec<Heritage>,
}
