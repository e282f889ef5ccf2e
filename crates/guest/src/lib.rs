//! The lab's guest: what it writes, what it reports, and how it is told what to do.
//!
//! The lab boots a very small Linux whose first process is the binary of this
//! crate. This library holds what both sides must agree upon; the host parses
//! with the same code that the guest writes with.
//!
//! - [`record`]: the numbered record that the workload appends.
//! - [`sequence`]: the promise over all disks together, and how it is checked.
//! - [`blocks`]: the random overwrite load and its check.
//! - [`report`]: what a check found, as data.
//! - [`port`]: the lines on the second serial port.
//! - [`parameters`]: what the kernel command line says.
//!
//! It deliberately knows nothing of the product: a guest that helped the
//! product to pass would prove nothing.

pub mod blocks;
pub mod parameters;
pub mod port;
pub mod record;
pub mod report;
pub mod sequence;
