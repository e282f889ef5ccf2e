//! Machines of a site: how they are described, made and spoken to.

mod agent;
mod description;
mod disk;
mod handle;
mod hearing;
mod spec;

pub use agent::Exec;
pub use disk::Format;
pub use handle::Guest;
pub use hearing::Hearing;
pub(crate) use spec::PORTS;
pub use spec::{Bus, GuestSpec, Nic, guest};
