//! Agents that replicate with no controller: told their duties by their files, as
//! a controller would have that is gone.

use std::fs;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::Guest;
use crate::lab::Lab;
use crate::product::Agent;

/// The protection that [`replicate_alone`] has them do.
pub const PROTECTION: &str = "018f0000-0000-7000-8000-000000000001";

/// Has the agent of east ship a machine to that of west, with a point each
/// second. Both are started anew.
///
/// # Errors
/// When a file cannot be written or an agent does not start.
pub async fn replicate_alone(
    lab: &Lab,
    east: &mut Agent,
    west: &mut Agent,
    machine: &Guest,
) -> Result<()> {
    let uuid = machine.uuid().await?;
    let shipping = json!({
        "protection": PROTECTION, "machine": uuid, "name": machine.name(),
        "target": west.host_id()?, "target_name": "west",
        "target_address": format!("{}:7444", lab.west().wan_address()),
        "generation": 1, "excluded_disks": [],
        "policy": {"every_seconds": 1, "app_consistent_seconds": null, "freeze_seconds": 10,
            "compression": "fast", "bytes_per_second": null},
        "paused": false, "not_before": null, "resynchronise": null, "verify": null,
    });
    let keeping = keeping(PROTECTION, &uuid, machine.name(), &east.host_id()?);
    tell(east, &[shipping], &[]).await?;
    tell(west, &[], &[keeping]).await
}

/// The duty to keep a machine's points.
#[must_use]
pub fn keeping(protection: &str, machine: &str, name: &str, source: &str) -> Value {
    json!({
        "protection": protection, "machine": machine, "name": name,
        "source": source, "generation": 1, "compression": "fast",
        "retention": {"all_hours": 24, "tiers": [], "app_extra_hours": 0},
    })
}

/// Has an agent make one point after the other of all that it ships, without a
/// pause, until a controller tells it its policies again. It is started anew.
///
/// # Errors
/// When it has no duties, or does not start.
pub async fn ship_without_pause(agent: &mut Agent) -> Result<()> {
    agent.stop().await?;
    let path = agent.state_folder().join("duties.json");
    let file = fs::read(&path).context("read its duties")?;
    let mut file: Value = serde_json::from_slice(&file).context("understand its duties")?;
    let shipping = file["duties"]["shipping"].as_array_mut().context("find what it ships")?;
    for machine in shipping {
        machine["policy"]["every_seconds"] = json!(0);
    }
    fs::write(&path, file.to_string()).context("write its duties")?;
    agent.start().await
}

/// Gives an agent these duties and no others, and starts it anew.
///
/// # Errors
/// As [`replicate_alone`].
pub async fn tell(agent: &mut Agent, shipping: &[Value], keeping: &[Value]) -> Result<()> {
    agent.stop().await?;
    let duties = json!({"shipping": shipping, "keeping": keeping});
    let file = json!({"format": 1, "duties": duties});
    fs::write(agent.state_folder().join("duties.json"), file.to_string())
        .context("write its duties")?;
    agent.start().await
}
