//! Measures what a guest notices of its protection: how many random writes it
//! does in a second with a point made of it again and again, and how many
//! without, in turn. `cargo xtask bench replication` runs it and tells the
//! figure.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use lab::product::{Controller, Deployment};
use lab::{Guest, Lab, guest, wait_for};

const SOON: Duration = Duration::from_secs(90);
/// Bytes of the machine's disk, and MiB that it writes to.
const DISK: u64 = 256 << 20;
const REGION_MIB: u32 = 64;

/// Prints a line of JSON for each round: writes a second with and without.
#[derive(Parser)]
#[command(name = "lifeboat-lab-iops")]
struct Arguments {
    /// How often each is measured
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// For how long it is measured each time, in seconds
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Seconds from one point to the next
    #[arg(long, default_value_t = 30)]
    every: u32,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Runtime::new().context("start the runtime");
    match runtime.and_then(|runtime| runtime.block_on(measure(&arguments))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lifeboat-lab-iops: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(arguments: &Arguments) -> Result<()> {
    let lab = Lab::start("a guest counts its writes").await?;
    let product = Deployment::start(&lab).await?;
    let web = lab.east().boot(guest("web").disk(DISK)).await?;
    let every = format!("{}s", arguments.every);
    product.controller.say(&["policy", "create", "measured", "--every", &every]).await?;
    writes(&web, 5).await?;
    for round in 0..arguments.rounds {
        let (mut with, mut without) = (0.0, 0.0);
        // Who is first changes, as whatever else the machine does may.
        let turns = if round % 2 == 0 { [true, false] } else { [false, true] };
        for protected in turns {
            if protected {
                protect(&product.controller).await?;
                with = writes(&web, arguments.seconds).await?;
                let points = product.controller.points("web").await?.len();
                ensure!(points > 1, "no point was made while it was measured");
                disable(&lab, &product.controller).await?;
            } else {
                without = writes(&web, arguments.seconds).await?;
            }
        }
        println!("{}", serde_json::json!({ "protected": with, "unprotected": without }));
    }
    product.stop().await?;
    lab.stop().await
}

/// Random writes of 4 KiB a second.
async fn writes(web: &Guest, seconds: u32) -> Result<f64> {
    let (region, seconds) = (REGION_MIB.to_string(), seconds.to_string());
    let said = web.exec(&["guest", "iops", "0", &region, &seconds]).await?;
    said.trim().parse().with_context(|| format!("read {said:?}"))
}

/// Until the first point is there.
async fn protect(controller: &Controller<'_>) -> Result<()> {
    wait_for("the machine to be protected", SOON, async || {
        let protect = ["protect", "web", "--to", "west", "--policy", "measured"];
        Ok((controller.cli(&protect).await?.code == 0).then_some(()))
    })
    .await?;
    wait_for("the first point", SOON, async || {
        Ok((!controller.points("web").await?.is_empty()).then_some(()))
    })
    .await
}

/// Until nothing of it is left at the machine.
async fn disable(lab: &Lab, controller: &Controller<'_>) -> Result<()> {
    controller.say(&["protected", "disable", "web", "--yes"]).await?;
    wait_for("the end of protection", SOON, async || {
        Ok(controller.protections().await?.is_empty().then_some(()))
    })
    .await?;
    wait_for("no checkpoint to be left", SOON, async || {
        let list = lab.east().virsh(&["checkpoint-list", "web", "--name"]).await?;
        Ok(list.trim().is_empty().then_some(()))
    })
    .await
}
