//! What is sent when the direction is turned.
//!
//! In each round the machine is failed over, to and fro; the guest overwrites
//! blocks of a file at its new side with bytes that do not compress, and the
//! failover is made final and turned. What the new source has sent until the
//! machine is protected again is counted at its line, with all headers and all
//! that it tells the controller.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use api::protection::ProtectionState;
use lab::product::{Controller, Deployment};
use lab::{Guest, Lab, SiteName, West, guest};

use crate::ground::{COPIED, FILE, disk_for, folder_with, order, protect, stands};

#[derive(clap::Args)]
pub struct Arguments {
    /// Rounds
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// A file that is on the machine's disk
    #[arg(long)]
    content: PathBuf,
    /// Bytes of it
    #[arg(long, default_value_t = 256 << 20)]
    bytes: u64,
    /// MiB of it that are overwritten
    #[arg(long, default_value_t = 100)]
    overwrite: u64,
}

pub async fn measure(arguments: &Arguments) -> Result<()> {
    ensure!(arguments.overwrite << 20 <= arguments.bytes, "the file has fewer bytes than that");
    let lab = Lab::start("what is sent when the direction is turned").await?;
    let product = Deployment::start(&lab).await?;
    let files = folder_with(lab.east(), &arguments.content, arguments.bytes)?;
    let web = guest("web").filled_disk(disk_for(arguments.bytes), &files);
    lab.east().boot(web).await?;
    protect(&product.controller).await?;
    let mut to = West;
    for _ in 0..arguments.rounds {
        let sent = turn(&lab, &product.controller, to, arguments.overwrite).await?;
        eprintln!("   {:.2} MB sent", sent as f64 / 1e6);
        let overwritten = arguments.overwrite << 20;
        println!("{}", serde_json::json!({ "sent": sent, "overwritten": overwritten }));
        to = to.other();
    }
    product.stop().await?;
    lab.stop().await
}

/// Bytes that the new source sends when the machine is protected the other way
/// round, having overwritten so many MiB there.
async fn turn(lab: &Lab, controller: &Controller<'_>, to: SiteName, mib: u64) -> Result<u64> {
    controller.replicates("web", COPIED).await?;
    order(controller, &["failover", "planned", "web", "--yes"]).await?;
    overwrite(&lab.site(to).guest("web"), mib).await?;
    let before = lab.wan().sent(to).await?;
    order(controller, &["failover", "commit", "web"]).await?;
    stands(controller, ProtectionState::Committed).await?;
    order(controller, &["reverse", "web"]).await?;
    stands(controller, ProtectionState::Protected).await?;
    let sent = lab.wan().sent(to).await? - before;
    let told = controller.protection("web").await?.last_cycle.context("the last cycle")?;
    eprintln!("   to {to}: the product tells of {told:?}");
    Ok(sent)
}

/// Bytes that nobody can compress, in place of what is there.
async fn overwrite(web: &Guest, mib: u64) -> Result<()> {
    let to = format!("of=/data/0/{FILE}");
    let count = format!("count={mib}");
    let words = ["dd", "if=/dev/urandom", &to, "bs=1M", &count, "conv=notrunc,fsync"];
    web.exec(&[&["/bin/busybox"], &words[..]].concat()).await.map(drop)
}
