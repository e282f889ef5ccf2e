//! Letting old points go as the policy says.

use std::time::{Duration, Instant};

use replica::error::StoreResult;
use replica::geometry::Cycle;
use replica::retention::{Clock, Needs, Policy, Tier, Verdict, judge};
use replica::writer::Writer;
use tracing::{debug, warn};
use wire::replication::Retention;

/// Points that are dropped at once; the rest waits for the next time.
const DROPPED_MAX: usize = 64;
/// Segments that are looked at in one go.
const SEGMENTS: usize = 8;

/// What is remembered from one look to the next, to notice a clock that
/// jumped.
#[derive(Debug, Default)]
pub struct Tender {
    looked: Option<(i64, Instant)>,
}

/// How long dropping may keep the store from taking changes in; the rest waits
/// for the next time.
const LONGEST: Duration = Duration::from_secs(2);
/// How often old points are looked for.
pub const INTERVAL: Duration = Duration::from_secs(60);

impl Tender {
    /// Drops what the policy no longer keeps and gives room back; what is pinned
    /// stays. `now` is in milliseconds since 1970.
    ///
    /// # Errors
    /// What the store says; it is tried again at the next look.
    pub fn tend(
        &mut self,
        writer: &mut Writer,
        retention: &Retention,
        pinned: &[Cycle],
        now: i64,
    ) -> StoreResult<()> {
        let elapsed = self.looked.map(|(_, at)| at.elapsed().as_millis() as i64);
        let clock = Clock {
            wall: now,
            before: self.looked.map(|(wall, _)| wall),
            elapsed: elapsed.unwrap_or(0),
        };
        self.looked = Some((now, Instant::now()));
        let points = writer.store().points();
        // Views of this process pin their points in the store itself, too.
        let needs = Needs { views: pinned, synchronisations: &[] };
        let verdicts = judge(&points, &policy(retention), needs, clock);
        let old: Vec<Cycle> = points
            .iter()
            .zip(&verdicts)
            .filter(|(_, verdict)| **verdict == Verdict::Drop)
            .map(|(point, _)| point.cycle)
            .take(DROPPED_MAX)
            .collect();
        let begun = Instant::now();
        for point in &old {
            if begun.elapsed() > LONGEST {
                break;
            }
            // One that somebody reads just now must not keep the others.
            match writer.drop_points(&[*point], now) {
                Ok(()) => debug!(point = point.0, "a point is past its retention"),
                Err(replica::error::StoreError::Kept { why, .. }) => {
                    debug!(point = point.0, why, "an old point is kept");
                }
                Err(error) => return Err(error),
            }
        }
        debug!(points = points.len(), old = old.len(), "old points were looked for");
        if !old.is_empty() {
            let done = writer.reclaim(SEGMENTS)?;
            debug!(freed = done.freed, punched = done.punched, "room was given back");
        }
        for path in writer.release_adopted()? {
            warn!(path, "no point needs this adopted image any more; it may be removed");
        }
        Ok(())
    }
}

fn policy(retention: &Retention) -> Policy {
    let tiers = retention.tiers.iter();
    Policy {
        all_hours: retention.all_hours,
        tiers: tiers.map(|tier| Tier { slot_hours: tier.slot_hours, hours: tier.hours }).collect(),
        app_extra_hours: retention.app_extra_hours,
    }
}
