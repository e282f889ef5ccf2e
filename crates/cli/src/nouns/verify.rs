//! `lifeboat verify`: compares source and replica, and prints a report that an
//! auditor can keep.

use std::time::Duration;

use api::protection::{Protection, Verification, VerificationOutcome};
use domain::fault::{Code, Fault};
use domain::units::{ByteCount, utc};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::client::{Session, segment};
use crate::failure::Failure;
use crate::output::{self, inner_table, or_dash};

/// How often the report is looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is to be compared.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The machine: name, HOST/NAME, SITE/HOST/NAME, UUID or id
    machine: String,
    /// Do not wait for the report
    #[arg(long, conflicts_with = "last")]
    no_wait: bool,
    /// Show the last report instead of asking for a new one
    #[arg(long)]
    last: bool,
}

pub(crate) async fn run(arguments: Arguments, session: &Session) -> Result<(), Failure> {
    let path = format!("/protections/{}", segment(&arguments.machine));
    if arguments.last {
        let all: api::List<Verification> = session.get(&format!("{path}/verifications")).await?;
        let last = all.items.into_iter().find(|one| one.outcome != VerificationOutcome::Pending);
        let Some(last) = last else {
            return Err(Fault::new(
                Code::NotFound,
                format!("show the last verification of {}", arguments.machine),
                "none is finished",
                "Ask for one with: lifeboat verify MACHINE.",
            )
            .into());
        };
        return conclude(session, &last);
    }
    let asked: Verification = session.post(&format!("{path}/verify"), &json!({})).await?;
    if arguments.no_wait {
        let words = format!(
            "Verification {} of machine {} is under way. See its report with: lifeboat verify {} --last",
            asked.id, asked.machine.name, asked.machine.name
        );
        output::done(session.json, &asked, &words);
        return Ok(());
    }
    let report = wait(session, &asked).await?;
    conclude(session, &report)
}

/// Waits for the report, with progress for people.
async fn wait(session: &Session, asked: &Verification) -> Result<Verification, Failure> {
    let bar = if session.json { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
    bar.set_style(
        ProgressStyle::with_template("{spinner} {msg} ({elapsed})").expect("the template is sound"),
    );
    bar.set_message(format!("Comparing machine {} with its replica", asked.machine.name));
    bar.enable_steady_tick(Duration::from_millis(200));
    loop {
        let now: Verification = session.get(&format!("/verifications/{}", asked.id)).await?;
        if now.outcome != VerificationOutcome::Pending {
            bar.finish_and_clear();
            return Ok(now);
        }
        let protection: Protection =
            session.get(&format!("/protections/{}", asked.protection)).await?;
        if let Some(progress) = protection.progress {
            bar.set_message(format!(
                "Comparing machine {} with its replica: {} of {}",
                asked.machine.name,
                ByteCount::new(progress.done_bytes),
                ByteCount::new(progress.total_bytes)
            ));
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            _ = tokio::signal::ctrl_c() => {
                return Err(Fault::new(
                    Code::Interrupted,
                    format!("wait for the verification of machine {}", asked.machine.name),
                    "the command was interrupted; the verification goes on",
                    "See its report later with: lifeboat verify MACHINE --last.",
                )
                .into());
            }
        }
    }
}

/// Prints the report; fails unless source and replica are the same.
fn conclude(session: &Session, report: &Verification) -> Result<(), Failure> {
    print(session, report);
    let doing = format!("vouch for the replica of machine {}", report.machine.name);
    match report.outcome {
        VerificationOutcome::Same | VerificationOutcome::Pending => Ok(()),
        VerificationOutcome::Differs => {
            let differing: Vec<&str> = report
                .disks
                .iter()
                .filter(|disk| !disk.differing.is_empty())
                .map(|disk| disk.disk.as_str())
                .collect();
            Err(Fault::new(
                Code::ReplicaDiffers,
                doing,
                format!("source and replica differ on {}", differing.join(", ")),
                "Keep the report; resynchronise the machine, then verify it again.",
            )
            .into())
        }
        VerificationOutcome::NotDone => {
            let (cause, advice) = report.trouble.as_ref().map_or_else(
                || ("the agent did not say why".to_owned(), "Look at its log.".to_owned()),
                |trouble| {
                    let cause =
                        format!("{} cannot {}: {}", trouble.code, trouble.doing, trouble.cause);
                    (cause, trouble.advice.clone())
                },
            );
            Err(Fault::new(Code::NotVerified, doing, cause, advice).into())
        }
    }
}

fn print(session: &Session, report: &Verification) {
    let verdict = match report.outcome {
        VerificationOutcome::Pending => "not finished",
        VerificationOutcome::Same => "SAME: every block of every disk is the same on both sides",
        VerificationOutcome::Differs => "DIFFERENT: see the stretches below",
        VerificationOutcome::NotDone => "NOT DONE: nothing was compared",
    };
    let disks = report
        .disks
        .iter()
        .map(|disk| {
            vec![
                disk.disk.clone(),
                disk.bytes.to_string(),
                if disk.differing.is_empty() { "same" } else { "DIFFERENT" }.into(),
                disk.digest.clone(),
            ]
        })
        .collect();
    let stretches: Vec<Vec<String>> = report
        .disks
        .iter()
        .flat_map(|disk| {
            disk.differing.iter().map(|stretch| {
                vec![
                    disk.disk.clone(),
                    stretch.offset_bytes.to_string(),
                    stretch.length_bytes.to_string(),
                ]
            })
        })
        .collect();
    let mut fields = vec![
        ("Verification", report.id.to_string()),
        ("Machine", format!("{}, UUID {}", report.machine.name, report.machine.id)),
        ("From", report.source.clone()),
        ("To", report.target.clone()),
        ("Asked", format!("{} by {}", utc(report.asked), report.asked_by)),
        ("Finished", or_dash(report.finished.map(utc))),
        (
            "Point",
            report.point.as_ref().map_or_else(
                || "-".into(),
                |point| format!("{} of {}", point.point, utc(point.instant)),
            ),
        ),
        ("Outcome", verdict.into()),
        (
            "Disks",
            inner_table(&["DISK", "BYTES", "OUTCOME", "BLAKE3 OF ITS BLOCKS' HASHES"], disks),
        ),
    ];
    if !stretches.is_empty() {
        fields.push(("Differing", inner_table(&["DISK", "OFFSET", "BYTES"], stretches)));
    }
    output::item(session.json, report, &fields);
}
