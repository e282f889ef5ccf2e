//! Tokens.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{Reference, words};

words! {
    /// What the holder of a token may do.
    Role = domain::token::Role {
        Reader = "reader",
        DrillOperator = "drill-operator",
        Operator = "operator",
        Administrator = "administrator",
    }
}

/// A token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Token {
    /// Never changes; not secret.
    pub id: Uuid,
    /// What it is for.
    pub purpose: Purpose,
    /// Whether it still works.
    pub state: TokenState,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created: OffsetDateTime,
    /// When it stops working; absent for never.
    #[serde(with = "time::serde::rfc3339::option")]
    pub expires: Option<OffsetDateTime>,
    /// When it was last used, to the minute.
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_used: Option<OffsetDateTime>,
}

/// What a token is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Purpose {
    /// To use the API.
    Api {
        /// Who holds it; shown in the audit log.
        name: String,
        /// What it may do.
        role: Role,
    },
    /// To enrol one host.
    Enrolment {
        /// The site that the host joins.
        site: Reference,
        /// The cloud that it joins.
        cloud: Option<Reference>,
        /// The host whose place it takes.
        replaces: Option<Reference>,
    },
}

/// Whether a token still works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TokenState {
    /// It works.
    Active,
    /// It was for one use, and was used.
    Used,
    /// Its time is over.
    Expired,
    /// An operator withdrew it.
    Withdrawn,
}

/// Makes a token for the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// Who will hold it; unique among active tokens.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// For how many seconds it works; absent for ever.
    pub valid_for_seconds: Option<u32>,
}

/// Makes a one-time token that lets one agent become one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateEnrolmentToken {
    /// The site that the host joins, by name or id.
    pub site: String,
    /// The cloud that it joins, by name or id.
    pub cloud: Option<String>,
    /// The host of that site whose place it takes, by name or id. Its old
    /// certificate stops working when the token is used.
    pub replaces: Option<String>,
    /// For how many seconds it works; an hour when absent.
    pub valid_for_seconds: Option<u32>,
}

/// A new token, with its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreatedToken {
    /// The token.
    pub token: Token,
    /// The whole of it, to hand to its holder. It is never shown again.
    pub text: String,
}
