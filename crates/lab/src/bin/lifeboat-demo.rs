//! Plays what Lifeboat can do, on two real sites of this machine, and tells
//! what it does as it goes. `./demo` runs it.

use std::io::IsTerminal as _;
use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use api::host::ReachabilityState;
use clap::{Parser, Subcommand};
use lab::product::{Agent, Controller, binary};
use lab::{East, Guest, Lab, Place, Size as _, guest, wait_for};

/// How long anything may take to be seen by the controller.
const SOON: Duration = Duration::from_secs(15);

/// How long a first copy may take.
const COPIED: Duration = Duration::from_secs(60);

/// Lifeboat on two real sites of this machine.
#[derive(Parser)]
#[command(name = "demo")]
struct Arguments {
    /// Leave everything running at the end, to look around
    #[arg(long)]
    keep: bool,
    #[command(subcommand)]
    wish: Option<Wish>,
}

#[derive(Subcommand)]
enum Wish {
    /// Runs a command of the CLI against a demo that was left running
    Cli {
        /// Its arguments, such as: machine list
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Runs a command at east, west or the third-place of a demo that was left running
    Enter {
        /// east, west or third-place
        place: String,
        /// The command and its arguments; a shell when there is none
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Ends a demo that was left running and removes all that it made
    Stop,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Runtime::new().context("start the runtime");
    match runtime.and_then(|runtime| runtime.block_on(obey(arguments))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn obey(arguments: Arguments) -> Result<()> {
    match arguments.wish {
        None => play(arguments.keep).await,
        Some(Wish::Cli { arguments }) => {
            let place = standing("third-place")?;
            let mut command = place.command(binary()?).into_std();
            command.args(arguments).env("HOME", "/var/lib/lifeboat/home");
            Err(command.exec()).context("run the CLI")
        }
        Some(Wish::Enter { place, command }) => {
            let place = standing(&place)?;
            let (program, words) = command.split_first().map_or(("bash", &[][..]), |(p, w)| (p, w));
            let mut command = place.command(program).into_std();
            Err(command.args(words).exec()).context("enter the place")
        }
        Some(Wish::Stop) => {
            match Lab::resume().await? {
                Some(lab) => lab.stop().await?,
                None => Lab::clear().await?,
            }
            println!("The demo is gone.");
            Ok(())
        }
    }
}

fn standing(place: &str) -> Result<Place> {
    let found = Place::standing(place)?;
    found.with_context(|| {
        format!("no demo is running that has a place {place}; start one: ./demo --keep")
    })
}

/// Tells what happens, with the time since the beginning.
struct Teller {
    begun: Instant,
    bold: &'static str,
    dim: &'static str,
    plain: &'static str,
}

impl Teller {
    fn new() -> Self {
        let (bold, dim, plain) = if std::io::stdout().is_terminal() {
            ("\x1b[1m", "\x1b[2m", "\x1b[0m")
        } else {
            ("", "", "")
        };
        Self { begun: Instant::now(), bold, dim, plain }
    }

    fn chapter(&self, title: &str) {
        println!("\n{}{title}{}", self.bold, self.plain);
    }

    fn tell(&self, what: &str) {
        let seconds = self.begun.elapsed().as_secs_f64();
        println!("{}{seconds:7.1} s{}  {what}", self.dim, self.plain);
    }

    /// Runs a command of the CLI and shows it with what it prints.
    async fn show(&self, controller: &Controller<'_>, arguments: &[&str]) -> Result<()> {
        let output = controller.say(arguments).await?;
        println!("\n{}$ lifeboat {}{}", self.bold, arguments.join(" "), self.plain);
        for line in output.lines() {
            println!("  {line}");
        }
        Ok(())
    }
}

async fn play(keep: bool) -> Result<()> {
    let teller = Teller::new();
    println!("{}Lifeboat: two sites on this machine{}", teller.bold, teller.plain);

    teller.chapter("The ground");
    let lab = Lab::start("the demo").await?;
    teller.tell(
        "Sites east and west are up: a libvirt each, joined by a WAN; a third place beside them.",
    );
    let booting = Instant::now();
    let (web, db) = tokio::try_join!(
        lab.east().boot(guest("web").disk(256.mib()).disk(64.mib()).workload(20)),
        lab.west().boot(guest("db").disk(128.mib()).workload(20)),
    )?;
    teller.tell(&format!(
        "Machines web (east) and db (west) are up after {:.1} s, and write numbered records to their disks.",
        booting.elapsed().as_secs_f64()
    ));

    teller.chapter("The controller and its agents");
    let controller = Controller::start(&lab).await?;
    teller.tell("The controller runs at the third place; an administrator's token is at hand.");
    teller
        .show(&controller, &["site", "create", "east", "--description", "where production runs"])
        .await?;
    teller
        .show(&controller, &["site", "create", "west", "--description", "where it is recovered"])
        .await?;
    let mut agents = Vec::new();
    for site in [lab.east(), lab.west()] {
        agents.push(Agent::enrolled(site, &controller, &[]).await?);
    }
    for host in ["east", "west"] {
        see(&controller, host, ReachabilityState::Connected).await?;
    }
    println!();
    teller.tell("Each site's host was enrolled by a one-time token; its agent is connected.");

    teller.chapter("What they see");
    everything_is_there(&controller).await?;
    for command in [
        &["host", "list"][..],
        &["machine", "list"],
        &["machine", "show", "web"],
        &["network", "list"],
        &["pool", "list"],
    ] {
        teller.show(&controller, command).await?;
    }

    teller.chapter("Protection: points at the other site");
    teller.show(&controller, &["protect", "web", "--to", "west", "--check"]).await?;
    controller
        .say(&["policy", "create", "fast", "--every", "5s", "--app-consistent", "1m"])
        .await?;
    for (machine, target) in [("web", "west"), ("db", "east")] {
        teller.show(&controller, &["protect", machine, "--to", target, "--policy", "fast"]).await?;
    }
    let protected = Instant::now();
    points(&controller, "web", 3).await?;
    points(&controller, "db", 3).await?;
    println!();
    teller.tell(&format!(
        "Both have recovery points at the other site after {:.1} s; the guests went on writing.",
        protected.elapsed().as_secs_f64()
    ));
    teller.show(&controller, &["protected", "list"]).await?;
    teller.show(&controller, &["point", "list", "web"]).await?;

    teller.chapter("The WAN to east is cut");
    let before = points(&controller, "web", 1).await?;
    lab.wan().cut(East).await?;
    let cut = Instant::now();
    see(&controller, "east", ReachabilityState::NotReachable).await?;
    teller.tell(&format!("Noticed after {:.1} s. The guests go on.", cut.elapsed().as_secs_f64()));
    web.acknowledges(200).await?;
    teller.show(&controller, &["host", "list"]).await?;
    teller.show(&controller, &["protected", "list"]).await?;
    lab.wan().restore(East).await?;
    let restored = Instant::now();
    points(&controller, "web", before + 2).await?;
    println!();
    teller.tell(&format!(
        "The WAN is back; points of after it came {:.1} s later, by themselves.",
        restored.elapsed().as_secs_f64()
    ));

    teller.chapter("Source and replica are the same");
    for machine in ["web", "db"] {
        teller.show(&controller, &["verify", machine]).await?;
    }
    teller.show(&controller, &["protected", "show", "web"]).await?;

    teller.chapter("What was written is there");
    for machine in [&web, &db] {
        teller.tell(&proof(machine).await?);
    }

    fail_over(&teller, &lab, &controller, &web).await?;
    lose_a_site(&teller, &lab, &controller, &mut agents[1], &db).await?;
    teller.show(&controller, &["job", "list"]).await?;

    if keep {
        for agent in agents {
            agent.keep_running().await;
        }
        controller.keep_running().await;
        lab.keep().await?;
        tell_how_to_look_around(&teller);
        return Ok(());
    }
    teller.chapter("Taking everything down");
    drop(agents);
    drop(controller);
    lab.stop().await?;
    teller.tell("All is gone: processes, networks, files.");
    Ok(())
}

/// The whole circle: a test, there without loss, for good, and home again.
async fn fail_over(
    teller: &Teller,
    lab: &Lab,
    controller: &Controller<'_>,
    home: &Guest,
) -> Result<()> {
    teller.chapter("A test: a copy beside production, from a recovery point");
    teller.show(controller, &["failover", "test", "web"]).await?;
    let copy = lab.west().guest("web-test").boot_check()?;
    ensure!(copy.is_clean(), "the copy is damaged: {copy}");
    println!();
    teller.tell(&format!("web-test has {} records, each whole; web went on writing.", copy.last));
    teller.show(controller, &["failover", "complete", "web", "--notes", "it came up"]).await?;

    let away = lab.west().guest("web");
    teller.chapter("A planned failover: to west, without loss");
    controller.replicates("web", COPIED).await?;
    teller.show(controller, &["failover", "planned", "web", "--plan"]).await?;
    move_over(teller, controller, home, &away).await?;
    teller.chapter("Committed, and replicated the other way round");
    settle(teller, controller).await?;

    teller.chapter("Home again");
    move_over(teller, controller, &away, home).await?;
    settle(teller, controller).await?;
    println!();
    teller.tell(&proof(home).await?);
    Ok(())
}

/// A site burns down with a machine; what it never sent is kept when it returns.
async fn lose_a_site(
    teller: &Teller,
    lab: &Lab,
    controller: &Controller<'_>,
    agent: &mut Agent,
    db: &Guest,
) -> Result<()> {
    teller.chapter("West loses its power, and db with it");
    controller.replicates("db", COPIED).await?;
    lab.west().cut_power().await?;
    see(controller, "west", ReachabilityState::NotReachable).await?;
    let order = ["failover", "unplanned", "db", "--source-is-down", "--yes"];
    teller.show(controller, &order).await?;
    let saved = lab.east().guest("db");
    let (acknowledged, report) = (db.acknowledged()?, saved.boot_check()?);
    ensure!(report.is_clean(), "the records of db are damaged: {report}");
    println!();
    teller.tell(&format!(
        "db runs at east with {} of the {acknowledged} records that it had acknowledged, each whole.",
        report.last
    ));

    teller.chapter("West is back");
    lab.west().power_on().await?;
    agent.start().await?;
    see(controller, "west", ReachabilityState::Connected).await?;
    ensure!(!db.is_running().await?, "db runs at both sites");
    teller.tell("Its agent learned that db is east's now, and keeps it down there.");
    teller.show(controller, &["reverse", "db", "--plan"]).await?;
    teller.show(controller, &["failover", "commit", "db", "--reverse"]).await?;
    controller.replicates("db", COPIED).await?;
    teller.show(controller, &["point", "list", "db"]).await?;
    println!();
    teller.tell("What west never sent is a point of its own, held until somebody lets it go.");
    Ok(())
}

/// Fails `web` over, and proves that nothing is missing.
async fn move_over(
    teller: &Teller,
    controller: &Controller<'_>,
    from: &Guest,
    to: &Guest,
) -> Result<()> {
    controller.replicates("web", COPIED).await?;
    teller.show(controller, &["failover", "planned", "web", "--yes"]).await?;
    let (acknowledged, report) = (from.acknowledged()?, to.boot_check()?);
    ensure!(report.is_clean(), "the records of web are damaged: {report}");
    ensure!(report.last >= acknowledged, "{} of {acknowledged} records are there", report.last);
    println!();
    teller.tell(&format!(
        "All {acknowledged} records that web acknowledged are at {}; it goes on writing there.",
        to.site().name()
    ));
    Ok(())
}

/// Commits and reverses, and tells what that took.
async fn settle(teller: &Teller, controller: &Controller<'_>) -> Result<()> {
    teller.show(controller, &["failover", "commit", "web"]).await?;
    teller.show(controller, &["reverse", "web"]).await?;
    controller.replicates("web", COPIED).await?;
    let sent = controller.protection("web").await?.totals.map_or(0, |totals| totals.sent_bytes);
    println!();
    teller.tell(&format!("Protected the other way round; {} KiB were sent for it.", sent >> 10));
    Ok(())
}

async fn see(controller: &Controller<'_>, host: &str, state: ReachabilityState) -> Result<()> {
    wait_for(&format!("see host {host} {state:?}"), SOON, async || {
        Ok((controller.host(host).await?.reachability.state == state).then_some(()))
    })
    .await
}

async fn everything_is_there(controller: &Controller<'_>) -> Result<()> {
    use api::machine::GuestAgent;
    wait_for("see both machines", SOON, async || {
        let machines = controller.machines().await?;
        let ready = machines.iter().filter(|m| m.current && m.guest_agent == GuestAgent::Connected);
        Ok((ready.count() == 2).then_some(()))
    })
    .await
}

/// Waits until a machine has so many points; how many it has.
async fn points(controller: &Controller<'_>, machine: &str, count: usize) -> Result<usize> {
    wait_for(&format!("{count} points of {machine}"), COPIED, async || {
        let found = controller.points(machine).await?.len();
        Ok((found >= count).then_some(found))
    })
    .await
}

/// Reads a machine's records back and says what was found.
async fn proof(machine: &Guest) -> Result<String> {
    let acknowledged = machine.acknowledged()?;
    let report = machine.check().await?;
    ensure!(report.is_clean(), "the records of {} are damaged: {report}", machine.name());
    ensure!(
        report.last >= acknowledged,
        "{} acknowledged record {acknowledged} and has only {}",
        machine.name(),
        report.last
    );
    Ok(format!(
        "{}: {} records on {} disk(s), each whole, none of those acknowledged missing.",
        machine.name(),
        report.last,
        report.disks.len()
    ))
}

fn tell_how_to_look_around(teller: &Teller) {
    teller.chapter("It is left running. Look around:");
    println!("  ./demo cli machine list              the CLI, as the administrator");
    println!("  ./demo cli protected list            points go on arriving");
    println!("  ./demo cli protected show web --watch");
    println!("  ./demo cli host show east");
    println!("  ./demo enter east -- virsh list      a command at a site");
    println!("  ./demo enter west                    a shell at a site");
    println!("  ./demo stop                          ends it and removes all that it made");
}
