//! A first copy that is carried instead of sent, and a comparison that waits for
//! its hours: what a slow line asks for.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use api::protection::Replication;
use lab::product::{Controller, Deployment, Points};
use lab::{East, Lab, Site, Size as _, guest, run, wait_for};

const SOON: Duration = Duration::from_secs(60);
const STORY: &str = "a first copy is carried";
const WRITTEN: &str = "/var/lib/lifeboat/usb";
const ARRIVED: &str = "/var/lib/lifeboat/arrived";

#[tokio::test]
async fn a_first_copy_is_carried() -> Result<()> {
    if lab::skipped(STORY) {
        return Ok(());
    }
    let lab = Lab::start(STORY).await?;
    let Deployment { mut controller, mut east, mut west } = Deployment::start(&lab).await?;
    let web = guest("web").disk(64.mib()).disk(32.mib()).workload(50).overwrite(1, 512, 50);
    let web = lab.east().boot(web).await?;
    controller.shows_machines(1).await?;
    let story = Story { controller: &controller, points: Points::at(lab.west()) };

    let later = format!("daily {}", in_six_hours()?);
    let policy = ["policy", "create", "slow", "--every", "5s", "--resynchronise-in", &later];
    controller.say(&policy).await?;
    controller.say(&["policy", "change", "slow", "--bandwidth-in", "daily 00:00-24:00=1M"]).await?;
    let protect = ["protect", "web", "--to", "west", "--policy", "slow", "--offline-copy"];
    controller.refuses(&[&protect[..], &["usb"]].concat()).await?;
    controller.say(&[&protect[..], &[WRITTEN]].concat()).await?;

    // Nobody has mounted anything yet. It is told, and goes on by itself.
    story.is_told("LB5013").await?;
    std::fs::create_dir(lab.east().outside(WRITTEN))?;
    // Nothing of it needs the WAN.
    lab.wan().cut(East).await?;
    wait_for("the first copy to be whole", SOON, async || {
        Ok(east.log()?.contains("Carried").then_some(()))
    })
    .await?;
    web.acknowledges(50).await?;
    lab.wan().restore(East).await?;
    let is_carried =
        |now: &Replication| matches!(now, Replication::Carried { folder } if folder == WRITTEN);
    story.replication("the first copy to be carried", is_carried).await?;
    ensure!(story.points.of("web")?.is_empty(), "nothing has been carried");

    // A wrong folder changes nothing; the right one is a point.
    controller.say(&["protected", "import", "web", ARRIVED]).await?;
    story.is_told("LB5013").await?;
    carry(lab.east(), lab.west()).await?;
    controller.say(&["protected", "import", "web", ARRIVED]).await?;
    let acknowledged = web.acknowledged()?;
    wait_for("points after what was carried", SOON, async || {
        Ok((story.points.of("web")?.len() >= 3).then_some(()))
    })
    .await?;
    for point in story.points.of("web")? {
        story.points.is_a_state("web", point, 2)?;
    }
    story.has_records(acknowledged, &web).await?;
    ensure!(!east.log()?.contains("resynchronising"), "only changes need to follow");
    controller.refuses(&["protected", "import", "web", ARRIVED]).await?;
    controller.refuses(&["protected", "copy-over-network", "web"]).await?;

    // The record of changes is lost; comparing waits for its hours, unless it is
    // asked for.
    let kill = "kill -9 $(cat /run/libvirt/qemu/web.pid)";
    run(lab.east().command("sh").args(["-c", kill]), "kill QEMU").await?;
    wait_for("the end of QEMU", SOON, async || Ok((!web.is_running().await?).then_some(())))
        .await?;
    web.start().await?;
    story
        .replication("the comparison to wait", |now| {
            matches!(now, Replication::Resynchronising { held_until: Some(_), .. })
        })
        .await?;
    let before = story.points.of("web")?.len();
    web.acknowledges(100).await?;
    ensure!(story.points.of("web")?.len() == before, "a point was made while it waits");
    controller.say(&["protected", "resynchronise", "web"]).await?;
    story.replication("steady replication", |now| *now == Replication::Steady).await?;
    story.has_records(web.acknowledged()?, &web).await?;

    ensure!(web.check().await?.is_clean(), "the machine");
    east.stop().await?;
    west.stop().await?;
    controller.stop().await?;
    lab.stop().await
}

/// A minute of the day that is far from now, by the local clock.
fn in_six_hours() -> Result<String> {
    let clock = |shift: &str| -> Result<String> {
        let output = Command::new("date").args(["+%H:%M", "-d", shift]).output()?;
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    Ok(format!("{}-{}", clock("+6 hours")?, clock("+6 hours 1 minute")?))
}

/// What a courier does.
async fn carry(from: &Site, to: &Site) -> Result<()> {
    let (from, to) = (from.outside(WRITTEN), to.outside(ARRIVED));
    let copy = Command::new("cp").arg("-a").arg(from).arg(to).status().context("cp")?;
    ensure!(copy.success(), "cp failed");
    Ok(())
}

struct Story<'a, 'lab> {
    controller: &'a Controller<'lab>,
    points: Points,
}

impl Story<'_, '_> {
    /// Among the reasons for its health.
    async fn is_told(&self, part: &str) -> Result<()> {
        wait_for(&format!("`{part}` to be told"), SOON, async || {
            let reasons = self.controller.protection("web").await?.health.reasons;
            Ok(reasons.iter().any(|reason| reason.reason.contains(part)).then_some(()))
        })
        .await
    }

    async fn replication(&self, what: &str, is: impl Fn(&Replication) -> bool) -> Result<()> {
        wait_for(what, SOON, async || {
            let now = self.controller.protection("web").await?.replication;
            Ok(is(&now).then_some(()))
        })
        .await
    }

    /// A point has what the guest was told is durable.
    async fn has_records(&self, records: u64, web: &lab::Guest) -> Result<()> {
        web.acknowledges(1).await?;
        wait_for("all records in a point", SOON, async || {
            let newest = self.points.of("web")?.last().copied().unwrap_or(0);
            Ok((self.points.is_a_state("web", newest, 2)? >= records).then_some(()))
        })
        .await
    }
}
