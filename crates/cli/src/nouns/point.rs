//! `lifeboat point`.

use api::List;
use api::job::Say;
use api::protection::RecoveryPoint;
use clap::Subcommand;
use domain::units::{ByteCount, span, utc};
use time::OffsetDateTime;

use crate::client::{Session, segment};
use crate::failure::Failure;
use crate::output::{self, or_dash};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the recovery points of a protected machine, the newest first
    List {
        /// The machine: name, HOST/NAME, SITE/HOST/NAME, UUID or id
        machine: String,
    },
    /// Hold a point, whatever the policy says, until it is released
    Hold {
        /// The machine, as for list
        machine: String,
        /// The point's number
        point: u32,
        /// Kept in the audit log
        #[arg(long, default_value = "")]
        comment: String,
    },
    /// Let a point go: it is kept as the policy says
    Release {
        /// The machine, as for list
        machine: String,
        /// The point's number
        point: u32,
        /// Kept in the audit log
        #[arg(long, default_value = "")]
        comment: String,
    },
}

pub(crate) async fn run(command: Command, session: &Session) -> Result<(), Failure> {
    match command {
        Command::List { machine } => list(session, &machine).await,
        Command::Hold { machine, point, comment } => {
            let now = change(session, &machine, point, "hold", comment).await?;
            let words = format!(
                "Point {point} of {machine} is held. Let it go with: lifeboat point release {machine} {point}"
            );
            output::done(session.json, &now, &words);
            Ok(())
        }
        Command::Release { machine, point, comment } => {
            let now = change(session, &machine, point, "release", comment).await?;
            let words = format!("Point {point} of {machine} is kept as the policy says.");
            output::done(session.json, &now, &words);
            Ok(())
        }
    }
}

async fn change(
    session: &Session,
    machine: &str,
    point: u32,
    verb: &str,
    comment: String,
) -> Result<RecoveryPoint, Failure> {
    let path = format!("/protections/{}/points/{point}/{verb}", segment(machine));
    session.post(&path, &Say { comment }).await
}

async fn list(session: &Session, machine: &str) -> Result<(), Failure> {
    let path = format!("/protections/{}/points", segment(machine));
    let points: List<RecoveryPoint> = session.get(&path).await?;
    let now = OffsetDateTime::now_utc();
    output::list(
        session.json,
        &points,
        "There is no recovery point yet, or the target has not told of one.",
        &["POINT", "INSTANT", "AGE", "CONSISTENCY", "STORED", "HELD"],
        |point| {
            let kind = if point.app_consistent { "app" } else { "crash" };
            vec![
                point.point.to_string(),
                utc(point.instant),
                span(now - point.instant),
                kind.into(),
                ByteCount::new(point.stored_bytes).to_string(),
                or_dash(point.hold.as_ref().map(|hold| hold.reason.clone())),
            ]
        },
    );
    Ok(())
}
