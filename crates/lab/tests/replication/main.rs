//! A machine at one site, its recovery points at the other: on schedule,
//! consistent, through every fault, and without a controller.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use lab::product::{Agent, Controller};
use lab::{Guest, Lab, Size as _, guest, wait_for};
use serde_json::json;

mod points;

use points::Points;

const SOON: Duration = Duration::from_secs(60);
const STORY: &str = "points arrive at the other site";

#[tokio::test]
async fn points_arrive_at_the_other_site() -> Result<()> {
    if lab::skipped(STORY) {
        return Ok(());
    }
    let lab = Lab::start(STORY).await?;
    let mut controller = Controller::start(&lab).await?;
    for site in ["east", "west"] {
        controller.say(&["site", "create", site]).await?;
    }
    let mut east = Agent::of(lab.east())?;
    east.enrol(&controller.enrolment_token(&["--site", "east"]).await?).await?;
    let mut west = Agent::of(lab.west())?;
    west.enrol(&controller.enrolment_token(&["--site", "west"]).await?).await?;
    let web = guest("web").disk(64.mib()).disk(32.mib()).workload(50).overwrite(1, 512, 50);
    let web = lab.east().boot(web).await?;

    duties(&lab, &controller, &mut east, &mut west, &web).await?;
    controller.stop().await?;
    let points = Points::at(lab.west());
    wait_for("a first point", SOON, async || Ok((!points.of("web")?.is_empty()).then_some(())))
        .await?;
    wait_for("ten points", SOON * 2, async || Ok((points.of("web")?.len() >= 10).then_some(())))
        .await?;
    let acknowledged = web.acknowledged()?;
    let newest = *points.of("web")?.last().unwrap_or(&0);
    wait_for("a point after that", SOON, async || {
        Ok((points.of("web")?.last() > Some(&(newest + 1))).then_some(()))
    })
    .await?;
    let all = points.of("web")?;
    for point in &all {
        let last = points.is_a_state("web", *point, 2)?;
        println!("point {point}: {last} records");
    }
    let last = points.is_a_state("web", *all.last().unwrap_or(&0), 2)?;
    ensure!(last >= acknowledged, "{last} records, {acknowledged} were acknowledged before");
    east.stop().await?;
    west.stop().await?;
    lab.stop().await
}

/// Tells both agents their duties, as a controller would have.
async fn duties(
    lab: &Lab,
    controller: &Controller<'_>,
    east: &mut Agent,
    west: &mut Agent,
    web: &Guest,
) -> Result<()> {
    let (source, target) = (controller.host("east").await?, controller.host("west").await?);
    let protection = "018f0000-0000-7000-8000-000000000001";
    let uuid = lab.east().virsh(&["domuuid", web.name()]).await?.trim().to_owned();
    let shipping = json!({
        "protection": protection, "machine": uuid, "name": web.name(),
        "target": target.id, "target_name": "west",
        "target_address": format!("{}:7444", lab.west().wan_address()),
        "generation": 1, "excluded_disks": [],
        "policy": {"every_seconds": 2, "app_consistent_seconds": null, "freeze_seconds": 10,
            "compression": "fast", "bytes_per_second": null},
        "paused": false, "not_before": null, "resynchronise": null, "verify": null,
    });
    let keeping = json!({
        "protection": protection, "machine": uuid, "name": web.name(), "source": source.id,
        "generation": 1, "compression": "fast",
        "retention": {"all_hours": 24, "tiers": [], "app_extra_hours": 0},
    });
    for (agent, duties) in [
        (east, json!({"shipping": [shipping], "keeping": []})),
        (west, json!({"shipping": [], "keeping": [keeping]})),
    ] {
        agent.stop().await?;
        let file = json!({"format": 1, "duties": duties});
        fs::write(agent.state_folder().join("duties.json"), file.to_string())?;
        agent.start().await?;
    }
    Ok(())
}
