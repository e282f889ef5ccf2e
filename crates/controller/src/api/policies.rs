//! Policies.

use api::List;
use api::policy::{BandwidthRule, ChangePolicy, CreatePolicy, Policy, PolicyTerms};
use api::problem::Problem;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use domain::calendar::NoWindow;
use domain::fault::{Code, Fault};
use domain::id::PolicyId;
use domain::token::Permission;
use time::OffsetDateTime;

use super::access::Caller;
use super::failure::{Body, Failure, name};
use crate::Controller;
use crate::database::hosts::new_id;
use crate::database::policies::NamedPolicy;

fn view(named: NamedPolicy) -> Policy {
    let policy = named.policy;
    Policy {
        id: named.id.uuid(),
        name: named.name,
        every_seconds: policy.every.0,
        retention: policy.retention.into(),
        app_consistent_seconds: policy.app_consistent.map(|every| every.0),
        freeze_seconds: policy.freeze_limit.0,
        compression: policy.compression.into(),
        bytes_per_second: policy.bandwidth.map(domain::units::ByteCount::bytes),
        calendar: policy
            .calendar
            .iter()
            .map(|rule| BandwidthRule {
                window: rule.window.to_string(),
                bytes_per_second: rule.limit.map(domain::units::ByteCount::bytes),
            })
            .collect(),
        resynchronise_in: policy.resynchronise_in.iter().map(ToString::to_string).collect(),
        hydration_bytes_per_second: policy.hydration.map(domain::units::ByteCount::bytes),
        points_at_commit: policy.points_at_commit.into(),
        when_alone: policy.alone.into(),
        protections: named.protections,
    }
}

/// A policy with the terms that a client gave.
fn changed(
    policy: &domain::policy::Policy,
    terms: PolicyTerms,
    doing: &str,
) -> Result<domain::policy::Policy, Failure> {
    let invalid = |cause: String| {
        let advice = "Choose other values; lifeboat policy show default shows sound ones.";
        Fault::new(Code::PolicyInvalid, doing, cause, advice)
    };
    let change = terms.try_into().map_err(|error: NoWindow| invalid(error.to_string()))?;
    policy.changed(change).map_err(|flaws| {
        let causes: Vec<String> = flaws.iter().map(ToString::to_string).collect();
        invalid(causes.join("; ")).into()
    })
}

/// Policies, by name.
#[utoipa::path(get, path = "/policies", operation_id = "policy_list", tag = "policy",
    security(("token" = [])), responses(
    (status = 200, description = "The policies", body = List<Policy>),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn list(
    caller: Caller,
    State(controller): State<Controller>,
) -> Result<Json<List<Policy>>, Failure> {
    let doing = "list the policies";
    caller.may(Permission::Read, doing)?;
    let policies = controller.database.policies().await;
    let policies = policies.map_err(|error| Failure::of_database(doing, error))?;
    Ok(Json(List { items: policies.into_iter().map(view).collect() }))
}

/// Makes a policy.
#[utoipa::path(post, path = "/policies", operation_id = "policy_create", tag = "policy",
    security(("token" = [])), request_body = CreatePolicy, responses(
    (status = 201, description = "The new policy", body = Policy),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn create(
    caller: Caller,
    State(controller): State<Controller>,
    Body(wish): Body<CreatePolicy>,
) -> Result<(StatusCode, Json<Policy>), Failure> {
    let doing = format!("create policy {}", wish.name);
    caller.may(Permission::Operate, &doing)?;
    let name = name(&wish.name, &doing)?;
    let policy = changed(&domain::policy::Policy::default(), wish.terms, &doing)?;
    let (id, now) = (PolicyId::new(new_id()), OffsetDateTime::now_utc());
    let created = async {
        controller.database.create_policy(id, &name, &policy, &caller.name, now).await?;
        controller.database.policy(&id.to_string()).await
    };
    let policy = created.await.map_err(|error| Failure::of_database(&doing, error))?;
    Ok((StatusCode::CREATED, Json(view(policy))))
}

/// One policy.
#[utoipa::path(get, path = "/policies/{policy}", operation_id = "policy_show", tag = "policy",
    security(("token" = [])), params(("policy" = String, Path, description = "Name or id")), responses(
    (status = 200, description = "The policy", body = Policy),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn show(
    caller: Caller,
    State(controller): State<Controller>,
    Path(reference): Path<String>,
) -> Result<Json<Policy>, Failure> {
    let doing = format!("show policy {reference}");
    caller.may(Permission::Read, &doing)?;
    let policy = controller.database.policy(&reference).await;
    policy.map(view).map(Json).map_err(|error| Failure::of_database(&doing, error))
}

/// Changes a policy, for all protections that follow it.
#[utoipa::path(patch, path = "/policies/{policy}", operation_id = "policy_change", tag = "policy",
    security(("token" = [])), params(("policy" = String, Path, description = "Name or id")),
    request_body = ChangePolicy, responses(
    (status = 200, description = "The policy as it is now", body = Policy),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn change(
    caller: Caller,
    State(controller): State<Controller>,
    Path(reference): Path<String>,
    Body(wish): Body<ChangePolicy>,
) -> Result<Json<Policy>, Failure> {
    let doing = format!("change policy {reference}");
    caller.may(Permission::Operate, &doing)?;
    let of_database = |error| Failure::of_database(&doing, error);
    let name = wish.name.map(|text| name(&text, &doing)).transpose()?;
    let policy = controller.database.policy(&reference).await.map_err(of_database)?;
    let to = changed(&policy.policy, wish.terms, &doing)?;
    let now = OffsetDateTime::now_utc();
    let changed = async {
        controller.database.change_policy(&policy, name.as_ref(), &to, &caller.name, now).await?;
        controller.duties.announce();
        controller.database.policy(&policy.id.to_string()).await
    };
    changed.await.map(view).map(Json).map_err(of_database)
}

/// Deletes a policy that no protection follows.
#[utoipa::path(delete, path = "/policies/{policy}", operation_id = "policy_delete", tag = "policy",
    security(("token" = [])), params(("policy" = String, Path, description = "Name or id")), responses(
    (status = 204, description = "It is gone"),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn delete(
    caller: Caller,
    State(controller): State<Controller>,
    Path(reference): Path<String>,
) -> Result<StatusCode, Failure> {
    let doing = format!("delete policy {reference}");
    caller.may(Permission::Operate, &doing)?;
    let now = OffsetDateTime::now_utc();
    let deleted = async {
        let policy = controller.database.policy(&reference).await?;
        controller.database.delete_policy(&policy, &caller.name, now).await
    };
    deleted.await.map_err(|error| Failure::of_database(&doing, error))?;
    Ok(StatusCode::NO_CONTENT)
}
