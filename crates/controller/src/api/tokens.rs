//! Tokens.

use std::time::Duration;

use api::problem::Problem;
use api::token::{CreateEnrolmentToken, CreateToken, CreatedToken, Token};
use api::{List, Reference};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use domain::fault::{Code, Fault};
use domain::id::TokenId;
use domain::site::SiteKind;
use domain::token::{Permission, Secret, TokenText};
use time::OffsetDateTime;

use super::access::Caller;
use super::failure::{Body, Failure, name};
use crate::Controller;
use crate::database::hosts::new_id;
use crate::database::tokens::{NewApiToken, NewEnrolmentToken};
use crate::database::{DatabaseError, lookup::Noun};

/// How long an enrolment token works when nobody says otherwise.
const ENROLMENT_LIFE: Duration = Duration::from_secs(3600);
/// How long an enrolment token works at the most.
const ENROLMENT_LIFE_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// All tokens, newest first, without their secrets.
#[utoipa::path(get, path = "/tokens", operation_id = "token_list", tag = "token",
    security(("token" = [])), responses(
    (status = 200, description = "The tokens", body = List<Token>),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn list(
    caller: Caller,
    State(controller): State<Controller>,
) -> Result<Json<List<Token>>, Failure> {
    let doing = "list the tokens";
    caller.may(Permission::Administer, doing)?;
    let items = controller.database.tokens(OffsetDateTime::now_utc()).await;
    items.map(|items| Json(List { items })).map_err(|error| Failure::of_database(doing, error))
}

/// Makes a token for the API. Its text is shown this once.
#[utoipa::path(post, path = "/tokens", operation_id = "token_create", tag = "token",
    security(("token" = [])), request_body = CreateToken, responses(
    (status = 201, description = "The new token", body = CreatedToken),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn create(
    caller: Caller,
    State(controller): State<Controller>,
    Body(wish): Body<CreateToken>,
) -> Result<(StatusCode, Json<CreatedToken>), Failure> {
    let doing = format!("create token {}", wish.name);
    caller.may(Permission::Administer, &doing)?;
    let name = name(&wish.name, &doing)?;
    let now = OffsetDateTime::now_utc();
    let id = TokenId::new(new_id());
    let secret = Secret::new(rand::random());
    let token = NewApiToken {
        id,
        name: name.as_str(),
        role: wish.role.into(),
        secret: &secret,
        expires: wish.valid_for_seconds.map(|s| now + Duration::from_secs(s.into())),
    };
    let created = controller.database.create_api_token(token, &caller.name, now).await;
    created.map_err(|error| Failure::of_database(&doing, error))?;
    let text = TokenText::Api { id, secret: secret.clone() };
    made(&controller, id, &text, &doing).await
}

/// Makes a one-time token that lets one agent become one host. Its text is
/// shown this once.
#[utoipa::path(post, path = "/tokens/enrolment", operation_id = "token_create_enrolment", tag = "token",
    security(("token" = [])), request_body = CreateEnrolmentToken, responses(
    (status = 201, description = "The new token", body = CreatedToken),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn create_enrolment(
    caller: Caller,
    State(controller): State<Controller>,
    Body(wish): Body<CreateEnrolmentToken>,
) -> Result<(StatusCode, Json<CreatedToken>), Failure> {
    let doing = format!("create an enrolment token for site {}", wish.site);
    caller.may(Permission::Administer, &doing)?;
    let refuse = |cause: String, advice: &str| -> Failure {
        Fault::new(Code::RequestInvalid, doing.clone(), cause, advice).into()
    };
    let life = wish.valid_for_seconds.map_or(ENROLMENT_LIFE, |s| Duration::from_secs(s.into()));
    if life.is_zero() || life > ENROLMENT_LIFE_MAX {
        return Err(refuse(
            "an enrolment token works for 1 second to 30 days".into(),
            "Choose a time in between.",
        ));
    }
    let of_database = |error| Failure::of_database(&doing, error);
    let site = controller.database.site(&wish.site).await.map_err(of_database)?;
    let site = site.view(0).map_err(of_database)?;
    if !SiteKind::from(site.kind).takes_agents() {
        return Err(refuse(
            format!(
                "site {} is of the kind {}, where no agents are enrolled yet",
                site.name, site.kind
            ),
            "Enrol hosts at sites of the kind managed or standalone-host.",
        ));
    }
    let site = Reference { id: site.id, name: site.name };
    let cloud =
        qualified(&controller, Noun::Cloud, &site, wish.cloud).await.map_err(of_database)?;
    let replaces =
        qualified(&controller, Noun::Host, &site, wish.replaces).await.map_err(of_database)?;
    let now = OffsetDateTime::now_utc();
    let id = TokenId::new(new_id());
    let secret = Secret::new(rand::random());
    let token = NewEnrolmentToken {
        id,
        site: &site,
        cloud: cloud.as_ref(),
        replaces: replaces.as_ref(),
        secret: &secret,
        expires: now + life,
    };
    controller
        .database
        .create_enrolment_token(token, &caller.name, now)
        .await
        .map_err(of_database)?;
    let authority = controller.authority.fingerprint();
    let text = TokenText::Enrolment { id, secret: secret.clone(), authority };
    made(&controller, id, &text, &doing).await
}

/// Withdraws a token: it stops working at once.
#[utoipa::path(delete, path = "/tokens/{token}", operation_id = "token_withdraw", tag = "token",
    security(("token" = [])), params(("token" = String, Path, description = "Id, or the name of an API token")), responses(
    (status = 204, description = "It works no more"),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn withdraw(
    caller: Caller,
    State(controller): State<Controller>,
    Path(reference): Path<String>,
) -> Result<StatusCode, Failure> {
    let doing = format!("withdraw token {reference}");
    caller.may(Permission::Administer, &doing)?;
    let now = OffsetDateTime::now_utc();
    let withdrawn = controller.database.withdraw_token(&reference, &caller.name, now).await;
    match withdrawn.map_err(|error| Failure::of_database(&doing, error))? {
        Some(_) => Ok(StatusCode::NO_CONTENT),
        None => Err(Fault::new(
            Code::NotFound,
            doing,
            "there is no such token that still works",
            "See what there is with: lifeboat token list.",
        )
        .into()),
    }
}

async fn made(
    controller: &Controller,
    id: TokenId,
    text: &TokenText,
    doing: &str,
) -> Result<(StatusCode, Json<CreatedToken>), Failure> {
    let tokens = controller.database.tokens(OffsetDateTime::now_utc()).await;
    let tokens = tokens.map_err(|error| Failure::of_database(doing, error))?;
    let token = tokens
        .into_iter()
        .find(|token| token.id == id.uuid())
        .ok_or_else(|| Fault::new(Code::NotFound, doing, "it is gone already", "Make another."))?;
    Ok((StatusCode::CREATED, Json(CreatedToken { token, text: text.reveal() })))
}

/// The cloud or host of this site that has the name or id, if one is wanted.
async fn qualified(
    controller: &Controller,
    noun: Noun,
    site: &Reference,
    reference: Option<String>,
) -> Result<Option<Reference>, DatabaseError> {
    let Some(reference) = reference else { return Ok(None) };
    let database = &controller.database;
    let id = database.find_seen_from(site, noun, &reference).await?.to_string();
    let (id, name, of) = match noun {
        Noun::Cloud => {
            let cloud = database.cloud(&id).await?;
            (cloud.id, cloud.name, cloud.site.id)
        }
        _ => {
            let host = database.host(&id).await?.view(None)?;
            (host.id, host.name, host.site.id)
        }
    };
    if of == site.id {
        return Ok(Some(Reference { id, name }));
    }
    Err(crate::database::lookup::LookupError::NotFound {
        noun,
        reference: format!("{}/{reference}", site.name),
    }
    .into())
}
