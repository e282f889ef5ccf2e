//! What is sent when the direction is turned after a planned failover:
//! `reverse_bytes`. The opponent is what the guest has changed since.

use anyhow::Result;
use serde::Deserialize;

use super::{Bench, Group, lab};
use crate::{
    figure::{Better, Figure},
    pairing::Samples,
};

const FIGURES: &[&str] = &["reverse_bytes"];

pub(super) const GROUP: Group =
    Group { figures: FIGURES, image: |scale| scale.reversed, room: |_| 0, measure };

/// A line that the lab tells: bytes.
#[derive(Deserialize)]
struct Round {
    sent: f64,
    overwritten: f64,
}

fn measure(bench: &mut Bench) -> Result<()> {
    let Some(lab) = lab(bench, FIGURES)? else { return Ok(()) };
    let image = bench.image()?;
    let scale = bench.scale;
    let rounds: Vec<Round> = lab.rounds([
        "reverse".to_owned(),
        format!("--rounds={}", scale.long_rounds),
        format!("--content={}", image.path().display()),
        format!("--bytes={}", scale.reversed),
        format!("--overwrite={}", scale.overwritten_mib),
    ])?;
    let sent = Samples::of(rounds.iter().map(|round| round.sent / 1e6));
    let changed = Samples::of(rounds.iter().map(|round| round.overwritten / 1e6));
    bench.tell(
        Figure::new(FIGURES[0], "MB", Better::Lower, &sent)
            .against("bytes that changed", changed.median())
            .goal(1.2)
            .note(format!(
                "{} MiB of a file overwritten with bytes that do not compress, on a disk with {} MiB; counted at the new source's line from the commit until it is protected again, with all headers",
                scale.overwritten_mib,
                scale.reversed >> 20,
            )),
    )
}
