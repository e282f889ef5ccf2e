//! How long a machine is expected to be down in a failover, told beforehand, and on
//! what that rests. What was never measured is said to be unknown.

use std::time::Duration;

use crate::failover::standing::Kind;

/// What was measured of a machine before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Measured {
    /// How long its guest took to shut down, when that was seen last.
    pub shutdown: Option<Duration>,
    /// How long its last cycle took, from the cut to the point.
    pub cycle: Option<Duration>,
    /// How long it took from its start at the target to a sign of life, in a test or
    /// a failover.
    pub boot: Option<Duration>,
}

/// How long it is expected to be down.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Downtime {
    /// About so long; none if a part of it was never measured.
    pub about: Option<Duration>,
    /// On what that rests, sentence by sentence.
    pub basis: Vec<String>,
}

/// Estimates the downtime of a failover: from the shutdown, or of an unplanned one
/// from the order, to a sign of life at the target.
#[must_use]
pub fn downtime(kind: Kind, measured: &Measured) -> Downtime {
    let mut parts = vec![];
    if kind == Kind::Planned {
        parts.push((
            measured.shutdown,
            "Its guest took {} to shut down when it was last seen.",
            "How long its guest takes to shut down was never seen.",
        ));
        parts.push((
            measured.cycle,
            "Its last cycle, as one that follows on the shutdown, took {}.",
            "No cycle of it was measured yet.",
        ));
    }
    parts.push((
        measured.boot,
        "It gave a sign of life {} after its start at the target.",
        "How long it takes to boot at the target is not known; a test failover tells.",
    ));
    let sentence = |(took, known, unknown): &(Option<Duration>, &str, &str)| match took {
        Some(took) => known.replace("{}", &format!("{:.1} s", took.as_secs_f64())),
        None => (*unknown).to_owned(),
    };
    Downtime {
        about: parts.iter().map(|(took, ..)| *took).sum(),
        basis: parts.iter().map(sentence).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_measured_is_added_and_what_was_not_is_told() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let all = Measured { shutdown: seconds(5), cycle: seconds(1), boot: seconds(20) };
        let planned = downtime(Kind::Planned, &all);
        assert_eq!(planned.about, seconds(26));
        assert_eq!(planned.basis.len(), 3);
        assert_eq!(planned.basis[0], "Its guest took 5.0 s to shut down when it was last seen.");
        let unplanned = downtime(Kind::Unplanned, &all);
        assert_eq!((unplanned.about, unplanned.basis.len()), (seconds(20), 1));
        let never = downtime(Kind::Planned, &Measured { boot: None, ..all });
        assert_eq!(never.about, None);
        assert!(never.basis[2].ends_with("a test failover tells."), "{:?}", never.basis);
    }
}
