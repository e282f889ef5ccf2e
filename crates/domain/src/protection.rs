//! Protections: where one stands, and what may be done to it.
//!
//! ```text
//!   enabling ──first report──▶ initial replication ──first point──▶ protected
//!      └───────────────┬──────────────┴──────────────────────────────┘
//!                   disable ▼
//!                 disabling ──both agents have ended it──▶ (gone)
//! ```
//!
//! The state is one of four axes that are never folded into one: how
//! [`Replication`] goes on is another, tests are a third, and
//! [health](crate::protection_health) the fourth. All of them are derived, each
//! time anew, from what is wanted and what agents last told.

use time::{Duration, OffsetDateTime};

use crate::host::{Reachability, Refusal};
use crate::units::{ByteCount, Seconds};

/// What an operator wants of a protection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// From one point to the next, by its policy.
    pub every: Seconds,
    /// When it was made.
    pub created: OffsetDateTime,
    /// The initial replication waits for this.
    pub not_before: Option<OffsetDateTime>,
    /// Whether it is paused.
    pub paused: bool,
    /// Whether a resynchronisation was asked for and has not begun.
    pub resynchronise_asked: bool,
    /// Whether a verification was asked for and is not finished.
    pub verify_asked: bool,
    /// Since when it is to end.
    pub disabling: Option<OffsetDateTime>,
    /// Whether the first copy is carried, and does not go over the network.
    pub offline: bool,
    /// Whether it was asked to take in what was carried, and that is not done.
    pub import_asked: bool,
}

/// What is known of how a protection is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The host that the machine runs on.
    pub source: Side,
    /// The host that keeps its points.
    pub target: Side,
    /// What the source's agent last told, if it ever did.
    pub shipping: Option<Shipping>,
    /// What the target's agent last told, if it ever did.
    pub keeping: Option<Keeping>,
    /// The last verification that is finished.
    pub verified: Option<Verified>,
}

/// A host of a protection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Side {
    /// Its name.
    pub name: String,
    /// Whether it can be reached.
    pub reachability: Reachability,
    /// Whether its agent is one that replicates.
    pub replicates: bool,
    /// Whether others know where to send it anything.
    pub has_address: bool,
    /// How far its clock is ahead of the controller's, or behind it if negative;
    /// none while that is not known.
    pub clock_ahead: Option<Duration>,
}

/// A point, as far as its order and its age go. Numbers say which is newer:
/// labels are of a clock that may be set back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Newest {
    /// Its number in the store.
    pub point: u32,
    /// When the disks were held still, by the source's clock.
    pub instant: OffsetDateTime,
}

/// What a source's agent told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shipping {
    /// What it is doing.
    pub phase: Phase,
    /// What keeps it from going on.
    pub trouble: Option<Trouble>,
    /// What it does less well than the policy asks.
    pub remarks: Vec<String>,
    /// The newest point that is durable at the target.
    pub newest: Option<Newest>,
}

/// What the shipping of a machine is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Nothing yet.
    Waiting,
    /// The first copy.
    Initial,
    /// The first copy, into a folder.
    Exporting(Carried),
    /// The first copy is in a folder, and is to be carried to the target.
    Carried(Carried),
    /// Changes only.
    Steady,
    /// Comparing with the target.
    Resynchronising(Comparison),
    /// It was paused.
    Paused,
}

/// A first copy in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// The folder at the source.
    pub folder: String,
}

/// A comparison of source and target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// Why.
    pub reason: String,
    /// It waits until then for the hours of its policy.
    pub held_until: Option<OffsetDateTime>,
}

/// What a target's agent told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keeping {
    /// What keeps points from arriving or old ones from going.
    pub trouble: Option<Trouble>,
    /// The newest point that it has.
    pub newest: Option<Newest>,
    /// What the points take up.
    pub used: ByteCount,
    /// What is free where they lie.
    pub free: ByteCount,
    /// What keeps a first copy that was carried from being taken in.
    pub import_failed: Option<Trouble>,
}

/// What keeps a side from going on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// The error's code.
    pub code: String,
    /// What could not be done, and why.
    pub cause: String,
    /// The way out.
    pub advice: String,
    /// Since when.
    pub since: OffsetDateTime,
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verified {
    /// Source and replica are the same.
    Same {
        /// When it was finished.
        at: OffsetDateTime,
    },
    /// They differ.
    Differs {
        /// When it was finished.
        at: OffsetDateTime,
        /// The disks that differ.
        disks: Vec<String>,
    },
    /// It could not be done.
    NotDone {
        /// When that was clear.
        at: OffsetDateTime,
        /// Why.
        cause: String,
        /// The way out.
        advice: String,
    },
}

/// Where a protection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// The agents have not begun.
    Enabling,
    /// The first copy is under way; nothing can be recovered yet.
    InitialReplication,
    /// There is a point to recover.
    Protected,
    /// It is to end, and an agent has not said that it did.
    Disabling,
}

/// How replication goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replication {
    /// Not begun: not due, or the agent has not told of it.
    Waiting,
    /// The first copy.
    Initial,
    /// The first copy, into a folder.
    Exporting(Carried),
    /// The first copy is in a folder, and is to be carried to the target.
    Carried(Carried),
    /// Changes only.
    Steady,
    /// Comparing with the target.
    Resynchronising(Comparison),
    /// An operator paused it.
    Paused,
    /// Something keeps it from going on; it tries again by itself.
    Broken {
        /// What it is.
        trouble: Trouble,
    },
}

impl Observed {
    /// The instant of the newest point, by whichever side knows a newer one.
    #[must_use]
    pub fn newest(&self) -> Option<OffsetDateTime> {
        let shipped = self.shipping.as_ref().and_then(|shipping| shipping.newest);
        let kept = self.keeping.as_ref().and_then(|keeping| keeping.newest);
        shipped.max(kept).map(|newest| newest.instant)
    }

    /// How old the newest point is, as far as clocks let anybody tell: its label
    /// is of the source's.
    #[must_use]
    pub fn age(&self, now: OffsetDateTime) -> Option<Duration> {
        let newest = self.newest()?;
        let ahead = self.source.clock_off().unwrap_or(Duration::ZERO);
        Some((now - newest + ahead).max(Duration::ZERO))
    }
}

impl Side {
    /// How far its clock is ahead or behind, if that is more than reports and
    /// clocks usually differ by.
    #[must_use]
    pub fn clock_off(&self) -> Option<Duration> {
        self.clock_ahead.filter(|ahead| ahead.abs() > CLOCK_ALLOWED)
    }
}

/// Clocks may differ by this much before anybody is told.
pub const CLOCK_ALLOWED: Duration = Duration::seconds(10);

/// Where a protection stands.
#[must_use]
pub fn state(intent: &Intent, observed: &Observed) -> State {
    if intent.disabling.is_some() {
        return State::Disabling;
    }
    if observed.newest().is_some() {
        return State::Protected;
    }
    match observed.shipping.as_ref().map(|shipping| &shipping.phase) {
        None | Some(Phase::Waiting) => State::Enabling,
        Some(
            Phase::Initial
            | Phase::Exporting(_)
            | Phase::Carried(_)
            | Phase::Steady
            | Phase::Resynchronising(_)
            | Phase::Paused,
        ) => State::InitialReplication,
    }
}

/// How replication goes on. An operator's pause explains more than any
/// trouble, and trouble more than what would be done without.
#[must_use]
pub fn replication(intent: &Intent, observed: &Observed) -> Replication {
    let kept = observed.keeping.as_ref().and_then(|keeping| keeping.trouble.as_ref());
    replication_by(intent.paused, observed.shipping.as_ref(), kept)
}

/// The same by what was told alone: by the source, and what ails the target.
#[must_use]
pub fn replication_by(
    paused: bool,
    shipping: Option<&Shipping>,
    kept: Option<&Trouble>,
) -> Replication {
    if paused {
        return Replication::Paused;
    }
    let Some(shipping) = shipping else { return Replication::Waiting };
    if let Some(trouble) = shipping.trouble.as_ref().or(kept) {
        return Replication::Broken { trouble: trouble.clone() };
    }
    match &shipping.phase {
        // The agent has not heard yet that it may go on.
        Phase::Waiting | Phase::Paused => Replication::Waiting,
        Phase::Initial => Replication::Initial,
        Phase::Steady => Replication::Steady,
        Phase::Exporting(carried) => Replication::Exporting(carried.clone()),
        Phase::Carried(carried) => Replication::Carried(carried.clone()),
        Phase::Resynchronising(comparison) => Replication::Resynchronising(comparison.clone()),
    }
}

/// What an operator may do to a protection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Take no more points until it is resumed.
    Pause,
    /// Go on.
    Resume,
    /// Take in a first copy that was carried to the target.
    ImportCopy,
    /// Send the first copy over the network after all.
    CopyOverNetwork,
    /// Compare with the target once, and send what differs.
    Resynchronise,
    /// Compare with the target once, and tell what differs.
    Verify,
    /// Give it another policy.
    ChangePolicy,
    /// End it at both sides.
    Disable,
}

impl Operation {
    /// All operations, in the order in which they are offered.
    pub const ALL: [Self; 8] = [
        Self::Pause,
        Self::Resume,
        Self::ImportCopy,
        Self::CopyOverNetwork,
        Self::Resynchronise,
        Self::Verify,
        Self::ChangePolicy,
        Self::Disable,
    ];
}

/// Whether an operation is allowed on a protection now.
///
/// # Errors
/// The reason why not, with advice.
pub fn permit(operation: Operation, intent: &Intent, observed: &Observed) -> Result<(), Refusal> {
    let refuse = |reason, advice| Err(Refusal { reason, advice });
    let state = state(intent, observed);
    if state == State::Disabling {
        return match operation {
            Operation::Disable => refuse(
                "it is being disabled already, and an agent has not said that it has ended",
                "Wait until both agents are connected, or disable it with --force, which waits for nobody.",
            ),
            _ => refuse("it is being disabled", "Protect the machine again once it is gone."),
        };
    }
    match operation {
        Operation::Pause if intent.paused => refuse("it is paused already", "Resume it to go on."),
        Operation::Resume if !intent.paused => refuse(
            "it is not paused",
            "Nothing is left to do; if no points arrive, its health says why.",
        ),
        Operation::ImportCopy if intent.import_asked => {
            refuse("a copy is being taken in already", "Wait until it is, or has failed.")
        }
        Operation::ImportCopy if state == State::Protected => refuse(
            "there are recovery points already",
            "Nothing is left to do: only changes go over the network.",
        ),
        Operation::CopyOverNetwork if !intent.offline || state == State::Protected => refuse(
            "its first copy is not one that is carried",
            "Nothing is left to do: it goes over the network by itself.",
        ),
        Operation::Resynchronise | Operation::Verify if intent.paused => {
            refuse("it is paused", "Resume it first.")
        }
        Operation::Resynchronise | Operation::Verify if state != State::Protected => refuse(
            "the initial replication is not finished",
            "Wait for the first recovery point: there is nothing to compare with before.",
        ),
        Operation::Resynchronise if intent.resynchronise_asked => {
            refuse("a resynchronisation was asked for and has not begun", "Wait for it.")
        }
        Operation::Verify if intent.verify_asked => {
            refuse("a verification is under way", "Wait for its report.")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    pub(crate) fn intent() -> Intent {
        Intent {
            every: Seconds(30),
            created: NOW - time::Duration::DAY,
            not_before: None,
            paused: false,
            resynchronise_asked: false,
            verify_asked: false,
            disabling: None,
            offline: false,
            import_asked: false,
        }
    }

    /// Replicates, and its newest point is this old.
    pub(crate) fn steady(age: i64) -> Observed {
        let newest = Some(Newest { point: 2, instant: NOW - time::Duration::seconds(age) });
        Observed {
            source: side("kvm1"),
            target: side("kvm2"),
            shipping: Some(Shipping {
                phase: Phase::Steady,
                trouble: None,
                remarks: vec![],
                newest,
            }),
            keeping: Some(Keeping {
                trouble: None,
                newest,
                used: ByteCount::new(1 << 30),
                free: ByteCount::new(9 << 30),
                import_failed: None,
            }),
            verified: None,
        }
    }

    fn side(name: &str) -> Side {
        Side {
            name: name.into(),
            reachability: Reachability::Connected { since: NOW - time::Duration::DAY },
            replicates: true,
            has_address: true,
            clock_ahead: Some(time::Duration::ZERO),
        }
    }

    pub(crate) fn trouble(cause: &str) -> Trouble {
        Trouble {
            code: "LB6050".into(),
            cause: cause.into(),
            advice: "Mend it.".into(),
            since: NOW - time::Duration::minutes(3),
        }
    }

    fn stands(intent: &Intent, observed: &Observed) -> String {
        let allowed: Vec<String> = Operation::ALL
            .into_iter()
            .filter(|operation| permit(*operation, intent, observed).is_ok())
            .map(|operation| format!("{operation:?}"))
            .collect();
        let replication = match replication(intent, observed) {
            Replication::Broken { trouble } => format!("Broken by {}", trouble.cause),
            Replication::Resynchronising(comparison) => {
                format!("Resynchronising: {}", comparison.reason)
            }
            other => format!("{other:?}"),
        };
        format!("{:?}, {replication}: {}", state(intent, observed), allowed.join(" "))
    }

    #[test]
    fn a_protection_goes_from_enabling_to_protected_and_offers_what_makes_sense() {
        let mut observed = Observed { shipping: None, keeping: None, ..steady(0) };
        let enabling = "Enabling, Waiting: Pause ImportCopy ChangePolicy Disable";
        assert_eq!(stands(&intent(), &observed), enabling);
        let phase = |phase| Some(Shipping { phase, newest: None, ..steady(0).shipping.unwrap() });
        observed.shipping = phase(Phase::Waiting);
        assert_eq!(stands(&intent(), &observed), enabling);
        observed.shipping = phase(Phase::Initial);
        assert_eq!(
            stands(&intent(), &observed),
            "InitialReplication, Initial: Pause ImportCopy ChangePolicy Disable"
        );
        observed.shipping = phase(Phase::Carried(Carried { folder: "/mnt".into() }));
        let carried = Intent { offline: true, ..intent() };
        assert_eq!(
            stands(&carried, &observed),
            "InitialReplication, Carried(Carried { folder: \"/mnt\" }): Pause ImportCopy CopyOverNetwork ChangePolicy Disable"
        );
        let asked = Intent { import_asked: true, ..carried };
        assert!(!stands(&asked, &observed).contains("ImportCopy"));
        assert_eq!(
            stands(&intent(), &steady(5)),
            "Protected, Steady: Pause Resynchronise Verify ChangePolicy Disable"
        );
    }

    #[test]
    fn a_pause_goes_before_trouble_and_trouble_before_what_is_done() {
        let mut observed = steady(5);
        let shipping = observed.shipping.as_mut().unwrap();
        shipping.phase = Phase::Resynchronising(Comparison {
            reason: "the bitmap is lost".into(),
            held_until: None,
        });
        assert!(stands(&intent(), &observed).contains("Resynchronising: the bitmap is lost"));
        observed.keeping.as_mut().unwrap().trouble = Some(trouble("a full disk"));
        assert!(stands(&intent(), &observed).contains("Broken by a full disk"));
        observed.shipping.as_mut().unwrap().trouble = Some(trouble("a cut wire"));
        assert!(stands(&intent(), &observed).contains("Broken by a cut wire"));
        let paused = Intent { paused: true, ..intent() };
        assert_eq!(stands(&paused, &observed), "Protected, Paused: Resume ChangePolicy Disable");
    }

    #[test]
    fn what_was_asked_for_is_not_asked_for_twice_and_the_end_is_the_end() {
        let asked = Intent { resynchronise_asked: true, verify_asked: true, ..intent() };
        assert_eq!(stands(&asked, &steady(5)), "Protected, Steady: Pause ChangePolicy Disable");
        let disabling = Intent { disabling: Some(NOW), ..intent() };
        assert_eq!(stands(&disabling, &steady(5)), "Disabling, Steady: ");
    }
}
