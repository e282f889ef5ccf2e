//! Replication through what goes wrong around it: no room, clocks that are
//! wrong, a slow network, and machines that are changed while they are
//! protected. It goes on by itself, or after what its message asks; guests
//! never notice, and every point is a state that the machine had.

mod clock;
mod disks;
mod room;
mod setting;
mod wan;
