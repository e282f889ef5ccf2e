//! What the controller and its clients say to each other over REST.
//!
//! These types are the contract: the controller serves them, the CLI reads
//! them, and the OpenAPI document is made from them. They hold no rule of
//! their own: what may be done to an item, and why not, comes inside it as
//! its [`operations`](Operation).
//!
//! One module per noun. Times are RFC 3339 in UTC, sizes are in bytes, and
//! their fields end in `_bytes`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

pub mod adoption;
pub mod audit;
pub mod cloud;
pub mod event;
pub mod failover;
pub mod health;
pub mod host;
pub mod job;
pub mod machine;
pub mod network;
pub mod policy;
pub mod pool;
pub mod problem;
pub mod protection;
pub mod site;
pub mod token;

/// The version in the path of each route.
pub const PREFIX: &str = "/api/v1";

/// Another item, by the id that never changes and the name that people use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reference {
    /// Never changes.
    pub id: Uuid,
    /// As of now.
    pub name: String,
}

/// Something that could be done to an item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Operation {
    /// The verb.
    pub name: String,
    /// Present when it cannot be done now.
    pub refused: Option<Reason>,
}

/// Why not, and what to do instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reason {
    /// The state, and why it is in the way.
    pub reason: String,
    /// What to do about it.
    pub advice: String,
}

/// All items of a kind that were asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct List<T> {
    /// The items, in the order in which people look for them.
    pub items: Vec<T>,
}

/// Declares an enum of words, its conversions from and to the domain's enum,
/// and its words as text.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident = $domain:path { $($variant:ident = $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
        #[expect(missing_docs, reason = "each word stands for the domain's variant of the same name")]
        pub enum $name { $(#[serde(rename = $text)] $variant),* }

        impl $name {
            /// All words, in the order in which they are offered.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The word as it is sent.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::UnknownWord;

            fn from_str(text: &str) -> Result<Self, $crate::UnknownWord> {
                Self::ALL.iter().copied().find(|word| word.as_str() == text).ok_or_else(|| {
                    $crate::UnknownWord {
                        given: text.to_owned(),
                        known: Self::ALL.iter().map(|word| word.as_str()).collect::<Vec<_>>().join(", "),
                    }
                })
            }
        }

        impl From<$domain> for $name {
            fn from(value: $domain) -> Self {
                use $domain as Domain;
                match value { $(Domain::$variant => Self::$variant),* }
            }
        }

        impl From<$name> for $domain {
            fn from(value: $name) -> Self {
                match value { $($name::$variant => Self::$variant),* }
            }
        }
    };
}
pub(crate) use words;

/// A word that is none of those that are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownWord {
    given: String,
    known: String,
}

impl std::fmt::Display for UnknownWord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} is none of: {}", self.given, self.known)
    }
}

impl std::error::Error for UnknownWord {}
