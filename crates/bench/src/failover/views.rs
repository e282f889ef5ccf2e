//! Reading from a recovery point in a guest, and hydration:
//! `view_read_sequential`, `view_read_random`, `hydrated_read_sequential`,
//! `hydrated_read_random`, `hydration_rate`.
//!
//! Ours: a copy of a machine that was made of its point, first on the view of
//! that, then with its disk made its own while it runs. The opponents: a machine
//! beside it with the same files on a local qcow2, and `nbdcopy` of the same
//! view into a qcow2 behind `qemu-nbd`.

use anyhow::Result;
use serde::Deserialize;

use super::{Bench, Group, lab};
use crate::{
    figure::{Better, Figure},
    pairing::Samples,
};

const FIGURES: &[&str] = &[
    "view_read_sequential",
    "view_read_random",
    "hydrated_read_sequential",
    "hydrated_read_random",
    "hydration_rate",
];

pub(super) const GROUP: Group =
    Group { figures: FIGURES, image: |scale| scale.content, room: |_| 0, measure };

/// A line that the lab tells.
#[derive(Deserialize)]
struct Round {
    view: Pair<Reads>,
    hydrated: Pair<Reads>,
    /// Bytes a second.
    hydration: Pair<f64>,
}

#[derive(Deserialize)]
struct Pair<T> {
    ours: T,
    theirs: T,
}

/// Bytes a second in order, reads a second anywhere.
#[derive(Deserialize)]
struct Reads {
    sequential: f64,
    random: f64,
}

/// What of a round is compared with what: ours, theirs.
type Pick = fn(&Round) -> (f64, f64);

fn measure(bench: &mut Bench) -> Result<()> {
    let Some(lab) = lab(bench, FIGURES)? else { return Ok(()) };
    let image = bench.image()?;
    let scale = bench.scale;
    let rounds: Vec<Round> = lab.rounds([
        "views".to_owned(),
        format!("--rounds={}", scale.long_rounds),
        format!("--content={}", image.path().display()),
        format!("--bytes={}", scale.content),
        format!("--seconds={}", scale.reading_seconds),
    ])?;
    let read = format!(
        "a file of {} MiB, past the guest's page cache, one read at a time by a program of ours in place of fio",
        scale.content >> 20
    );
    let cold = format!("{read}; 1 MiB at a time, of files that are not in the host's memory");
    let warm = format!("{read}; 1 MiB at a time, after all was read once");
    let random = format!("{read}; 4 KiB, for {} s, after all was read once", scale.reading_seconds);
    let picks: [(Pick, &str, f64, &str); 4] = [
        (|r| (r.view.ours.sequential, r.view.theirs.sequential), "MB/s", 0.6, &cold),
        (|r| (r.view.ours.random, r.view.theirs.random), "reads/s", 0.6, &random),
        (|r| (r.hydrated.ours.sequential, r.hydrated.theirs.sequential), "MB/s", 1.0, &warm),
        (|r| (r.hydrated.ours.random, r.hydrated.theirs.random), "reads/s", 1.0, &random),
    ];
    for (figure, (pick, unit, goal, note)) in FIGURES.iter().zip(picks) {
        let compared = compare(figure, unit, "local qcow2", rounds.iter().map(pick));
        bench.tell(compared.goal(goal).note(note))?;
    }
    let rates = rounds.iter().map(|round| (round.hydration.ours, round.hydration.theirs));
    bench.tell(
        compare("hydration_rate", "MB/s", "nbdcopy into qcow2", rates).goal(0.8).note(
            "bytes of the disk a second, holes too; ours by QEMU while the machine runs, from the command to its end",
        ),
    )
}

/// Ours and theirs, of each round.
fn compare(
    figure: &'static str,
    unit: &'static str,
    opponent: &str,
    rounds: impl Iterator<Item = (f64, f64)>,
) -> Figure {
    let scale = if unit == "MB/s" { 1e6 } else { 1.0 };
    let (ours, theirs): (Vec<f64>, Vec<f64>) =
        rounds.map(|(ours, theirs)| (ours / scale, theirs / scale)).unzip();
    Figure::new(figure, unit, Better::Higher, &Samples::of(ours))
        .against(opponent, Samples::of(theirs).median())
}
