//! How long nothing is written in a planned failover.
//!
//! The guest writes numbered records, and the lab sees when each is
//! acknowledged. In each round, in turn: a planned failover, from the last
//! record at the source to the first at the target; and of the same machine at
//! its source, from the last record until it is shut down by virsh, and from
//! `virsh start` to its first record.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use lab::product::{Controller, Deployment};
use lab::{Guest, Hearing, Lab, guest, wait_for};

use crate::ground::{COPIED, SOON, disk_for, folder_with, order, protect, turns};

/// Records a second, which is how exactly the last and the first are seen.
const RECORDS: u32 = 50;
/// Records between two measurements.
const SOME: u64 = 20;

#[derive(clap::Args)]
pub struct Arguments {
    /// Rounds
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// A file that is on the machine's disk: both sides are compared while it is
    /// down
    #[arg(long)]
    content: PathBuf,
    /// Bytes of it
    #[arg(long, default_value_t = 1 << 30)]
    bytes: u64,
}

#[derive(Clone, Copy)]
enum Turn {
    FailOver,
    Restart,
}

pub async fn measure(arguments: &Arguments) -> Result<()> {
    let lab = Lab::start("how long nothing is written in a planned failover").await?;
    let product = Deployment::start(&lab).await?;
    let files = folder_with(lab.east(), &arguments.content, arguments.bytes)?;
    let web = guest("web").filled_disk(disk_for(arguments.bytes), &files).workload(RECORDS);
    let home = lab.east().boot(web.without_filesystem_check()).await?;
    let away = lab.west().guest("web");
    protect(&product.controller).await?;
    for round in 0..arguments.rounds {
        let (mut gap, mut restart) = (0.0, (0.0, 0.0));
        for turn in turns(round, [Turn::FailOver, Turn::Restart]) {
            home.acknowledges(SOME).await?;
            match turn {
                Turn::FailOver => gap = fail_over(&product.controller, &home, &away).await?,
                Turn::Restart => restart = shut_down_and_start(&product.controller, &home).await?,
            }
        }
        let (shut_down, boot) = restart;
        eprintln!(
            "   {gap:.2} s without a record; {shut_down:.2} s to shut down, {boot:.2} s to boot"
        );
        println!("{}", serde_json::json!({ "gap": gap, "shut_down": shut_down, "boot": boot }));
    }
    product.stop().await?;
    lab.stop().await
}

/// Seconds from the last record at home to the first away. Home again afterwards.
async fn fail_over(controller: &Controller<'_>, home: &Guest, away: &Guest) -> Result<f64> {
    controller.replicates("web", COPIED).await?;
    let (heard, hears) = (home.listen()?, away.listen()?);
    let words = ["failover", "planned", "web", "--yes"];
    let (job, last, first) =
        tokio::try_join!(order(controller, &words), last_record(&heard), first_record(&hears))?;
    for step in &job.steps {
        if let (Some(begun), Some(since)) = (step.begun, step.since) {
            eprintln!("     {} {:.2} s", step.name, (since - begun).as_seconds_f64());
        }
    }
    order(controller, &["failover", "undo", "web", "--yes"]).await?;
    controller.replicates("web", COPIED).await?;
    Ok(first.duration_since(last).as_secs_f64())
}

/// Seconds from the last record until it is off, and from its start to its first
/// record, while nothing is shipped.
async fn shut_down_and_start(controller: &Controller<'_>, home: &Guest) -> Result<(f64, f64)> {
    controller.say(&["protected", "pause", "web"]).await?;
    let heard = home.listen()?;
    let (off, last) = tokio::try_join!(
        async {
            home.shutdown().await?;
            Ok(Instant::now())
        },
        last_record(&heard)
    )?;
    let hears = home.listen()?;
    let begun = Instant::now();
    let ((), first) = tokio::try_join!(home.start(), first_record(&hears))?;
    controller.say(&["protected", "resume", "web"]).await?;
    controller.replicates("web", SOON).await?;
    Ok((off.duration_since(last).as_secs_f64(), first.duration_since(begun).as_secs_f64()))
}

/// When its last record was seen, once it has ended in order.
async fn last_record(hears: &Hearing) -> Result<Instant> {
    let (mut newest, mut seen) = (None, Instant::now());
    wait_for("the end of web", COPIED, async || {
        let now = hears.acknowledged()?;
        if now != newest {
            (newest, seen) = (now, Instant::now());
        }
        Ok(hears.has_stopped()?.then_some(seen))
    })
    .await
}

/// When its first record was seen.
async fn first_record(hears: &Hearing) -> Result<Instant> {
    wait_for("the first record of web", COPIED, async || {
        Ok(hears.acknowledged()?.map(|_| Instant::now()))
    })
    .await
}
