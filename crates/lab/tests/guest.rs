//! Guests come up, answer, and keep what they acknowledged.

use std::time::Duration;

use anyhow::{Result, ensure};
use lab::{Bus, Fault, Filesystem, Format, Guest, Lab, Nic, Size as _, guest};

const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn guests_answer_and_keep_their_word() -> Result<()> {
    if lab::skipped("guests answer and keep their word") {
        return Ok(());
    }
    let lab = Lab::start("guests answer and keep their word").await?;
    let east = lab.east();
    let web = guest("web").disk(64.mib()).disk(32.mib()).workload(20).overwrite(1, 64, 20);
    let old = guest("old").disk_as(16.mib(), Format::Raw).bus(Bus::Scsi);
    let old = old.nic(Nic::fixed("default", "10.86.20.5/24").via("10.86.20.1"));
    let (web, old) = tokio::try_join!(east.boot(web), lab.west().boot(old))?;

    an_agent_answers(&web).await?;
    a_fixed_address_is_reached(&lab, &old).await?;
    file_systems_freeze(&web).await?;
    an_orderly_end_loses_nothing(&old).await?;
    a_guest_outlives_libvirtd(&web).await?;
    a_power_cut_loses_nothing_acknowledged(&lab, &web).await?;
    a_machine_starts_at_the_other_site(&lab, &web).await?;
    a_check_finds_what_is_wrong(&web).await?;
    lab.stop().await
}

async fn an_agent_answers(web: &Guest) -> Result<()> {
    let address = web.address(SOON).await?;
    assert_eq!(address.octets()[..3], [10, 86, 10], "{address}");
    assert_eq!(web.exec(&["hostname"]).await?, "web\n");
    assert_eq!(web.exec_to_end(&["sh", "-c", "echo no >&2; exit 4"]).await?.stderr, "no\n");
    assert!(web.exec(&["false"]).await.is_err());
    web.exec(&["sh", "-c", "echo here > /data/0/marker"]).await?;
    assert_eq!(web.boot_check()?.last, 0);
    web.acknowledges(5).await.map(drop)
}

async fn a_fixed_address_is_reached(lab: &Lab, old: &Guest) -> Result<()> {
    assert_eq!(old.address(SOON).await?.to_string(), "10.86.20.5");
    lab.west().reaches([10, 86, 20, 5].into(), SOON).await
}

async fn file_systems_freeze(web: &Guest) -> Result<()> {
    assert_eq!(web.freeze().await?, 2);
    // A record may have been acknowledged just before.
    let frozen_at = web.acknowledged()? + 1;
    let status = web.ask("guest-fsfreeze-status", serde_json::json!({})).await?;
    assert_eq!(status, "frozen");
    ensure!(web.acknowledged()? <= frozen_at, "records went on while frozen");
    assert_eq!(web.thaw().await?, 2);
    web.acknowledges(2).await.map(drop)
}

async fn an_orderly_end_loses_nothing(old: &Guest) -> Result<()> {
    old.start_workload(50).await?;
    old.acknowledges(10).await?;
    old.shutdown().await?;
    let at_end = old.acknowledged()?;
    old.start().await?;
    assert_eq!(old.boot_check()?.last, at_end);
    assert_eq!(old.boot_check()?.disks[0].filesystem, Filesystem::Clean);
    old.reboot().await?;
    assert_eq!(old.boot_check()?.last, at_end);
    old.press_power_button().await?;
    assert!(!old.is_running().await?);
    old.remove().await?;
    assert!(old.site().guests().await?.is_empty());
    Ok(())
}

async fn a_guest_outlives_libvirtd(web: &Guest) -> Result<()> {
    web.site().kill_libvirtd().await?;
    assert!(web.is_running().await.is_err());
    web.acknowledges(3).await?;
    web.site().start_libvirtd().await?;
    assert!(web.is_running().await?);
    web.answers(SOON).await?;
    let report = web.check().await?;
    ensure!(report.is_clean(), "{report}");
    Ok(())
}

async fn a_power_cut_loses_nothing_acknowledged(lab: &Lab, web: &Guest) -> Result<()> {
    web.acknowledges(5).await?;
    lab.east().cut_power().await?;
    let (acknowledged, overwritten) = (web.acknowledged()?, web.overwritten()?);
    ensure!(acknowledged > 10 && overwritten > 10, "{acknowledged} and {overwritten}");

    lab.east().power_on().await?;
    web.start().await?;
    let report = web.boot_check()?;
    ensure!(report.is_clean(), "{report}");
    ensure!(report.last >= acknowledged, "{report}: {acknowledged} was acknowledged");
    ensure!(report.disks[1].overwrites >= overwritten, "{report:?}: {overwritten}");
    assert_eq!(web.exec(&["cat", "/data/0/marker"]).await?, "here\n");
    web.acknowledges(2).await?;
    Ok(())
}

/// Not the product's way, but it shows that nothing in a machine's description
/// ties it to one site.
async fn a_machine_starts_at_the_other_site(lab: &Lab, web: &Guest) -> Result<()> {
    std::fs::write(lab.west().outside("/run/web.xml"), web.xml().await?)?;
    web.stop_workload().await?;
    web.shutdown().await?;
    let last = web.acknowledged()?;
    for disk in ["web-0.qcow2", "web-1.qcow2"] {
        let file = format!("/var/lib/libvirt/images/{disk}");
        std::fs::copy(lab.east().outside(&file), lab.west().outside(&file))?;
    }
    lab.west().virsh(&["define", "/run/web.xml"]).await?;
    let moved = lab.west().guest("web");
    tokio::try_join!(moved.start(), web.start())?;
    for report in [moved.boot_check()?, web.boot_check()?] {
        ensure!(report.is_clean() && report.last == last, "{report}: {last} was the last");
    }
    assert_eq!(moved.address(SOON).await?.octets()[..3], [10, 86, 20]);
    Ok(())
}

/// A clean check is worth something only when others are not.
async fn a_check_finds_what_is_wrong(web: &Guest) -> Result<()> {
    web.stop_workload().await?;
    let before = web.check().await?;
    ensure!(before.is_clean(), "{before}");
    web.exec(&["truncate", "-s", "0", "/data/1/records"]).await?;
    let report = web.check().await?;
    assert!(matches!(report.faults[..], [Fault::Behind { disk: 1, last: 0, .. }]), "{report}");
    Ok(())
}
