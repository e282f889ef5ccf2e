//! From the order to a machine that answers, with its site lost.
//!
//! In each round the site loses its power twice. Ours: from the command until
//! the guest agent answers at the other side. The opponent: `virsh start` of
//! the same machine at its own site, from the disk that the power was cut of,
//! with no agent there. Neither guest checks its file system; both replay its
//! journal.

use std::time::{Duration, Instant};

use anyhow::Result;
use api::host::ReachabilityState;
use lab::product::duties::ship_without_pause;
use lab::product::{Agent, Controller, Deployment, Points};
use lab::{Guest, Lab, guest, wait_for};
use tokio::time::sleep;

use crate::ground::{COPIED, SOON, order, protect, turns};

/// Records a second: there is something in each point.
const RECORDS: u32 = 10;
/// Between two looks how many points there are, each of which costs a process.
const LOOK: Duration = Duration::from_secs(2);
/// A controller gives an agent that has just gone so long to come back, before
/// it goes on without it. Operators come later.
const COMES_AGAIN: Duration = Duration::from_secs(6);

#[derive(clap::Args)]
pub struct Arguments {
    /// Rounds
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Bytes of the machine's disk, of which next to nothing is used
    #[arg(long, default_value_t = 1 << 30)]
    disk: u64,
    /// Recovery points that the machine has at least
    #[arg(long, default_value_t = 300)]
    points: usize,
}

#[derive(Clone, Copy)]
enum Turn {
    FailOver,
    Start,
}

pub async fn measure(arguments: &Arguments) -> Result<()> {
    let lab = Lab::start("how long an unplanned failover takes").await?;
    let Deployment { mut controller, mut east, mut west } = Deployment::start(&lab).await?;
    let web = guest("web").formatted_disk(arguments.disk).workload(RECORDS);
    let home = lab.east().boot(web.without_filesystem_check()).await?;
    protect(&controller).await?;
    make_points(&lab, &mut controller, &mut east, arguments.points).await?;
    for round in 0..arguments.rounds {
        lab.east().cut_power().await?;
        let (mut ours, mut theirs) = (0.0, 0.0);
        for turn in turns(round, [Turn::FailOver, Turn::Start]) {
            match turn {
                Turn::FailOver => ours = fail_over(&lab, &controller).await?,
                Turn::Start => theirs = start(&lab, &home).await?,
            }
        }
        println!("{}", serde_json::json!({ "failover": ours, "start": theirs }));
        return_home(&lab, &controller, &mut east).await?;
    }
    east.stop().await?;
    west.stop().await?;
    controller.stop().await?;
    lab.stop().await
}

/// One after the other, with no controller that would say how often: by the same
/// way as all points, in a fraction of the time.
async fn make_points(
    lab: &Lab,
    controller: &mut Controller<'_>,
    east: &mut Agent,
    count: usize,
) -> Result<()> {
    controller.stop().await?;
    ship_without_pause(east).await?;
    let begun = Instant::now();
    let points = Points::at(lab.west());
    wait_for(&format!("{count} points"), COPIED, async || {
        sleep(LOOK).await;
        Ok((points.of("web")?.len() >= count).then_some(()))
    })
    .await?;
    eprintln!("   {count} points in {:.0} s", begun.elapsed().as_secs_f64());
    controller.power_on().await?;
    wait_for("the controller to know them", SOON, async || {
        let kept = controller.protection("web").await.ok().and_then(|web| web.kept);
        Ok(kept.filter(|kept| kept.points >= count as u64).map(drop))
    })
    .await?;
    controller.replicates("web", SOON).await
}

/// Seconds from the order to a guest that answers. East has no power; afterwards
/// the machine is off.
async fn fail_over(lab: &Lab, controller: &Controller<'_>) -> Result<f64> {
    wait_for("the source's agent to be missed", SOON, async || {
        let state = controller.host("east").await?.reachability.state;
        Ok((state == ReachabilityState::NotReachable).then_some(()))
    })
    .await?;
    sleep(COMES_AGAIN).await;
    let away = lab.west().guest("web");
    let hears = away.listen()?;
    let words = ["failover", "unplanned", "web", "--source-is-down", "--yes"];
    let begun = Instant::now();
    let answered = async {
        hears.comes_up().await?;
        Ok(begun.elapsed().as_secs_f64())
    };
    let (job, seconds) = tokio::try_join!(order(controller, &words), answered)?;
    let alive = job.alive_after_ms.map(|ms| ms as f64 / 1e3).unwrap_or_default();
    let order = job.rto_ms.map(|ms| ms as f64 / 1e3).unwrap_or_default();
    eprintln!(
        "   failover: {seconds:.2} s; by the job {order:.2} s, {alive:.2} s of them since the start"
    );
    away.cut_power().await?;
    Ok(seconds)
}

/// Seconds from `virsh start` to a guest that answers. East has no power before
/// and afterwards.
async fn start(lab: &Lab, home: &Guest) -> Result<f64> {
    lab.east().power_on().await?;
    let begun = Instant::now();
    home.start().await?;
    let seconds = begun.elapsed().as_secs_f64();
    eprintln!("   virsh start: {seconds:.2} s");
    lab.east().cut_power().await?;
    Ok(seconds)
}

/// The lost site returns, and the machine with it.
async fn return_home(lab: &Lab, controller: &Controller<'_>, east: &mut Agent) -> Result<()> {
    let begun = Instant::now();
    lab.east().power_on().await?;
    east.start().await?;
    wait_for("the source's agent", SOON, async || {
        let state = controller.host("east").await?.reachability.state;
        Ok((state == ReachabilityState::Connected).then_some(()))
    })
    .await?;
    order(controller, &["failover", "undo", "web", "--yes"]).await?;
    controller.replicates("web", COPIED).await?;
    eprintln!("   home and replicated again after {:.0} s", begun.elapsed().as_secs_f64());
    Ok(())
}
