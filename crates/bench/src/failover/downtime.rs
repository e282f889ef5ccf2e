//! How long nothing is written in a planned failover: `planned_downtime`.
//!
//! From the last record of the guest at the source to its first at the target,
//! less what the same guest takes to shut down and to boot with virsh alone,
//! measured in turn.

use anyhow::Result;
use serde::Deserialize;

use super::{Bench, Group, lab};
use crate::{
    figure::{Better, Figure},
    pairing::Samples,
};

const FIGURES: &[&str] = &["planned_downtime"];

pub(super) const GROUP: Group =
    Group { figures: FIGURES, image: |scale| scale.content, room: |_| 0, measure };

/// A line that the lab tells: seconds.
#[derive(Deserialize)]
struct Round {
    gap: f64,
    shut_down: f64,
    boot: f64,
}

fn measure(bench: &mut Bench) -> Result<()> {
    let Some(lab) = lab(bench, FIGURES)? else { return Ok(()) };
    let image = bench.image()?;
    let scale = bench.scale;
    let rounds: Vec<Round> = lab.rounds([
        "planned".to_owned(),
        format!("--rounds={}", scale.rounds),
        format!("--content={}", image.path().display()),
        format!("--bytes={}", scale.content),
    ])?;
    let median = |of: fn(&Round) -> f64| Samples::of(rounds.iter().map(of)).median();
    let own = Samples::of(rounds.iter().map(|round| round.gap - round.shut_down - round.boot));
    bench.tell(Figure::new(FIGURES[0], "s", Better::Lower, &own).goal(2.0).note(format!(
        "a disk with {} MiB, which both sides compare by hash while it runs, and what changed since while nothing does; from the last record at the source to the first at the target {:.2} s, less {:.2} s to shut down and {:.2} s to boot by virsh",
        scale.content >> 20,
        median(|round| round.gap),
        median(|round| round.shut_down),
        median(|round| round.boot),
    )))
}
