//! One file per noun: its verbs, and how it is shown.

pub(crate) mod adopt;
pub(crate) mod agent;
pub(crate) mod audit;
pub(crate) mod cloud;
pub(crate) mod controller;
pub(crate) mod event;
pub(crate) mod failover;
pub(crate) mod health;
pub(crate) mod host;
pub(crate) mod job;
pub(crate) mod machine;
pub(crate) mod network;
pub(crate) mod point;
pub(crate) mod policy;
pub(crate) mod pool;
pub(crate) mod protect;
pub(crate) mod protected;
pub(crate) mod site;
pub(crate) mod store;
pub(crate) mod token;
pub(crate) mod verify;

/// The verbs of what hosts report and nobody changes here.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Look {
    /// List them
    List {
        /// Only of this site
        #[arg(long)]
        site: Option<String>,
        /// Only of this host
        #[arg(long)]
        host: Option<String>,
    },
    /// Show one
    Show {
        /// Name, HOST/NAME, SITE/HOST/NAME, or id
        name: String,
    },
}
