//! The NBD protocol: a sans-I/O core, an async server, and an async client.
//!
//! | module | idea |
//! | --- | --- |
//! | [`protocol`] | messages and handshakes as pure functions over bytes |
//! | [`server`] | serves anything that is an [`Export`](server::Export) |
//! | [`client`] | a handle to somebody's export, with many requests in flight |
//! | [`memory`] | a disk in memory, for tests and as an example |
//! | [`pool`] | buffers for exports that read into fresh memory |
//!
//! It speaks fixed newstyle with TLS, structured replies, extended headers,
//! metadata contexts and block size constraints. It does not speak oldstyle,
//! does not resize, does not offer TLS side by side with the clear, and does
//! not reconnect: whoever uses a client knows what a loss means.
//!
//! It knows nothing of site recovery.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

pub mod client;
mod inbox;
pub mod memory;
mod outbox;
pub mod pool;
pub mod protocol;
pub mod server;
