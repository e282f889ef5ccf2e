//! The figures of the replica store, for `cargo xtask bench replica`.
//!
//! | figures | file |
//! | --- | --- |
//! | taking an image in | [`ingest`] |
//! | scattered small writes, sealing | [`writes`] |
//! | opening views and stores, differences | [`points`] |
//! | making a point | [`creation`] |
//! | reading a point over NBD | [`serving`] |
//! | memory | [`memory`] |
//! | room that a day of points takes | [`database`] |
//!
//! All figures are taken with the defaults of the store.

mod creation;
mod database;
mod ingest;
pub(crate) mod memory;
mod points;
pub(crate) mod probe;
mod scale;
mod serving;
mod stores;
mod writes;

use anyhow::Result;

use crate::suite::{self, Arguments};
use scale::Scale;

type Group = suite::Group<Scale>;
type Bench = suite::Bench<Scale>;

const GROUPS: &[Group] = &[
    ingest::GROUP,
    writes::GROUP,
    points::MANY,
    points::HUGE,
    serving::GROUP,
    creation::GROUP,
    memory::GROUP,
    database::GROUP,
];

/// Measures what was asked for.
pub(crate) fn run(arguments: Arguments) -> Result<()> {
    suite::run(arguments, GROUPS, Scale::FULL, Scale::QUICK)
}
