//! What a guest notices: `guest_iops`. Its random writes a second with a point
//! made of it each 30 s, beside those without protection, in turn.
//!
//! Guests that count their writes are the lab's; this crate knows nothing of
//! it and runs its program `lifeboat-lab-iops`, which lies beside this one or
//! where the environment's `LIFEBOAT_LAB_IOPS` says.

use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::{Bench, Group};
use crate::{
    figure::{Better, Figure},
    pairing::Samples,
    process::program,
};

const FIGURES: &[&str] = &["guest_iops"];
const PROGRAM: &str = "lifeboat-lab-iops";

pub(super) const GROUP: Group = Group { figures: FIGURES, image: |_| 0, room: |_| 0, measure };

/// A line that the program tells.
#[derive(Deserialize)]
struct Round {
    protected: f64,
    unprotected: f64,
}

fn measure(bench: &mut Bench) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bench.skip(FIGURES, "it takes root to have a guest of our own");
        return Ok(());
    }
    let path = match std::env::var_os("LIFEBOAT_LAB_IOPS") {
        Some(path) => path.into(),
        None => std::env::current_exe().context("find this program")?.with_file_name(PROGRAM),
    };
    if !path.exists() {
        bench.skip(FIGURES, "run: cargo build --release -p cli -p lab --bins");
        return Ok(());
    }
    let scale = bench.scale;
    let mut command = program(&path);
    command.args(["--rounds", &scale.guest_rounds.to_string()]);
    command.args(["--seconds", &scale.guest_seconds.to_string()]);
    command.args(["--every", &scale.guest_every.to_string()]);
    // What it says of its progress, and why it fails, is for whoever waits.
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("run {PROGRAM}"))?;
    ensure!(output.status.success(), "{PROGRAM} ended with {}", output.status);
    let told = String::from_utf8(output.stdout).context("read what it measured")?;
    let rounds: Vec<Round> = told
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("understand {line:?}")))
        .collect::<Result<_>>()?;
    ensure!(!rounds.is_empty(), "{PROGRAM} measured nothing");
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
