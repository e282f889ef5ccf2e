//! Lifeboat's nouns, units and pure decisions.
//!
//! Nothing here reads a clock, draws a random number, waits or does I/O: what
//! a decision needs is handed in, and what it decided is a value with its
//! reasons inside. No type here is serialised; the crates at the edges (`api`,
//! `wire`, the controller's database) have types of their own and convert.
//!
//! | looking for | module |
//! | --- | --- |
//! | typed ids, names that an operator gives | [`id`], [`name`] |
//! | sizes with a unit | [`units`] |
//! | sites, clouds | [`site`] |
//! | hosts, what they are able to do, whether they can be reached | [`host`] |
//! | machines, disks, NICs | [`machine`] |
//! | whether a machine can be protected, and if not why | [`protectability`] |
//! | policies: how machines are protected | [`policy`] |
//! | hours of the week, and what holds in them | [`calendar`] |
//! | checks before a machine is protected | [`protect_check`] |
//! | failover: states, what is allowed in them, epochs and fences | [`failover`] |
//! | protections: their state, replication, and what may be done to them | [`protection`] |
//! | whether a protection is healthy, and if not why | [`protection_health`] |
//! | virtual networks and subnets | [`network`] |
//! | storage pools | [`storage`] |
//! | everything that one agent sees | [`inventory`] |
//! | tokens: roles, enrolment, expiry | [`token`] |
//! | errors that an operator meets | [`fault`] |

pub mod calendar;
pub mod failover;
pub mod fault;
pub mod host;
pub mod id;
pub mod inventory;
pub mod machine;
pub mod name;
pub mod network;
pub mod policy;
pub mod protect_check;
pub mod protectability;
pub mod protection;
pub mod protection_health;
pub mod site;
pub mod storage;
pub mod token;
pub mod units;
