//! Which points are kept: a pure decision, with a reason for each.
//!
//! Ages are taken from the labels of points, so that a policy means what the
//! operator thinks; but a clock that jumped must not delete anything. `now` is
//! therefore the least of the wall clock, what a steady clock allows, and the
//! label of the newest point, and while the first two disagree nothing is
//! dropped at all.
//!
//! So a keeper's clock that is hours ahead makes no point older than it is, not
//! even after a restart; and while no points come, because the source is lost
//! perhaps, those that there are do not thin out.

use std::fmt;

use crate::{
    format::{
        manifest::{Hold, Point},
        record::Consistency,
    },
    geometry::Cycle,
};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
/// The clocks may disagree by this much, in milliseconds.
const JUMP: i64 = MINUTE;

/// How long points are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Every point younger than this, in hours.
    pub all_hours: u32,
    /// Beyond: one point per slot, by the first tier that reaches so far.
    pub tiers: Vec<Tier>,
    /// App-consistent points are kept for as many more hours.
    pub app_extra_hours: u32,
}

/// One point per slot of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tier {
    /// Length of a slot in hours: 1, 24, 168.
    pub slot_hours: u32,
    /// How far back it reaches, in hours before now.
    pub hours: u32,
}

/// What time it is, said by two clocks. Milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// Since 1970.
    pub wall: i64,
    /// When the judge last looked, by the wall clock; none the first time.
    pub before: Option<i64>,
    /// What passed since then by a clock that nobody sets.
    pub elapsed: i64,
}

/// What happens to a point and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It stays.
    Keep(Reason),
    /// It may go: no tier wants it.
    Drop,
}

/// Why a point stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Without it nothing could be recovered.
    Newest,
    /// Somebody reads it.
    View,
    /// A synchronisation starts from it.
    Synchronisation,
    /// An operator holds it.
    Operator,
    /// A site had it when it was lost.
    Lost,
    /// It was promised not to be deleted yet.
    WriteOnce,
    /// Its label is later than now.
    FromTheFuture,
    /// The clock jumped: nobody knows how old anything is.
    ClockJumped,
    /// Young enough for all to be kept.
    Recent,
    /// The newest of its slot, of so many hours.
    Slot(u32),
    /// App-consistent, and within the time added for that.
    AppConsistent,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = match self {
            Self::Drop => return f.write_str("drop (past retention)"),
            Self::Keep(reason) => reason,
        };
        let text = match reason {
            Reason::Newest => "newest",
            Reason::View => "somebody reads it",
            Reason::Synchronisation => "a synchronisation needs it",
            Reason::Operator => "held by an operator",
            Reason::Lost => "what a lost site had",
            Reason::WriteOnce => "write-once",
            Reason::FromTheFuture => "from the future",
            Reason::ClockJumped => "the clock jumped",
            Reason::Recent => "recent",
            Reason::AppConsistent => "app-consistent",
            Reason::Slot(hours) => return write!(f, "keep (one per {hours} h)"),
        };
        write!(f, "keep ({text})")
    }
}

/// Who needs points at this moment, each list in any order.
#[derive(Debug, Clone, Copy, Default)]
pub struct Needs<'a> {
    /// Points that are viewed.
    pub views: &'a [Cycle],
    /// Points that a peer synchronises from.
    pub synchronisations: &'a [Cycle],
}

/// Judges all points of a machine, given from the oldest to the newest.
#[must_use]
pub fn judge(points: &[Point], policy: &Policy, needs: Needs<'_>, clock: Clock) -> Vec<Verdict> {
    let steady = clock.before.map_or(clock.wall, |before| before.saturating_add(clock.elapsed));
    let jumped = (clock.wall - steady).abs() > JUMP;
    let newest = points.last().map_or(i64::MAX, |point| point.instant);
    let now = clock.wall.min(steady).min(newest);
    let mut slots = Slots { taken: Vec::new() };
    // From the newest back: the newest of a slot is the one that stays, and
    // one that is kept anyway serves as its slot's point.
    let mut verdicts: Vec<_> = points
        .iter()
        .rev()
        .enumerate()
        .map(|(place, point)| {
            let age = now.saturating_sub(point.instant);
            let slot = slots.take(policy, point, age);
            if place == 0 {
                Verdict::Keep(Reason::Newest)
            } else if let Some(reason) = pinned(point, needs, now) {
                Verdict::Keep(reason)
            } else if jumped {
                Verdict::Keep(Reason::ClockJumped)
            } else if age < 0 {
                Verdict::Keep(Reason::FromTheFuture)
            } else if age < i64::from(policy.all_hours) * HOUR {
                Verdict::Keep(Reason::Recent)
            } else if let Some(hours) = slot {
                Verdict::Keep(Reason::Slot(hours))
            } else if point.consistency == Consistency::App
                && age < i64::from(policy.all_hours + policy.app_extra_hours) * HOUR
            {
                Verdict::Keep(Reason::AppConsistent)
            } else {
                Verdict::Drop
            }
        })
        .collect();
    verdicts.reverse();
    verdicts
}

fn pinned(point: &Point, needs: Needs<'_>, now: i64) -> Option<Reason> {
    if needs.views.contains(&point.cycle) {
        return Some(Reason::View);
    }
    if needs.synchronisations.contains(&point.cycle) {
        return Some(Reason::Synchronisation);
    }
    match point.hold {
        Hold::Operator => Some(Reason::Operator),
        Hold::Lost => Some(Reason::Lost),
        Hold::Until(instant) if now < instant => Some(Reason::WriteOnce),
        Hold::Until(_) | Hold::None => None,
    }
}

/// Slots that have their point.
struct Slots {
    taken: Vec<(u32, i64)>,
}

impl Slots {
    /// Takes the point's slot if it is free: hours of the slot.
    fn take(&mut self, policy: &Policy, point: &Point, age: i64) -> Option<u32> {
        let reaches = |tier: &&Tier| age < i64::from(tier.hours) * HOUR;
        let tier = policy.tiers.iter().find(reaches)?;
        // Slots lie still in time, so that a point's fate does not change
        // from one look to the next.
        let slot = point.instant.div_euclid(i64::from(tier.slot_hours.max(1)) * HOUR);
        let slot = (tier.slot_hours, slot);
        // Points come newest first, so a slot's points are neighbours.
        if self.taken.last() == Some(&slot) {
            return None;
        }
        self.taken.push(slot);
        Some(tier.slot_hours)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_000 * HOUR;

    /// Points that are so many hours old.
    fn points(ages: &[i64]) -> Vec<Point> {
        let point = |(cycle, age): (u32, &i64)| Point {
            cycle: Cycle(cycle),
            generation: 1,
            instant: NOW - age * HOUR,
            consistency: Consistency::Crash,
            origin: "".into(),
            disks: [].into(),
            configuration: [].into(),
            stored: 0,
            hold: Hold::None,
        };
        (1..).zip(ages).map(point).collect()
    }

    fn policy() -> Policy {
        let tiers =
            vec![Tier { slot_hours: 1, hours: 48 }, Tier { slot_hours: 24, hours: 30 * 24 }];
        Policy { all_hours: 24, tiers, app_extra_hours: 1000 }
    }

    fn on_time() -> Clock {
        Clock { wall: NOW, before: Some(NOW - HOUR), elapsed: HOUR }
    }

    fn render(points: &[Point], needs: Needs<'_>, clock: Clock) -> String {
        let verdicts = judge(points, &policy(), needs, clock);
        verdicts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn points_thin_out_with_age() {
        let mut points = points(&[800, 101, 100, 30, 30, 25, 2, 1]);
        points[4].instant += 1;
        assert_eq!(
            render(&points, Needs::default(), on_time()),
            "drop (past retention), drop (past retention), keep (one per 24 h), \
             drop (past retention), keep (one per 1 h), keep (one per 1 h), keep (recent), \
             keep (newest)"
        );
    }

    #[test]
    fn newest_point_survives_an_expired_policy() {
        assert_eq!(
            render(&points(&[4000, 1900]), Needs::default(), on_time()),
            "drop (past retention), keep (newest)"
        );
    }

    #[test]
    fn whoever_needs_a_point_keeps_it() {
        let mut points = points(&[900, 900, 900, 900, 900, 900, 900, 1]);
        points[2].hold = Hold::Operator;
        points[3].hold = Hold::Until(NOW + 1);
        points[4].hold = Hold::Until(NOW - HOUR);
        points[5].consistency = Consistency::App;
        points[6].hold = Hold::Lost;
        let needs = Needs { views: &[Cycle(1)], synchronisations: &[Cycle(2)] };
        assert_eq!(
            render(&points, needs, on_time()),
            "keep (somebody reads it), keep (a synchronisation needs it), \
             keep (held by an operator), keep (write-once), drop (past retention), \
             keep (app-consistent), keep (what a lost site had), keep (newest)"
        );
    }

    #[test]
    fn a_keepers_clock_that_stays_ahead_makes_no_point_older() {
        let ahead = Clock { wall: NOW + 5000 * HOUR, ..on_time() };
        let restarted = Clock { before: None, ..ahead };
        let for_long = Clock { before: Some(ahead.wall - HOUR), ..ahead };
        for clock in [restarted, for_long] {
            assert_eq!(
                render(&points(&[800, 2, 1]), Needs::default(), clock),
                "drop (past retention), keep (recent), keep (newest)"
            );
        }
    }

    #[test]
    fn points_do_not_thin_out_while_none_come() {
        assert_eq!(
            render(&points(&[601, 600]), Needs::default(), on_time()),
            "keep (recent), keep (newest)"
        );
    }

    #[test]
    fn a_clock_that_jumps_deletes_nothing() {
        let forward = Clock { wall: NOW, before: Some(NOW - 900 * HOUR), elapsed: HOUR };
        let back = Clock { wall: NOW, before: Some(NOW + HOUR), elapsed: HOUR };
        for clock in [forward, back] {
            assert_eq!(
                render(&points(&[800, 1]), Needs::default(), clock),
                "keep (the clock jumped), keep (newest)"
            );
        }
        assert_eq!(
            render(&points(&[-5, -6]), Needs::default(), on_time()),
            "keep (from the future), keep (newest)"
        );
    }
}
