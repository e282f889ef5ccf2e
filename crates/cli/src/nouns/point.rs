//! `lifeboat point`.

use api::List;
use api::protection::RecoveryPoint;
use clap::Subcommand;
use domain::units::{ByteCount, span, utc};
use time::OffsetDateTime;

use crate::client::{Session, segment};
use crate::failure::Failure;
use crate::output;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the recovery points of a protected machine, the newest first
    List {
        /// The machine: name, HOST/NAME, SITE/HOST/NAME, UUID or id
        machine: String,
    },
}

pub(crate) async fn run(command: Command, session: &Session) -> Result<(), Failure> {
    let Command::List { machine } = command;
    let path = format!("/protections/{}/points", segment(&machine));
    let points: List<RecoveryPoint> = session.get(&path).await?;
    let now = OffsetDateTime::now_utc();
    output::list(
        session.json,
        &points,
        "There is no recovery point yet, or the target has not told of one.",
        &["POINT", "INSTANT", "AGE", "CONSISTENCY", "STORED"],
        |point| {
            let kind = if point.app_consistent { "app" } else { "crash" };
            vec![
                point.point.to_string(),
                utc(point.instant),
                span(now - point.instant),
                kind.into(),
                ByteCount::new(point.stored_bytes).to_string(),
            ]
        },
    );
    Ok(())
}
