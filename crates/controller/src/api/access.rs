//! Who calls, and what they may do.

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use domain::fault::{Code, Fault};
use domain::token::{Permission, Role, TokenText};
use time::OffsetDateTime;

use super::failure::Failure;
use crate::Controller;

/// Whoever sent the request, by their token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    /// The token's name, for the audit log.
    pub(super) name: String,
    role: Role,
}

impl Caller {
    /// Lets the caller go on if their role includes the permission.
    pub(super) fn may(&self, permission: Permission, doing: &str) -> Result<(), Failure> {
        if self.role.includes(permission) {
            return Ok(());
        }
        let least = Role::ALL.into_iter().find(|role| role.includes(permission));
        let least = least.map_or("administrator", |role| api::token::Role::from(role).as_str());
        Err(Fault::new(
            Code::NotPermitted,
            doing,
            format!(
                "token {} has the role {}, which does not include it",
                self.name,
                api::token::Role::from(self.role)
            ),
            format!("Use a token with the role {least}; an administrator makes one with: lifeboat token create."),
        )
        .into())
    }
}

impl FromRequestParts<Controller> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(
        parts: &mut Parts,
        controller: &Controller,
    ) -> Result<Self, Failure> {
        let doing = || format!("{} {}", parts.method, parts.uri.path());
        let refuse = |cause: &str| -> Failure {
            Fault::new(
                Code::NotAuthenticated,
                doing(),
                cause,
                "Send a token of this controller as `Authorization: Bearer …`; an administrator makes one with: lifeboat token create, or on the controller itself: lifeboat controller admin-token.",
            )
            .into()
        };
        let Some(header) = parts.headers.get(AUTHORIZATION) else {
            return Err(refuse("the request has no token"));
        };
        let text = header.to_str().ok().and_then(|text| text.strip_prefix("Bearer "));
        let Some(TokenText::Api { id, secret }) = text.and_then(|text| text.parse().ok()) else {
            return Err(refuse("what the request shows is no token for the API"));
        };
        let holder = controller.database.holder(id, &secret, OffsetDateTime::now_utc()).await;
        match holder.map_err(|error| Failure::of_database(&doing(), error))? {
            Some(holder) => Ok(Self { name: holder.name, role: holder.role }),
            None => Err(refuse("the token is unknown here, was withdrawn, or has expired")),
        }
    }
}
