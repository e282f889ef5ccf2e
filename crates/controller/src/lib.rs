//! The controller: it knows the sites, their hosts and what runs there, and
//! serves the API over all of it.
//!
//! It holds intent and history and is never in the data path: agents go on
//! without it.
//!
//! | looking for | module |
//! | --- | --- |
//! | settings | [`config`] |
//! | the data folder and who holds it | [`data_folder`] |
//! | the certificate authority | [`authority`] |
//! | what is stored, and the only SQL | [`database`] |
//! | connections of agents, enrolment, refusal | [`agents`] |
//! | the REST API, one file per noun | [`api`] |
//! | measuring RPO all the time | [`history`] |
//! | noticing what changes | `events` |
//! | going on where another controller is lost | [`adoption`] |
//! | operations on machines, one file each | [`runbooks`] |
//! | Prometheus metrics | [`metrics`] |
//! | all of it at work | [`run`] |

pub mod adoption;
pub mod agents;
pub mod api;
pub mod authority;
pub mod config;
pub mod data_folder;
pub mod database;
mod events;
pub mod history;
pub mod metrics;
pub mod run;
pub mod runbooks;

use std::sync::Arc;

use agents::{Commands, Connections, DutiesChanged};
use authority::Authority;
use config::Config;
use database::Database;

/// What every part of the controller works with.
#[derive(Clone)]
pub struct Controller {
    /// Settings.
    pub config: Arc<Config>,
    /// What is stored.
    pub database: Database,
    /// Issues certificates.
    pub authority: Arc<Authority>,
    /// Agents that are connected now.
    pub connections: Connections,
    /// Tells sessions that somebody's duties may have changed.
    pub duties: DutiesChanged,
    /// Has agents do things at once.
    pub commands: Commands,
    /// Drives jobs.
    pub engine: jobs::Engine,
    /// Renders the metrics.
    pub metrics: metrics::Metrics,
}
