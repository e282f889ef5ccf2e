//! What a reversal would do, told beforehand.

use std::time::Duration;

use api::failover::ReversePlan;
use api::problem::Problem;
use axum::Json;
use axum::extract::{Path, State};
use domain::failover::Operation;
use domain::failover::estimate::{Disks, Evidence, OldDisks, estimate};
use domain::id::HostId;
use domain::token::Permission;
use domain::units::ByteCount;
use jobs::Runbook as _;
use tokio::time::timeout;
use uuid::Uuid;
use wire::command::{Answer, Command, Work};

use super::access::Caller;
use super::failovers::permitted;
use super::failure::Failure;
use super::protection_view::Hosts;
use crate::Controller;
use crate::database::hosts::new_id;
use crate::database::protections::Protection as Stored;
use crate::runbooks::reverse::ReverseReplicate;

/// How long an agent has to look at a machine's disks.
const LOOK_LIMIT: Duration = Duration::from_secs(20);

/// What a reversal would do, and how much it is expected to send. Told before the
/// commit as well.
#[utoipa::path(get, path = "/protections/{protection}/reverse", operation_id = "protection_reverse_plan", tag = "protection",
    security(("token" = [])), params(("protection" = String, Path, description = "As for ordering a failover")), responses(
    (status = 200, description = "The plan", body = ReversePlan),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn plan(
    caller: Caller,
    State(controller): State<Controller>,
    Path(reference): Path<String>,
) -> Result<Json<ReversePlan>, Failure> {
    let doing = format!("plan to reverse the replication of machine {reference}");
    caller.may(Permission::Read, &doing)?;
    let stored = match permitted(&controller, &reference, Operation::Commit, &doing).await {
        Ok(stored) => stored,
        Err(_) => permitted(&controller, &reference, Operation::ReverseReplicate, &doing).await?,
    };
    let hosts = Hosts::read(&controller).await;
    // Nothing is turned yet: it runs at the target of the direction that ends.
    let named = hosts.and_then(|hosts| {
        let name = |host| hosts.get(host).map(|(_, side)| side.name.clone());
        Ok((name(stored.away())?, name(stored.source)?))
    });
    let (runs_at, was_at) = named.map_err(|error| Failure::of_database(&doing, error))?;
    let (disks, old) = tokio::join!(
        weigh(&controller, stored.away(), &stored, stored.failover.recovery),
        weigh(&controller, stored.source, &stored, None),
    );
    let evidence = Evidence {
        runs_at: runs_at.clone(),
        was_at: was_at.clone(),
        unsent: stored.failover.unsent,
        disks: disks.and_then(Result::ok),
        old: match old {
            Some(Ok(disks)) => OldDisks::There(disks.taken),
            Some(Err(why)) => OldDisks::Unusable(why),
            None => OldDisks::Unknown,
        },
    };
    let expected = estimate(&evidence);
    Ok(Json(ReversePlan {
        from: runs_at,
        to: was_at,
        steps: ReverseReplicate.table().names().into_iter().map(str::to_owned).collect(),
        about_bytes: expected.about.map(ByteCount::bytes),
        at_most_bytes: expected.at_most.map(ByteCount::bytes),
        basis: expected.basis,
    }))
}

/// A machine's disks at a host, or why they cannot be used; none if its agent does
/// not tell.
async fn weigh(
    controller: &Controller,
    host: HostId,
    stored: &Stored,
    recovery: Option<Uuid>,
) -> Option<Result<Disks, String>> {
    let work = Work::Weigh { machine: stored.machine, recovery };
    let command = Command { id: new_id(), job: Uuid::nil(), work };
    let answer = controller.commands.give(host, command, |_| {});
    match timeout(LOOK_LIMIT, answer).await {
        Ok(Ok(Answer::Weight { unusable: Some(why), .. })) => Some(Err(why)),
        Ok(Ok(Answer::Weight { bytes, taken_bytes, written_bytes, unusable: None })) => {
            Some(Ok(Disks {
                size: ByteCount::new(bytes),
                taken: ByteCount::new(taken_bytes),
                written: written_bytes.map(ByteCount::new),
            }))
        }
        _ => None,
    }
}
