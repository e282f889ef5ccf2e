//! The store through its public door.

mod crashes;
mod decoders;
mod faults;
mod interop;
mod kill;
mod model;
mod property;
