//! Two real sites on one machine, with real guests and real faults.
//!
//! ```no_run
//! use lab::{East, Lab, Size as _, guest};
//!
//! # async fn story() -> anyhow::Result<()> {
//! let lab = Lab::start("a site is lost").await?;
//! let web = lab.east().boot(guest("web").disk(64.mib()).workload(20)).await?;
//! web.acknowledges(10).await?;
//! let written = web.acknowledged()?;
//!
//! lab.wan().cut(East).await?;
//! lab.east().cut_power().await?;
//! lab.east().power_on().await?;
//! web.start().await?;
//! assert!(web.check().await?.last >= written);
//! lab.stop().await
//! # }
//! ```
//!
//! A site is a set of namespaces with a first process of ours, its own libvirt
//! and folders of its own; to cut its power is to kill that process. Nothing
//! outlives the program that holds a [`Lab`], however that program ends: only
//! files remain, below one folder, and the next start clears them.
//!
//! - [`Lab`]: brings it all up. [`Site`] and [`Place`]: where things run.
//! - [`Wan`]: the network between them.
//! - [`guest()`], [`GuestSpec`], [`Guest`]: machines with a workload that proves
//!   what was kept.
//! - [`Process`]: the product's programs, at a site.
//!
//! - [`product`]: the product itself, as an operator sees it.
//!
//! It deliberately uses nothing of the product but the types of what it prints,
//! and talks to libvirt through `virsh`: what checks must not share the bugs of
//! what is checked.

mod absent;
mod acceleration;
mod image;
#[doc(hidden)]
pub mod inside;
mod lab;
mod libvirt;
pub mod lost_job;
mod machine;
mod place;
mod process;
pub mod product;
mod root;
mod run;
mod site;
mod size;
mod status;
mod volume;
mod wan;

pub use crate::absent::{absent, skipped};
pub use crate::acceleration::Acceleration;
pub use crate::image::Image;
pub use crate::lab::Lab;
pub use crate::libvirt::Network;
pub use crate::machine::{Bus, Exec, Format, Guest, GuestSpec, Nic, guest};
pub use crate::place::Place;
pub use crate::process::Process;
pub use crate::run::{run, wait_for};
pub use crate::site::Site;
pub use crate::site::SiteName::{self, East, West};
pub use crate::size::Size;
pub use crate::status::{Standing, standing};
pub use crate::volume::Volume;
pub use crate::wan::Wan;
pub use ::guest::parameters::Address;
pub use ::guest::report::{DiskReport, Fault, Filesystem, Report};
