//! Tokens: who may use the API, and who may become a host.
//!
//! A token's text carries its id, its secret and, for enrolment, the
//! fingerprint of the controller's authority, so that an agent can tell its
//! controller from an impostor before it says anything. Only a digest of the
//! secret is ever stored.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::id::{CloudId, HostId, SiteId, TokenId};
use crate::units::utc;

/// What the holder of a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Sees everything but secrets.
    Reader,
    /// Sees, and runs drills.
    DrillOperator,
    /// Sees, runs drills, and runs failovers.
    Operator,
    /// May do everything, tokens and hosts included.
    Administrator,
}

/// What an operation asks of the one who wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Permission {
    /// To look.
    Read,
    /// To run drills.
    Drill,
    /// To run failovers.
    Operate,
    /// To change sites, hosts and tokens.
    Administer,
}

impl Role {
    /// All roles, from the least to the most powerful.
    pub const ALL: [Self; 4] =
        [Self::Reader, Self::DrillOperator, Self::Operator, Self::Administrator];

    /// Whether this role includes the permission.
    #[must_use]
    pub const fn includes(self, permission: Permission) -> bool {
        match permission {
            Permission::Read => true,
            Permission::Drill => !matches!(self, Self::Reader),
            Permission::Operate => matches!(self, Self::Operator | Self::Administrator),
            Permission::Administer => matches!(self, Self::Administrator),
        }
    }
}

/// A one-time token that lets one agent become one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrolmentToken {
    /// Its id; no secret.
    pub id: TokenId,
    /// Where the host will belong.
    pub site: SiteId,
    /// The cloud that it joins, if any.
    pub cloud: Option<CloudId>,
    /// The host whose place it takes, when it is enrolled again.
    pub replaces: Option<HostId>,
    /// It cannot be used from then on.
    pub expires: OffsetDateTime,
    /// What became of it.
    pub state: EnrolmentTokenState,
}

/// What became of an enrolment token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnrolmentTokenState {
    /// Not used yet.
    Open,
    /// Used, once and for all.
    Used {
        /// When.
        at: OffsetDateTime,
    },
    /// Withdrawn by an operator.
    Withdrawn {
        /// When.
        at: OffsetDateTime,
    },
}

/// Why an agent may not enrol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnrolmentRefusal {
    /// No such token, or another secret. Which of the two is not told.
    #[error("this controller never issued the token")]
    Unknown,
    /// It was used before.
    #[error("the token was used already, at {}", utc(*.at))]
    Used {
        /// When.
        at: OffsetDateTime,
    },
    /// Its time is over.
    #[error("the token expired at {}", utc(*.at))]
    Expired {
        /// When.
        at: OffsetDateTime,
    },
    /// An operator withdrew it.
    #[error("the token was withdrawn at {}", utc(*.at))]
    Withdrawn {
        /// When.
        at: OffsetDateTime,
    },
}

/// Whether an enrolment token can be used at this time.
///
/// # Errors
/// The reason why not. A used token is *used* even when it has expired since.
pub fn judge_enrolment(
    token: &EnrolmentToken,
    now: OffsetDateTime,
) -> Result<(), EnrolmentRefusal> {
    match token.state {
        EnrolmentTokenState::Used { at } => Err(EnrolmentRefusal::Used { at }),
        EnrolmentTokenState::Withdrawn { at } => Err(EnrolmentRefusal::Withdrawn { at }),
        EnrolmentTokenState::Open if now >= token.expires => {
            Err(EnrolmentRefusal::Expired { at: token.expires })
        }
        EnrolmentTokenState::Open => Ok(()),
    }
}

/// The secret part of a token. Never shown by `Debug`, wiped when dropped.
#[derive(Clone, PartialEq, Eq, zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
pub struct Secret([u8; 32]);

impl Secret {
    /// Wraps 32 bytes, which the caller drew at random.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for the one place that digests them.
    #[must_use]
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// SHA-256 of the DER form of an authority's certificate.
pub type Fingerprint = [u8; 32];

/// A token as its holder has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenText {
    /// For the API.
    Api {
        /// Which token.
        id: TokenId,
        /// Proof of it.
        secret: Secret,
    },
    /// For one enrolment.
    Enrolment {
        /// Which token.
        id: TokenId,
        /// Proof of it.
        secret: Secret,
        /// Whom the agent may believe.
        authority: Fingerprint,
    },
}

const API_PREFIX: &str = "lba";
const ENROLMENT_PREFIX: &str = "lbe";

impl TokenText {
    /// The text to hand to the holder, once. It is a secret.
    #[must_use]
    pub fn reveal(&self) -> String {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::Api { id, secret } => {
                format!("{API_PREFIX}.{}.{}", encode(id.uuid().as_bytes()), encode(secret.expose()))
            }
            Self::Enrolment { id, secret, authority } => format!(
                "{ENROLMENT_PREFIX}.{}.{}.{}",
                encode(id.uuid().as_bytes()),
                encode(secret.expose()),
                encode(authority)
            ),
        }
    }
}

/// The text is not a token. What it was is not repeated: it may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is not a token: a token begins with \"{API_PREFIX}.\" or \"{ENROLMENT_PREFIX}.\" and is copied whole"
)]
pub struct NotAToken;

impl FromStr for TokenText {
    type Err = NotAToken;

    fn from_str(text: &str) -> Result<Self, NotAToken> {
        fn decode<const N: usize>(text: &str) -> Result<[u8; N], NotAToken> {
            let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| NotAToken)?;
            bytes.try_into().map_err(|_| NotAToken)
        }
        let id = |text| decode(text).map(|bytes| TokenId::new(Uuid::from_bytes(bytes)));
        let parts: Vec<&str> = text.trim().split('.').collect();
        match parts.as_slice() {
            [API_PREFIX, token, secret] => {
                Ok(Self::Api { id: id(token)?, secret: Secret(decode(secret)?) })
            }
            [ENROLMENT_PREFIX, token, secret, authority] => Ok(Self::Enrolment {
                id: id(token)?,
                secret: Secret(decode(secret)?),
                authority: decode(authority)?,
            }),
            _ => Err(NotAToken),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::Duration;

    #[test]
    fn an_enrolment_token_works_once_and_only_in_time() {
        let now = OffsetDateTime::UNIX_EPOCH;
        let token = |state, expires| EnrolmentToken {
            id: TokenId::new(Uuid::from_u128(1)),
            site: SiteId::new(Uuid::from_u128(2)),
            cloud: None,
            replaces: None,
            expires,
            state,
        };
        let later = now + Duration::HOUR;
        let earlier = now - Duration::HOUR;
        use EnrolmentTokenState::{Open, Used, Withdrawn};
        assert_eq!(judge_enrolment(&token(Open, later), now), Ok(()));
        assert_eq!(
            judge_enrolment(&token(Open, now), now),
            Err(EnrolmentRefusal::Expired { at: now }),
            "the end of its life does not belong to it"
        );
        assert_eq!(
            judge_enrolment(&token(Used { at: earlier }, earlier), now),
            Err(EnrolmentRefusal::Used { at: earlier })
        );
        assert_eq!(
            judge_enrolment(&token(Withdrawn { at: earlier }, later), now),
            Err(EnrolmentRefusal::Withdrawn { at: earlier })
        );
    }

    #[test]
    fn a_token_survives_being_copied_and_shows_its_secret_nowhere_else() {
        let token = TokenText::Enrolment {
            id: TokenId::new(Uuid::from_u128(1)),
            secret: Secret::new([7; 32]),
            authority: [9; 32],
        };
        let text = token.reveal();
        assert_eq!(format!(" {text}\n").parse(), Ok(token.clone()));
        assert!(!format!("{token:?}").contains("7, 7"), "{token:?}");
        assert_eq!(text[..text.len() - 1].parse::<TokenText>(), Err(NotAToken), "cut short");
        assert_eq!("lbe.AA.AA".parse::<TokenText>(), Err(NotAToken));
    }

    #[test]
    fn each_role_includes_those_below_it_except_that_drills_are_not_failovers() {
        let can = |role: Role| {
            [Permission::Read, Permission::Drill, Permission::Operate, Permission::Administer]
                .map(|permission| role.includes(permission))
        };
        assert_eq!(
            Role::ALL.map(can),
            [
                [true, false, false, false],
                [true, true, false, false],
                [true, true, true, false],
                [true, true, true, true]
            ]
        );
    }
}
