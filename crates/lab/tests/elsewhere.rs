//! A machine is made at another host than the one that keeps its points: a test,
//! and for good, with whoever is between them killed; back, and the other way
//! round.

use std::time::Duration;

use anyhow::{Result, ensure};
use api::failover::Plan;
use api::job::{Job, JobState};
use lab::product::{Agent, Controller, Deployment};
use lab::{Guest, Lab, Size as _, guest};

const SOON: Duration = Duration::from_secs(90);
const STORY: &str = "a machine is made elsewhere";

#[tokio::test]
async fn a_machine_is_made_elsewhere_than_its_points_are() -> Result<()> {
    if lab::skipped(STORY) {
        return Ok(());
    }
    let lab = Lab::start(STORY).await?;
    let Deployment { mut controller, mut east, mut west } = Deployment::start(&lab).await?;
    let mut annex = Agent::of(lab.annex().await?)?;
    annex.enrol(&controller.enrolment_token(&["--site", "west"]).await?).await?;
    let home = lab.east().boot(guest("web").disk(64.mib()).disk(32.mib()).workload(50)).await?;
    controller.shows_machines(1).await?;
    controller.say(&["policy", "create", "fast", "--every", "5s"]).await?;
    controller.say(&["protect", "web", "--to", "west/west", "--policy", "fast"]).await?;
    controller.replicates("web", SOON).await?;

    for (to, said) in [("east/east", "comes from"), ("nowhere", "nowhere")] {
        let refused = controller.refuses(&["failover", "test", "web", "--to", to]).await?;
        ensure!(refused.cause.contains(said), "{refused:?}");
    }

    // A test, whose points' keeper dies and comes back while it runs.
    let job: Job = controller.ask(&["failover", "test", "web", "--to", "annex"]).await?;
    ensure!(job.state == JobState::Waiting && job.alive_after_ms.is_some(), "{job:?}");
    let copy = lab.annex().await?.guest("web-test");
    ensure!(copy.boot_check()?.is_clean(), "{}", copy.boot_check()?);
    let told = west.ask(&["recovered"]).await?;
    ensure!(told["items"][0]["kind"] == "lent", "{told}");
    west.kill().await?;
    west.start().await?;
    ensure!(copy.check().await?.is_clean(), "it reads its point on");
    controller.say(&["failover", "complete", "web"]).await?;
    ensure!(lab.annex().await?.guests().await?.is_empty(), "the test left something");
    ensure!(loans(&west)? == 0, "what was lent was not returned");

    let away = lab.annex().await?.guest("web");
    fails_over(&controller, &home, &away).await?;
    annex.kill().await?;
    annex.start().await?;
    away.acknowledges(10).await?;
    let job: Job = controller.ask(&["failover", "undo", "web", "--yes"]).await?;
    ensure!(job.state == JobState::Succeeded, "{job:?}");
    ensure!(home.is_running().await?, "it is home");
    ensure!(lab.annex().await?.guests().await?.is_empty(), "the failover left something");
    ensure!(loans(&west)? == 0, "what was lent was not returned");
    home.acknowledges(10).await?;

    // For good, and home from there: the host that kept its points has no part in it.
    fails_over(&controller, &home, &away).await?;
    let job: Job = controller.ask(&["failover", "commit", "web", "--reverse"]).await?;
    // It says that points are left at west.
    ensure!(job.state == JobState::SucceededWithWarnings, "{job:?}");
    ensure!(loans(&west)? == 0, "what was lent was not returned");
    controller.replicates("web", SOON).await?;
    // It has no part in the protection any more, and keeps the machine down.
    ensure!(is_fenced(&west, &home.uuid().await?)?, "west forgot whose the machine is");
    west.stop().await?;
    let now = controller.protection("web").await?;
    ensure!((now.source.name.as_str(), now.target.name.as_str()) == ("annex", "east"), "{now:?}");
    away.acknowledges(10).await?;
    let job: Job = controller.ask(&["failover", "planned", "web", "--yes"]).await?;
    ensure!(job.state == JobState::Succeeded, "{job:?}");
    let (acknowledged, report) = (away.acknowledged()?, home.boot_check()?);
    ensure!(report.is_clean() && report.last >= acknowledged, "{report}, not {acknowledged}");
    ensure!(home.is_running().await? && !away.is_running().await?, "it runs at one side");

    annex.stop().await?;
    east.stop().await?;
    controller.stop().await?;
    lab.stop().await
}

/// Without loss, to the annex.
async fn fails_over(controller: &Controller<'_>, home: &Guest, away: &Guest) -> Result<()> {
    controller.replicates("web", SOON).await?;
    let order = ["failover", "planned", "web", "--to", "annex"];
    let plan: Plan = controller.ask(&[&order[..], &["--plan"]].concat()).await?;
    ensure!(plan.to == "annex" && plan.remarks.iter().any(|r| r.contains("west")), "{plan:?}");
    let job: Job = controller.ask(&[&order[..], &["--yes"]].concat()).await?;
    ensure!(job.state == JobState::Succeeded, "{job:?}");
    let (acknowledged, report) = (home.acknowledged()?, away.boot_check()?);
    ensure!(report.is_clean() && report.last >= acknowledged, "{report}, not {acknowledged}");
    ensure!(away.is_running().await? && !home.is_running().await?, "it runs at one side");
    ensure!(controller.protection("web").await?.active.name == "annex", "where it runs");
    Ok(())
}

/// Whether a host knows that a machine is another's.
fn is_fenced(agent: &Agent, machine: &str) -> Result<bool> {
    let file = agent.state_folder().join(format!("epochs/{machine}.json"));
    let known: serde_json::Value = serde_json::from_slice(&std::fs::read(file)?)?;
    Ok(known["ours"] == false)
}

/// How many points a host has lent.
fn loans(agent: &Agent) -> Result<usize> {
    match std::fs::read_dir(agent.state_folder().join("loans")) {
        Ok(files) => Ok(files.count()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error.into()),
    }
}
