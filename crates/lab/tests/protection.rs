//! Protecting machines with the commands that an operator has: checks, points
//! at the other site, numbers, verification, and an end that leaves no trace.

use std::time::Duration;

use anyhow::{Result, ensure};
use api::List;
use api::event::{Aspect, Event};
use api::protection::HealthLevel;
use lab::product::{Controller, Deployment};
use lab::{East, Format, Lab, Size as _, guest, wait_for};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);
const STORY: &str = "machines are protected";

#[tokio::test]
async fn machines_are_protected() -> Result<()> {
    if lab::skipped(STORY) {
        return Ok(());
    }
    let lab = Lab::start(STORY).await?;
    let Deployment { mut controller, mut east, mut west } = Deployment::start(&lab).await?;
    let (web, db, old) = tokio::try_join!(
        lab.east().boot(guest("web").disk(64.mib()).disk(32.mib()).workload(30)),
        lab.west().boot(guest("db").disk(64.mib()).workload(30)),
        lab.east().boot(guest("old").disk_as(32.mib(), Format::Raw).workload(10)),
    )?;
    controller.shows_machines(3).await?;
    let story = Story { controller: &controller };

    // Wrong wishes are refused with advice, and change nothing.
    let twice = ["protect", "web", "--to", "east"];
    ensure!(controller.refuses(&twice).await?.code == "LB6001", "a machine's own host");
    controller.refuses(&["protect", "nobody", "--to", "west"]).await?;
    controller.refuses(&["protect", "web", "--to", "west", "--policy", "none"]).await?;
    controller.refuses(&["policy", "create", "hasty", "--every", "1s"]).await?;
    controller.say(&["protect", "web", "--to", "west", "--check"]).await?;
    ensure!(controller.protections().await?.is_empty(), "a check protects nothing");

    controller
        .say(&["policy", "create", "fast", "--every", "5s", "--app-consistent", "1m"])
        .await?;
    controller.say(&["protect", "web", "--to", "west", "--policy", "fast"]).await?;
    controller.say(&["protect", "db", "--to", "east", "--policy", "fast"]).await?;
    controller.say(&["protect", "old", "--to", "west", "--policy", "fast"]).await?;
    controller.refuses(&["protect", "web", "--to", "west"]).await?;
    controller.refuses(&["policy", "delete", "fast"]).await?;

    for machine in ["web", "db", "old"] {
        story.has_points(machine, 3).await?;
    }
    for machine in ["web", "db", "old"] {
        story.is_well(machine).await?;
    }
    for machine in ["web", "db"] {
        let report: Value = controller.ask(&["verify", machine]).await?;
        println!("verified {machine}: {report}");
    }

    // The controller is away: points go on, and are told when it is back.
    let before = story.newest("web").await?;
    controller.kill().await?;
    web.acknowledges(200).await?;
    db.acknowledges(50).await?;
    controller.power_on().await?;
    let story = Story { controller: &controller };
    wait_for("points of while the controller was away", SOON, async || {
        Ok((story.newest("web").await? > before + 1).then_some(()))
    })
    .await?;

    // A cut in the WAN is shown with its reason, and its end too.
    lab.wan().cut(East).await?;
    story.health_is("web", &[HealthLevel::Warning, HealthLevel::Critical]).await?;
    story.health_event("web", |after| after != "normal").await?;
    lab.wan().restore(East).await?;
    story.health_is("web", &[HealthLevel::Normal]).await?;
    story.health_event("web", |after| after == "normal").await?;

    // Paused, resumed, resynchronised.
    controller.say(&["protected", "pause", "web"]).await?;
    controller.refuses(&["protected", "pause", "web"]).await?;
    // The one under way then, and one that was not yet told of.
    let paused = story.newest("web").await? + 2;
    web.acknowledges(200).await?;
    ensure!(story.newest("web").await? <= paused, "points arrive while paused");
    controller.say(&["protected", "resume", "web"]).await?;
    story.has_point_after("web", paused).await?;
    controller.say(&["protected", "resynchronise", "web"]).await?;
    let resumed = story.newest("web").await?;
    story.has_point_after("web", resumed).await?;

    wait_for("an app-consistent point", SOON * 2, async || {
        let points = controller.points("web").await?;
        Ok(points.iter().any(|point| point.app_consistent).then_some(()))
    })
    .await?;

    // Nothing is left on the machines, and the points stay.
    for machine in ["web", "db", "old"] {
        controller.say(&["protected", "disable", machine, "--yes"]).await?;
    }
    wait_for("the end of protection", SOON, async || {
        Ok(controller.protections().await?.is_empty().then_some(()))
    })
    .await?;
    for (site, machine) in [(lab.east(), "web"), (lab.west(), "db"), (lab.east(), "old")] {
        wait_for("no checkpoint of ours", SOON, async || {
            let list = site.virsh(&["checkpoint-list", machine, "--name"]).await?;
            Ok(list.trim().is_empty().then_some(()))
        })
        .await?;
    }
    for guest in [&web, &db, &old] {
        let report = guest.check().await?;
        ensure!(report.is_clean(), "{report}");
    }
    east.stop().await?;
    west.stop().await?;
    controller.stop().await?;
    lab.stop().await
}

struct Story<'a, 'lab> {
    controller: &'a Controller<'lab>,
}

impl Story<'_, '_> {
    async fn newest(&self, machine: &str) -> Result<u32> {
        let points = self.controller.points(machine).await?;
        Ok(points.iter().map(|point| point.point).max().unwrap_or(0))
    }

    async fn has_points(&self, machine: &str, count: usize) -> Result<()> {
        wait_for(&format!("{count} points of {machine}"), SOON, async || {
            let points = self.controller.points(machine).await?;
            Ok((points.len() >= count).then_some(()))
        })
        .await
    }

    async fn has_point_after(&self, machine: &str, point: u32) -> Result<()> {
        wait_for(&format!("a point of {machine} after {point}"), SOON, async || {
            Ok((self.newest(machine).await? > point).then_some(()))
        })
        .await
    }

    async fn is_well(&self, machine: &str) -> Result<()> {
        self.health_is(machine, &[HealthLevel::Normal]).await?;
        println!("{machine}: {:?}", self.controller.protection(machine).await?);
        Ok(())
    }

    /// Waits until the newest event of the machine's health says so.
    async fn health_event(&self, machine: &str, says: impl Fn(&str) -> bool) -> Result<()> {
        wait_for("the change of health among the events", SOON, async || {
            let events: List<Event> =
                self.controller.ask(&["event", "list", "--machine", machine]).await?;
            let newest = events.items.iter().find(|event| event.aspect == Aspect::Health);
            Ok(newest.is_some_and(|event| says(&event.after)).then_some(()))
        })
        .await
    }

    async fn health_is(&self, machine: &str, levels: &[HealthLevel]) -> Result<()> {
        let mut last = None;
        let is = wait_for(&format!("{machine} to be {levels:?}"), SOON, async || {
            let health = self.controller.protection(machine).await?.health;
            let is = levels.contains(&health.level);
            last = Some(health);
            Ok(is.then_some(()))
        })
        .await;
        if is.is_err() {
            println!("{last:#?}");
        }
        is
    }
}
