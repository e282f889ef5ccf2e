//! From the order to a machine that answers: `rto_1gib`, `rto_1tib`.
//!
//! The source's site is lost, and somebody says so with the order. Ours: from
//! `lifeboat failover unplanned` to the answer of the guest's agent at the other
//! side, out of many recovery points. The opponent: `virsh start` of the same
//! machine at its own site, after the power of that was cut as well.

use anyhow::Result;
use serde::Deserialize;

use super::{Bench, Group, lab};
use crate::{
    figure::{Better, Figure},
    pairing::Samples,
};

/// Seconds that we may take for what `virsh start` needs not do: the source is
/// fenced, a machine is made, and all of it is written down.
const GRANTED: f64 = 1.0;

pub(super) const GROUP_1_GIB: Group = Group {
    figures: &["rto_1gib"],
    image: |_| 0,
    room: |_| 0,
    measure: |bench| measure(bench, "rto_1gib", 1 << 30),
};

pub(super) const GROUP_1_TIB: Group = Group {
    figures: &["rto_1tib"],
    image: |_| 0,
    room: |_| 0,
    measure: |bench| measure(bench, "rto_1tib", bench.scale.large_disk),
};

/// A line that the lab tells: seconds.
#[derive(Deserialize)]
struct Round {
    failover: f64,
    start: f64,
}

fn measure(bench: &mut Bench, figure: &'static str, disk: u64) -> Result<()> {
    let Some(lab) = lab(bench, &[figure])? else { return Ok(()) };
    let scale = bench.scale;
    let rounds: Vec<Round> = lab.rounds([
        "unplanned".to_owned(),
        format!("--rounds={}", scale.rounds),
        format!("--disk={disk}"),
        format!("--points={}", scale.points),
    ])?;
    let ours = Samples::of(rounds.iter().map(|round| round.failover));
    let theirs = Samples::of(rounds.iter().map(|round| round.start));
    let (least, greatest) = theirs.spread();
    bench.tell(
        Figure::new(figure, "s", Better::Lower, &ours)
            .against_after(GRANTED, "virsh start", theirs.median())
            .goal(1.15)
            .note(format!(
                "a sparse disk of {} GiB, {} recovery points, its site without power; ratio: (ours − {GRANTED} s) ÷ virsh start, which took {least:.2} to {greatest:.2} s; until the guest's agent answers, after a replay of the journal",
                disk >> 30,
                scale.points,
            )),
    )
}
