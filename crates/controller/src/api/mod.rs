//! The REST API under `/api/v1`, one file per noun.
//!
//! Handlers convert and call; they hold no rule. Each takes a
//! [`Caller`](access::Caller), who proved by a token what they may do, and
//! returns [`Failure`](failure::Failure) with a code, a cause and advice.
//! The OpenAPI document is made from the handlers; `openapi.json` at the root
//! of the repository is its checked-in copy.

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::get;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::Controller;

mod access;
mod adoptions;
mod audit;
mod clouds;
mod events;
mod failovers;
mod failure;
mod health;
mod hosts;
mod jobs;
mod limit;
mod machines;
mod networks;
mod points;
mod policies;
mod pools;
mod protect;
mod protection_view;
mod protections;
mod reversal;
mod sites;
mod tokens;
mod verifications;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Lifeboat",
        description = "Site recovery for virtual machines and servers.\n\nEvery request but those to `health` and `openapi.json` carries a token: `Authorization: Bearer lba.…`. Errors are of type `Problem`. Where a path takes a name, it takes the name, the name qualified by what it belongs to (`site/host`, with the slash encoded as `%2F`), or the id.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    tags(
        (name = "site", description = "Places that can be lost as a whole"),
        (name = "cloud", description = "Named groups of hosts inside a site"),
        (name = "host", description = "Machines with an agent"),
        (name = "machine", description = "Virtual machines"),
        (name = "network", description = "Virtual networks of hosts"),
        (name = "pool", description = "Storage pools of hosts"),
        (name = "policy", description = "How machines are protected"),
        (name = "protection", description = "Protected machines, their points and verifications"),
        (name = "failover", description = "Bringing machines to the other side, and back"),
        (name = "job", description = "Anything that takes time"),
        (name = "token", description = "Who may use the API, and who may become a host"),
        (name = "controller", description = "The controller itself"),
    )
)]
struct Document;

fn routes() -> OpenApiRouter<Controller> {
    OpenApiRouter::new()
        .routes(routes!(sites::list, sites::create))
        .routes(routes!(sites::show, sites::update, sites::delete))
        .routes(routes!(clouds::list, clouds::create))
        .routes(routes!(clouds::show, clouds::update, clouds::delete))
        .routes(routes!(hosts::list))
        .routes(routes!(hosts::show, hosts::remove))
        .routes(routes!(hosts::move_to))
        .routes(routes!(hosts::revoke))
        .routes(routes!(machines::list))
        .routes(routes!(machines::show))
        .routes(routes!(networks::list))
        .routes(routes!(networks::show))
        .routes(routes!(pools::list))
        .routes(routes!(pools::show))
        .routes(routes!(policies::list, policies::create))
        .routes(routes!(policies::show, policies::change, policies::delete))
        .routes(routes!(protect::check))
        .routes(routes!(protections::list, protect::create))
        .routes(routes!(protections::show, protections::change, protections::disable))
        .routes(routes!(protections::pause))
        .routes(routes!(protections::resume))
        .routes(routes!(protections::import))
        .routes(routes!(protections::copy_over_network))
        .routes(routes!(protections::resynchronise))
        .routes(routes!(points::list))
        .routes(routes!(points::hold))
        .routes(routes!(points::release))
        .routes(routes!(failovers::order))
        .routes(routes!(failovers::change_point))
        .routes(routes!(failovers::commit))
        .routes(routes!(failovers::undo))
        .routes(routes!(failovers::reverse, reversal::plan))
        .routes(routes!(jobs::list))
        .routes(routes!(jobs::show))
        .routes(routes!(jobs::cancel))
        .routes(routes!(jobs::resume))
        .routes(routes!(jobs::retry))
        .routes(routes!(jobs::abandon))
        .routes(routes!(events::list))
        .routes(routes!(verifications::verify))
        .routes(routes!(verifications::list))
        .routes(routes!(verifications::show))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::create_enrolment))
        .routes(routes!(tokens::withdraw))
        .routes(routes!(adoptions::list, adoptions::adopt))
        .routes(routes!(adoptions::renounce))
        .routes(routes!(audit::list))
        .routes(routes!(health::health))
        .routes(routes!(health::metrics))
}

fn documented() -> (Router<Controller>, utoipa::openapi::OpenApi) {
    let mut document = Document::openapi();
    let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    document
        .components
        .get_or_insert_default()
        .add_security_scheme("token", SecurityScheme::Http(scheme));
    OpenApiRouter::with_openapi(document).nest(api::PREFIX, routes()).split_for_parts()
}

/// The OpenAPI document of the API.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    documented().1
}

/// The API as a service.
pub fn router(controller: Controller) -> Router {
    let (routes, document) = documented();
    routes
        .route(
            &format!("{}/openapi.json", api::PREFIX),
            get(move || std::future::ready(axum::Json(document.clone()))),
        )
        .fallback(failure::no_such_route)
        .method_not_allowed_fallback(failure::no_such_method)
        .layer(middleware::from_fn(count))
        .layer(tower_http::limit::RequestBodyLimitLayer::new(1 << 20))
        .with_state(controller)
}

/// How all protections are, for the events.
pub(crate) use protection_view::{Glance, glances};

/// All protections as they are shown, for the metrics.
pub(crate) async fn protections(
    controller: &Controller,
) -> crate::database::Result<Vec<api::protection::Protection>> {
    protection_view::all(controller).await
}

async fn count(request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let response = next.run(request).await;
    crate::metrics::count_request(method.as_str(), response.status().as_u16());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Run `cargo xtask openapi` after a change of the API, and read the
    /// difference before committing it.
    #[test]
    fn the_checked_in_document_is_that_of_the_code() {
        let made = openapi().to_pretty_json().unwrap();
        let checked_in = include_str!("../../../../openapi.json");
        assert!(made.trim() == checked_in.trim(), "run: cargo xtask openapi");
    }

    #[test]
    fn every_route_but_those_for_anybody_asks_for_a_token() {
        let document = serde_json::to_value(openapi()).unwrap();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let guarded = operation.get("security").is_some();
                let open = path.ends_with("/health");
                assert_ne!(guarded, open, "{method} {path}");
            }
        }
    }
}
