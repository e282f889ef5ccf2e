//! The protocol as pure functions and state machines over bytes.
//!
//! Nothing here reads a socket, a clock or a configuration. Decoders take
//! what has arrived and say one of three things: a value, "more bytes are
//! needed" (`Ok(None)`), or a [`Violation`], after which the connection is of
//! no further use. No decoder allocates by a length that the peer only
//! claims: lengths are held against the limits in [`constants`] first.
//!
//! Every rule cites the NBD specification (`doc/proto.md` of the
//! NetworkBlockDevice project) by the name of its section or constant.
//!
//! | module | idea |
//! | --- | --- |
//! | [`constants`] | magic numbers, flags, limits |
//! | [`errno`] | the error numbers that may cross the wire |
//! | [`facts`] | what an export says about itself |
//! | [`option`] | what a client asks while haggling |
//! | [`option_reply`] | what a server answers to that |
//! | [`request`] | a command of the transmission phase |
//! | [`reply`] | headers of its answers |
//! | [`chunk`] | bodies of its answers |
//! | [`write_mode`] | how something is to be written |
//! | [`server_handshake`] | the server's side of haggling, as a machine |
//! | [`client_handshake`] | the client's side |
//!
//! Not here on purpose: the oldstyle handshake, `NBD_CMD_RESIZE`, and
//! `NBD_FLAG_BLOCK_STATUS_PAYLOAD` (no peer of ours asks for them).

pub mod chunk;
pub mod client_handshake;
pub mod constants;
mod cursor;
pub mod errno;
pub mod facts;
pub mod option;
pub mod option_reply;
pub mod reply;
pub mod request;
pub mod server_handshake;
mod violation;
pub mod write_mode;

pub use violation::Violation;

#[cfg(test)]
mod handshake_tests;
