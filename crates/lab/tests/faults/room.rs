//! No room, where points are kept and where guests' old bytes are put aside.

use agent::capture::scratch::RESERVE;
use anyhow::{Result, ensure};
use api::protection::HealthLevel;
use lab::product::STORE;
use lab::{Lab, Size as _, Volume, wait_for};

use crate::setting::{SOON, Setting, machine};

const CAPTURE: &str = "/var/lib/lifeboat/capture";

#[tokio::test]
async fn a_lack_of_room_stops_points_and_nothing_else() -> Result<()> {
    let story = "a lack of room stops points and nothing else";
    if lab::skipped(story) {
        return Ok(());
    }
    let lab = Lab::start(story).await?;
    let store = lab.west().volume(STORE, 4.gib()).await?;
    let scratch = lab.east().volume(CAPTURE, 256.mib()).await?;
    let room = scratch.free().await?;
    let setting = Setting::start(&lab, machine(), &[]).await?;
    the_target_is_full(&setting, &store).await?;
    the_sources_scratch_is_full(&setting, &scratch).await?;
    there_is_no_room_at_once(&setting, &scratch).await?;
    wait_for("no scratch file to be left", SOON, async || {
        Ok((scratch.free().await? + 256.kib() > room).then_some(()))
    })
    .await?;
    setting.every_point_is_a_state()?;
    setting.never_resynchronised()?;
    // It was held for a moment, which is no harm to it.
    setting.guest_is_well().await?;
    setting.product.stop().await?;
    lab.stop().await
}

async fn the_target_is_full(setting: &Setting<'_>, store: &Volume<'_>) -> Result<()> {
    store.leave(1.mib()).await?;
    let reason = setting.says("LB5006").await?;
    ensure!(reason.level == HealthLevel::Critical, "{reason:?}");
    ensure!(reason.advice.contains("Make room"), "{reason:?}");
    println!("the target is full: {}. {}", reason.reason, reason.advice);
    let newest = setting.newest()?;
    setting.web.acknowledges(300).await?;
    ensure!(setting.newest()? == newest, "points where there is no room");
    for point in setting.points.of("web")? {
        setting.points.is_a_state("web", point, 2)?;
    }
    let sent = setting.sent().await?;
    store.make_room().await?;
    setting.goes_on("the target had no room").await?;
    setting.is_well().await?;
    let sent = setting.sent().await? - sent;
    ensure!(sent < 24.mib(), "{sent} bytes were sent after room was made");
    setting.guest_noticed_nothing().await
}

async fn the_sources_scratch_is_full(setting: &Setting<'_>, scratch: &Volume<'_>) -> Result<()> {
    let controller = &setting.product.controller;
    scratch.leave(RESERVE + 1.mib()).await?;
    // Cuts stay open for longer than there is room for.
    controller.say(&["policy", "change", "fast", "--bandwidth", "64K"]).await?;
    let reason = setting.says("LB6055").await?;
    println!("the source's scratch is full: {}. {}", reason.reason, reason.advice);
    setting.web.acknowledges(100).await?;
    setting.guest_noticed_nothing().await?;
    scratch.make_room().await
}

/// Somebody else fills the disk up while the guest's old bytes go there: QEMU has to
/// hold the guest, and nothing of it fails.
async fn there_is_no_room_at_once(setting: &Setting<'_>, scratch: &Volume<'_>) -> Result<()> {
    for attempt in 1.. {
        ensure!(attempt <= 5, "the guest was never held");
        wait_for("a cut to be open", SOON, async || {
            Ok(setting.web.has_backup().await.then_some(()))
        })
        .await?;
        scratch.leave_nothing().await?;
        setting.says("LB6055").await?;
        setting.web.acknowledges(100).await?;
        let log = setting.product.east.log()?;
        scratch.make_room().await?;
        // The agent may have been faster than the guest's next write.
        if log.contains("an error held the machine while its disks were read, and it goes on") {
            println!("the guest was held for lack of room at attempt {attempt}, and went on");
            break;
        }
    }
    let controller = &setting.product.controller;
    controller.say(&["policy", "change", "fast", "--bandwidth", "0"]).await?;
    setting.goes_on("the source had no room for scratch files").await?;
    setting.is_well().await
}
