//! Clocks that are hours wrong, at the source and at the target.

use anyhow::{Context as _, Result, ensure};
use api::protection::HealthLevel;
use lab::{Lab, wait_for};

use crate::setting::{SOON, Setting, machine};

/// In seconds; what is told of it is cut down to whole hours.
const FIVE_HOURS: i64 = 5 * 3600 + 600;
/// Longer than old points are left alone.
const TENDED: std::time::Duration = std::time::Duration::from_secs(90);

#[tokio::test]
async fn a_wrong_clock_drops_no_point_and_is_told() -> Result<()> {
    let story = "a wrong clock drops no point and is told";
    if lab::skipped(story) {
        return Ok(());
    }
    let lab = Lab::start(story).await?;
    // All points of an hour, and none that is older.
    let policy = ["--keep-all", "1h", "--no-tiers", "--keep-app-longer", "0h"];
    let mut setting = Setting::start(&lab, machine(), &policy).await?;

    // The target's clock is ahead when its agent starts: it has nothing to tell
    // by that it jumped.
    let all = setting.points.of("web")?;
    setting.product.west.set_clock(FIVE_HOURS).await?;
    setting.says("the clock of west is 5 h ahead").await?;

    the_sources_clock_jumps(&mut setting, FIVE_HOURS, "ahead of").await?;
    the_sources_clock_jumps(&mut setting, -FIVE_HOURS, "behind").await?;

    // A while after the first points, old ones were looked for.
    wait_for("old points to be looked for", TENDED, async || {
        Ok(setting.product.west.log()?.contains("old points were looked for").then_some(()))
    })
    .await?;
    let left = setting.points.of("web")?;
    ensure!(all.iter().all(|point| left.contains(point)), "of {all:?} only {left:?} are left");

    setting.product.west.set_clock(0).await?;
    setting.product.east.set_clock(0).await?;
    setting.goes_on("all clocks were right again").await?;
    setting.is_well().await?;
    setting.every_point_is_a_state()?;
    setting.never_resynchronised()?;
    let rpo = setting.protection().await?.rpo;
    let worst = [rpo.worst_24h_ms, rpo.agent_worst_ms];
    ensure!(worst.iter().flatten().all(|ms| *ms < 120_000), "the worst RPO was {worst:?}");
    setting.end().await?;
    lab.stop().await
}

/// Points go on, in their order, and only the clock is complained of.
async fn the_sources_clock_jumps(setting: &mut Setting<'_>, by: i64, way: &str) -> Result<()> {
    setting.product.east.set_clock(by).await?;
    let reason = setting.says(&format!("the clock of east is 5 h {way}")).await?;
    println!("{}. {}", reason.reason, reason.advice);
    ensure!(reason.level == HealthLevel::Warning, "{reason:?}");
    let point = setting.goes_on(&format!("the source's clock was set 5 h {way}")).await?;
    wait_for("the newest point to be shown", SOON, async || {
        let protection = setting.protection().await?;
        let newest = protection.newest.context("a newest point")?;
        let age = protection.rpo.now_ms.context("an age of it")?;
        Ok((u64::from(newest.point) >= point && age < 60_000).then_some(()))
    })
    .await?;
    let listed = setting.product.controller.points("web").await?;
    ensure!(listed.is_sorted_by(|a, b| a.point > b.point), "not the newest first: {listed:?}");
    let health = setting.protection().await?.health;
    ensure!(health.level == HealthLevel::Warning, "{health:?}");
    Ok(())
}
