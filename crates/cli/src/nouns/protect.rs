//! `lifeboat protect`.

use api::protection::{Protect, ProtectCheck, Protection};
use domain::fault::{Code, Fault};
use domain::units::utc;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::client::Session;
use crate::failure::Failure;
use crate::output;

/// What is to be protected, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The machine: name, HOST/NAME, SITE/HOST/NAME, UUID or id
    machine: String,
    /// The host that shall keep its points; of a cloud or a site, the one with the most room
    #[arg(long, value_name = "HOST")]
    to: String,
    /// The policy that it follows
    #[arg(long, default_value = "default")]
    policy: String,
    /// A disk to leave out, by the hypervisor's name; may be repeated
    #[arg(long = "exclude-disk", value_name = "DISK")]
    exclude_disks: Vec<String>,
    /// Begin the initial replication not before this time, such as 2026-11-21T22:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time_of)]
    at: Option<OffsetDateTime>,
    /// Write the first copy into this folder at the machine's host, to be carried; only
    /// changes go over the network
    #[arg(long, value_name = "FOLDER", conflicts_with = "at")]
    offline_copy: Option<String>,
    /// Only tell what stands in the way and what would be better otherwise
    #[arg(long)]
    check: bool,
}

fn time_of(text: &str) -> Result<OffsetDateTime, String> {
    OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|error| format!("{error}; write it as 2026-11-21T22:00:00Z"))
}

pub(crate) async fn run(arguments: Arguments, session: &Session) -> Result<(), Failure> {
    let wish = Protect {
        machine: arguments.machine,
        target: arguments.to,
        policy: Some(arguments.policy),
        excluded_disks: arguments.exclude_disks,
        not_before: arguments.at,
        offline_folder: arguments.offline_copy,
    };
    if arguments.check {
        let check: ProtectCheck = session.post("/protection-checks", &wish).await?;
        return tell(session, &wish, &check);
    }
    // Remarks are for people; a program reads them with --check.
    if !session.json {
        let check: ProtectCheck = session.post("/protection-checks", &wish).await?;
        for remark in &check.remarks {
            eprintln!("remark: {}. {}", remark.reason, remark.advice);
        }
    }
    let protection: Protection = session.post("/protections", &wish).await?;
    let begins = match (&wish.offline_folder, protection.not_before) {
        (Some(folder), _) => format!("is written into {folder}"),
        (None, Some(at)) => format!("begins at {}", utc(at)),
        (None, None) => "begins".into(),
    };
    let words = format!(
        "Machine {} is protected from {} to {}; the initial replication {begins}. Watch it with: lifeboat protected show {} --watch",
        protection.machine.name,
        protection.source.name,
        protection.target.name,
        protection.machine.name
    );
    output::done(session.json, &protection, &words);
    Ok(())
}

/// Tells what was found; fails if something stands in the way.
fn tell(session: &Session, wish: &Protect, check: &ProtectCheck) -> Result<(), Failure> {
    if session.json {
        output::json(check);
    } else {
        for obstacle in &check.obstacles {
            println!("obstacle: {}. {}", obstacle.reason, obstacle.advice);
        }
        for remark in &check.remarks {
            println!("remark:   {}. {}", remark.reason, remark.advice);
        }
        if check.possible {
            println!("Machine {} can be protected.", wish.machine);
        }
    }
    if check.possible {
        return Ok(());
    }
    Err(Fault::new(
        Code::ProtectionBlocked,
        format!("protect machine {}", wish.machine),
        format!("{} obstacles are in the way", check.obstacles.len()),
        "Do what stands beside each obstacle.",
    )
    .into())
}
