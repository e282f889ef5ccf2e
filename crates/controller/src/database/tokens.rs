//! Tokens. Only digests of their secrets are stored.

use domain::id::{CloudId, HostId, SiteId, TokenId};
use domain::token::{EnrolmentToken, EnrolmentTokenState, Role, Secret};
use sha2::{Digest as _, Sha256};
use sqlx::{FromRow, SqliteConnection};
use time::OffsetDateTime;
use tracing::warn;
use uuid::Uuid;

use super::{
    Database, DatabaseError, Result, audit, microseconds, nonsense, optional_time, time_of, uuid_of,
};

/// A token that somebody showed and that is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The token's name.
    pub name: String,
    /// What it may do.
    pub role: Role,
}

/// An API token to be made.
#[derive(Debug)]
pub struct NewApiToken<'a> {
    /// Drawn by the caller.
    pub id: TokenId,
    /// Unique among active tokens.
    pub name: &'a str,
    /// What it may do.
    pub role: Role,
    /// Drawn by the caller.
    pub secret: &'a Secret,
    /// When it stops working.
    pub expires: Option<OffsetDateTime>,
}

/// An enrolment token to be made.
#[derive(Debug)]
pub struct NewEnrolmentToken<'a> {
    /// Drawn by the caller.
    pub id: TokenId,
    /// The site that the host joins.
    pub site: &'a api::Reference,
    /// The cloud that it joins.
    pub cloud: Option<&'a api::Reference>,
    /// The host whose place it takes.
    pub replaces: Option<&'a api::Reference>,
    /// Drawn by the caller.
    pub secret: &'a Secret,
    /// When it stops working.
    pub expires: OffsetDateTime,
}

#[derive(FromRow)]
struct TokenRow {
    id: String,
    enrolment: bool,
    name: Option<String>,
    role: Option<String>,
    site_id: Option<String>,
    site_name: Option<String>,
    cloud_id: Option<String>,
    cloud_name: Option<String>,
    host_id: Option<String>,
    host_name: Option<String>,
    created_us: i64,
    expires_us: Option<i64>,
    used_us: Option<i64>,
    withdrawn_us: Option<i64>,
}

#[derive(FromRow)]
struct EnrolmentRow {
    site_id: String,
    cloud_id: Option<String>,
    replaces: Option<String>,
    digest: Vec<u8>,
    expires_us: i64,
    used_us: Option<i64>,
    withdrawn_us: Option<i64>,
}

/// A secret of 256 random bits needs no slow hash.
fn digest(secret: &Secret) -> Vec<u8> {
    Sha256::digest(secret.expose()).to_vec()
}

fn role_of(text: &str) -> Result<Role> {
    text.parse::<api::token::Role>().map(Into::into).map_err(|error| nonsense("a role", &error))
}

impl Database {
    /// Who holds the API token, if it is good now.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn holder(
        &self,
        id: TokenId,
        secret: &Secret,
        now: OffsetDateTime,
    ) -> Result<Option<Holder>> {
        let row: Option<(String, String, Vec<u8>, Option<i64>)> = sqlx::query_as(
            "SELECT name, role, digest, last_used_us FROM api_tokens
             WHERE id = $1 AND withdrawn_us IS NULL AND (expires_us IS NULL OR expires_us > $2)",
        )
        .bind(id.to_string())
        .bind(microseconds(now))
        .fetch_optional(&self.readers)
        .await?;
        let Some((name, role, stored, last_used)) = row else { return Ok(None) };
        if stored != digest(secret) {
            return Ok(None);
        }
        let minute_ago = microseconds(now - time::Duration::MINUTE);
        if last_used.is_none_or(|used| used < minute_ago) {
            let noted = sqlx::query("UPDATE api_tokens SET last_used_us = $2 WHERE id = $1")
                .bind(id.to_string())
                .bind(microseconds(now))
                .execute(&self.writer)
                .await;
            // A full disk must not keep anybody from looking.
            if let Err(error) = noted {
                warn!(%error, "cannot write down when a token was last used");
            }
        }
        Ok(Some(Holder { name, role: role_of(&role)? }))
    }

    /// Makes an API token. Durable on return.
    ///
    /// # Errors
    /// When an active token has that name, or the database fails.
    pub async fn create_api_token(
        &self,
        token: NewApiToken<'_>,
        actor: &str,
        now: OffsetDateTime,
    ) -> Result<()> {
        let mut transaction = self.begin().await?;
        let taken: u32 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM api_tokens
             WHERE name = $1 AND withdrawn_us IS NULL AND (expires_us IS NULL OR expires_us > $2)",
        )
        .bind(token.name)
        .bind(microseconds(now))
        .fetch_one(&mut *transaction)
        .await?;
        if taken > 0 {
            return Err(DatabaseError::NameTaken);
        }
        let role = api::token::Role::from(token.role).as_str();
        sqlx::query("INSERT INTO api_tokens (id, name, role, digest, created_us, expires_us) VALUES ($1, $2, $3, $4, $5, $6)")
            .bind(token.id.to_string())
            .bind(token.name)
            .bind(role)
            .bind(digest(token.secret))
            .bind(microseconds(now))
            .bind(token.expires.map(microseconds))
            .execute(&mut *transaction)
            .await?;
        let deed = audit::Deed {
            actor: actor.to_owned(),
            action: "token create",
            subject: token.name.to_owned(),
            detail: format!("id {}, role {role}", token.id),
        };
        audit::write(&mut transaction, deed, now).await?;
        Ok(transaction.commit().await?)
    }

    /// Makes an enrolment token. Durable on return.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn create_enrolment_token(
        &self,
        token: NewEnrolmentToken<'_>,
        actor: &str,
        now: OffsetDateTime,
    ) -> Result<()> {
        let mut transaction = self.begin().await?;
        sqlx::query("INSERT INTO enrolment_tokens (id, site_id, cloud_id, replaces, digest, created_us, expires_us) VALUES ($1, $2, $3, $4, $5, $6, $7)")
            .bind(token.id.to_string())
            .bind(token.site.id.to_string())
            .bind(token.cloud.map(|cloud| cloud.id.to_string()))
            .bind(token.replaces.map(|host| host.id.to_string()))
            .bind(digest(token.secret))
            .bind(microseconds(now))
            .bind(microseconds(token.expires))
            .execute(&mut *transaction)
            .await?;
        let deed = audit::Deed {
            actor: actor.to_owned(),
            action: "token enrolment",
            subject: token.site.name.clone(),
            detail: match token.replaces {
                Some(host) => format!("id {}, replaces host {}", token.id, host.name),
                None => format!("id {}", token.id),
            },
        };
        audit::write(&mut transaction, deed, now).await?;
        Ok(transaction.commit().await?)
    }

    /// All tokens, newest first, as of now.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn tokens(&self, now: OffsetDateTime) -> Result<Vec<api::token::Token>> {
        // Used enrolment tokens keep the time of their use as "last used".
        let rows: Vec<TokenRow> = sqlx::query_as(
            "SELECT id, FALSE AS enrolment, name, role, NULL AS site_id, NULL AS site_name,
                    NULL AS cloud_id, NULL AS cloud_name, NULL AS host_id, NULL AS host_name,
                    created_us, expires_us, last_used_us AS used_us, withdrawn_us
             FROM api_tokens
             UNION ALL
             SELECT t.id, TRUE, NULL, NULL, s.id, s.name, c.id, c.name, h.id, h.name,
                    t.created_us, t.expires_us, t.used_us, t.withdrawn_us
             FROM enrolment_tokens t JOIN sites s ON s.id = t.site_id
             LEFT JOIN clouds c ON c.id = t.cloud_id LEFT JOIN hosts h ON h.id = t.replaces
             ORDER BY created_us DESC",
        )
        .fetch_all(&self.readers)
        .await?;
        rows.into_iter().map(|row| row.view(now)).collect()
    }

    /// Withdraws a token of either kind, by id; an API token also by name.
    /// Returns the id of the one that was withdrawn, none when there is none
    /// that could be.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn withdraw_token(
        &self,
        reference: &str,
        actor: &str,
        now: OffsetDateTime,
    ) -> Result<Option<TokenId>> {
        let mut transaction = self.begin().await?;
        let api: Option<(String,)> = sqlx::query_as(
            "UPDATE api_tokens SET withdrawn_us = $2
             WHERE (id = $1 OR name = $1) AND withdrawn_us IS NULL RETURNING id",
        )
        .bind(reference)
        .bind(microseconds(now))
        .fetch_optional(&mut *transaction)
        .await?;
        let withdrawn = match api {
            Some(id) => Some(id),
            None => {
                sqlx::query_as(
                    "UPDATE enrolment_tokens SET withdrawn_us = $2
                     WHERE id = $1 AND withdrawn_us IS NULL AND used_us IS NULL RETURNING id",
                )
                .bind(reference)
                .bind(microseconds(now))
                .fetch_optional(&mut *transaction)
                .await?
            }
        };
        let Some((id,)) = withdrawn else { return Ok(None) };
        let deed = audit::Deed {
            actor: actor.to_owned(),
            action: "token withdraw",
            subject: reference.to_owned(),
            detail: format!("id {id}"),
        };
        audit::write(&mut transaction, deed, now).await?;
        transaction.commit().await?;
        Ok(Some(TokenId::new(uuid_of(&id)?)))
    }
}

impl TokenRow {
    fn view(self, now: OffsetDateTime) -> Result<api::token::Token> {
        use api::token::{Purpose, TokenState};
        let reference = |id: Option<String>, name: Option<String>| -> Result<_> {
            id.zip(name)
                .map(|(id, name)| Ok(api::Reference { id: uuid_of(&id)?, name }))
                .transpose()
        };
        let expires = optional_time(self.expires_us)?;
        let state = if self.withdrawn_us.is_some() {
            TokenState::Withdrawn
        } else if self.enrolment && self.used_us.is_some() {
            TokenState::Used
        } else if expires.is_some_and(|expires| expires <= now) {
            TokenState::Expired
        } else {
            TokenState::Active
        };
        let purpose = if self.enrolment {
            Purpose::Enrolment {
                site: reference(self.site_id, self.site_name)?
                    .ok_or_else(|| nonsense("an enrolment token", &"it has no site"))?,
                cloud: reference(self.cloud_id, self.cloud_name)?,
                replaces: reference(self.host_id, self.host_name)?,
            }
        } else {
            Purpose::Api {
                name: self.name.unwrap_or_default(),
                role: role_of(&self.role.unwrap_or_default())?.into(),
            }
        };
        Ok(api::token::Token {
            id: uuid_of(&self.id)?,
            purpose,
            state,
            created: time_of(self.created_us)?,
            expires,
            last_used: optional_time(self.used_us)?,
        })
    }
}

/// The enrolment token with this id and secret; none when there is none.
pub(super) async fn enrolment_token(
    connection: &mut SqliteConnection,
    id: TokenId,
    secret: &Secret,
) -> Result<Option<EnrolmentToken>> {
    let row: Option<EnrolmentRow> = sqlx::query_as(
        "SELECT site_id, cloud_id, replaces, digest, expires_us, used_us, withdrawn_us
         FROM enrolment_tokens WHERE id = $1",
    )
    .bind(id.to_string())
    .fetch_optional(connection)
    .await?;
    let Some(row) = row.filter(|row| row.digest == digest(secret)) else { return Ok(None) };
    let id_of =
        |text: Option<String>| -> Result<Option<Uuid>> { text.as_deref().map(uuid_of).transpose() };
    let state = match (row.withdrawn_us, row.used_us) {
        (Some(at), _) => EnrolmentTokenState::Withdrawn { at: time_of(at)? },
        (None, Some(at)) => EnrolmentTokenState::Used { at: time_of(at)? },
        (None, None) => EnrolmentTokenState::Open,
    };
    Ok(Some(EnrolmentToken {
        id,
        site: SiteId::new(uuid_of(&row.site_id)?),
        cloud: id_of(row.cloud_id)?.map(CloudId::new),
        replaces: id_of(row.replaces)?.map(HostId::new),
        expires: time_of(row.expires_us)?,
        state,
    }))
}

/// Marks an enrolment token as used.
pub(super) async fn use_enrolment_token(
    connection: &mut SqliteConnection,
    id: TokenId,
    now: OffsetDateTime,
) -> Result<()> {
    sqlx::query("UPDATE enrolment_tokens SET used_us = $2 WHERE id = $1")
        .bind(id.to_string())
        .bind(microseconds(now))
        .execute(connection)
        .await?;
    Ok(())
}
