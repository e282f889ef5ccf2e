//! `lifeboat audit`.

use api::List;
use api::audit::AuditEntry;
use clap::Subcommand;

use domain::units::utc;

use crate::client::Session;
use crate::failure::Failure;
use crate::output;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the newest entries of the audit log, newest first
    List {
        /// How many at the most
        #[arg(long, default_value_t = 50, value_name = "NUMBER")]
        limit: u32,
    },
}

pub(crate) async fn run(command: Command, session: &Session) -> Result<(), Failure> {
    let Command::List { limit } = command;
    let entries: List<AuditEntry> = session.get(&format!("/audit?limit={limit}")).await?;
    output::list(
        session.json,
        &entries,
        "The audit log is empty.",
        &["TIME", "WHO", "WHAT", "TO WHAT", "DETAIL"],
        |entry| {
            vec![
                utc(entry.at),
                entry.actor.clone(),
                entry.action.clone(),
                entry.subject.clone(),
                entry.detail.clone(),
            ]
        },
    );
    Ok(())
}
