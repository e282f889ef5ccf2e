//! `lifeboat failover` and `lifeboat reverse`.

use api::failover::{
    ChangePoint, FailoverKind, NicChoice, OrderCommit, OrderFailover, OrderReversal, Ordered, Plan,
    ReversePlan,
};
use api::job::{Job, Say};
use api::protection::Protection;
use clap::Subcommand;
use domain::fault::{Code, Fault};
use domain::units::{ByteCount, span, utc};

use super::job;
use crate::client::{Session, segment};
use crate::confirm::confirm;
use crate::failure::Failure;
use crate::output;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a copy of a machine beside production, from a recovery point
    Test {
        /// The machine: name, HOST/NAME, SITE/HOST/NAME, UUID or id
        machine: String,
        #[command(flatten)]
        from: From,
        /// The name of the copy; the machine's with -test if not given
        #[arg(long)]
        name: Option<String>,
        /// Complete the test by force after so many hours
        #[arg(long, default_value_t = 336)]
        hours: u32,
        #[command(flatten)]
        how: How,
    },
    /// Bring a machine to the other side without loss; it is shut down at the source first
    Planned {
        /// The machine, as for test
        machine: String,
        /// Seconds that the source may take to shut down
        #[arg(long, default_value_t = 300)]
        shut_down: u32,
        /// Switch the source off if it takes longer
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        nics: Nics,
        #[command(flatten)]
        how: How,
    },
    /// Start a machine at the other side from what has arrived there; its source may be gone
    Unplanned {
        /// The machine, as for test
        machine: String,
        #[command(flatten)]
        from: From,
        /// Try to shut the source down within so many seconds, and bring over its last data
        #[arg(long, value_name = "SECONDS")]
        shut_down: Option<u32>,
        /// Vouch that the source is without power, should its agent not answer
        #[arg(long)]
        source_is_down: bool,
        #[command(flatten)]
        how: How,
    },
    /// Complete a test: its copy is taken away
    Complete {
        /// The machine, as for test
        machine: String,
        /// Which test, by its job, if several are open
        #[arg(long)]
        job: Option<String>,
        /// What came of it; kept with the job
        #[arg(long, default_value = "")]
        notes: String,
        /// Do not wait until it is done
        #[arg(long)]
        no_wait: bool,
    },
    /// Start a machine that was failed over from another recovery point
    ChangePoint {
        /// The machine, as for test
        machine: String,
        /// latest, latest-app, or a point's number
        point: String,
        #[command(flatten)]
        how: Confirmed,
    },
    /// Make a failover final
    Commit {
        /// The machine, as for test
        machine: String,
        /// Reverse the replication at once after
        #[arg(long)]
        reverse: bool,
        #[command(flatten)]
        how: Waits,
    },
    /// Return a machine to its source, and drop what it wrote at the target
    Undo {
        /// The machine, as for test
        machine: String,
        #[command(flatten)]
        how: Confirmed,
    },
    /// Take a failover back that has not ended
    Cancel {
        /// The machine, as for test
        machine: String,
        /// Kept with the job
        #[arg(long, default_value = "")]
        comment: String,
        #[command(flatten)]
        how: Waits,
    },
}

/// From which point, and to which networks.
#[derive(Debug, clap::Args)]
pub(crate) struct From {
    /// latest, latest-app, or a point's number [default: latest; where a return has lost its
    /// source, what the machine wrote at the target]
    #[arg(long)]
    point: Option<String>,
    #[command(flatten)]
    nics: Nics,
}

/// To which networks.
#[derive(Debug, clap::Args)]
pub(crate) struct Nics {
    /// Connect a NIC to a network of the target's host, as MAC=NETWORK; may be repeated, and
    /// NICs that are not given are disconnected
    #[arg(long = "nic", value_name = "MAC=NETWORK", value_parser = nic)]
    nics: Vec<NicChoice>,
    /// Disconnect all NICs
    #[arg(long, conflicts_with = "nics")]
    no_network: bool,
}

/// How an order is given.
#[derive(Debug, clap::Args)]
pub(crate) struct How {
    /// Make the machine at another host of the site where its points are
    #[arg(long, value_name = "HOST")]
    to: Option<String>,
    /// Only tell what would be done
    #[arg(long)]
    plan: bool,
    #[command(flatten)]
    waits: Waits,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// How an order is given that drops something.
#[derive(Debug, clap::Args)]
pub(crate) struct Confirmed {
    #[command(flatten)]
    waits: Waits,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Whether it is waited for.
#[derive(Debug, clap::Args)]
pub(crate) struct Waits {
    /// Do not wait until it is done
    #[arg(long)]
    no_wait: bool,
}

/// `lifeboat reverse`.
#[derive(Debug, clap::Args)]
pub(crate) struct Reverse {
    /// The machine: name, HOST/NAME, SITE/HOST/NAME, UUID or id
    machine: String,
    /// Only tell what would be done, and how much would be sent
    #[arg(long, conflicts_with = "to")]
    plan: bool,
    /// The host, cloud or site where its points go; everything is sent to another one [default:
    /// where it ran before]
    #[arg(long, value_name = "TARGET")]
    to: Option<String>,
    #[command(flatten)]
    how: Waits,
}

fn nic(text: &str) -> Result<NicChoice, String> {
    let (mac, network) = text.split_once('=').ok_or("write MAC=NETWORK")?;
    Ok(NicChoice { mac: mac.to_lowercase(), network: network.to_owned() })
}

impl Nics {
    fn chosen(self) -> Option<Vec<NicChoice>> {
        (self.no_network || !self.nics.is_empty()).then_some(self.nics)
    }
}

fn order(kind: FailoverKind) -> OrderFailover {
    OrderFailover {
        kind,
        point: None,
        nics: None,
        name: None,
        hours: None,
        shut_down_seconds: None,
        force: false,
        source_is_down: false,
        to: None,
        plan_only: false,
    }
}

pub(crate) async fn run(command: Command, session: &Session) -> Result<(), Failure> {
    match command {
        Command::Test { machine, from, name, hours, how } => {
            let wish = OrderFailover {
                point: from.point,
                nics: from.nics.chosen(),
                name,
                hours: Some(hours),
                ..order(FailoverKind::Test)
            };
            // A test touches nothing; nobody needs to confirm it.
            let how = How { yes: true, ..how };
            fail_over(session, &machine, wish, how).await
        }
        Command::Planned { machine, shut_down, force, nics, how } => {
            let wish = OrderFailover {
                nics: nics.chosen(),
                shut_down_seconds: Some(shut_down),
                force,
                ..order(FailoverKind::Planned)
            };
            fail_over(session, &machine, wish, how).await
        }
        Command::Unplanned { machine, from, shut_down, source_is_down, how } => {
            let wish = OrderFailover {
                point: from.point,
                nics: from.nics.chosen(),
                shut_down_seconds: shut_down,
                source_is_down,
                ..order(FailoverKind::Unplanned)
            };
            fail_over(session, &machine, wish, how).await
        }
        Command::Complete { machine, job, notes, no_wait } => {
            let test = open_job(session, &machine, job, "test-failover").await?;
            let path = format!("/jobs/{}/resume", test.id);
            let now: Job = session.post(&path, &Say { comment: notes }).await?;
            follow(session, now, no_wait).await
        }
        Command::ChangePoint { machine, point, how } => {
            let name = name_of(session, &machine).await?;
            let doing = format!("drop what machine {name} wrote since its failover");
            confirm(&doing, &name, how.yes)?;
            let path = format!("/protections/{}/change-point", segment(&machine));
            let job: Job = session.post(&path, &ChangePoint { point }).await?;
            follow(session, job, how.waits.no_wait).await
        }
        Command::Commit { machine, reverse, how } => {
            let path = format!("/protections/{}/commit", segment(&machine));
            let wish = OrderCommit { reverse, ..OrderCommit::default() };
            let job: Job = session.post(&path, &wish).await?;
            follow(session, job, how.no_wait).await
        }
        Command::Undo { machine, how } => {
            let name = name_of(session, &machine).await?;
            let doing = format!("drop what machine {name} wrote since its failover");
            confirm(&doing, &name, how.yes)?;
            let path = format!("/protections/{}/undo", segment(&machine));
            let job: Job = session.post(&path, &Say::default()).await?;
            follow(session, job, how.waits.no_wait).await
        }
        Command::Cancel { machine, comment, how } => {
            let job = open_job(session, &machine, None, "failover").await?;
            let path = format!("/jobs/{}/cancel", job.id);
            let now: Job = session.post(&path, &Say { comment }).await?;
            if how.no_wait {
                return follow(session, now, true).await;
            }
            let ended = job::watch(session, now).await?;
            let words = format!("The {} of {}: {}.", ended.operation, ended.target, ended.state);
            output::done(session.json, &ended, &words);
            Ok(())
        }
    }
}

pub(crate) async fn reverse(arguments: Reverse, session: &Session) -> Result<(), Failure> {
    let path = format!("/protections/{}/reverse", segment(&arguments.machine));
    if arguments.plan {
        tell_reversal(session, &session.get(&path).await?);
        return Ok(());
    }
    let wish = OrderReversal { to: arguments.to, ..OrderReversal::default() };
    let job: Job = session.post(&path, &wish).await?;
    follow(session, job, arguments.how.no_wait).await
}

async fn name_of(session: &Session, machine: &str) -> Result<String, Failure> {
    let shown: Protection = session.get(&format!("/protections/{}", segment(machine))).await?;
    Ok(shown.machine.name)
}

async fn fail_over(
    session: &Session,
    machine: &str,
    wish: OrderFailover,
    how: How,
) -> Result<(), Failure> {
    let wish = OrderFailover { to: how.to, ..wish };
    let path = format!("/protections/{}/failovers", segment(machine));
    if how.plan || !how.yes {
        let dry = OrderFailover { plan_only: true, ..wish.clone() };
        if let Ordered::Plan { plan } = session.post(&path, &dry).await? {
            if how.plan {
                tell(session, &plan);
                return Ok(());
            }
            if !session.json {
                tell(session, &plan);
            }
        }
        let name = name_of(session, machine).await?;
        confirm(&format!("fail machine {name} over"), &name, how.yes)?;
    }
    match session.post(&path, &wish).await? {
        Ordered::Job { job } => follow(session, *job, how.waits.no_wait).await,
        Ordered::Plan { plan } => {
            tell(session, &plan);
            Ok(())
        }
    }
}

/// Waits for a job and tells how it ended, or how to watch it.
async fn follow(session: &Session, job: Job, no_wait: bool) -> Result<(), Failure> {
    if !no_wait {
        return job::conclude(session, job).await.map(drop);
    }
    let words = format!(
        "The {} of {} has begun. Watch it with: lifeboat job watch {}",
        job.operation, job.target, job.id
    );
    output::done(session.json, &job, &words);
    Ok(())
}

/// The only job of a machine that is open and of this kind.
async fn open_job(
    session: &Session,
    machine: &str,
    job: Option<String>,
    kind: &str,
) -> Result<Job, Failure> {
    if let Some(job) = job {
        return session.get(&format!("/jobs/{}", segment(&job))).await;
    }
    let target = format!("machine {}", name_of(session, machine).await?);
    let jobs: api::List<Job> = session.get("/jobs").await?;
    let is_meant = |job: &Job| {
        let same_kind = match kind {
            "failover" => {
                matches!(job.operation.as_str(), "planned-failover" | "unplanned-failover")
            }
            kind => job.operation == kind,
        };
        same_kind && !job.state.has_ended() && job.target == target
    };
    let mut open: Vec<Job> = jobs.items.into_iter().filter(is_meant).collect();
    let doing = format!("find the open {kind} of {target}");
    match (open.pop(), open.is_empty()) {
        (Some(job), true) => Ok(job),
        (None, _) => Err(Fault::new(
            Code::NotFound,
            doing,
            "there is none",
            "See what there is with: lifeboat job list.",
        )
        .into()),
        (Some(_), false) => Err(Fault::new(
            Code::Ambiguous,
            doing,
            format!("{} are open", open.len() + 1),
            "Say which one with --job; see: lifeboat job list.",
        )
        .into()),
    }
}

fn tell(session: &Session, plan: &Plan) {
    let kind = match plan.kind {
        FailoverKind::Test => "test",
        FailoverKind::Planned => "planned",
        FailoverKind::Unplanned => "unplanned",
    };
    let lost = span(time::Duration::milliseconds(i64::try_from(plan.lost_ms).unwrap_or(i64::MAX)));
    let mut fields = vec![
        ("Failover", kind.to_owned()),
        ("From", plan.from.clone()),
        ("To", plan.to.clone()),
        ("Point", plan.point_instant.map_or_else(|| "a new one, without loss".into(), utc)),
        (
            "Would be lost",
            if plan.lost_ms == 0 { "nothing".into() } else { format!("{lost} of work") },
        ),
        ("Left to send", format!("about {}", ByteCount::new(plan.bytes))),
    ];
    if plan.kind != FailoverKind::Test {
        let about = plan.downtime_ms.map_or_else(
            || "not known".to_owned(),
            |ms| format!("about {:.1} s", ms as f64 / 1000.0),
        );
        fields.push(("Would be down", about));
        fields.push(("Because", plan.downtime_basis.join("\n")));
    }
    fields.extend([("Steps", plan.steps.join("\n"))]);
    if !plan.remarks.is_empty() {
        fields.push(("Remarks", plan.remarks.join("\n")));
    }
    output::item(session.json, plan, &fields);
}

fn tell_reversal(session: &Session, plan: &ReversePlan) {
    let bytes = |bytes: Option<u64>| {
        bytes.map_or_else(|| "not known".to_owned(), |bytes| ByteCount::new(bytes).to_string())
    };
    let fields = [
        ("From", plan.from.clone()),
        ("To", plan.to.clone()),
        ("About to send", bytes(plan.about_bytes)),
        ("At most", format!("{}, before compression", bytes(plan.at_most_bytes))),
        ("Because", plan.basis.join("\n")),
        ("Steps", plan.steps.join("\n")),
    ];
    output::item(session.json, plan, &fields);
}
