//! The replica store: ordered, verified, instant recovery points.
//!
//! One store holds one machine: a stream of changes to its disks comes in
//! through a [`Writer`](writer::Writer), is durable when acknowledged, and is
//! cut into recovery points; a [`Store`](store::Store) reads them, beside the
//! writer or without one. Records are stored once, where they arrived, and laid
//! over one another page by page when they are read.
//!
//! ```text
//! changes ─ pipeline ─▶ segments ─ replay ─┐
//!                │                         ├─▶ state ─▶ view, diff, digest, verify
//!                └ staging ─ index runs ───┘
//! ```
//!
//! | looking for | module |
//! | --- | --- |
//! | bytes on the medium, with golden samples | [`format`](mod@format) |
//! | a folder, or a medium that fails on command | [`medium`] |
//! | taking changes in, making points | [`writer`], [`pipeline`] |
//! | points, positions | [`store`] |
//! | a point as a disk over NBD | [`view`] |
//! | what differs between points, and between stores | [`diff`], [`digest`] |
//! | which points stay, and getting room back | [`retention`], [`reclaim`] |
//! | finding and mending damage | [`verify`] |
//! | existing images as a disk's base | [`adopt`] |
//! | points as files | [`export`], [`offline_copy`] |
//! | files as points | [`import`] |
//! | which machines a folder holds | [`catalogue`] |
//!
//! What holds everywhere: files are written from front to back and never
//! changed (but for holes punched where nobody reads); a failed sync is never
//! repeated; nothing read from a medium is believed without its checksum; every
//! buffer, queue and cache has a bound. `docs/formats/replica-store.md` has the
//! format and the reasons.
//!
//! Calls block. It knows nothing of networks and hypervisors, reads no clock to
//! decide anything. It does not encrypt yet; the format keeps a place for that.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

pub mod adopt;
mod ahead;
mod behind;
mod cache;
pub mod catalogue;
mod checkpoint;
pub mod diff;
pub mod digest;
pub mod error;
pub mod export;
mod fetch;
pub mod format;
pub mod geometry;
pub mod import;
mod index;
mod log;
pub mod medium;
pub mod offline_copy;
mod overlay;
pub mod pipeline;
pub mod reclaim;
mod replay;
pub mod retention;
mod segment;
pub mod state;
pub mod store;
mod streams;
pub mod verify;
pub mod view;
pub mod writer;
