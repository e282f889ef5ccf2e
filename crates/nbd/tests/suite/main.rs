//! The crate through its public door.

mod decoders;
mod end_to_end;
mod interop_client;
mod interop_server;
mod peer;
mod support;
