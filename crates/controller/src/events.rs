//! Noticing what changes about protected machines, and writing it down: who
//! looks in the morning sees what happened in the night.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use api::event::Aspect;
use api::protection::Replication;
use time::OffsetDateTime;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::error;
use uuid::Uuid;

use crate::Controller;
use crate::api::Glance;
use crate::database::events::NewEvent;

/// How often is looked; what is over sooner is not seen.
const EVERY: Duration = Duration::from_secs(5);

/// How the held points of a machine are told when there are none.
const NONE_HELD: &str = "none";

type Known = HashMap<(Uuid, Aspect), String>;

/// Notices until it is told to stop.
pub(crate) async fn notice(controller: Controller, stop: CancellationToken) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut known: Option<Known> = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        if let Err(error) = look(&controller, &mut known).await {
            error!(%error, "cannot write down what changed");
        }
    }
}

async fn look(controller: &Controller, known: &mut Option<Known>) -> crate::database::Result<()> {
    let before = match known.take() {
        Some(known) => known,
        None => controller.database.last_events().await?,
    };
    let now = crate::api::glances(controller).await?;
    let (changes, after) = changes(before, &now);
    if !changes.is_empty() {
        controller.database.write_events(&changes, OffsetDateTime::now_utc()).await?;
    }
    *known = Some(after);
    Ok(())
}

/// What changed since, and what is known from now on.
fn changes(mut known: Known, now: &[Glance]) -> (Vec<NewEvent>, Known) {
    let mut changes = Vec::new();
    let here: HashSet<Uuid> = now.iter().map(|protection| protection.id).collect();
    known.retain(|(protection, _), _| here.contains(protection));
    for protection in now {
        for aspect in Aspect::ALL {
            let (after, detail) = how(protection, aspect);
            let before = known.insert((protection.id, aspect), after.clone());
            // That nothing was ever held is no event.
            let is_new = aspect != Aspect::HeldPoints || before.is_some() || after != NONE_HELD;
            if before.as_ref() == Some(&after) || !is_new {
                continue;
            }
            changes.push(NewEvent {
                protection: protection.id,
                machine: protection.machine.clone(),
                aspect,
                before,
                after,
                detail,
            });
        }
    }
    (changes, known)
}

/// How an aspect is, and why.
fn how(protection: &Glance, aspect: Aspect) -> (String, String) {
    match aspect {
        Aspect::State => (protection.state.to_string(), String::new()),
        Aspect::Health => {
            let reasons: Vec<&str> =
                protection.health.reasons.iter().map(|reason| reason.reason.as_str()).collect();
            (protection.health.level.to_string(), reasons.join("; "))
        }
        Aspect::HeldPoints => {
            let (numbers, reasons): (Vec<_>, Vec<_>) = protection
                .held
                .iter()
                .map(|(point, reason)| (point.to_string(), format!("{point}: {reason}")))
                .unzip();
            match numbers.as_slice() {
                [] => (NONE_HELD.into(), String::new()),
                numbers => (numbers.join(", "), reasons.join("; ")),
            }
        }
        Aspect::Replication => match &protection.replication {
            Replication::Waiting => ("waiting".into(), String::new()),
            Replication::Initial => ("initial".into(), String::new()),
            Replication::Exporting { folder } => ("exporting".into(), folder.clone()),
            Replication::Carried { folder } => ("carried".into(), folder.clone()),
            Replication::Steady => ("steady".into(), String::new()),
            Replication::Resynchronising { reason, .. } => {
                ("resynchronising".into(), reason.clone())
            }
            Replication::Paused => ("paused".into(), String::new()),
            Replication::Broken { code, reason, .. } => {
                ("broken".into(), format!("{code}: {reason}"))
            }
        },
    }
}
