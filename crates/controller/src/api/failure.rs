//! From an error to what the client is told.

use axum::Json;
use axum::extract::FromRequest;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use domain::fault::{Code, Fault};
use domain::name::Name;

use crate::database::DatabaseError;
use crate::database::lookup::LookupError;

/// A request that failed or was refused.
#[derive(Debug)]
pub(super) struct Failure(Fault);

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self(fault)
    }
}

impl Failure {
    /// What the database said, while something was being done.
    pub(super) fn of_database(doing: &str, error: DatabaseError) -> Self {
        let cause = error.to_string();
        let fault = match error {
            DatabaseError::NameTaken => Fault::new(
                Code::NameTaken,
                doing,
                cause,
                "Choose another name, or rename the one that has it.",
            ),
            DatabaseError::Lookup(LookupError::NotFound { noun, .. }) => Fault::new(
                Code::NotFound,
                doing,
                cause,
                format!("See what there is with: {}.", noun.listing()),
            ),
            DatabaseError::Lookup(LookupError::Ambiguous { .. }) => Fault::new(
                Code::Ambiguous,
                doing,
                cause,
                "Say which one by its qualified name or its id.",
            ),
            DatabaseError::StillInUse(_) => Fault::new(
                Code::StillInUse,
                doing,
                cause,
                "Remove or move what belongs to it first.",
            ),
            DatabaseError::Failed(source) => {
                tracing::error!(%doing, error = %source, "the database failed");
                Fault::new(
                    Code::DatabaseUnusable,
                    doing,
                    format!("{cause}: {source}"),
                    "Look at the controller's log and its disk, then try again.",
                )
            }
            DatabaseError::Nonsense { .. } => {
                tracing::error!(%doing, %cause, "a row makes no sense");
                Fault::new(
                    Code::DatabaseUnusable,
                    doing,
                    cause,
                    "Check that the controller is not older than the one that wrote the database.",
                )
            }
        };
        Self(fault)
    }

    /// What an agent said to a command; of another version's codes only the words
    /// are known here.
    pub(super) fn of_agent(refused: wire::message::Refused) -> Self {
        let code = Code::named(&refused.code).unwrap_or(Code::Internal);
        Self(Fault::new(code, refused.doing, refused.cause, refused.advice))
    }

    fn status(&self) -> StatusCode {
        match self.0.code {
            Code::NotAuthenticated => StatusCode::UNAUTHORIZED,
            Code::NotPermitted => StatusCode::FORBIDDEN,
            Code::NotFound | Code::PointUnknown => StatusCode::NOT_FOUND,
            Code::Ambiguous | Code::NameTaken | Code::StillInUse | Code::StateForbids => {
                StatusCode::CONFLICT
            }
            Code::RequestInvalid | Code::PolicyInvalid => StatusCode::UNPROCESSABLE_ENTITY,
            Code::ProtectionBlocked | Code::SideNotReachable => StatusCode::CONFLICT,
            Code::DatabaseUnusable => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = self.status();
        (status, Json(api::problem::Problem::from(self.0))).into_response()
    }
}

/// A name that the client gave.
pub(super) fn name(text: &str, doing: &str) -> Result<Name, Failure> {
    text.parse().map_err(|error: domain::name::NotAName| {
        Fault::new(Code::RequestInvalid, doing, error.to_string(), "Choose another name.").into()
    })
}

/// A host's folder that the client named; whether it is there, the host's agent
/// finds out.
pub(super) fn is_a_folder(text: &str, doing: &str) -> Result<(), Failure> {
    if text.starts_with('/') && text.len() <= 1000 && !text.contains(char::is_control) {
        return Ok(());
    }
    let cause = format!("`{text}` is no path of a folder that begins with a slash");
    Err(Fault::new(Code::RequestInvalid, doing, cause, "Write all of the folder's path.").into())
}

/// JSON from the client, whose errors are ours.
#[derive(FromRequest)]
#[from_request(via(Json), rejection(Failure))]
pub(super) struct Body<T>(pub(super) T);

impl From<JsonRejection> for Failure {
    fn from(rejection: JsonRejection) -> Self {
        invalid(rejection.body_text())
    }
}

/// A query string from the client, whose errors are ours.
#[derive(axum::extract::FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(Failure))]
pub(super) struct Query<T>(pub(super) T);

impl From<QueryRejection> for Failure {
    fn from(rejection: QueryRejection) -> Self {
        invalid(rejection.body_text())
    }
}

fn invalid(cause: String) -> Failure {
    Fault::new(
        Code::RequestInvalid,
        "understand the request",
        cause,
        "Compare it with the API's description at /api/v1/openapi.json.",
    )
    .into()
}

pub(super) async fn no_such_route(method: Method, uri: Uri) -> Failure {
    Fault::new(
        Code::NotFound,
        format!("{method} {}", uri.path()),
        "the API has no such route",
        "Compare it with the API's description at /api/v1/openapi.json.",
    )
    .into()
}

pub(super) async fn no_such_method(method: Method, uri: Uri) -> Response {
    let failure = no_such_route(method, uri).await;
    (StatusCode::METHOD_NOT_ALLOWED, failure).into_response()
}
