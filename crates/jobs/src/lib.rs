//! A durable job engine. It knows nothing of site recovery.
//!
//! A [`Runbook`] says what an operation does: a table of typed [`Step`]s, each
//! with its [`Undo`] or the reason for none, one [`State`](Runbook::State) that
//! they share, and the [`World`](Runbook::World) that they change. An [`Engine`]
//! does it: it writes what happens into a [`Journal`], and after a restart goes
//! on where the journal ends. What it does next is decided by a pure function of
//! the log, the table and the time.
//!
//! ```text
//!  ordered ─▶ steps, one after the other ─▶ succeeded, perhaps with warnings
//!                │ failed for good   │ cancelled
//!                ▼                   ▼
//!             the undos of all steps that were begun, in reverse
//!                │                                │ an undo failed for good
//!                ▼                                ▼
//!             failed and undone,              needs attention ── retry ─▶ …
//!             cancelled and undone                └───────────── abandon ─▶ abandoned
//! ```
//!
//! The whole diagram is in [`history`]. Promises:
//!
//! - **Nothing is lost.** An entry is durable before what it tells of counts. A
//!   job leaves the list of unfinished ones only with an end.
//! - **At least once.** A step that was begun and not finished is run again, with
//!   the state from before it; so steps are idempotent, which [`drills`] prove.
//! - **One task owns a job**, and a journal that refuses a second entry with the
//!   same number keeps two engines from driving one job.
//! - **Every wait has a bound**, but for those that are for an operator, which
//!   are shown as such.
//!
//! What it deliberately does not do: steps of one job side by side (a step may
//! order jobs of its own and wait for them), schedules, priorities.
//!
//! | looking for | module |
//! | --- | --- |
//! | how an operation is written | [`runbook`] |
//! | what a step may ask and tell | [`context`] |
//! | what is persisted | [`log`] |
//! | where a job stands | [`history`] |
//! | what is done next, and what is refused | `decide` |
//! | where logs are kept | [`journal`] |
//! | ordering, watching, cancelling jobs | [`engine`] |
//! | faults, failures, refusals | [`fault`] |
//! | rehearsing a runbook | [`drills`], with the feature of that name |

pub mod context;
mod decide;
#[cfg(feature = "drills")]
pub mod drills;
pub mod engine;
pub mod fault;
pub mod history;
pub mod journal;
pub mod log;
pub mod runbook;
mod task;

pub use context::{Context, Progress, Resumed, Ticket};
pub use decide::Verb;
pub use engine::{Asked, Clock, Engine, EngineBuilder, Permitted, Refused, View};
pub use fault::{Failure, Fault, Refusal};
pub use history::{Cause, History, Stage, Standing};
pub use journal::{Journal, JournalError, MemoryJournal, Stored};
pub use log::{End, Entry, Event, JobId, Resumer, Word};
pub use runbook::{Hold, Key, OnFailure, Outcome, Retry, Runbook, Step, Table, Undo, Wait};
