//! The figures of replication, for `cargo xtask bench replication`.
//!
//! | figures | file |
//! | --- | --- |
//! | the first copy of a disk | [`initial`] |
//! | a cycle with 1 % dirty, of a machine of libvirt | [`backup`], [`libvirt`] |
//! | what such a cycle sends | [`cycle`] |
//! | finding out what changed without a record | [`resync`] |
//! | many machines at once | [`many`] |
//! | what a guest notices | [`guest`] |
//!
//! Ours is always the agent's own code at both ends, over mutual TLS on the
//! loopback: shipping in this process ([`machine`], [`target`]), keeping in a
//! process of its own ([`probe`]), into a store on the disk that is measured.
//! Other machines are simulated ([`machine`]): a raw file served by `qemu-nbd`, as
//! QEMU serves a backup's disk, with a dirty bitmap of ours beside it.

mod backup;
mod cycle;
mod guest;
mod hosts;
mod initial;
mod libvirt;
mod machine;
mod many;
pub(crate) mod probe;
mod resync;
mod scale;
mod target;
mod traffic;

use anyhow::Result;

use crate::suite::{self, Arguments};
use scale::Scale;

type Group = suite::Group<Scale>;
type Bench = suite::Bench<Scale>;

const GROUPS: &[Group] =
    &[initial::GROUP, backup::GROUP, cycle::GROUP, resync::GROUP, guest::GROUP, many::GROUP];

/// Measures what was asked for.
pub(crate) fn run(arguments: Arguments) -> Result<()> {
    suite::run(arguments, GROUPS, Scale::FULL, Scale::QUICK)
}
