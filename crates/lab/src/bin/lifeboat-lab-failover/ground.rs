//! What all measurements begin with.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use api::job::{Job, JobState};
use api::protection::ProtectionState;
use lab::product::Controller;
use lab::{Place, wait_for};

/// How long anything may take that is no copy of a disk.
pub const SOON: Duration = Duration::from_secs(120);
/// How long a first copy may take.
pub const COPIED: Duration = Duration::from_secs(900);
/// The name of the file that is read and overwritten.
pub const FILE: &str = "content";

/// Protects the machine `web`, with its first point at west. Further points come
/// as rarely as a policy allows: none disturbs what is measured.
pub async fn protect(controller: &Controller<'_>) -> Result<()> {
    controller.say(&["policy", "create", "rare", "--every", "15m"]).await?;
    wait_for("the machine to be protected", SOON, async || {
        let protect = ["protect", "web", "--to", "west", "--policy", "rare"];
        Ok((controller.cli(&protect).await?.code == 0).then_some(()))
    })
    .await?;
    controller.replicates("web", COPIED).await?;
    eprintln!("   web has its first point");
    Ok(())
}

/// Gives an order that must succeed.
pub async fn order(controller: &Controller<'_>, words: &[&str]) -> Result<Job> {
    let job: Job = controller.ask(words).await?;
    let done = matches!(job.state, JobState::Succeeded | JobState::SucceededWithWarnings);
    ensure!(done, "{words:?}: {job:?}");
    Ok(job)
}

/// Waits until the machine's protection stands so.
pub async fn stands(controller: &Controller<'_>, state: ProtectionState) -> Result<()> {
    wait_for(&format!("web to be {state}"), COPIED, async || {
        Ok((controller.protection("web").await?.state == state).then_some(()))
    })
    .await
}

/// A folder of the place's with the first `bytes` of a file as [`FILE`].
pub fn folder_with(place: &Place, content: &Path, bytes: u64) -> Result<PathBuf> {
    let folder = place.folder().join("content");
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let from = File::open(content).with_context(|| format!("open {}", content.display()))?;
    let mut to = File::create(folder.join(FILE)).context("make the content")?;
    let copied = io::copy(&mut from.take(bytes), &mut to).context("copy the content")?;
    ensure!(copied == bytes, "{} has only {copied} bytes", content.display());
    Ok(folder)
}

/// Bytes of a disk that holds a file of so many, with room for what else is on it.
pub fn disk_for(bytes: u64) -> u64 {
    bytes + bytes / 8 + (64 << 20)
}

/// Who is first in a round: that changes, as whatever else the machine does may.
pub fn turns<T>(round: u32, both: [T; 2]) -> [T; 2] {
    let [first, second] = both;
    if round.is_multiple_of(2) { [first, second] } else { [second, first] }
}
