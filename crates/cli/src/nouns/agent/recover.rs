//! `lifeboat agent recover`, `recovered`, `hydrate` and `discard`: machines from
//! the points that this host keeps, with no controller.

use std::time::Duration;

use agent::commands::control::Client;
use agent::config::Config;
use agent::epochs::Epochs;
use agent::recover::loans;
use agent::recover::record::{FOLDER, Record, Records, Stage};
use api::List;
use domain::failover::fence::Epoch;
use domain::fault::{Code, Fault};
use domain::id::MachineUuid;
use domain::units::utc;
use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;
use wire::command::{Answer, Command, LifeSign, Loan, NicWish, Purpose, Recovery, Work};
use wire::replication::{Keeping, PointMark, Progress};

use crate::confirm::confirm;
use crate::failure::Failure;
use crate::output;

/// The kind of a point that was lent.
const LENT: &str = "lent";

/// What to make of which machine.
#[derive(Debug, clap::Args)]
pub(crate) struct Wish {
    /// The machine, by name or UUID
    machine: String,
    /// The point [default: the newest]
    #[arg(long)]
    point: Option<u32>,
    /// Make a test beside it, with this name, and not the machine itself
    #[arg(long, value_name = "NAME")]
    test: Option<String>,
    /// Connect a NIC to a network: 52:54:00:12:34:56=NETWORK. Others are connected
    /// to the network of the same name as at the source, if this host has it; those
    /// of a test to none
    #[arg(long, value_name = "MAC=NETWORK", value_parser = nic)]
    network: Vec<NicWish>,
    /// Wait so long for a sign of life
    #[arg(long, value_name = "SPAN", default_value = "3m", value_parser = humantime::parse_duration)]
    within: Duration,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

fn nic(text: &str) -> Result<NicWish, String> {
    let (mac, network) = text.split_once('=').ok_or("give MAC=NETWORK")?;
    Ok(NicWish { mac: mac.to_lowercase(), network: network.to_owned() })
}

#[derive(Debug, Serialize)]
struct RecoveredView {
    id: Uuid,
    name: String,
    machine: String,
    point: u32,
    kind: &'static str,
    stage: Stage,
    remarks: Vec<String>,
}

impl From<Record> for RecoveredView {
    fn from(record: Record) -> Self {
        Self {
            id: record.id,
            machine: record.machine().to_string(),
            point: record.point,
            kind: if record.production { "production" } else { "test" },
            stage: record.stage,
            name: record.name,
            remarks: record.remarks,
        }
    }
}

/// A point that a machine at another host is made of.
impl From<Loan> for RecoveredView {
    fn from(loan: Loan) -> Self {
        Self {
            id: loan.recovery,
            name: "(at another host)".into(),
            machine: loan.to.to_string(),
            point: loan.point,
            kind: LENT,
            stage: Stage::Defined,
            remarks: vec![format!(
                "the point is kept, and read by host {}, until the failover or test ends",
                loan.to
            )],
        }
    }
}

/// Says how far something is, for people alone.
fn told(json: bool) -> impl FnMut(Progress) {
    move |Progress { done, total, .. }| {
        if !json && total > 0 {
            let percent = u128::from(done) * 100 / u128::from(total);
            eprintln!("{percent} %");
        }
    }
}

fn command(work: Work) -> Command {
    let id = Uuid::now_v7();
    Command { id, job: id, work }
}

async fn ask(client: &mut Client, json: bool, work: Work) -> Result<Answer, Fault> {
    client.ask(command(work), told(json)).await
}

/// Makes a machine of a point and starts it.
pub(super) async fn recover(config: &Config, wish: &Wish, json: bool) -> Result<(), Failure> {
    let doing = format!("recover machine {}", wish.machine);
    let duty = keeping(config, &doing, &wish.machine)?;
    let mut client = Client::connect(&config.state_folder).await?;
    let protection = duty.protection;
    let points = match ask(&mut client, json, Work::ListPoints { protection }).await? {
        Answer::Points { points } => points,
        other => return Err(unexpected(&doing, &other).into()),
    };
    let point = chosen(&doing, &points, wish.point)?;
    let purpose = match &wish.test {
        None => Purpose::Production,
        Some(name) => Purpose::Test { name: name.clone(), uuid: Uuid::new_v4() },
    };
    if purpose == Purpose::Production {
        let age = output::ago(OffsetDateTime::now_utc() - point.instant);
        let told = format!(
            "run {} here as it was {age}, at point {}. Make sure that it runs nowhere else, and that nothing starts it there",
            duty.name, point.point
        );
        confirm(&told, &duty.name, wish.yes)?;
    }
    // Higher than any that this host has seen: what another side does with a
    // lower one does not count here.
    let epoch = match purpose {
        Purpose::Production => Some(next_epoch(config, duty.machine)?),
        Purpose::Test { .. } => None,
    };
    let id = Uuid::now_v7();
    let recovery = Recovery {
        id,
        protection,
        point: point.point,
        same_networks: purpose == Purpose::Production,
        purpose,
        nics: wish.network.clone(),
        keeper: None,
    };
    let defined = ask(&mut client, json, Work::Define(Box::new(recovery))).await;
    let remarks = match defined {
        Ok(Answer::Defined { remarks }) => remarks,
        Ok(other) => return Err(unexpected(&doing, &other).into()),
        Err(fault) => {
            // What was half-made goes; that it could not be made is what is told.
            let _ = ask(&mut client, json, Work::Discard { recovery: id }).await;
            return Err(fault.into());
        }
    };
    ask(&mut client, json, Work::StartRecovered { recovery: id, epoch }).await?;
    let within_seconds = u32::try_from(wish.within.as_secs()).unwrap_or(u32::MAX);
    let life = ask(&mut client, json, Work::AwaitLife { recovery: id, within_seconds }).await?;
    let Answer::Alive { by, after_ms } = life else {
        return Err(unexpected(&doing, &life).into());
    };
    let record = records(config).read(id)?;
    let name = record.as_ref().map_or_else(|| duty.name.clone(), |record| record.name.clone());
    let sign = match by {
        LifeSign::GuestAgent => "its guest agent answers",
        LifeSign::Disks => "it runs and uses its disks",
    };
    let mut words = format!(
        "{name} runs from point {} of {}: {sign} after {:.1} s.",
        point.point,
        utc(point.instant),
        after_ms as f64 / 1000.0
    );
    for remark in &remarks {
        words.push_str(&format!("\nremark: {remark}"));
    }
    words.push_str(&format!(
        "\nIts disks still stand on the point. Make them its own: lifeboat agent hydrate {name}"
    ));
    let done = serde_json::json!({
        "id": id, "name": name, "point": point.point, "alive_by": by, "after_ms": after_ms,
        "remarks": remarks,
    });
    output::done(json, &done, &words);
    Ok(())
}

/// The duty that keeps a machine's points here.
fn keeping(config: &Config, doing: &str, reference: &str) -> Result<Keeping, Fault> {
    let duties = agent::duties::read(&config.state_folder).map_err(|error| {
        Fault::new(
            Code::DataFolderUnusable,
            doing,
            format!("{}: {error}", config.state_folder.display()),
            "Run this as root or as the agent's user, and name its state folder.",
        )
    })?;
    let is_meant = |duty: &Keeping| {
        duty.name == reference
            || duty.machine.to_string().eq_ignore_ascii_case(reference)
            || duty.protection.to_string().eq_ignore_ascii_case(reference)
    };
    let mut found = duties.keeping.into_iter().filter(is_meant);
    match (found.next(), found.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err(Fault::new(
            Code::NotKeptHere,
            doing,
            format!("this host keeps no points of a machine {reference}"),
            "See what is kept: lifeboat store list. On a host with the store alone, export the disks: lifeboat store export.",
        )),
        (Some(_), Some(_)) => Err(Fault::new(
            Code::Ambiguous,
            doing,
            format!("several machines have the name {reference}"),
            "Name it by its UUID.",
        )),
    }
}

fn chosen(doing: &str, points: &[PointMark], wish: Option<u32>) -> Result<PointMark, Fault> {
    let found = match wish {
        None => points.last(),
        Some(number) => points.iter().find(|point| point.point == number),
    };
    found.copied().ok_or_else(|| {
        Fault::new(
            Code::PointUnknown,
            doing,
            wish.map_or("there is no point yet".into(), |number| {
                format!("there is no point {number}")
            }),
            "See which there are: lifeboat store points.",
        )
    })
}

fn next_epoch(config: &Config, machine: MachineUuid) -> Result<u64, Fault> {
    let epochs = Epochs::in_folder(&config.state_folder.join("epochs"))?;
    let known = epochs.known(machine).map_or(Epoch::FIRST, |known| known.epoch);
    Ok(known.next().number())
}

fn lent(config: &Config) -> Result<Vec<Loan>, Fault> {
    loans::lent(config.state_folder.join(loans::FOLDER))
}

fn records(config: &Config) -> Records {
    Records::in_folder(config.state_folder.join(FOLDER))
}

/// Lists the machines of this host that were made of points.
pub(super) fn list(config: &Config, json: bool) -> Result<(), Failure> {
    let mut items: Vec<RecoveredView> =
        records(config).all()?.into_iter().map(RecoveredView::from).collect();
    items.extend(lent(config)?.into_iter().map(RecoveredView::from));
    output::list(
        json,
        &List { items },
        "No machine of this host was made of a recovery point.",
        &["NAME", "KIND", "POINT", "STAGE", "MACHINE OR HOST", "ID"],
        |view: &RecoveredView| {
            let stage = match view.stage {
                Stage::Making => "being made",
                Stage::Defined if view.kind == LENT => "reads a point of this host",
                Stage::Defined => "stands on its point",
                Stage::Standing => "stands for itself",
                Stage::Discarding => "being discarded",
            };
            vec![
                view.name.clone(),
                view.kind.into(),
                view.point.to_string(),
                stage.into(),
                view.machine.clone(),
                view.id.to_string(),
            ]
        },
    );
    Ok(())
}

fn find(config: &Config, doing: &str, reference: &str) -> Result<Record, Fault> {
    let all = records(config).all()?.into_iter();
    let mut found = all.filter(|record| {
        record.name == reference
            || record.id.to_string() == reference
            || record.machine().to_string() == reference
    });
    match (found.next(), found.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err(Fault::new(
            Code::RecoveryUnknown,
            doing,
            format!("no machine {reference} of this host was made of a recovery point"),
            "See what there is: lifeboat agent recovered.",
        )),
        (Some(_), Some(_)) => Err(Fault::new(
            Code::Ambiguous,
            doing,
            format!("several recoveries have the name {reference}"),
            "Name it by its id: lifeboat agent recovered.",
        )),
    }
}

/// Makes a recovered machine's disks its own.
pub(super) async fn hydrate(
    config: &Config,
    reference: &str,
    bytes_per_second: Option<u64>,
    json: bool,
) -> Result<(), Failure> {
    let record = find(config, &format!("make the disks of {reference} its own"), reference)?;
    let mut client = Client::connect(&config.state_folder).await?;
    ask(&mut client, json, Work::Hydrate { recovery: record.id, bytes_per_second }).await?;
    let words = format!("The disks of {} are its own.", record.name);
    output::done(json, &serde_json::json!({ "id": record.id, "name": record.name }), &words);
    Ok(())
}

/// Takes a recovered machine away, or a point back that was lent.
pub(super) async fn discard(
    config: &Config,
    reference: &str,
    yes: bool,
    json: bool,
) -> Result<(), Failure> {
    let lent = lent(config)?.into_iter().find(|loan| loan.recovery.to_string() == reference);
    if let Some(Loan { recovery, point, to, .. }) = lent {
        let doing = format!(
            "take back point {point}, which host {to} may still read: a machine that runs from it there stops"
        );
        confirm(&doing, reference, yes)?;
        let mut client = Client::connect(&config.state_folder).await?;
        ask(&mut client, json, Work::EndLoan { recovery, drop_points: false }).await?;
        let words = format!("Point {point} is lent no longer.");
        output::done(json, &serde_json::json!({ "id": recovery, "point": point }), &words);
        return Ok(());
    }
    let doing = format!("discard the recovered machine {reference} with all that it has written");
    let record = find(config, &doing, reference)?;
    confirm(&doing, &record.name, yes)?;
    let mut client = Client::connect(&config.state_folder).await?;
    ask(&mut client, json, Work::Discard { recovery: record.id }).await?;
    let words = format!("{} is discarded.", record.name);
    output::done(json, &serde_json::json!({ "id": record.id, "name": record.name }), &words);
    Ok(())
}

fn unexpected(doing: &str, answer: &Answer) -> Fault {
    Fault::internal(doing, &format!("the agent answered {answer:?}"))
}
