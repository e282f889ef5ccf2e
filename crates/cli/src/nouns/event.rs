//! `lifeboat event`.

use api::List;
use api::event::Event;
use clap::Subcommand;
use domain::units::utc;

use crate::client::{Session, segment};
use crate::failure::Failure;
use crate::output;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List what changed about protected machines, the newest first
    List {
        /// Only of this machine
        #[arg(long)]
        machine: Option<String>,
        /// How many at the most
        #[arg(long, default_value_t = 50, value_name = "NUMBER")]
        limit: u32,
    },
}

pub(crate) async fn run(command: Command, session: &Session) -> Result<(), Failure> {
    let Command::List { machine, limit } = command;
    let machine = machine.map(|machine| format!("&machine={}", segment(&machine)));
    let path = format!("/events?limit={limit}{}", machine.unwrap_or_default());
    let events: List<Event> = session.get(&path).await?;
    output::list(
        session.json,
        &events,
        "Nothing has changed yet.",
        &["TIME", "MACHINE", "WHAT", "WAS", "IS", "WHY"],
        |event| {
            vec![
                utc(event.at),
                event.machine.clone(),
                event.aspect.to_string(),
                output::or_dash(event.before.clone()),
                event.after.clone(),
                event.detail.clone(),
            ]
        },
    );
    Ok(())
}
