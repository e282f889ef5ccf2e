//! How much a reversal is expected to send, told beforehand, and on what that
//! rests. What nobody knows is said to be unknown.

use crate::units::ByteCount;

/// What is known of a machine that is to be replicated the other way round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// The host where it runs.
    pub runs_at: String,
    /// The host where it ran before.
    pub was_at: String,
    /// Whether that may have what never arrived: the failover was unplanned.
    pub unsent: bool,
    /// Its disks where it runs; none if that host does not tell.
    pub disks: Option<Disks>,
    /// The disks that it had.
    pub old: OldDisks,
}

/// A machine's disks where it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disks {
    /// What the guest sees.
    pub size: ByteCount,
    /// What they take.
    pub taken: ByteCount,
    /// What the machine wrote since it was failed over, the same place twice
    /// counted twice; none if that is not known.
    pub written: Option<ByteCount>,
}

/// The disks that a machine had where it ran before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OldDisks {
    /// They are there, and take so much.
    There(ByteCount),
    /// They are gone, or cannot be used where they are, and why.
    Unusable(String),
    /// Their host does not answer.
    Unknown,
}

/// How much is expected to be sent, before compression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Estimate {
    /// About so much; none if nobody knows.
    pub about: Option<ByteCount>,
    /// No more than this; none if nobody knows.
    pub at_most: Option<ByteCount>,
    /// On what that rests, sentence by sentence.
    pub basis: Vec<String>,
}

/// Estimates what a reversal sends.
#[must_use]
pub fn estimate(evidence: &Evidence) -> Estimate {
    let Evidence { runs_at, was_at, unsent, disks, old } = evidence;
    let at_most = disks.map(|disks| disks.size);
    let mut basis = Vec::new();
    let about = match old {
        OldDisks::Unusable(why) => {
            basis.push(format!("Everything is sent: {why}."));
            disks.map(|disks| disks.taken)
        }
        OldDisks::Unknown => {
            basis.push(format!(
                "Host {was_at} does not answer, so nobody knows whether the old disks are there: if they are, what differs from them is sent; if not, everything{}.",
                disks.map(|disks| format!(", {}", disks.taken)).unwrap_or_default()
            ));
            None
        }
        OldDisks::There(held) => {
            basis.push(format!("What differs from the old disks at {was_at} is sent."));
            match disks.and_then(|disks| disks.written) {
                Some(written) => basis.push(format!(
                    "The machine wrote {written} at {runs_at} since its failover, places that it wrote twice counted twice."
                )),
                None => basis.push(format!(
                    "How much the machine wrote at {runs_at} since its failover is not known."
                )),
            }
            if *unsent {
                basis.push(format!(
                    "Where {was_at} wrote what never arrived, what the machine has now is sent too: how much that is, nobody knows before the disks are compared; no more than the {held} that they take, as far as the machine has not written since."
                ));
            }
            // What was never sent is not known, so this is no more than a beginning.
            disks.and_then(|disks| disks.written).filter(|_| !unsent)
        }
    };
    if disks.is_none() {
        basis.push(format!("Host {runs_at} does not tell how large the machine's disks are."));
    }
    let about = about.map(|about| at_most.map_or(about, |most| about.min(most)));
    Estimate { about, at_most, basis }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mib(count: u64) -> ByteCount {
        ByteCount::from_kib(count * 1024)
    }

    fn evidence() -> Evidence {
        let disks = Disks { size: mib(1000), taken: mib(600), written: Some(mib(30)) };
        let (runs_at, was_at) = ("west".into(), "east".into());
        let old = OldDisks::There(mib(500));
        Evidence { runs_at, was_at, unsent: false, disks: Some(disks), old }
    }

    fn told(evidence: &Evidence) -> String {
        let Estimate { about, at_most, basis } = estimate(evidence);
        let bytes = |bytes: Option<ByteCount>| bytes.map_or("-".into(), |b| b.to_string());
        format!("{}, {}: {}", bytes(about), bytes(at_most), basis.join(" "))
    }

    #[test]
    fn after_a_planned_failover_it_is_what_was_written_since() {
        assert_eq!(
            told(&evidence()),
            "30.0 MiB, 1000.0 MiB: What differs from the old disks at east is sent. The machine wrote 30.0 MiB at west since its failover, places that it wrote twice counted twice."
        );
        let disks = Disks { written: Some(mib(5000)), ..evidence().disks.unwrap() };
        let busy = Evidence { disks: Some(disks), ..evidence() };
        assert_eq!(estimate(&busy).about, Some(mib(1000)), "never more than the disks");
    }

    #[test]
    fn what_a_lost_side_wrote_is_unknown_and_said_so() {
        let estimate = estimate(&Evidence { unsent: true, ..evidence() });
        assert_eq!((estimate.about, estimate.at_most), (None, Some(mib(1000))));
        assert!(estimate.basis[2].contains("nobody knows"), "{estimate:?}");
        assert!(estimate.basis[2].contains("500.0 MiB"), "{estimate:?}");
    }

    #[test]
    fn without_old_disks_everything_goes() {
        let gone = OldDisks::Unusable("the hypervisor has no such machine".into());
        assert_eq!(
            told(&Evidence { old: gone, ..evidence() }),
            "600.0 MiB, 1000.0 MiB: Everything is sent: the hypervisor has no such machine."
        );
    }

    #[test]
    fn nothing_is_made_up() {
        let silent = Evidence { disks: None, old: OldDisks::Unknown, ..evidence() };
        assert_eq!(
            told(&silent),
            "-, -: Host east does not answer, so nobody knows whether the old disks are there: if they are, what differs from them is sent; if not, everything. Host west does not tell how large the machine's disks are."
        );
        let disks = Disks { written: None, ..evidence().disks.unwrap() };
        let restarted = Evidence { disks: Some(disks), ..evidence() };
        assert_eq!(estimate(&restarted).about, None);
    }
}
