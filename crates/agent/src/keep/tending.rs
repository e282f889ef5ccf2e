//! Letting old points go as the policy says.

use std::time::{Duration, Instant};

use replica::error::{StoreError, StoreResult};
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
            drop_one(writer, *point, now)?;
        }
        debug!(points = points.len(), old = old.len(), "old points were looked for");
        if !old.is_empty() {
            let done = writer.reclaim(SEGMENTS)?;
            debug!(freed = done.freed, punched = done.punched, "room was given back");
        }
        release_adopted(writer)
    }
}

/// Drops all points but the newest and those that something holds or needs, and
/// gives their room back: how many went, how many stay. `now` is in milliseconds
/// since 1970.
///
/// # Errors
/// What the store says; what went is gone.
pub fn drop_all(writer: &mut Writer, pinned: &[Cycle], now: i64) -> StoreResult<(u64, u64)> {
    let points = writer.store().points();
    let mut dropped = 0;
    for point in points.iter().filter(|point| !pinned.contains(&point.cycle)) {
        dropped += u64::from(drop_one(writer, point.cycle, now)?);
    }
    if dropped > 0 {
        let mut done = writer.reclaim(SEGMENTS)?;
        while done.deleted > 0 || done.punched > 0 {
            done = writer.reclaim(SEGMENTS)?;
        }
    }
    release_adopted(writer)?;
    Ok((dropped, points.len() as u64 - dropped))
}

/// Drops a point unless it must stay, which keeps no other; whether it went.
fn drop_one(writer: &mut Writer, point: Cycle, now: i64) -> StoreResult<bool> {
    match writer.drop_points(&[point], now) {
        Ok(()) => {
            debug!(point = point.0, "a point is dropped");
            Ok(true)
        }
        Err(StoreError::Kept { why, .. }) => {
            debug!(point = point.0, why, "an old point is kept");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn release_adopted(writer: &mut Writer) -> StoreResult<()> {
    for path in writer.release_adopted()? {
        warn!(path, "no point needs this adopted image any more; it may be removed");
    }
    Ok(())
}

fn policy(retention: &Retention) -> Policy {
    let tiers = retention.tiers.iter();
    Policy {
        all_hours: retention.all_hours,
        tiers: tiers.map(|tier| Tier { slot_hours: tier.slot_hours, hours: tier.hours }).collect(),
        app_extra_hours: retention.app_extra_hours,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use replica::format::manifest::Hold;
    use replica::format::record::Consistency;
    use replica::medium::folder::Folder;
    use replica::writer::{SealFacts, WriterOptions};

    use super::*;

    #[test]
    fn all_points_are_dropped_but_the_newest_and_those_that_are_needed() {
        let folder = tempfile::tempdir().unwrap();
        let medium = Folder::create(folder.path()).unwrap();
        let mut writer = Writer::open(Arc::new(medium), WriterOptions::new(1)).unwrap();
        let facts = |instant| SealFacts {
            instant,
            consistency: Consistency::Crash,
            origin: "test".into(),
            configuration: Vec::new(),
        };
        let points: Vec<Cycle> = (0..6)
            .map(|instant| {
                writer.begin(&[1 << 20]).unwrap();
                writer.seal(facts(instant)).unwrap().cycle
            })
            .collect();
        writer.hold(points[1], Hold::Lost).unwrap();
        writer.hold(points[2], Hold::Operator).unwrap();
        assert_eq!(drop_all(&mut writer, &[points[3]], 0).unwrap(), (2, 4));
        let left: Vec<Cycle> = writer.store().points().iter().map(|point| point.cycle).collect();
        assert_eq!(left, [points[1], points[2], points[3], points[5]]);
        assert_eq!(drop_all(&mut writer, &[], 0).unwrap(), (1, 3));
    }
}
