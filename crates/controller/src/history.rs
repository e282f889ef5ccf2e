//! Measuring RPO all the time: promised is what can be shown.
//!
//! A protection is measured while at least one of its agents is connected and
//! has told of it on that connection; in other minutes nobody here knows, and
//! nothing is made up.

use std::time::Duration;

use domain::id::ProtectionId;
use time::OffsetDateTime;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::Controller;
use crate::agents::Connections;
use crate::database::protections::Protection;

/// How often it is measured, besides each time that an agent reports.
const EVERY: Duration = Duration::from_secs(15);
/// How often old history is dropped.
const PRUNE_EVERY: Duration = Duration::from_secs(3600);

/// Measures until it is told to stop.
pub(crate) async fn keep(controller: Controller, stop: CancellationToken) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut prunes = interval(PRUNE_EVERY);
    prunes.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let done = tokio::select! {
            _ = ticks.tick() => measure(&controller).await,
            _ = prunes.tick() => controller.database.prune_history(OffsetDateTime::now_utc()).await,
            () = stop.cancelled() => return,
        };
        if let Err(error) = done {
            error!(%error, "cannot keep the history of RPO");
        }
    }
}

async fn measure(controller: &Controller) -> crate::database::Result<()> {
    let protections = controller.database.protections().await?;
    let known: Vec<(ProtectionId, OffsetDateTime)> = protections
        .iter()
        .filter(|protection| is_heard_of(protection, &controller.connections))
        .filter_map(|protection| Some((protection, protection.newest()?)))
        .filter(|(protection, label)| controller.connections.can_date(protection.source, *label))
        .map(|(protection, label)| (protection.id, label))
        .collect();
    if known.is_empty() {
        return Ok(());
    }
    controller.database.measure_rpo(&known, OffsetDateTime::now_utc()).await
}

/// Whether an agent has told of the protection since it connected.
fn is_heard_of(protection: &Protection, connections: &Connections) -> bool {
    let told = |host, received: Option<OffsetDateTime>| {
        let since = connections.since(host);
        since.zip(received).is_some_and(|(since, received)| received >= since)
    };
    told(protection.source, protection.shipping.as_ref().map(|(_, received)| *received))
        || told(protection.target, protection.keeping.as_ref().map(|(_, received)| *received))
}
