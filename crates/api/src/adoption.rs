//! Going on with what a lost controller left with its hosts.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::Reason;

/// A protection of a lost controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Adoption {
    /// The protection; it keeps its id.
    pub protection: Uuid,
    /// The machine's name.
    pub machine: String,
    /// The hypervisor's UUID of the machine.
    pub machine_uuid: Uuid,
    /// Where its changes come from.
    pub source: AdoptedHost,
    /// Where its points are.
    pub target: AdoptedHost,
    /// The name that its policy has here.
    pub policy: Option<String>,
    /// Where it stands, as it follows *the machine is*; absent when that makes no
    /// sense here.
    pub state: Option<String>,
    /// Raised with each change of the side that may run the machine.
    pub epoch: u64,
    /// The hosts that told of it, by name.
    pub told_by: Vec<String>,
    /// Why it cannot be adopted.
    pub refused: Option<Reason>,
    /// What an operator should know or look at.
    pub remarks: Vec<String>,
    /// The job that goes on with what the lost controller had begun.
    pub job: Option<Uuid>,
}

/// A host of a protection of a lost controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AdoptedHost {
    /// Its name.
    pub name: String,
    /// The name of its site.
    pub site: String,
    /// Whether it is enrolled here.
    pub enrolled: bool,
}

/// Which protections are meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Which {
    /// The machines, by name, UUID, or the protection's id; all when empty.
    #[serde(default)]
    pub machines: Vec<String>,
    /// Hosts that are lost, by name: what they would tell is not waited for.
    #[serde(default)]
    pub without: Vec<String>,
}
