//! Failover: where a protected machine stands, what may be done to it, and who
//! may run it.
//!
//! ```text
//!  enabling ─▶ initial replication ─▶ protected ◀──────────────────────────────────┐
//!                                      │    ▲                                       │
//!                   planned, unplanned │    │ taken back before the fence           │
//!                                      ▼    │                                       │
//!                   failing over: before the fence ◀─▶ awaiting completion          │
//!                                      │ epoch raised, for the target               │
//!                                      ▼                      taken back            │
//!              ┌─────────────────▶ fencing ─────────────────────┐                   │
//!              │                       │ source is fenced       │ epoch raised,     │
//!              │                       ▼                        │ for the source    │
//!              │     (planned) last sync, starting ─────────────┤                   │
//!              │                       │ runs at the target     ▼                   │
//!   unplanned: │                       ▼            undo    returning: fencing,     │
//!   the source │                 commit pending ──────────▶ then starting ──────────┤
//!   was lost   │                  │ ▲  │ commit                │  runs at the source│
//!              │     change point └─┘  ▼                       │                    │
//!              │                   committed ─ reverse ▶ reverse replicating ───────┘
//!              └───────────────────────────────────────────────┘  first point back
//! ```
//!
//! [`Standing`] is the state with its direction, its epoch and its tests. Two
//! axes stay apart from it: [`Replication`](crate::protection::Replication) is
//! asked where an operation depends on it, and
//! [health](crate::protection_health) forbids nothing: it is derived, and nobody
//! in a disaster is to be kept out by an alarm.
//!
//! The active side is not stored. It follows from the state, so the two cannot
//! contradict each other: see [`Standing::active`].
//!
//! | looking for | module |
//! | --- | --- |
//! | states, and how one leads to the next | [`standing`] |
//! | what an operator may do, and why not | [`operation`] |
//! | epochs, fences, what an agent that returns may start | [`fence`] |
//! | where it stands once its job is lost | [`orphan`] |
//! | whether it may be made at another host than its points are | [`elsewhere`] |
//! | how long a machine is expected to be down | [`downtime`] |
//! | how much a reversal is expected to send | [`estimate`] |
//! | which kinds of failover there are between which kinds of places | [`route`] |
//!
//! That all of it together never runs a machine twice, never spoils the only
//! good copy and always leaves a way out is explored state by state in the
//! tests, with lost sites, cut links, crashes and stale commands, within the
//! bounds that are stated there.

pub mod downtime;
pub mod elsewhere;
pub mod estimate;
#[cfg(test)]
mod exploration;
pub mod fence;
pub mod operation;
pub mod orphan;
pub mod route;
pub mod standing;

pub use fence::{Alone, Decision, Epoch, Fenced, Known, Told, may_start};
pub use operation::{Answer, Operation, Refusal, allowed, permit};
pub use orphan::{LooseEnd, Orphan, orphan};
pub use route::Route;
pub use standing::{
    Change, Event, Kind, Origin, Phase, Return, Side, Standing, State, Tests, apply,
};
