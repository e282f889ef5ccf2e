//! `lifeboat protected`.

use std::time::Duration;

use api::List;
use api::protection::{
    ChangeProtection, Disabled, HealthLevel, ImportCopy, Protection, Replication,
};
use clap::Subcommand;
use domain::units::{ByteCount, span, utc};
use serde_json::json;

use crate::client::{Session, segment};
use crate::confirm::confirm;
use crate::failure::Failure;
use crate::output::{self, inner_table, or_dash};

/// How often a protection that is watched is looked at.
const WATCH_EVERY: Duration = Duration::from_secs(2);

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the protected machines
    List,
    /// Show one protected machine
    Show {
        /// The machine: name, HOST/NAME, SITE/HOST/NAME, UUID or id
        machine: String,
        /// Show it again every two seconds, until interrupted
        #[arg(long)]
        watch: bool,
    },
    /// Give a protected machine another policy
    Change {
        /// The machine, as for show
        machine: String,
        /// The policy
        #[arg(long)]
        policy: String,
    },
    /// Take no more points until it is resumed
    Pause {
        /// The machine, as for show
        machine: String,
    },
    /// Go on after a pause
    Resume {
        /// The machine, as for show
        machine: String,
    },
    /// Take in a first copy that was carried to the target's host
    Import {
        /// The machine, as for show
        machine: String,
        /// The folder at the target's host
        folder: String,
    },
    /// Send a first copy that was to be carried over the network after all
    CopyOverNetwork {
        /// The machine, as for show
        machine: String,
    },
    /// Compare source and target once, and send what differs
    Resynchronise {
        /// The machine, as for show
        machine: String,
    },
    /// End the protection at both sides
    Disable {
        /// The machine, as for show
        machine: String,
        /// Wait for no agent: the other side is gone
        #[arg(long)]
        force: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

pub(crate) async fn run(command: Command, session: &Session) -> Result<(), Failure> {
    match command {
        Command::List => list(session).await?,
        Command::Show { machine, watch: false } => show(session, &fetch(session, &machine).await?),
        Command::Show { machine, watch: true } => watch(session, &machine).await?,
        Command::Change { machine, policy } => {
            let path = format!("/protections/{}", segment(&machine));
            let now: Protection = session.patch(&path, &ChangeProtection { policy }).await?;
            let words = format!("Machine {} follows policy {}.", now.machine.name, now.policy.name);
            output::done(session.json, &now, &words);
        }
        Command::Pause { machine } => {
            let now = act(session, &machine, "pause").await?;
            output::done(session.json, &now, &format!("Machine {} is paused.", now.machine.name));
        }
        Command::Resume { machine } => {
            let now = act(session, &machine, "resume").await?;
            output::done(session.json, &now, &format!("Machine {} goes on.", now.machine.name));
        }
        Command::Import { machine, folder } => {
            let path = format!("/protections/{}/import", segment(&machine));
            let now: Protection = session.post(&path, &ImportCopy { folder }).await?;
            let words = format!(
                "The first copy of machine {name} is being taken in at {target}. Watch it with: lifeboat protected show {name} --watch",
                name = now.machine.name,
                target = now.target.name
            );
            output::done(session.json, &now, &words);
        }
        Command::CopyOverNetwork { machine } => {
            let now = act(session, &machine, "copy-over-network").await?;
            let words = format!("Machine {} is copied over the network.", now.machine.name);
            output::done(session.json, &now, &words);
        }
        Command::Resynchronise { machine } => {
            let now = act(session, &machine, "resynchronise").await?;
            let words = format!("Machine {} will be resynchronised.", now.machine.name);
            output::done(session.json, &now, &words);
        }
        Command::Disable { machine, force, yes } => disable(session, &machine, force, yes).await?,
    }
    Ok(())
}

async fn fetch(session: &Session, machine: &str) -> Result<Protection, Failure> {
    session.get(&format!("/protections/{}", segment(machine))).await
}

async fn act(session: &Session, machine: &str, verb: &str) -> Result<Protection, Failure> {
    session.post(&format!("/protections/{}/{verb}", segment(machine)), &json!({})).await
}

async fn disable(session: &Session, machine: &str, force: bool, yes: bool) -> Result<(), Failure> {
    let protection = fetch(session, machine).await?;
    let name = &protection.machine.name;
    confirm(&format!("end the protection of machine {name}"), name, yes)?;
    let query = if force { "?force=true" } else { "" };
    let disabled: Disabled =
        session.remove(&format!("/protections/{}{query}", protection.id)).await?;
    let mut words = match disabled.finished {
        true => format!("Machine {name} is not protected any more."),
        false => format!(
            "The protection of machine {name} ends; it is gone once both agents have ended it."
        ),
    };
    for left in &disabled.left_behind {
        words.push_str(&format!("\nLeft {left}."));
    }
    output::done(session.json, &disabled, &words);
    Ok(())
}

async fn list(session: &Session) -> Result<(), Failure> {
    let protections: List<Protection> = session.get("/protections").await?;
    output::list(
        session.json,
        &protections,
        "No machine is protected yet. Protect one with: lifeboat protect MACHINE --to HOST",
        &["MACHINE", "FROM", "TO", "STATE", "REPLICATION", "HEALTH", "RPO", "POINTS", "POLICY"],
        |protection| {
            vec![
                protection.machine.name.clone(),
                protection.source.name.clone(),
                protection.target.name.clone(),
                protection.state.to_string(),
                replication(protection),
                health(protection),
                age(protection.rpo.now_ms),
                or_dash(protection.kept.as_ref().map(|kept| kept.points)),
                protection.policy.name.clone(),
            ]
        },
    );
    Ok(())
}

/// Shows a protection again and again. As JSON, one object after the other.
async fn watch(session: &Session, machine: &str) -> Result<(), Failure> {
    let id = fetch(session, machine).await?.id.to_string();
    loop {
        let protection = fetch(session, &id).await?;
        if !session.json {
            // Clears the screen, and begins at its top.
            print!("\x1b[2J\x1b[H");
        }
        show(session, &protection);
        tokio::select! {
            () = tokio::time::sleep(WATCH_EVERY) => {}
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}

fn show(session: &Session, protection: &Protection) {
    let reasons: Vec<String> = protection
        .health
        .reasons
        .iter()
        .map(|reason| format!("{}: {}. {}", reason.level, reason.reason, reason.advice))
        .collect();
    let mut health_lines = vec![protection.health.level.to_string()];
    health_lines.extend(reasons);
    let rpo = &protection.rpo;
    let mut fields = vec![
        ("Machine", protection.machine.name.clone()),
        ("UUID", protection.machine.id.to_string()),
        ("Id", protection.id.to_string()),
        ("From", format!("{} at {}", protection.source.name, protection.source_site.name)),
        ("To", format!("{} at {}", protection.target.name, protection.target_site.name)),
        ("Policy", protection.policy.name.clone()),
        ("State", protection.state.to_string()),
        ("Replication", replication(protection)),
        ("Health", health_lines.join("\n")),
        (
            "RPO",
            format!(
                "{} now, {} allowed\n24 h here: {} at worst, {} in 99 % of {} minutes measured\n24 h by the agent: {} at worst, {} in 99 %",
                age(rpo.now_ms),
                age(Some(rpo.allowed_ms)),
                age(rpo.worst_24h_ms),
                age(rpo.p99_24h_ms),
                rpo.measured_minutes,
                age(rpo.agent_worst_ms),
                age(rpo.agent_p99_ms),
            ),
        ),
    ];
    if let Some(point) = &protection.newest {
        let kind = if point.app_consistent { "app-consistent" } else { "crash-consistent" };
        fields.push(("Newest point", format!("{} of {}, {kind}", point.point, utc(point.instant))));
    }
    if let Some(kept) = &protection.kept {
        fields.push((
            "Points",
            format!(
                "{} in {}, {}; {} free",
                kept.points,
                kept.folder,
                ByteCount::new(kept.used_bytes),
                ByteCount::new(kept.free_bytes)
            ),
        ));
    }
    if let Some(progress) = &protection.progress {
        let left = progress.total_bytes.saturating_sub(progress.done_bytes);
        let pace = progress.seconds_left.map(|seconds| {
            let left = span(time::Duration::seconds(i64::try_from(seconds).unwrap_or(i64::MAX)));
            format!(", {left} at the pace so far")
        });
        fields.push((
            "Backlog",
            format!(
                "{} of {} left{}",
                ByteCount::new(left),
                ByteCount::new(progress.total_bytes),
                pace.unwrap_or_default()
            ),
        ));
    }
    if let Some(cycle) = &protection.last_cycle {
        fields.push((
            "Last cycle",
            format!(
                "{} changed, {} sent, in {} ms",
                ByteCount::new(cycle.changed_bytes),
                ByteCount::new(cycle.sent_bytes),
                cycle.took_ms
            ),
        ));
    }
    if let Some(totals) = &protection.totals {
        let table = inner_table(
            &["READ", "SENT", "POINTS"],
            vec![vec![
                ByteCount::new(totals.read_bytes).to_string(),
                ByteCount::new(totals.sent_bytes).to_string(),
                totals.points.to_string(),
            ]],
        );
        fields.push(("Totals", table));
    }
    if !protection.excluded_disks.is_empty() {
        fields.push(("Without", protection.excluded_disks.join(", ")));
    }
    if let Some(at) = protection.not_before {
        fields.push(("Not before", utc(at)));
    }
    fields.push((
        "Told",
        format!(
            "by the source {}, by the target {}",
            told(protection.source_told),
            told(protection.target_told)
        ),
    ));
    fields.push(("May be", output::operations(&protection.operations)));
    output::item(session.json, protection, &fields);
}

fn told(at: Option<time::OffsetDateTime>) -> String {
    at.map_or_else(
        || "never".into(),
        |at| format!("{} ago", span(time::OffsetDateTime::now_utc() - at)),
    )
}

/// How old a point is, to a tenth of a second while that matters.
fn age(ms: Option<u64>) -> String {
    match ms {
        None => "-".into(),
        Some(ms) if ms < 10_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        Some(ms) => span(time::Duration::milliseconds(i64::try_from(ms).unwrap_or(i64::MAX))),
    }
}

fn health(protection: &Protection) -> String {
    let level = protection.health.level;
    match (level, protection.health.reasons.as_slice()) {
        (HealthLevel::Normal, _) | (_, []) => level.to_string(),
        (_, [only]) => format!("{level}: {}", only.reason),
        (_, [first, rest @ ..]) => format!("{level}: {} (and {} more)", first.reason, rest.len()),
    }
}

fn replication(protection: &Protection) -> String {
    let progress = protection.progress.map(|progress| {
        let percent = (u128::from(progress.done_bytes) * 100)
            .checked_div(u128::from(progress.total_bytes))
            .unwrap_or(100);
        format!(" {percent} % of {}", ByteCount::new(progress.total_bytes))
    });
    let progress = progress.unwrap_or_default();
    match &protection.replication {
        Replication::Waiting => "waiting".into(),
        Replication::Initial => format!("initial{progress}"),
        Replication::Steady => format!("steady{progress}"),
        Replication::Exporting { .. } => format!("first copy into a folder{progress}"),
        Replication::Carried { .. } if progress.is_empty() => "first copy to be carried".into(),
        Replication::Carried { .. } => format!("taking in the first copy{progress}"),
        Replication::Resynchronising { held_until: Some(until), .. } => {
            format!("waiting until {} to resynchronise", utc(*until))
        }
        Replication::Resynchronising { .. } => format!("resynchronising{progress}"),
        Replication::Paused => "paused".into(),
        Replication::Broken { code, .. } => format!("broken by {code}"),
    }
}
