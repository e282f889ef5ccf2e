//! Machines of a site: how they are described, made and spoken to.

mod agent;
mod description;
mod handle;
mod spec;

pub use agent::Exec;
pub use handle::Guest;
pub(crate) use spec::PORTS;
pub use spec::{Bus, Format, GuestSpec, Nic, guest};
