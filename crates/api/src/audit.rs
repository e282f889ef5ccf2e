//! The audit log.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

/// One line of the audit log: a change, or a refusal to let somebody in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// Grows from entry to entry.
    pub number: i64,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Who: the name of a token, a host, or `controller`.
    pub actor: String,
    /// What was done: `site create`, `host revoke`, `agent refused` …
    pub action: String,
    /// To what.
    pub subject: String,
    /// Anything worth knowing besides; never a secret.
    pub detail: String,
}
