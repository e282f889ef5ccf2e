//! Two sites come up, are apart, and can be cut from one another.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lab::{East, Lab, Network, Site, Size as _, West, run, wait_for};
use nix::sys::signal::kill;
use nix::unistd::Pid;

const SOON: Duration = Duration::from_secs(5);

#[tokio::test]
async fn two_sites_are_apart_and_can_be_cut_off() -> Result<()> {
    if lab::skipped("two sites are apart and can be cut off") {
        return Ok(());
    }
    let lab = Lab::start("two sites are apart and can be cut off").await?;
    each_has_its_own_host_and_libvirt(&lab).await?;
    programs_run_at_a_site_and_end_with_it(&lab).await?;
    the_wan_is_cut_and_restored(&lab).await?;
    the_wan_is_shaped(&lab).await?;
    power_comes_back_to_what_was_there(&lab).await?;
    lab.stop().await
}

async fn each_has_its_own_host_and_libvirt(lab: &Lab) -> Result<()> {
    let says = async |site: &Site, words: [&str; 2]| {
        run(site.command(words[0]).arg(words[1]), "ask a site").await
    };
    for (site, name) in [(lab.east(), "east\n"), (lab.west(), "west\n")] {
        assert_eq!(says(site, ["uname", "-n"]).await?, name);
        assert_eq!(site.virsh(&["net-list", "--name"]).await?.trim(), "default");
        assert_eq!(site.virsh(&["pool-list", "--name"]).await?.trim(), "default");
    }
    for file in ["/etc/machine-id", "/proc/sys/kernel/random/boot_id"] {
        let (east, west) =
            (says(lab.east(), ["cat", file]).await?, says(lab.west(), ["cat", file]).await?);
        assert_ne!(east, west, "{file}");
    }
    lab.east().add_network(&Network::isolated("drill", [10, 86, 11, 1].into())).await?;
    lab.east().add_pool("replica", "/var/lib/lifeboat/pool").await?;
    assert!(lab.east().virsh(&["net-list", "--name"]).await?.contains("drill"));
    assert!(!lab.west().virsh(&["net-list", "--name"]).await?.contains("drill"));
    assert!(lab.east().outside("/var/lib/lifeboat/pool").is_dir());
    Ok(())
}

async fn programs_run_at_a_site_and_end_with_it(lab: &Lab) -> Result<()> {
    let script =
        "echo at $(uname -n); trap 'echo asked; exit 3' TERM; while :; do sleep 0.05; done";
    let mut polite =
        lab.west().spawn("polite", lab.west().command("sh").args(["-c", script])).await?;
    wait_for("hear it", SOON, async || Ok(polite.log()?.contains("at west").then_some(()))).await?;
    assert!(polite.is_running()?);
    assert_eq!(polite.terminate(SOON).await?.code(), Some(3));
    assert!(polite.log()?.ends_with("asked\n"));

    let sleeper =
        async || lab.west().spawn("sleeper", lab.west().command("sleep").arg("600")).await;
    let mut killed = sleeper().await?;
    killed.kill().await?;
    assert!(!killed.is_running()?);

    let dropped = sleeper().await?;
    let pid = dropped.pid();
    drop(dropped);
    gone(pid).await?;

    // What a command started dies when the caller gives up on it.
    let mut given_up = lab.west().command("sleep");
    given_up.arg("601").kill_on_drop(true);
    drop(given_up.spawn()?);
    wait_for("the end of it", SOON, async || {
        let found = lab.west().command("pgrep").args(["-f", "sleep 601"]).output().await?;
        Ok((!found.status.success()).then_some(()))
    })
    .await?;

    let mut at_third =
        lab.third_place().spawn("third", lab.third_place().command("uname").arg("-n")).await?;
    at_third.wait(SOON).await?;
    assert_eq!(at_third.log()?, "third-place\n");

    let absent = lab.west().command("no-such-program").output().await?;
    assert_eq!(absent.status.code(), Some(127));
    Ok(())
}

async fn gone(pid: u32) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(pid)?);
    wait_for("the end of a process", SOON, async || Ok(kill(pid, None).err().map(drop))).await
}

async fn the_wan_is_cut_and_restored(lab: &Lab) -> Result<()> {
    let west = lab.west().wan_address();
    let reaches = async || lab.east().pings(west).await;
    assert!(reaches().await?);
    let mut by_name = lab.east().command("busybox");
    run(by_name.args(["ping", "-c", "1", "-W", "2", "third-place"]), "reach the third place")
        .await?;

    lab.wan().cut(East).await?;
    assert!(!reaches().await?);
    assert!(!lab.east().pings(lab.wan().third_place_address()).await?);
    lab.wan().restore(East).await?;
    lab.east().reaches(west, SOON).await?;

    lab.wan().flap(West, Duration::from_millis(100), Duration::from_millis(400)).await?;
    lab.east().reaches(west, SOON).await
}

async fn the_wan_is_shaped(lab: &Lab) -> Result<()> {
    let free = transfer(lab, 2).await?;
    lab.wan().shape(West, 1.mib()).await?;
    let shaped = transfer(lab, 2).await?;
    lab.wan().unshape(West).await?;
    let again = transfer(lab, 2).await?;
    // 2 MiB at 1 MiB/s, less what a burst may bring forward.
    let slow = Duration::from_millis(1500);
    ensure!(free < slow && again < slow, "unshaped: {free:?} and {again:?}");
    ensure!(shaped > slow && shaped < slow * 4, "shaped: {shaped:?}");
    Ok(())
}

/// Sends that many MiB from east to west, which counts them and answers, and
/// says how long it took.
async fn transfer(lab: &Lab, mib: u64) -> Result<Duration> {
    let mut count = lab.west().command("busybox");
    count.args(["nc", "-l", "-p", "7", "-e", "wc", "-c"]);
    let mut count = lab.west().spawn("count", &mut count).await?;
    wait_for("listen", SOON, async || {
        let sockets = "cat /proc/net/tcp /proc/net/tcp6";
        let open = run(lab.west().command("sh").args(["-c", sockets]), "look at sockets").await?;
        Ok(open.contains(":0007 ").then_some(()))
    })
    .await?;
    let send = format!("head -c {} /dev/zero | busybox nc west 7", mib.mib());
    let begun = Instant::now();
    let counted = run(lab.east().command("sh").args(["-c", &send]), "send").await?;
    let took = begun.elapsed();
    assert_eq!(counted.trim(), mib.mib().to_string());
    count.wait(SOON).await?;
    Ok(took)
}

async fn power_comes_back_to_what_was_there(lab: &Lab) -> Result<()> {
    let east = lab.east();
    let boot = run(east.command("cat").arg("/proc/sys/kernel/random/boot_id"), "ask").await?;
    std::fs::write(east.outside("/var/lib/lifeboat/kept"), "kept")?;
    let mut running = east.spawn("running", east.command("sleep").arg("600")).await?;
    lab.wan().cut(East).await?;

    east.cut_power().await?;
    assert!(!east.has_power());
    assert!(!running.is_running()?);
    assert_eq!(east.command("true").output().await?.status.code(), Some(127));
    assert!(!lab.west().pings(east.wan_address()).await?);

    east.power_on().await?;
    let anew = run(east.command("cat").arg("/proc/sys/kernel/random/boot_id"), "ask").await?;
    assert_ne!(boot, anew);
    let kept = run(east.command("cat").arg("/var/lib/lifeboat/kept"), "look").await?;
    assert_eq!(kept, "kept");
    assert!(east.virsh(&["net-list", "--name"]).await?.contains("default"));
    assert!(east.virsh(&["pool-list", "--name"]).await?.contains("replica"));
    // A cut line is cut for a site that comes back, too.
    assert!(!lab.west().pings(east.wan_address()).await?);
    lab.wan().restore(East).await?;
    lab.west().reaches(east.wan_address(), SOON).await
}
