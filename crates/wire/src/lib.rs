//! What agents and their controller say to each other.
//!
//! An agent opens one TLS 1.3 connection to its controller and keeps it. Over
//! it go [frames](frame), and in each frame a [message]. Both sides prove who
//! they are by certificates of the controller's own authority ([`tls`]); only
//! an enrolment comes without one.
//!
//! ```text
//! agent                           controller
//!   │── Enrol(token, CSR) ──────────▶│  no client certificate yet
//!   │◀───────────── Enrolled(cert) ──│  connection ends
//!
//!   │── Hello(versions, instance) ──▶│  client certificate names the host
//!   │◀───────────────── Welcome ─────│
//!   │── Inventory ──────────────────▶│  whole, again at each change
//!   │── Heartbeat ──────────────────▶│  every HEARTBEAT_INTERVAL
//!   │◀──────────────── Heartbeat ────│  at once, in answer
//!   │◀────────────────── Duties ─────│  whole, again at each change
//!   │── Heritage ───────────────────▶│  once taken over, until there are duties
//!   │── Replication ────────────────▶│  whole, every few seconds
//!   │◀───────────────── Command ─────│  a step of a job
//!   │── Answered ───────────────────▶│  again and again until it is done
//!   │◀───────────── Refused(why) ────│  at any time; connection ends
//! ```
//!
//! Agents ship machines' changes to one another on connections of their own
//! ([`data`]).
//!
//! The format is described in `docs/formats/control-protocol.md`, and golden
//! samples of each message are in `tests/golden/`.

pub mod command;
pub mod data;
pub mod frame;
pub mod heritage;
pub mod inventory;
pub mod message;
pub mod replication;
pub mod tls;
