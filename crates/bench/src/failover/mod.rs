//! The figures of failover, for `cargo xtask bench failover`.
//!
//! | figures | file |
//! | --- | --- |
//! | from the order to a machine that answers | [`rto`] |
//! | how long nothing is written in a planned failover | [`downtime`] |
//! | reads from a recovery point, and hydration | [`views`] |
//! | what a reverse sends | [`reverse`] |
//!
//! Ours is always the whole product, between two sites of the lab: a controller,
//! two agents, the CLI, and guests that say what they do.

mod downtime;
mod reverse;
mod rto;
mod scale;
mod views;

use anyhow::Result;

use crate::{
    lab::LabProgram,
    suite::{self, Arguments},
};
use scale::Scale;

type Group = suite::Group<Scale>;
type Bench = suite::Bench<Scale>;

const GROUPS: &[Group] =
    &[rto::GROUP_1_GIB, rto::GROUP_1_TIB, downtime::GROUP, views::GROUP, reverse::GROUP];

/// Measures what was asked for.
pub(crate) fn run(arguments: Arguments) -> Result<()> {
    suite::run(arguments, GROUPS, Scale::FULL, Scale::QUICK)
}

/// The lab's program for failovers; none if these figures had to be skipped.
fn lab(bench: &mut Bench, figures: &[&'static str]) -> Result<Option<LabProgram>> {
    match LabProgram::find("lifeboat-lab-failover")? {
        Ok(program) => Ok(Some(program)),
        Err(why) => {
            bench.skip(figures, why);
            Ok(None)
        }
    }
}
