//! A machine goes to the other side and comes back: test, planned, undone,
//! committed, reversed, home again; and unplanned, with its site gone, whose
//! unsent writes are held when it returns.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use api::List;
use api::event::{Aspect, Event};
use api::failover::ReversePlan;
use api::host::ReachabilityState;
use api::job::{Job, JobState};
use api::protection::{HoldBy, ProtectionState};
use lab::product::{Agent, Controller, Deployment, Points};
use lab::{Guest, Lab, Site, SiteName, Size as _, guest, wait_for};

const SOON: Duration = Duration::from_secs(90);
const STORY: &str = "a machine fails over and comes home";

#[tokio::test]
async fn a_machine_fails_over_and_comes_home() -> Result<()> {
    if lab::skipped(STORY) {
        return Ok(());
    }
    let lab = Lab::start(STORY).await?;
    let Deployment { mut controller, mut east, mut west } = Deployment::start(&lab).await?;
    let home = lab.east().boot(guest("web").disk(64.mib()).disk(32.mib()).workload(50)).await?;
    lab.east().virsh(&["autostart", "web"]).await?;
    let away = lab.west().guest("web");
    controller.shows_machines(1).await?;
    controller.say(&["policy", "create", "fast", "--every", "5s"]).await?;
    controller.say(&["protect", "web", "--to", "west", "--policy", "fast"]).await?;
    let story = Story { controller: &controller };
    controller.replicates("web", SOON).await?;

    // Nothing that makes no sense now is done.
    for verb in [
        &["failover", "commit", "web"][..],
        &["failover", "undo", "web", "--yes"],
        &["reverse", "web"],
    ] {
        let refused = controller.refuses(verb).await?;
        ensure!(refused.code == "LB4008", "{verb:?}: {refused:?}");
    }
    controller.say(&["failover", "planned", "web", "--plan"]).await?;

    story.a_test_leaves_nothing(&lab).await?;

    // There for good, and home again.
    story.planned(&home, &away).await?;
    story.commits_and_reverses().await?;
    away.acknowledges(20).await?;
    story.planned(&away, &home).await?;
    story.commits_and_reverses_at_once().await?;
    home.acknowledges(20).await?;

    // Its site is gone.
    story.points(1).await?;
    let written = story.unplanned(&lab, &home, &away).await?;

    // The lost site returns: the machine stays down there.
    lab.east().power_on().await?;
    east.start().await?;
    wait_for("the source's agent", SOON, async || {
        let told = controller.protection("web").await?;
        Ok((told.active.name == "west").then_some(()))
    })
    .await?;
    ensure!(!runs(&home).await? && away.is_running().await?, "never two sides");
    story.what_was_never_sent_is_held(&lab, written).await?;
    away.acknowledges(20).await?;
    it_starts_with_its_host_as_at_home(&away, &mut west).await?;

    east.stop().await?;
    west.stop().await?;
    controller.stop().await?;
    lab.stop().await
}

/// Its host was restarted, as far as the agent there can see.
async fn it_starts_with_its_host_as_at_home(away: &Guest, west: &mut Agent) -> Result<()> {
    away.shutdown().await?;
    west.stop().await?;
    std::fs::write(west.state_folder().join("epochs/boot"), "an earlier start")?;
    west.start().await?;
    wait_for("a machine that starts with its host", SOON, async || {
        Ok(away.is_running().await?.then_some(()))
    })
    .await
}

/// Whether it runs; one that its site does not know does not.
async fn runs(guest: &Guest) -> Result<bool> {
    let known = guest.site().virsh(&["list", "--all", "--name"]).await?;
    if !known.lines().any(|name| name.trim() == guest.name()) {
        return Ok(false);
    }
    guest.is_running().await
}

async fn names(site: &Site) -> Result<Vec<String>> {
    let list = site.virsh(&["list", "--all", "--name"]).await?;
    Ok(list.lines().map(str::trim).filter(|name| !name.is_empty()).map(Into::into).collect())
}

struct Story<'a, 'lab> {
    controller: &'a Controller<'lab>,
}

impl Story<'_, '_> {
    /// Waits for so many points more.
    async fn points(&self, more: usize) -> Result<()> {
        let newest = async || {
            let points = self.controller.points("web").await?;
            anyhow::Ok(points.iter().map(|point| point.point).max().unwrap_or(0))
        };
        let before = newest().await?;
        wait_for(&format!("{more} more points"), SOON, async || {
            Ok((newest().await? as usize >= before as usize + more).then_some(()))
        })
        .await
    }

    async fn stands(&self, state: ProtectionState) -> Result<()> {
        wait_for(&format!("{state}"), SOON, async || {
            Ok((self.controller.protection("web").await?.state == state).then_some(()))
        })
        .await
    }

    async fn a_test_leaves_nothing(&self, lab: &Lab) -> Result<()> {
        let before = names(lab.west()).await?;
        let job: Job = self.controller.ask(&["failover", "test", "web"]).await?;
        ensure!(job.state == JobState::Waiting, "{job:?}");
        ensure!(job.alive_after_ms.is_some(), "{job:?}");
        let copy = lab.west().guest("web-test");
        ensure!(copy.is_running().await?, "the copy runs");
        let report = copy.boot_check()?;
        ensure!(report.is_clean() && report.last > 0, "{report}");
        // Replication goes on meanwhile.
        self.points(1).await?;
        self.controller.refuses(&["failover", "planned", "web", "--yes"]).await?;
        let done = ["failover", "complete", "web", "--notes", "it came up"];
        let job: Job = self.controller.ask(&done).await?;
        ensure!(job.state == JobState::Succeeded, "{job:?}");
        ensure!(job.notes.iter().any(|note| note.text == "it came up"), "{job:?}");
        ensure!(names(lab.west()).await? == before, "the test left something behind");
        Ok(())
    }

    /// Without loss, and never on two sides.
    async fn planned(&self, from: &Guest, to: &Guest) -> Result<()> {
        self.controller.replicates("web", SOON).await?;
        from.acknowledges(10).await?;
        let job: Job = self.controller.ask(&["failover", "planned", "web", "--yes"]).await?;
        ensure!(job.state == JobState::Succeeded, "{job:?}");
        let acknowledged = from.acknowledged()?;
        ensure!(to.is_running().await? && !runs(from).await?, "it runs at one side");
        let report = to.boot_check()?;
        ensure!(report.is_clean() && report.last >= acknowledged, "{report}, not {acknowledged}");
        println!("planned: {} records, RTO {:?} ms", report.last, job.rto_ms);
        self.stands(ProtectionState::CommitPending).await?;
        to.acknowledges(20).await?;
        Ok(())
    }

    async fn commits_and_reverses(&self) -> Result<()> {
        let pending: ReversePlan = self.controller.ask(&["reverse", "web", "--plan"]).await?;
        let job: Job = self.controller.ask(&["failover", "commit", "web"]).await?;
        ensure!(job.state == JobState::Succeeded, "{job:?}");
        self.stands(ProtectionState::Committed).await?;
        let points = self.controller.points("web").await?;
        ensure!(points.len() == 1, "all points but the newest were dropped: {points:?}");
        let plan: ReversePlan = self.controller.ask(&["reverse", "web", "--plan"]).await?;
        // Disks of 64 and of 32 MiB, of which the guest writes a part.
        let whole = (64 + 32) << 20;
        for plan in [&pending, &plan] {
            ensure!(plan.at_most_bytes == Some(whole), "{plan:?}");
            ensure!(plan.about_bytes.is_some_and(|about| (1..=whole).contains(&about)), "{plan:?}");
        }
        let job: Job = self.controller.ask(&["reverse", "web"]).await?;
        ensure!(job.state == JobState::Succeeded, "{job:?}");
        self.stands(ProtectionState::Protected).await?;
        let totals = self.controller.protection("web").await?.totals.context("figures")?;
        let about = plan.about_bytes.context("an estimate")?;
        println!("reversed: {} bytes sent, about {about} expected", totals.sent_bytes);
        ensure!(totals.sent_bytes <= about, "more was sent than was expected");
        Ok(())
    }

    /// One job after the other, and the points that the policy keeps.
    async fn commits_and_reverses_at_once(&self) -> Result<()> {
        let keep = ["policy", "change", "fast", "--points-at-commit", "kept"];
        self.controller.say(&[&keep[..], &["--hydration-rate", "200M"]].concat()).await?;
        let before = self.controller.points("web").await?.len();
        let job: Job = self.controller.ask(&["failover", "commit", "web", "--reverse"]).await?;
        ensure!(job.operation == "reverse-replicate", "{job:?}");
        ensure!(job.state == JobState::Succeeded, "{job:?}");
        ensure!(before > 1, "there were points to keep");
        self.stands(ProtectionState::Protected).await
    }

    /// From what has arrived, with the source's site first cut off, then without
    /// power. What the guest had acknowledged there at last.
    async fn unplanned(&self, lab: &Lab, from: &Guest, to: &Guest) -> Result<u64> {
        let point = self.controller.protection("web").await?.newest.context("a point")?;
        lab.wan().cut(SiteName::East).await?;
        from.acknowledges(20).await?;
        lab.east().cut_power().await?;
        lab.wan().restore(SiteName::East).await?;
        let written = from.acknowledged()?;
        wait_for("the source's agent to be missed", SOON, async || {
            let state = self.controller.host("east").await?.reachability.state;
            Ok((state == ReachabilityState::NotReachable).then_some(()))
        })
        .await?;
        // It asks somebody to vouch that the site is down.
        let job: Job = self.controller.ask(&["failover", "unplanned", "web", "--yes"]).await?;
        ensure!(job.state == JobState::Waiting, "{job:?}");
        let id = job.id.to_string();
        self.controller.say(&["job", "resume", &id, "--comment", "the site burnt down"]).await?;
        let job: Job = self.controller.ask(&["job", "watch", &id]).await?;
        ensure!(job.state == JobState::SucceededWithWarnings, "{job:?}");
        let chosen = job.point_instant.context("the point")?;
        ensure!(chosen >= point.instant, "an older point than the newest was chosen");
        let report = to.boot_check()?;
        ensure!(report.is_clean(), "{report}");
        ensure!(report.last < written, "{report}: nothing was left unsent");
        println!("unplanned: {} of {written} records, RTO {:?} ms", report.last, job.rto_ms);
        to.acknowledges(20).await?;
        Ok(written)
    }

    /// The lost site is back: what its disks have, sent or not, becomes a point that
    /// stays until it is released.
    async fn what_was_never_sent_is_held(&self, lab: &Lab, written: u64) -> Result<()> {
        let job: Job = self.controller.ask(&["failover", "commit", "web"]).await?;
        ensure!(job.state == JobState::Succeeded, "{job:?}");
        let plan: ReversePlan = self.controller.ask(&["reverse", "web", "--plan"]).await?;
        let is_told = plan.basis.iter().any(|text| text.contains("nobody knows"));
        ensure!(plan.about_bytes.is_none() && is_told, "{plan:?}");
        let job: Job = self.controller.ask(&["reverse", "web"]).await?;
        ensure!(job.state == JobState::SucceededWithWarnings, "{job:?}");
        let told: Vec<&String> = job.steps.iter().flat_map(|step| &step.warnings).collect();
        let points = self.controller.points("web").await?;
        let held = points.iter().find(|point| point.hold.is_some()).context("a held point")?;
        ensure!(held.hold.as_ref().is_some_and(|hold| hold.by == HoldBy::Lost), "{held:?}");
        let number = held.point.to_string();
        let release = ["point", "release", "web", number.as_str()];
        ensure!(told.iter().any(|text| text.ends_with(&release.join(" "))), "{told:?}");
        let last = Points::at(lab.east()).is_a_state("web", held.point.into(), 2)?;
        ensure!(last >= written, "the held point has {last} of {written} records");
        println!("held: point {number}, {last} records");

        self.held_points_become(&number).await?;
        self.stands(ProtectionState::Protected).await?;
        self.controller.say(&release).await?;
        self.held_points_become("none").await?;
        let points = self.controller.points("web").await?;
        ensure!(points.iter().all(|point| point.hold.is_none()), "{points:?}");
        Ok(())
    }

    /// Waits for the event.
    async fn held_points_become(&self, after: &str) -> Result<()> {
        wait_for(&format!("the event that held points are {after}"), SOON, async || {
            let events: List<Event> = self.controller.ask(&["event", "list"]).await?;
            let newest = events.items.iter().find(|event| event.aspect == Aspect::HeldPoints);
            Ok(newest.is_some_and(|event| event.after == after).then_some(()))
        })
        .await
    }
}
