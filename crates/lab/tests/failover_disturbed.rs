//! Planned failovers in whose middle something is killed, cut or cancelled: each
//! ends, the machine runs on one side, and no record is missing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use api::failover::Plan;
use api::job::{Job, JobState, StepStage};
use api::protection::ProtectionState;
use lab::product::{Agent, Controller, Deployment};
use lab::{East, Lab, Site, Size as _, guest, lost_job, run, wait_for};
use tokio::task::JoinHandle;

const SOON: Duration = Duration::from_secs(90);
const STORY: &str = "a failover survives";
/// Set it for each trouble at each step, which takes its time; to the name of a step
/// to begin with that one.
const ALL_OF_THEM: &str = "LIFEBOAT_SOAK";

/// What happens in the middle of a failover.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    ControllerDies,
    SourceAgentDies,
    TargetAgentDies,
    SourceLibvirtdDies,
    TargetLibvirtdDies,
    TargetQemuDies,
    WanIsCut,
    Cancelled,
}

impl Trouble {
    const ALL: [Self; 8] = [
        Self::ControllerDies,
        Self::SourceAgentDies,
        Self::TargetAgentDies,
        Self::SourceLibvirtdDies,
        Self::TargetLibvirtdDies,
        Self::TargetQemuDies,
        Self::WanIsCut,
        Self::Cancelled,
    ];
}

/// Each trouble, at a step that is hard on it.
const SAMPLE: [(Trouble, &str); 7] = [
    (Trouble::ControllerDies, "shut-down-source"),
    (Trouble::SourceAgentDies, "last-synchronisation"),
    (Trouble::TargetAgentDies, "start-at-target"),
    (Trouble::TargetLibvirtdDies, "start-at-target"),
    (Trouble::TargetQemuDies, "await-life"),
    (Trouble::WanIsCut, "fence-source"),
    (Trouble::Cancelled, "last-synchronisation"),
];

#[tokio::test]
async fn a_failover_survives() -> Result<()> {
    if lab::skipped(STORY) {
        return Ok(());
    }
    let lab = Lab::start(STORY).await?;
    let Deployment { mut controller, mut east, mut west } = Deployment::start(&lab).await?;
    let home = lab.east().boot(guest("web").disk(64.mib()).workload(50)).await?;
    let away = lab.west().guest("web");
    controller.shows_machines(1).await?;
    controller.say(&["policy", "create", "fast", "--every", "5s"]).await?;
    controller.say(&["protect", "web", "--to", "west", "--policy", "fast"]).await?;
    let watcher = Watcher::of(lab.east(), lab.west());

    for (trouble, step) in &troubles(&controller).await? {
        let trouble = *trouble;
        controller.replicates("web", SOON).await?;
        let order = ["failover", "planned", "web", "--yes", "--no-wait"];
        let job: Job = controller.ask(&order).await?;
        let id = job.id.to_string();
        let show = ["job", "show", &id];
        wait_for(&format!("step {step}"), SOON, async || {
            let job: Job = controller.ask(&show).await?;
            let begun = job.steps.iter().any(|s| s.name == *step && s.stage != StepStage::NotBegun);
            Ok((begun || job.state.has_ended()).then_some(()))
        })
        .await?;
        happen(trouble, &lab, &mut controller, (&mut east, &mut west)).await?;
        let mut ended = job;
        wait_for(&format!("the end after {trouble:?} at {step}"), SOON * 2, async || {
            ended = controller.ask(&show).await?;
            if ended.state == JobState::NeedsAttention {
                controller.say(&["job", "retry", &id]).await?;
            }
            Ok(ended.state.has_ended().then_some(()))
        })
        .await?;
        println!("{trouble:?} at {step}: {}", ended.state);
        let state = controller.protection("web").await?.state;
        if state == ProtectionState::CommitPending {
            // One that was killed there is for its operator to bring back.
            if !matches!(trouble, Trouble::TargetQemuDies) {
                ensure!(away.is_running().await?, "it runs at the target");
                let acknowledged = home.acknowledged()?;
                // Where nobody waited for a sign of life, it may still be booting.
                wait_for("its records", SOON, async || {
                    let report = away.boot_check()?;
                    ensure!(report.is_clean(), "{report}: {acknowledged}");
                    Ok((report.last >= acknowledged).then_some(()))
                })
                .await?;
            }
            let job: Job = controller.ask(&["failover", "undo", "web", "--yes"]).await?;
            ensure!(job.state == JobState::Succeeded, "{job:?}");
        }
        ensure!(home.is_running().await?, "{trouble:?} at {step}: it runs where it ran");
        home.acknowledges(10).await?;
        ensure!(home.boot_check()?.is_clean(), "{}", home.boot_check()?);
        watcher.is_satisfied()?;
    }
    let (looks, twice) = watcher.counted();
    println!("looked {looks} times at both sides: {twice} times on both");
    drop(watcher);
    ensure!(home.check().await?.is_clean(), "its records");
    east.stop().await?;
    west.stop().await?;
    controller.stop().await?;
    lab.stop().await
}

/// What is tried, and at which step: a sample, or all of it.
async fn troubles(controller: &Controller<'_>) -> Result<Vec<(Trouble, String)>> {
    let Ok(first) = std::env::var(ALL_OF_THEM) else {
        return Ok(SAMPLE.map(|(trouble, step)| (trouble, step.to_owned())).into());
    };
    controller.replicates("web", SOON).await?;
    let plan: Plan = controller.ask(&["failover", "planned", "web", "--plan"]).await?;
    let at = |step: &String| Trouble::ALL.map(|trouble| (trouble, step.clone()));
    let from = plan.steps.iter().position(|step| *step == first).unwrap_or(0);
    Ok(plan.steps.iter().skip(from).flat_map(at).collect())
}

async fn restart_libvirtd(site: &Site) -> Result<()> {
    site.kill_libvirtd().await?;
    // What it was just beginning to do for a cut has a story of its own.
    lost_job::remove_half_begun(site, "web")?;
    site.start_libvirtd().await
}

async fn happen(
    trouble: Trouble,
    lab: &Lab,
    controller: &mut Controller<'_>,
    (east, west): (&mut Agent, &mut Agent),
) -> Result<()> {
    match trouble {
        Trouble::ControllerDies => {
            controller.kill().await?;
            controller.power_on().await
        }
        Trouble::SourceAgentDies => {
            east.kill().await?;
            east.start().await
        }
        Trouble::TargetAgentDies => {
            west.kill().await?;
            west.start().await
        }
        Trouble::SourceLibvirtdDies => restart_libvirtd(lab.east()).await,
        Trouble::TargetLibvirtdDies => restart_libvirtd(lab.west()).await,
        Trouble::TargetQemuDies => {
            let kill = "pid=/run/libvirt/qemu/web.pid; [ ! -e $pid ] || kill -9 $(cat $pid)";
            run(lab.west().command("sh").args(["-c", kill]), "kill QEMU").await.map(drop)
        }
        Trouble::WanIsCut => {
            lab.wan().cut(East).await?;
            // Until the controller misses the agent.
            wait_for("the cut to be noticed", SOON, async || {
                let host = controller.host("east").await?;
                let gone = host.reachability.state != api::host::ReachabilityState::Connected;
                Ok(gone.then_some(()))
            })
            .await?;
            lab.wan().restore(East).await
        }
        Trouble::Cancelled => {
            // It may be too late for that, which is told.
            controller.cli(&["failover", "cancel", "web"]).await.map(drop)
        }
    }
}

/// Watches both hypervisors all the time.
struct Watcher {
    looks: Arc<AtomicU32>,
    twice: Arc<AtomicU32>,
    task: JoinHandle<()>,
}

impl Watcher {
    fn of(east: &Site, west: &Site) -> Self {
        let (looks, twice) = (Arc::<AtomicU32>::default(), Arc::<AtomicU32>::default());
        let (counted, found) = (Arc::clone(&looks), Arc::clone(&twice));
        let (east, west) = (east.clone(), west.clone());
        let task = tokio::spawn(async move {
            loop {
                let words = ["list", "--name", "--state-running"];
                let (here, there) = tokio::join!(east.virsh(&words), west.virsh(&words));
                let runs = |list: Result<String>| {
                    list.is_ok_and(|names| names.lines().any(|name| name.trim() == "web"))
                };
                if runs(here) && runs(there) {
                    found.fetch_add(1, Ordering::Relaxed);
                }
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        });
        Self { looks, twice, task }
    }

    fn counted(&self) -> (u32, u32) {
        (self.looks.load(Ordering::Relaxed), self.twice.load(Ordering::Relaxed))
    }

    fn is_satisfied(&self) -> Result<()> {
        ensure!(self.counted().1 == 0, "the machine ran on both sides");
        Ok(())
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}
