//! Whether a protection is healthy: a pure decision from what is wanted, what
//! agents last told, and the time; with a reason for everything that is not as
//! it should be.
//!
//! The boundaries stand here, and nowhere else.

use std::fmt;

use time::{Duration, OffsetDateTime};

use crate::host::Reachability;
use crate::protection::{
    Comparison, Intent, Observed, Phase, Side, State, Trouble, Verified, state,
};
use crate::units::{ByteCount, Seconds, span, utc};

/// The newest point may be older than the copy frequency by this factor.
pub const RPO_WARNING_TIMES: i32 = 2;
/// Beyond this factor, what was promised is missed by far.
pub const RPO_CRITICAL_TIMES: i32 = 10;
/// No age below this is a warning: a cycle takes time, and so does its report.
pub const RPO_FLOOR: Duration = Duration::seconds(15);
/// Agents have so long to connect again, or to tell of a protection for the
/// first time.
pub const SILENCE_ALLOWED: Duration = Duration::seconds(60);
/// Of the room that points take and may take, this share must be free, in
/// percent.
pub const ROOM_WARNING_PERCENT: u64 = 10;
/// Less room than this is a warning in any case.
pub const ROOM_WARNING: ByteCount = ByteCount::from_kib(1 << 20);
/// Less than this is critical: the next points may not fit.
pub const ROOM_CRITICAL: ByteCount = ByteCount::from_kib(256 << 10);

/// How healthy a protection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// As promised.
    Normal,
    /// Somebody should look at it.
    Warning,
    /// What was promised is not kept, or will not be if it is needed now.
    Critical,
}

/// How healthy a protection is, with reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// That of the worst reason; normal without any.
    pub level: Level,
    /// The worst first.
    pub reasons: Vec<Reason>,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// A host's certificate is refused for good.
    HostRevoked(String),
    /// A host's agent is not connected.
    NotHeard {
        /// The host.
        host: String,
        /// Since when.
        since: OffsetDateTime,
    },
    /// A host's agent is one that does not replicate.
    AgentTooOld(String),
    /// A host's clock is not the controller's.
    ClockOff {
        /// The host.
        host: String,
        /// How far it is ahead, or behind if negative.
        ahead: Duration,
    },
    /// Nobody knows where to send the target anything.
    NoAddress(String),
    /// The source's agent is connected and tells nothing of the protection.
    NotTaken(String),
    /// Something keeps the source or the target from going on.
    Trouble {
        /// The host.
        host: String,
        /// What it is.
        trouble: Trouble,
    },
    /// The newest point is older than it should be.
    PointOld {
        /// How old.
        age: Duration,
        /// How old it may be.
        allowed: Duration,
        /// Whether it is older by far.
        by_far: bool,
    },
    /// An operator paused it.
    Paused {
        /// The instant of the newest point.
        newest: Option<OffsetDateTime>,
    },
    /// The first copy waits to be carried to the target.
    Carried {
        /// The folder that it is in.
        folder: String,
        /// The host that has written it.
        source: String,
        /// The host that it is for.
        target: String,
    },
    /// Source and target are being compared.
    Resynchronising(String),
    /// Source and target are to be compared, and that waits for its hours.
    Held {
        /// Why they are.
        reason: String,
        /// Until when.
        until: OffsetDateTime,
    },
    /// Source and replica differed when they were last compared.
    Differs {
        /// When that was.
        at: OffsetDateTime,
        /// The disks that differ.
        disks: Vec<String>,
    },
    /// The last comparison could not be done.
    NotVerified {
        /// When that was.
        at: OffsetDateTime,
        /// Why.
        cause: String,
        /// The way out.
        advice: String,
    },
    /// The target runs out of room.
    LittleRoom {
        /// The host.
        host: String,
        /// What is free.
        free: ByteCount,
        /// Whether the next points may not fit.
        almost_none: bool,
    },
    /// The source's side does less well than the policy asks.
    Poorer(String),
}

/// How old the newest point may be before anybody is warned.
#[must_use]
pub fn age_allowed(every: Seconds) -> Duration {
    (every.duration() * RPO_WARNING_TIMES).max(RPO_FLOOR)
}

/// Judges a protection.
#[must_use]
pub fn judge(intent: &Intent, observed: &Observed, now: OffsetDateTime) -> Health {
    let mut reasons = Vec::new();
    for side in [&observed.source, &observed.target] {
        reasons.extend(judge_side(side, intent, now));
        let off = side.clock_off();
        reasons.extend(off.map(|ahead| Reason::ClockOff { host: side.name.clone(), ahead }));
    }
    if !observed.target.has_address {
        reasons.push(Reason::NoAddress(observed.target.name.clone()));
    }
    reasons.extend(troubles(observed));
    if intent.paused {
        reasons.push(Reason::Paused { newest: observed.newest() });
    } else {
        reasons.extend(judge_age(intent, observed, now));
        reasons.extend(judge_shipping(intent, observed, now));
    }
    reasons.extend(judge_verified(observed));
    reasons.extend(judge_room(observed));
    if state(intent, observed) == State::Disabling {
        // What is to end owes no points any more.
        reasons.retain(|reason| matches!(reason, Reason::NotHeard { .. } | Reason::HostRevoked(_)));
    }
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.level()));
    let level = reasons.first().map_or(Level::Normal, Reason::level);
    Health { level, reasons }
}

fn judge_side(side: &Side, intent: &Intent, now: OffsetDateTime) -> Option<Reason> {
    let host = side.name.clone();
    let silent = |since: OffsetDateTime| {
        (now - since.max(intent.created) > SILENCE_ALLOWED)
            .then(|| Reason::NotHeard { host: side.name.clone(), since })
    };
    match side.reachability {
        Reachability::Revoked { .. } => Some(Reason::HostRevoked(host)),
        Reachability::Enrolled { since } | Reachability::NotReachable { since } => silent(since),
        Reachability::Connected { .. } if !side.replicates => Some(Reason::AgentTooOld(host)),
        Reachability::Connected { .. } => None,
    }
}

fn troubles(observed: &Observed) -> impl Iterator<Item = Reason> {
    let shipping = observed.shipping.as_ref().and_then(|shipping| shipping.trouble.clone());
    let kept = observed.keeping.as_ref();
    let keeping = kept.and_then(|keeping| keeping.trouble.clone());
    let import = kept.and_then(|keeping| keeping.import_failed.clone());
    let target = &observed.target;
    [(&observed.source, shipping), (target, keeping), (target, import)].into_iter().filter_map(
        |(side, trouble)| Some(Reason::Trouble { host: side.name.clone(), trouble: trouble? }),
    )
}

fn judge_age(intent: &Intent, observed: &Observed, now: OffsetDateTime) -> Option<Reason> {
    let age = observed.age(now)?;
    let allowed = age_allowed(intent.every);
    let by_far = age > (intent.every.duration() * RPO_CRITICAL_TIMES).max(allowed);
    (age > allowed).then_some(Reason::PointOld { age, allowed, by_far })
}

fn judge_shipping(intent: &Intent, observed: &Observed, now: OffsetDateTime) -> Vec<Reason> {
    let Some(shipping) = &observed.shipping else {
        let asked_since = intent.created.max(intent.not_before.unwrap_or(intent.created));
        return match observed.source.reachability {
            Reachability::Connected { since }
                if observed.source.replicates && now - since.max(asked_since) > SILENCE_ALLOWED =>
            {
                vec![Reason::NotTaken(observed.source.name.clone())]
            }
            _ => vec![],
        };
    };
    let mut reasons = Vec::new();
    match &shipping.phase {
        Phase::Resynchronising(Comparison { reason, held_until: None }) => {
            reasons.push(Reason::Resynchronising(reason.clone()));
        }
        Phase::Resynchronising(Comparison { reason, held_until: Some(until) }) => {
            reasons.push(Reason::Held { reason: reason.clone(), until: *until });
        }
        Phase::Carried(carried) => reasons.push(Reason::Carried {
            folder: carried.folder.clone(),
            source: observed.source.name.clone(),
            target: observed.target.name.clone(),
        }),
        _ => {}
    }
    reasons.extend(shipping.remarks.iter().cloned().map(Reason::Poorer));
    reasons
}

fn judge_verified(observed: &Observed) -> Option<Reason> {
    match observed.verified.clone()? {
        Verified::Same { .. } => None,
        Verified::Differs { at, disks } => Some(Reason::Differs { at, disks }),
        Verified::NotDone { at, cause, advice } => Some(Reason::NotVerified { at, cause, advice }),
    }
}

fn judge_room(observed: &Observed) -> Option<Reason> {
    let keeping = observed.keeping.as_ref()?;
    let whole = (keeping.used + keeping.free).bytes();
    let almost_none = keeping.free < ROOM_CRITICAL;
    let little =
        keeping.free < ROOM_WARNING || keeping.free.bytes() < whole / 100 * ROOM_WARNING_PERCENT;
    (almost_none || little).then(|| Reason::LittleRoom {
        host: observed.target.name.clone(),
        free: keeping.free,
        almost_none,
    })
}

impl Reason {
    /// How bad it is.
    #[must_use]
    pub const fn level(&self) -> Level {
        match self {
            Self::HostRevoked(_)
            | Self::NoAddress(_)
            | Self::Trouble { .. }
            | Self::Differs { .. }
            | Self::PointOld { by_far: true, .. }
            | Self::LittleRoom { almost_none: true, .. } => Level::Critical,
            Self::NotHeard { .. }
            | Self::AgentTooOld(_)
            | Self::ClockOff { .. }
            | Self::NotTaken(_)
            | Self::PointOld { .. }
            | Self::Paused { .. }
            | Self::Carried { .. }
            | Self::Resynchronising(_)
            | Self::Held { .. }
            | Self::NotVerified { .. }
            | Self::LittleRoom { .. }
            | Self::Poorer(_) => Level::Warning,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn advice(&self) -> String {
        match self {
            Self::HostRevoked(host) => format!(
                "Enrol {host} again with a token that replaces it, or disable the protection with --force."
            ),
            Self::NotHeard { host, .. } => format!(
                "Look after the host, its agent and its network; replication between the agents may go on meanwhile. See: lifeboat host show {host}."
            ),
            Self::AgentTooOld(host) => format!("Upgrade the agent of {host}."),
            Self::ClockOff { host, .. } => format!(
                "Set the clock of {host} or of the controller, best by NTP. Points are in their order whatever a clock says, and none is dropped for it; but they are labelled by the source's clock, and how old they were is not written down until the clocks agree."
            ),
            Self::NoAddress(host) => format!(
                "Let the agent of {host} listen for other agents, and restart it; see the guide to protection."
            ),
            Self::NotTaken(host) => format!("Look at the agent's log on {host}."),
            Self::Trouble { trouble, .. } => trouble.advice.clone(),
            Self::PointOld { .. } => "Compare how much the machine writes with what the network and the target take; the other reasons, if any, say more.".into(),
            Self::Paused { .. } => "Resume it when the reason for the pause has passed.".into(),
            Self::Carried { target, .. } => format!(
                "Carry it to {target}, and have it taken in there: lifeboat protected import MACHINE FOLDER. Changes meanwhile are sent afterwards."
            ),
            Self::Held { .. } => "Wait, or have it done at once: lifeboat protected resynchronise MACHINE. The points that exist stay; no new ones are made meanwhile.".into(),
            Self::Resynchronising(_) => "Wait: only what differs is sent, and the points that exist stay.".into(),
            Self::Differs { .. } => "Resynchronise it, then verify it again; keep the report, and report a defect if nothing else explains it.".into(),
            Self::NotVerified { advice, .. } => advice.clone(),
            Self::LittleRoom { host, .. } => format!(
                "Make room at {host}, or keep points for a shorter time: lifeboat policy change."
            ),
            Self::Poorer(_) => "Change the machine or the policy if it matters.".into(),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HostRevoked(host) => write!(f, "host {host} is revoked"),
            Self::NotHeard { host, since } => {
                write!(f, "host {host} is not heard since {}", utc(*since))
            }
            Self::AgentTooOld(host) => write!(f, "the agent of {host} is too old to replicate"),
            Self::ClockOff { host, ahead } => {
                let way = if ahead.is_negative() { "behind" } else { "ahead of" };
                write!(f, "the clock of {host} is {} {way} the controller's", span(ahead.abs()))
            }
            Self::NoAddress(host) => {
                write!(f, "the agent of {host} has not told where other agents reach it")
            }
            Self::NotTaken(host) => {
                write!(f, "the agent of {host} is connected and tells nothing of this protection")
            }
            Self::Trouble { host, trouble } => write!(
                f,
                "{} at {host} since {}: {}",
                trouble.code,
                utc(trouble.since),
                trouble.cause
            ),
            Self::PointOld { age, allowed, .. } => {
                write!(f, "the newest point is {} old, {} are allowed", span(*age), span(*allowed))
            }
            Self::Paused { newest: Some(newest) } => {
                write!(f, "it is paused; the newest point is of {}", utc(*newest))
            }
            Self::Paused { newest: None } => f.write_str("it is paused before its first point"),
            Self::Carried { folder, source, .. } => {
                write!(f, "the first copy is in {folder} at {source} and is to be carried")
            }
            Self::Held { reason, until } => {
                write!(f, "it waits until {} to be resynchronised: {reason}", utc(*until))
            }
            Self::Resynchronising(reason) => write!(f, "it is being resynchronised: {reason}"),
            Self::Differs { at, disks } => {
                write!(f, "source and replica differed at {} on {}", utc(*at), disks.join(", "))
            }
            Self::NotVerified { at, cause, .. } => {
                write!(f, "the verification of {} could not be done: {cause}", utc(*at))
            }
            Self::LittleRoom { host, free, .. } => write!(f, "{free} are free at {host}"),
            Self::Poorer(remark) => f.write_str(remark),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protection::Newest;
    use crate::protection::tests::{NOW, intent, steady, trouble};

    fn render(intent: &Intent, observed: &Observed) -> String {
        let health = judge(intent, observed, NOW);
        let reasons: Vec<String> = health.reasons.iter().map(ToString::to_string).collect();
        format!("{:?}: {}", health.level, reasons.join("; "))
    }

    #[test]
    fn the_age_of_the_newest_point_is_measured_by_the_copy_frequency() {
        let at = |age| render(&intent(), &steady(age));
        assert_eq!(at(60), "Normal: ");
        assert_eq!(at(61), "Warning: the newest point is 61 s old, 60 s are allowed");
        assert_eq!(at(300), "Warning: the newest point is 5 min old, 60 s are allowed");
        assert_eq!(at(301), "Critical: the newest point is 5 min old, 60 s are allowed");
        let often = Intent { every: Seconds(5), ..intent() };
        assert_eq!(render(&often, &steady(15)), "Normal: ", "cycles and reports take time");
        assert_eq!(judge(&often, &steady(16), NOW).level, Level::Warning);
        assert_eq!(judge(&often, &steady(51), NOW).level, Level::Critical);
    }

    #[test]
    fn whichever_side_knows_a_newer_point_is_believed() {
        let mut observed = steady(5);
        observed.shipping.as_mut().unwrap().newest =
            Some(Newest { point: 1, instant: NOW - Duration::HOUR });
        let since = NOW - Duration::HOUR;
        observed.source.reachability = Reachability::NotReachable { since };
        assert_eq!(
            render(&intent(), &observed),
            "Warning: host kvm1 is not heard since 1969-12-31 23:00:00Z",
            "points arrive although the controller does not hear the source"
        );
    }

    #[test]
    fn a_clock_that_is_off_is_told_and_taken_into_account() {
        let hours = Duration::hours(5);
        let off = |ahead: Duration| {
            let mut observed = steady(5);
            observed.source.clock_ahead = Some(ahead);
            for newest in [
                &mut observed.shipping.as_mut().unwrap().newest,
                &mut observed.keeping.as_mut().unwrap().newest,
            ] {
                newest.as_mut().unwrap().instant += ahead;
            }
            render(&intent(), &observed)
        };
        assert_eq!(off(hours), "Warning: the clock of kvm1 is 5 h ahead of the controller's");
        assert_eq!(off(-hours), "Warning: the clock of kvm1 is 5 h behind the controller's");
        assert_eq!(off(Duration::seconds(10)), "Normal: ");
    }

    /// A clock was set back: the newest point is the one that was made last.
    #[test]
    fn numbers_and_not_labels_say_which_point_is_newest() {
        let mut observed = steady(5);
        observed.shipping.as_mut().unwrap().newest =
            Some(Newest { point: 3, instant: NOW - Duration::hours(5) });
        assert_eq!(observed.newest(), Some(NOW - Duration::hours(5)));
    }

    #[test]
    fn a_pause_is_a_warning_and_says_from_when_the_newest_point_is() {
        let paused = Intent { paused: true, ..intent() };
        assert_eq!(
            render(&paused, &steady(7200)),
            "Warning: it is paused; the newest point is of 1969-12-31 22:00:00Z"
        );
    }

    #[test]
    fn the_worst_comes_first_and_everything_is_told() {
        let mut observed = steady(61);
        observed.target.has_address = false;
        let shipping = observed.shipping.as_mut().unwrap();
        shipping.remarks = vec!["no guest agent".into()];
        let comparison = Comparison { reason: "a disk grew".into(), held_until: None };
        shipping.phase = Phase::Resynchronising(comparison);
        let keeping = observed.keeping.as_mut().unwrap();
        keeping.trouble = Some(trouble("the disk is read-only"));
        keeping.free = ByteCount::from_kib(1);
        observed.verified = Some(Verified::Differs { at: NOW, disks: vec!["vda".into()] });
        assert_eq!(
            render(&intent(), &observed),
            "Critical: the agent of kvm2 has not told where other agents reach it; \
             LB6050 at kvm2 since 1969-12-31 23:57:00Z: the disk is read-only; \
             source and replica differed at 1970-01-01 00:00:00Z on vda; \
             1.0 KiB are free at kvm2; \
             the newest point is 61 s old, 60 s are allowed; \
             it is being resynchronised: a disk grew; no guest agent"
        );
        let disabling = Intent { disabling: Some(NOW), ..intent() };
        assert_eq!(render(&disabling, &observed), "Normal: ", "what ends owes nothing");
    }

    #[test]
    fn what_waits_for_hours_or_for_people_is_told() {
        let mut observed = steady(5);
        let shipping = observed.shipping.as_mut().unwrap();
        let held_until = Some(NOW + Duration::HOUR);
        shipping.phase =
            Phase::Resynchronising(Comparison { reason: "a disk grew".into(), held_until });
        assert_eq!(
            render(&intent(), &observed),
            "Warning: it waits until 1970-01-01 01:00:00Z to be resynchronised: a disk grew"
        );
        let carried = crate::protection::Carried { folder: "/mnt/usb".into() };
        observed.shipping.as_mut().unwrap().phase = Phase::Carried(carried);
        assert_eq!(
            render(&intent(), &observed),
            "Warning: the first copy is in /mnt/usb at kvm1 and is to be carried"
        );
    }

    #[test]
    fn agents_have_a_while_to_connect_and_to_begin() {
        let young = |seconds| Intent { created: NOW - Duration::seconds(seconds), ..intent() };
        let mut observed = Observed { shipping: None, keeping: None, ..steady(0) };
        assert_eq!(render(&young(60), &observed), "Normal: ");
        assert_eq!(
            render(&young(61), &observed),
            "Warning: the agent of kvm1 is connected and tells nothing of this protection"
        );
        observed.source.replicates = false;
        assert_eq!(
            render(&young(61), &observed),
            "Warning: the agent of kvm1 is too old to replicate"
        );
        let since = NOW - Duration::seconds(60);
        observed.source.reachability = Reachability::NotReachable { since };
        assert_eq!(render(&intent(), &observed), "Normal: ");
        observed.source.reachability = Reachability::Revoked { since };
        assert_eq!(render(&intent(), &observed), "Critical: host kvm1 is revoked");
        let later = Intent { not_before: Some(NOW + Duration::HOUR), ..young(7200) };
        let waiting = Observed { shipping: None, keeping: None, ..steady(0) };
        assert_eq!(render(&later, &waiting), "Normal: ", "it is not due");
    }

    #[test]
    fn room_is_judged_by_share_and_by_amount() {
        let with = |used: u64, free: u64| {
            let mut observed = steady(5);
            let keeping = observed.keeping.as_mut().unwrap();
            keeping.used = ByteCount::new(used << 20);
            keeping.free = ByteCount::new(free << 20);
            judge(&intent(), &observed, NOW).level
        };
        assert_eq!(with(9 << 10, 1 << 10), Level::Normal);
        assert_eq!(with(100 << 10, 10 << 10), Level::Warning);
        assert_eq!(with(0, 1023), Level::Warning);
        assert_eq!(with(0, 256), Level::Warning);
        assert_eq!(with(0, 255), Level::Critical);
    }
}
