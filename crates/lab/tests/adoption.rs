//! The controller is lost, and a new one goes on: with machines that are
//! replicated, with one that was failed over and waits for its commit, and with
//! nothing left but the points, on the worst of days; from there home to a host
//! that is new.

use std::time::Duration;

use anyhow::{Result, ensure};
use api::List;
use api::adoption::Adoption;
use api::host::ReachabilityState;
use api::job::{Job, JobState};
use api::protection::ProtectionState;
use lab::product::{Agent, Controller, Deployment};
use lab::{Guest, Lab, Size as _, guest, wait_for};

const SOON: Duration = Duration::from_secs(60);
const STORY: &str = "a new controller goes on";

#[tokio::test]
async fn a_new_controller_goes_on() -> Result<()> {
    if lab::skipped(STORY) {
        return Ok(());
    }
    let lab = Lab::start(STORY).await?;
    let Deployment { mut controller, mut east, mut west } = Deployment::start(&lab).await?;
    let (web, db) = tokio::try_join!(
        lab.east().boot(guest("web").disk(64.mib()).workload(20)),
        lab.east().boot(guest("db").disk(32.mib()).workload(20)),
    )?;
    controller.shows_machines(2).await?;
    controller.say(&["policy", "create", "fast", "--every", "5s"]).await?;
    for machine in ["web", "db"] {
        controller.say(&["protect", machine, "--to", "west", "--policy", "fast"]).await?;
    }
    controller.replicates("web", SOON).await?;
    controller.replicates("db", SOON).await?;
    controller.say(&["failover", "planned", "db", "--yes"]).await?;
    let before = controller.protection("web").await?;

    // A new one knows nothing; points go on without it.
    controller.lose_all().await?;
    ensure!(controller.protections().await?.is_empty(), "a new controller knows nothing");
    controller.create_sites().await?;
    let token = controller.enrolment_token(&["--site", "east"]).await?;
    east.stop().await?;
    let refused = east.try_enrol(&token, &[]).await?;
    ensure!(refused.problem()?.advice.contains("--take-over"), "{refused:?}");
    take_over(&controller, &mut east).await?;
    told(&controller, 2).await?;
    let early = plan(&controller).await?;
    ensure!(
        early.iter().all(|found| found.remarks.iter().any(|remark| remark.contains("west"))),
        "{early:?}"
    );
    west.stop().await?;
    take_over(&controller, &mut west).await?;
    wait_for("both to tell", SOON, async || {
        let found = plan(&controller).await?;
        Ok(found.iter().all(|found| found.told_by.len() == 2).then_some(()))
    })
    .await?;
    controller.refuses(&["adopt", "nobody", "--yes"]).await?;
    let adopted: List<Adoption> = controller.ask(&["adopt", "--yes"]).await?;
    ensure!(adopted.items.iter().all(|one| one.refused.is_none()), "{adopted:?}");
    ensure!(plan(&controller).await?.is_empty(), "all is adopted");

    // It goes on as it was: without a resynchronisation, and it can be undone.
    controller.replicates("web", SOON).await?;
    let after = controller.protection("web").await?;
    ensure!((after.id, &after.policy.name) == (before.id, &before.policy.name), "{after:?}");
    more_points(&controller, "web").await?;
    ensure!(!east.log()?.contains("resynchronising"), "it was resynchronised");
    ensure!(controller.protection("db").await?.state == ProtectionState::CommitPending, "db");
    let job: Job = controller.ask(&["failover", "undo", "db", "--yes"]).await?;
    ensure!(job.state == JobState::Succeeded, "{job:?}");
    ensure!(db.is_running().await?, "it returned");

    the_worst_day(&lab, controller, (east, west), &web).await?;
    lab.stop().await
}

/// The controller, a site, and the other site's agent's own files are lost: the
/// points are enough. The lost site comes back to it.
async fn the_worst_day(
    lab: &Lab,
    mut controller: Controller<'_>,
    (mut east, mut west): (Agent, Agent),
    web: &Guest,
) -> Result<()> {
    controller.replicates("db", SOON).await?;
    lab.east().cut_power().await?;
    controller.lose_all().await?;
    controller.say(&["site", "create", "west"]).await?;
    west.stop().await?;
    std::fs::remove_dir_all(west.state_folder())?;
    take_over(&controller, &mut west).await?;
    told(&controller, 2).await?;
    let refused = controller.refuses(&["adopt", "web", "--yes"]).await?;
    ensure!(refused.advice.contains("--without east"), "{refused:?}");
    let words = ["adopt", "web", "--without", "east", "--yes"];
    let adopted: List<Adoption> = controller.ask(&words).await?;
    ensure!(adopted.items.iter().all(|one| !one.source.enrolled), "{adopted:?}");
    controller.say(&["adopt", "db", "--renounce", "--yes"]).await?;
    wait_for("its points to be told", SOON, async || {
        let now = controller.protection("web").await?;
        Ok((now.state == ProtectionState::Protected).then_some(()))
    })
    .await?;
    let order = ["failover", "unplanned", "web", "--source-is-down", "--yes"];
    let job: Job = controller.ask(&order).await?;
    ensure!(job.state == JobState::SucceededWithWarnings, "{job:?}");
    let away = lab.west().guest("web");
    let report = away.boot_check()?;
    ensure!(report.is_clean() && report.last > 0, "{report}");

    lab.east().power_on().await?;
    take_over(&controller, &mut east).await?;
    wait_for("the lost site's agent", SOON, async || {
        let state = controller.host("east").await?.reachability.state;
        Ok((state == ReachabilityState::Connected).then_some(()))
    })
    .await?;
    ensure!(!web.is_running().await? && away.is_running().await?, "never two sides");
    controller.say(&["failover", "commit", "web"]).await?;
    home_to_another_host(lab, &controller, &mut east, web).await?;
    west.stop().await?;
    controller.stop().await
}

/// What came back is scrapped with all that it had; the machine comes home to
/// another host, where it does not exist.
async fn home_to_another_host(
    lab: &Lab,
    controller: &Controller<'_>,
    east: &mut Agent,
    web: &Guest,
) -> Result<()> {
    east.stop().await?;
    lab.east().virsh(&["undefine", "web", "--checkpoints-metadata"]).await?;
    let mut spare = east.second("spare");
    spare.enrol(&controller.enrolment_token(&["--site", "east"]).await?).await?;
    let same = controller.refuses(&["reverse", "web", "--to", "west"]).await?;
    ensure!(same.code == "LB6001", "{same:?}");
    controller.refuses(&["reverse", "web", "--to", "nowhere"]).await?;
    let job: Job = controller.ask(&["reverse", "web", "--to", "spare"]).await?;
    ensure!(job.state == JobState::SucceededWithWarnings, "{job:?}");
    controller.replicates("web", SOON).await?;
    ensure!(controller.protection("web").await?.target.name == "spare", "its points' new host");
    let away = lab.west().guest("web");
    away.acknowledges(10).await?;
    let job: Job = controller.ask(&["failover", "planned", "web", "--yes"]).await?;
    let warnings: Vec<&String> = job.steps.iter().flat_map(|step| &step.warnings).collect();
    ensure!(job.state == JobState::Succeeded, "{warnings:?}");
    let (acknowledged, report) = (away.acknowledged()?, web.boot_check()?);
    ensure!(report.is_clean() && report.last >= acknowledged, "{report}, not {acknowledged}");
    ensure!(web.is_running().await? && !away.is_running().await?, "it runs at one side");
    spare.stop().await
}

/// Enrols an agent that does not run at the new controller, and starts it.
async fn take_over(controller: &Controller<'_>, agent: &mut Agent) -> Result<()> {
    let token = controller.enrolment_token(&["--site", agent.name()]).await?;
    // A host whose power is just back may have no network yet.
    wait_for("the enrolment", SOON, async || {
        let answer = agent.try_enrol(&token, &["--take-over"]).await?;
        ensure!(matches!(answer.code, 0 | 6), "{answer:?}");
        Ok((answer.code == 0).then_some(()))
    })
    .await?;
    agent.start().await
}

async fn plan(controller: &Controller<'_>) -> Result<Vec<Adoption>> {
    Ok(controller.ask::<List<Adoption>>(&["adopt", "--plan"]).await?.items)
}

async fn told(controller: &Controller<'_>, count: usize) -> Result<()> {
    wait_for("what hosts tell", SOON, async || {
        Ok((plan(controller).await?.len() == count).then_some(()))
    })
    .await
}

async fn more_points(controller: &Controller<'_>, machine: &str) -> Result<()> {
    let newest = async || {
        let points = controller.points(machine).await?;
        anyhow::Ok(points.iter().map(|point| point.point).max().unwrap_or(0))
    };
    let before = newest().await?;
    wait_for("more points", SOON, async || Ok((newest().await? > before + 1).then_some(()))).await
}
