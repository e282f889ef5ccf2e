//! A lab whose program dies leaves nothing running.

use std::collections::BTreeSet;
use std::fs;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::{Lab, guest, wait_for};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

const UP: &str = "the lab is up";

/// Not a story of its own: what the next one kills.
#[tokio::test]
#[ignore = "started and killed by the story below"]
async fn holder() -> Result<()> {
    let lab = Lab::start("a program that will be killed").await?;
    lab.east().boot(guest("web")).await?;
    fs::write(lab.east().outside("/var/lib/lifeboat/leftover"), "")?;
    let _running =
        lab.third_place().spawn("sleeper", lab.third_place().command("sleep").arg("600")).await?;
    println!("\n{UP}");
    std::future::pending().await
}

#[tokio::test]
async fn a_killed_program_leaves_nothing_running() -> Result<()> {
    if lab::skipped("a killed program leaves nothing running") {
        return Ok(());
    }
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--exact", "holder", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
    while lines.next_line().await?.context("the holder ended")? != UP {}

    let standing = lab::standing()?.context("no lab stands")?;
    assert_eq!(standing.places.len(), 3);
    let firsts: Vec<u32> = standing.places.iter().map(|(_, pid)| *pid).collect();
    let inside = processes_in(&firsts)?;
    // First processes, daemons, dnsmasq, QEMU, the sleeper.
    ensure!(inside.len() >= 10, "only {inside:?}");
    let leftover = standing.folder.join("east/var/lib/lifeboat/leftover");
    assert!(leftover.exists());

    child.kill().await?;
    wait_for("the end of all processes", Duration::from_secs(10), async || {
        let alive = inside.iter().any(|(pid, start)| lab::inside::start_of(*pid) == Some(*start));
        Ok((!alive).then_some(()))
    })
    .await?;
    // Files remain to look at, until the next one.
    let next = Lab::start("the next one").await?;
    assert!(!leftover.exists());
    next.stop().await?;
    Ok(())
}

/// Every process in the process namespaces of `firsts`, and their parents
/// outside, each with its start.
fn processes_in(firsts: &[u32]) -> Result<BTreeSet<(u32, u64)>> {
    let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let wanted: Vec<_> = firsts.iter().filter_map(|pid| namespace(*pid)).collect();
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let command = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        let helper = command.contains("lifeboat-lab-init");
        if helper || namespace(pid).is_some_and(|own| wanted.contains(&own)) {
            found.extend(lab::inside::start_of(pid).map(|start| (pid, start)));
        }
    }
    Ok(found)
}
