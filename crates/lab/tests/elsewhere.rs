//! A machine whose old host is gone comes home to another one, where it did not
//! exist.

use std::time::Duration;

use anyhow::{Result, ensure};
use api::job::{Job, JobState};
use lab::product::Deployment;
use lab::{Lab, Size as _, guest};

const SOON: Duration = Duration::from_secs(90);
const STORY: &str = "a machine comes home to another host";

#[tokio::test]
async fn a_machine_comes_home_to_another_host() -> Result<()> {
    if lab::skipped(STORY) {
        return Ok(());
    }
    let lab = Lab::start(STORY).await?;
    let Deployment { mut controller, mut east, mut west } = Deployment::start(&lab).await?;
    let home = lab.east().boot(guest("web").disk(64.mib()).disk(32.mib()).workload(20)).await?;
    let away = lab.west().guest("web");
    controller.shows_machines(1).await?;
    controller.say(&["policy", "create", "fast", "--every", "5s"]).await?;
    controller.say(&["protect", "web", "--to", "west", "--policy", "fast"]).await?;
    controller.replicates("web", SOON).await?;
    controller.say(&["failover", "planned", "web", "--yes"]).await?;
    controller.say(&["failover", "commit", "web"]).await?;

    // Its old host is gone for good, and so is what it had there.
    east.stop().await?;
    lab.east().virsh(&["undefine", "web", "--checkpoints-metadata"]).await?;
    let token = controller.enrolment_token(&["--site", "east"]).await?;
    let mut spare = east.second("spare");
    spare.enrol(&token).await?;
    controller.shows_machines(2).await?;
    let same = controller.refuses(&["reverse", "web", "--to", "west"]).await?;
    ensure!(same.code == "LB6001", "{same:?}");
    controller.refuses(&["reverse", "web", "--to", "nowhere"]).await?;

    let job: Job = controller.ask(&["reverse", "web", "--to", "spare"]).await?;
    ensure!(job.state == JobState::SucceededWithWarnings, "{job:?}");
    controller.replicates("web", SOON).await?;
    ensure!(controller.protection("web").await?.target.name == "spare", "its points' new host");
    away.acknowledges(10).await?;
    let job: Job = controller.ask(&["failover", "planned", "web", "--yes"]).await?;
    ensure!(job.state == JobState::Succeeded, "{job:?}");
    let (acknowledged, report) = (away.acknowledged()?, home.boot_check()?);
    ensure!(report.is_clean() && report.last >= acknowledged, "{report}, not {acknowledged}");
    ensure!(home.is_running().await? && !away.is_running().await?, "it runs at one side");
    let job: Job = controller.ask(&["failover", "commit", "web", "--reverse"]).await?;
    ensure!(job.state.has_ended(), "{job:?}");
    controller.replicates("web", SOON).await?;
    spare.stop().await?;
    west.stop().await?;
    controller.stop().await?;
    lab.stop().await
}
