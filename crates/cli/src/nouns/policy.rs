//! `lifeboat policy`.

use api::List;
use api::policy::{
    BandwidthRule, ChangePolicy, Compression, CreatePolicy, PointsAtCommit, Policy, PolicyTerms,
    RetentionTier, WhenAlone,
};
use clap::Subcommand;
use domain::units::{ByteCount, Hours, Seconds};

use crate::client::{Session, segment};
use crate::confirm::confirm;
use crate::failure::Failure;
use crate::output;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the policies
    List,
    /// Show one policy
    Show {
        /// Name or id
        policy: String,
    },
    /// Make a policy; what is not given is as in the default one
    Create {
        /// Its name
        name: String,
        #[command(flatten)]
        terms: Terms,
    },
    /// Change a policy, for all machines that follow it
    Change {
        /// Name or id
        policy: String,
        /// The new name
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        terms: Terms,
    },
    /// Delete a policy that no machine follows
    Delete {
        /// Name or id
        policy: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// What a policy says.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Terms {
    /// From one recovery point to the next, 5s to 15m
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    every: Option<u32>,
    /// Keep all points for so long, such as 24h
    #[arg(long, value_name = "TIME", value_parser = hours)]
    keep_all: Option<u32>,
    /// Then keep one point per SLOT up to AGE, such as 1h:2d; may be repeated, the finest first
    #[arg(long = "then-keep", value_name = "SLOT:AGE", value_parser = tier)]
    tiers: Vec<RetentionTier>,
    /// Keep nothing beyond --keep-all
    #[arg(long, conflicts_with = "tiers")]
    no_tiers: bool,
    /// Keep app-consistent points so much longer
    #[arg(long, value_name = "TIME", value_parser = hours)]
    keep_app_longer: Option<u32>,
    /// From one app-consistent point to the next; 0s for none
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    app_consistent: Option<u32>,
    /// How long the guest's file systems may stay frozen for one
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    freeze_limit: Option<u32>,
    /// none, fast or strong
    #[arg(long)]
    compression: Option<Compression>,
    /// At most so many bytes a second, such as 10M; 0 for no limit
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    bandwidth: Option<u64>,
    /// Another limit in some hours, by the local time of the source's host, such as
    /// "mon-fri 08:00-18:00=2M"; may be repeated, the first that holds counts
    #[arg(long = "bandwidth-in", value_name = "DAYS HOURS=BYTES", value_parser = rule)]
    calendar: Vec<BandwidthRule>,
    /// The same limit at all hours
    #[arg(long, conflicts_with = "calendar")]
    no_calendar: bool,
    /// Resynchronise only in these hours, by the local time of the source's host, such as
    /// "daily 22:00-06:00"; may be repeated
    #[arg(long = "resynchronise-in", value_name = "DAYS HOURS", value_parser = window)]
    resynchronise_in: Vec<String>,
    /// Resynchronise whenever that is needed
    #[arg(long, conflicts_with = "resynchronise_in")]
    resynchronise_at_once: bool,
    /// At most so many bytes a second when, at a commit, disks are made a machine's own, such
    /// as 50M; 0 for no limit
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    hydration_rate: Option<u64>,
    /// What becomes of points at a commit, but for the newest and those that are held: dropped or
    /// kept
    #[arg(long)]
    points_at_commit: Option<PointsAtCommit>,
    /// What an agent does with a machine that was failed over before, when its host was
    /// restarted and nobody can be asked whose the machine is: stay-down or
    /// start-if-last-active
    #[arg(long)]
    when_alone: Option<WhenAlone>,
}

impl From<Terms> for PolicyTerms {
    fn from(terms: Terms) -> Self {
        let tiers = (terms.no_tiers || !terms.tiers.is_empty()).then_some(terms.tiers);
        Self {
            every_seconds: terms.every,
            all_hours: terms.keep_all,
            tiers,
            app_extra_hours: terms.keep_app_longer,
            app_consistent_seconds: terms.app_consistent,
            freeze_seconds: terms.freeze_limit,
            compression: terms.compression,
            bytes_per_second: terms.bandwidth,
            calendar: (terms.no_calendar || !terms.calendar.is_empty()).then_some(terms.calendar),
            resynchronise_in: (terms.resynchronise_at_once || !terms.resynchronise_in.is_empty())
                .then_some(terms.resynchronise_in),
            hydration_bytes_per_second: terms.hydration_rate,
            points_at_commit: terms.points_at_commit,
            when_alone: terms.when_alone,
        }
    }
}

fn whole(text: &str, unit: u64, of: &str) -> Result<u32, String> {
    let span = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if span.subsec_nanos() != 0 || !span.as_secs().is_multiple_of(unit) {
        return Err(format!("only whole {of} are possible"));
    }
    u32::try_from(span.as_secs() / unit).map_err(|_| "that is too long".to_owned())
}

fn seconds(text: &str) -> Result<u32, String> {
    whole(text, 1, "seconds")
}

fn hours(text: &str) -> Result<u32, String> {
    whole(text, 3600, "hours")
}

fn tier(text: &str) -> Result<RetentionTier, String> {
    let (slot, age) = text.split_once(':').ok_or("write SLOT:AGE, such as 1h:2d")?;
    Ok(RetentionTier { slot_hours: hours(slot)?, hours: hours(age)? })
}

fn bytes(text: &str) -> Result<u64, String> {
    let (digits, factor) = match text.char_indices().last() {
        Some((at, 'K' | 'k')) => (&text[..at], 1 << 10),
        Some((at, 'M' | 'm')) => (&text[..at], 1 << 20),
        Some((at, 'G' | 'g')) => (&text[..at], 1 << 30),
        _ => (text, 1),
    };
    let number: u64 = digits.parse().map_err(|_| "write a number, or one with K, M or G")?;
    number.checked_mul(factor).ok_or_else(|| "that is too much".to_owned())
}

fn window(text: &str) -> Result<String, String> {
    let window: domain::calendar::Window =
        text.parse().map_err(|error: domain::calendar::NoWindow| error.to_string())?;
    Ok(window.to_string())
}

fn rule(text: &str) -> Result<BandwidthRule, String> {
    let (hours, limit) =
        text.rsplit_once('=').ok_or("write DAYS HOURS=BYTES, such as `mon-fri 08:00-18:00=2M`")?;
    let limit = Some(bytes(limit)?).filter(|limit| *limit > 0);
    Ok(BandwidthRule { window: window(hours)?, bytes_per_second: limit })
}

pub(crate) async fn run(command: Command, session: &Session) -> Result<(), Failure> {
    match command {
        Command::List => {
            let policies: List<Policy> = session.get("/policies").await?;
            output::list(
                session.json,
                &policies,
                "There are no policies. Make one with: lifeboat policy create NAME",
                &[
                    "NAME",
                    "EVERY",
                    "KEPT",
                    "APP-CONSISTENT",
                    "COMPRESSION",
                    "BANDWIDTH",
                    "MACHINES",
                ],
                |policy| {
                    vec![
                        policy.name.clone(),
                        Seconds(policy.every_seconds).to_string(),
                        domain::policy::Retention::from(policy.retention.clone()).to_string(),
                        app_consistent(policy),
                        policy.compression.to_string(),
                        bandwidth(policy),
                        policy.protections.to_string(),
                    ]
                },
            );
        }
        Command::Show { policy } => {
            let policy: Policy = session.get(&format!("/policies/{}", segment(&policy))).await?;
            show(session, &policy);
        }
        Command::Create { name, terms } => {
            let wish = CreatePolicy { name, terms: terms.into() };
            let policy: Policy = session.post("/policies", &wish).await?;
            output::done(session.json, &policy, &format!("Policy {} is made.", policy.name));
        }
        Command::Change { policy, name, terms } => {
            let wish = ChangePolicy { name, terms: terms.into() };
            let path = format!("/policies/{}", segment(&policy));
            let policy: Policy = session.patch(&path, &wish).await?;
            let words = format!(
                "Policy {} is changed; {} machines follow it.",
                policy.name, policy.protections
            );
            output::done(session.json, &policy, &words);
        }
        Command::Delete { policy, yes } => {
            let policy: Policy = session.get(&format!("/policies/{}", segment(&policy))).await?;
            confirm(&format!("delete policy {}", policy.name), &policy.name, yes)?;
            session.delete(&format!("/policies/{}", policy.id)).await?;
            output::done(session.json, &policy, &format!("Policy {} is deleted.", policy.name));
        }
    }
    Ok(())
}

fn app_consistent(policy: &Policy) -> String {
    policy
        .app_consistent_seconds
        .map_or_else(|| "none".into(), |every| format!("every {}", Seconds(every)))
}

fn bandwidth(policy: &Policy) -> String {
    let rules = match policy.calendar.len() {
        0 => String::new(),
        rules => format!(", others in {rules} windows"),
    };
    limit(policy.bytes_per_second) + &rules
}

fn limit(bytes_per_second: Option<u64>) -> String {
    bytes_per_second
        .map_or_else(|| "no limit".into(), |limit| format!("{}/s", ByteCount::new(limit)))
}

fn at_commit(policy: &Policy) -> String {
    format!(
        "disks are made the machine's own with {}, points are {}",
        limit(policy.hydration_bytes_per_second),
        policy.points_at_commit
    )
}

fn show(session: &Session, policy: &Policy) {
    let extra = Hours(policy.retention.app_extra_hours);
    let mut limits = vec![limit(policy.bytes_per_second)];
    let rules = policy.calendar.iter();
    limits.extend(rules.map(|rule| format!("{}: {}", rule.window, limit(rule.bytes_per_second))));
    let resynchronised = match policy.resynchronise_in.as_slice() {
        [] => "at once".to_owned(),
        windows => windows.join("\n"),
    };
    let fields = [
        ("Name", policy.name.clone()),
        ("Id", policy.id.to_string()),
        ("A point every", Seconds(policy.every_seconds).to_string()),
        ("Kept", domain::policy::Retention::from(policy.retention.clone()).to_string()),
        ("App-consistent", format!("{}, kept {extra} longer", app_consistent(policy))),
        ("Freeze limit", Seconds(policy.freeze_seconds).to_string()),
        ("Compression", policy.compression.to_string()),
        ("Bandwidth", limits.join("\n")),
        ("Resynchronised", resynchronised),
        ("At a commit", at_commit(policy)),
        ("When a host is alone", format!("after its restart: {}", policy.when_alone)),
        ("Machines", policy.protections.to_string()),
    ];
    output::item(session.json, policy, &fields);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_written_with_units() {
        assert_eq!(seconds("15m"), Ok(900));
        assert_eq!(hours("30d"), Ok(720));
        assert!(hours("90m").is_err(), "retention counts in hours");
        assert_eq!(tier("1h:2d"), Ok(RetentionTier { slot_hours: 1, hours: 48 }));
        assert!(tier("1h").is_err());
        assert_eq!((bytes("10M"), bytes("0"), bytes("64k")), (Ok(10 << 20), Ok(0), Ok(64 << 10)));
        assert_eq!(
            rule("Mon-Fri 8:00-18:00=2M"),
            Ok(BandwidthRule {
                window: "mon-fri 08:00-18:00".into(),
                bytes_per_second: Some(2 << 20)
            })
        );
        assert_eq!(rule("daily 22:00-06:00=0").unwrap().bytes_per_second, None);
        assert!(rule("daily 22:00-06:00").is_err() && rule("always=2M").is_err());
        assert!(bytes("ten").is_err() && bytes("").is_err() && bytes("99999999999999G").is_err());
    }
}
