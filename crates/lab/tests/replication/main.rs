//! A machine at one site, its recovery points at the other: on schedule,
//! consistent, through every fault, and without a controller.

use std::time::Duration;

use anyhow::{Result, ensure};
use lab::product::duties::{replicate_alone, tell};
use lab::product::{Agent, Deployment, Points};
use lab::{East, Guest, Lab, Size as _, guest, lost_job, run, wait_for};

const SOON: Duration = Duration::from_secs(60);
const STORY: &str = "points arrive at the other site";

#[tokio::test]
async fn points_arrive_at_the_other_site() -> Result<()> {
    if lab::skipped(STORY) {
        return Ok(());
    }
    let lab = Lab::start(STORY).await?;
    let Deployment { mut controller, mut east, mut west } = Deployment::start(&lab).await?;
    let web = guest("web").disk(64.mib()).disk(32.mib()).workload(50).overwrite(1, 512, 50);
    let web = lab.east().boot(web).await?;

    controller.stop().await?;
    replicate_alone(&lab, &mut east, &mut west, &web).await?;
    let mut story = Story { lab: &lab, points: Points::at(lab.west()), east, west, web };
    story.points_arrive().await?;
    story.agents_die().await?;
    story.libvirtd_restarts().await?;
    story.libvirtd_dies_while_it_begins_a_backup().await?;
    story.the_wan_is_cut_and_flaps().await?;
    story.qemu_is_killed().await?;
    story.the_source_loses_its_power().await?;
    story.the_machine_is_shut_down_and_started().await?;
    story.every_point_is_a_state_of_the_machine().await?;
    story.nothing_is_left_when_it_ends().await?;
    let Story { mut east, mut west, .. } = story;
    east.stop().await?;
    west.stop().await?;
    lab.stop().await
}

struct Story<'a> {
    lab: &'a Lab,
    points: Points,
    east: Agent,
    west: Agent,
    web: Guest,
}

impl Story<'_> {
    fn newest(&self) -> Result<u64> {
        self.points.newest("web")
    }

    /// Waits for points of after this instant: they have what the guest was
    /// told is durable by now.
    async fn goes_on(&self, after: &str) -> Result<()> {
        self.points.go_on(&self.web, 2, after).await.map(drop)
    }

    async fn points_arrive(&self) -> Result<()> {
        wait_for("ten points", SOON * 2, async || {
            Ok((self.points.of("web")?.len() >= 10).then_some(()))
        })
        .await?;
        self.goes_on("all is well").await
    }

    async fn agents_die(&mut self) -> Result<()> {
        for round in 0..3 {
            self.web.acknowledges(20 + round * 7).await?;
            self.east.kill().await?;
            self.web.acknowledges(20).await?;
            self.east.start().await?;
        }
        self.goes_on("the source's agent died").await?;
        for round in 0..3 {
            self.web.acknowledges(20 + round * 7).await?;
            self.west.kill().await?;
            self.web.acknowledges(20).await?;
            self.west.start().await?;
        }
        self.goes_on("the target's agent died").await?;
        tokio::try_join!(self.east.kill(), self.west.kill())?;
        self.web.acknowledges(20).await?;
        tokio::try_join!(self.east.start(), self.west.start())?;
        self.goes_on("both agents died").await
    }

    async fn libvirtd_restarts(&self) -> Result<()> {
        let site = self.lab.east();
        site.kill_libvirtd().await?;
        // Where it was just beginning a backup, that would be the next story.
        lost_job::remove_half_begun(site, "web")?;
        self.web.acknowledges(30).await?;
        site.start_libvirtd().await?;
        self.goes_on("libvirtd restarted").await
    }

    /// It must be made to forget that job, as the error's page says.
    async fn libvirtd_dies_while_it_begins_a_backup(&self) -> Result<()> {
        let site = self.lab.east();
        site.kill_libvirtd().await?;
        while !lost_job::plant(site, "web")? {
            site.start_libvirtd().await?;
            self.web.acknowledges(5).await?;
            site.kill_libvirtd().await?;
        }
        site.start_libvirtd().await?;
        wait_for("the reason why no point is made", SOON, async || {
            Ok(self.east.log()?.contains("LB6057").then_some(()))
        })
        .await?;
        site.kill_libvirtd().await?;
        lost_job::remove(site, "web")?;
        site.start_libvirtd().await?;
        self.goes_on("libvirtd died while it began a backup").await
    }

    async fn the_wan_is_cut_and_flaps(&self) -> Result<()> {
        self.lab.wan().cut(East).await?;
        let before = self.newest()?;
        self.web.acknowledges(200).await?;
        ensure!(self.newest()? <= before + 1, "points arrived over a WAN that was cut");
        self.lab.wan().restore(East).await?;
        self.goes_on("the WAN was cut").await?;
        for _ in 0..5 {
            self.lab.wan().cut(East).await?;
            self.web.acknowledges(15).await?;
            self.lab.wan().restore(East).await?;
            self.web.acknowledges(60).await?;
        }
        self.goes_on("the WAN flapped").await
    }

    /// Its bitmaps are lost: everything is compared, and nothing is copied that
    /// the keeper has.
    async fn qemu_is_killed(&self) -> Result<()> {
        let kill = "kill -9 $(cat /run/libvirt/qemu/web.pid)";
        run(self.lab.east().command("sh").args(["-c", kill]), "kill QEMU").await?;
        wait_for("the end of QEMU", SOON, async || {
            Ok((!self.web.is_running().await?).then_some(()))
        })
        .await?;
        self.web.start().await?;
        self.web.acknowledges(20).await?;
        self.goes_on("QEMU was killed").await?;
        let log = self.east.log()?;
        ensure!(log.contains("resynchronising"), "it was not resynchronised");
        Ok(())
    }

    async fn the_source_loses_its_power(&mut self) -> Result<()> {
        self.lab.east().cut_power().await?;
        self.lab.east().power_on().await?;
        self.web.start().await?;
        self.east.start().await?;
        self.web.acknowledges(20).await?;
        self.goes_on("the source's host lost its power").await
    }

    /// What was written up to the shutdown is in a point, though no QEMU runs.
    async fn the_machine_is_shut_down_and_started(&self) -> Result<()> {
        // Before: the one point of it may be there as soon as it is off.
        let newest = self.newest()?;
        self.web.shutdown().await?;
        let acknowledged = self.web.acknowledged()?;
        wait_for("a point of the machine that is off", SOON, async || {
            Ok((self.newest()? > newest).then_some(()))
        })
        .await?;
        wait_for("all records in a point", SOON, async || {
            let last = self.points.is_a_state("web", self.newest()?, 2)?;
            Ok((last >= acknowledged).then_some(()))
        })
        .await?;
        self.web.start().await?;
        self.web.acknowledges(20).await?;
        self.goes_on("the machine was off").await
    }

    async fn every_point_is_a_state_of_the_machine(&self) -> Result<()> {
        wait_for("fifty points", SOON, async || {
            Ok((self.points.of("web")?.len() >= 50).then_some(()))
        })
        .await?;
        let all = self.points.of("web")?;
        let mut before = 0;
        for point in &all {
            let last = self.points.is_a_state("web", *point, 2)?;
            ensure!(last >= before, "point {point} has {last} records, one before had {before}");
            before = last;
        }
        println!("{} points, each a state of the machine", all.len());
        Ok(())
    }

    async fn nothing_is_left_when_it_ends(&mut self) -> Result<()> {
        tell(&mut self.east, &[], &[]).await?;
        let site = self.lab.east();
        wait_for("no checkpoint of ours", SOON, async || {
            let list = site.virsh(&["checkpoint-list", "web", "--name"]).await?;
            Ok(list.trim().is_empty().then_some(()))
        })
        .await?;
        ensure!(!self.web.has_backup().await, "a backup is left");
        self.web.acknowledges(10).await?;
        let report = self.web.check().await?;
        ensure!(report.is_clean(), "{report}");
        Ok(())
    }
}
