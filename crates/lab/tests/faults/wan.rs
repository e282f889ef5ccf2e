//! A network that is slower than what the guest writes.

use std::time::Instant;

use anyhow::{Result, ensure};
use lab::{East, Guest, Lab, Size as _, wait_for};

use crate::setting::{SOON, Setting, machine};

#[tokio::test]
async fn a_slow_network_costs_age_and_no_guests_time() -> Result<()> {
    let story = "a slow network costs age and no guest's time";
    if lab::skipped(story) {
        return Ok(());
    }
    let lab = Lab::start(story).await?;
    let setting = Setting::start(&lab, machine(), &[]).await?;
    let usual = pace(&setting.web).await?;
    // A cycle changes 2 MiB and more, which takes ten seconds and more.
    lab.wan().shape(East, 200.kib()).await?;
    let mut shown = None;
    wait_for("a backlog that is shown", SOON, async || {
        shown = setting.protection().await?.progress;
        let progress = shown.filter(|progress| progress.seconds_left.is_some());
        Ok(progress.map(drop))
    })
    .await?;
    println!("over a slow network: {shown:?}");
    let text = setting.product.controller.say(&["protected", "show", "web"]).await?;
    println!("{text}");
    let slow = pace(&setting.web).await?;
    println!("records a second: {usual:.1}, over a slow network {slow:.1}");
    ensure!(slow > usual * 0.8, "{slow} records a second over a slow network, {usual} before");
    setting.says("the newest point is").await?;
    setting.goes_on("the network was slow").await?;
    lab.wan().unshape(East).await?;
    setting.goes_on("the network was fast again").await?;
    setting.is_well().await?;
    setting.every_point_is_a_state()?;
    setting.never_resynchronised()?;
    setting.end().await?;
    lab.stop().await
}

/// Records that the guest is told are durable, in a second.
async fn pace(web: &Guest) -> Result<f64> {
    let (begun, before) = (Instant::now(), web.acknowledged()?);
    let now = web.acknowledges(300).await?;
    Ok((now - before) as f64 / begun.elapsed().as_secs_f64())
}
