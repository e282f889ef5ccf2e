//! What a guest notices: `guest_iops`. Its random writes a second with a point
//! made of it each 30 s, beside those without protection, in turn.

use anyhow::Result;
use serde::Deserialize;

use super::{Bench, Group};
use crate::{
    figure::{Better, Figure},
    lab::LabProgram,
    pairing::Samples,
};

const FIGURES: &[&str] = &["guest_iops"];

pub(super) const GROUP: Group = Group { figures: FIGURES, image: |_| 0, room: |_| 0, measure };

/// A line that the program tells.
#[derive(Deserialize)]
struct Round {
    protected: f64,
    unprotected: f64,
}

fn measure(bench: &mut Bench) -> Result<()> {
    let program = match LabProgram::find("lifeboat-lab-iops")? {
        Ok(program) => program,
        Err(why) => {
            bench.skip(FIGURES, why);
            return Ok(());
        }
    };
    let scale = bench.scale;
    let rounds: Vec<Round> = program.rounds([
        format!("--rounds={}", scale.guest_rounds),
        format!("--seconds={}", scale.guest_seconds),
        format!("--every={}", scale.guest_every),
    ])?;
    // Rounds are compared one by one: what slows a machine down lasts longer.
    let ratios = Samples::of(rounds.iter().map(|round| round.protected / round.unprotected));
    let protected = Samples::of(rounds.iter().map(|round| round.protected));
    let unprotected = Samples::of(rounds.iter().map(|round| round.unprotected));
    let (least, greatest) = ratios.spread();
    bench.tell(
        Figure::new("guest_iops", "writes/s", Better::Higher, &protected)
            .against("unprotected", unprotected.median())
            .goal(0.95)
            .note(format!(
                "random writes of 4 KiB past the page cache, one at a time, over 64 MiB, by a workload of ours in place of fio; a point each {} s, measured for {} s in turn; round by round the ratio is {:.3} in the median, {least:.3} to {greatest:.3}; source, target and guest share this machine",
                scale.guest_every,
                scale.guest_seconds,
                ratios.median(),
            )),
    )
}
