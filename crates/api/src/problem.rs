//! What a client is told when a request is refused or fails.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// An error: its code, what was being done to what, the cause, and advice.
/// The HTTP status tells programs the kind, the code tells people and
/// documentation the rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// `LB` and four digits; documented under this code.
    #[schema(example = "LB4003")]
    pub code: String,
    /// What was being done to what.
    #[schema(example = "show site east")]
    pub doing: String,
    /// Why it did not work.
    #[schema(example = "there is no such site")]
    pub cause: String,
    /// The way out.
    #[schema(example = "List the sites with: lifeboat site list.")]
    pub advice: String,
}

impl From<domain::fault::Fault> for Problem {
    fn from(fault: domain::fault::Fault) -> Self {
        Self {
            code: fault.code.to_string(),
            doing: fault.doing,
            cause: fault.cause,
            advice: fault.advice,
        }
    }
}
