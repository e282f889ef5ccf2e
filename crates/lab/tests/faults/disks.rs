//! Machines that are changed while they are protected.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};
use lab::{Lab, Site, Size as _, run, wait_for};
use serde_json::Value;

use crate::setting::{SOON, Setting, machine};

#[tokio::test]
async fn a_machine_is_changed_while_it_is_protected() -> Result<()> {
    let story = "a machine is changed while it is protected";
    if lab::skipped(story) {
        return Ok(());
    }
    let lab = Lab::start(story).await?;
    let mut setting = Setting::start(&lab, machine(), &[]).await?;
    a_disk_is_added_resized_and_removed(&setting).await?;
    a_snapshot_is_taken_by_others(&setting).await?;
    it_is_renamed(&mut setting).await?;
    let forgotten = it_leaves_the_host_and_comes_back(&setting).await?;
    nothing_is_left_when_it_ends(&setting, &forgotten).await?;
    setting.product.stop().await?;
    lab.stop().await
}

async fn a_disk_is_added_resized_and_removed(setting: &Setting<'_>) -> Result<()> {
    let site = setting.lab.east();
    let file = "/var/lib/libvirt/images/web-more.qcow2";
    let size = 16.mib();
    let mut create = site.command("qemu-img");
    create.args(["create", "-q", "-f", "qcow2", file, &size.to_string()]);
    run(&mut create, "make a disk").await?;
    let attach = ["attach-disk", "web", file, "vdc", "--subdriver", "qcow2", "--live", "--config"];
    site.virsh(&attach).await?;
    setting.has_third_disk("a disk was added", size).await?;

    site.virsh(&["blockresize", "web", "vdc", &format!("{}B", 24.mib())]).await?;
    setting.has_third_disk("a disk was resized", 24.mib()).await?;

    site.virsh(&["detach-disk", "web", "vdc", "--live", "--config"]).await?;
    let point = setting.goes_on("a disk was removed").await?;
    ensure!(setting.disks_of(point)?.len() == 2, "it has other disks than two");
    setting.is_well().await?;
    setting.guest_noticed_nothing().await
}

/// The machine's disks are other files then: what differs is sent.
async fn a_snapshot_is_taken_by_others(setting: &Setting<'_>) -> Result<()> {
    let site = setting.lab.east();
    let sent = setting.sent().await?;
    let take = ["snapshot-create-as", "web", "others", "--disk-only", "--atomic", "--no-metadata"];
    site.virsh(&take).await?;
    ensure!(site.virsh(&["domblklist", "web"]).await?.contains(".others"), "no snapshot was taken");
    setting.goes_on("others took a snapshot").await?;
    setting.is_well().await?;
    let log = setting.product.east.log()?;
    ensure!(log.contains("resynchronising"), "it was not resynchronised");
    let sent = setting.sent().await? - sent;
    ensure!(sent < 24.mib(), "{sent} bytes were sent after a snapshot");
    setting.guest_noticed_nothing().await
}

async fn it_is_renamed(setting: &mut Setting<'_>) -> Result<()> {
    let site = setting.lab.east();
    setting.web.shutdown().await?;
    site.virsh(&["domrename", "web", "shop"]).await?;
    setting.web = site.guest("shop").with_port_of("web");
    setting.web.start().await?;
    setting.goes_on("the machine was renamed").await?;
    setting.is_well().await?;
    setting.guest_noticed_nothing().await
}

/// As when it is moved to another host and back: libvirt forgets it with all
/// that it knew of checkpoints. The bitmaps that it leaves in the images for
/// nobody.
async fn it_leaves_the_host_and_comes_back(
    setting: &Setting<'_>,
) -> Result<BTreeSet<(OsString, String)>> {
    let site = setting.lab.east();
    setting.web.shutdown().await?;
    let description = site.virsh(&["dumpxml", "--inactive", "shop"]).await?;
    site.virsh(&["undefine", "shop", "--checkpoints-metadata"]).await?;
    let forgotten = bitmaps(site).await?;
    let reason = setting.says("LB6056").await?;
    println!("the machine is gone: {}. {}", reason.reason, reason.advice);
    ensure!(reason.advice.contains("protect it there"), "{reason:?}");
    let newest = setting.newest()?;
    setting.points.is_a_state("shop", newest, 2)?;
    let sent = setting.sent().await?;
    let file = site.outside("/run/shop.xml");
    fs::write(&file, description)?;
    site.virsh(&["define", &file.to_string_lossy()]).await?;
    setting.web.start().await?;
    setting.goes_on("the machine was gone for a while").await?;
    setting.is_well().await?;
    let sent = setting.sent().await? - sent;
    ensure!(sent < 24.mib(), "{sent} bytes were sent after the machine came back");
    setting.guest_noticed_nothing().await?;
    Ok(forgotten)
}

/// Neither a checkpoint nor a bitmap, in whatever file they were, but for those
/// that libvirt was told to forget.
async fn nothing_is_left_when_it_ends(
    setting: &Setting<'_>,
    forgotten: &BTreeSet<(OsString, String)>,
) -> Result<()> {
    let site = setting.lab.east();
    let controller = &setting.product.controller;
    controller.say(&["protected", "disable", setting.web.name(), "--yes"]).await?;
    wait_for("the end of protection", SOON, async || {
        Ok(controller.protections().await?.is_empty().then_some(()))
    })
    .await?;
    wait_for("no checkpoint of ours", SOON, async || {
        let list = site.virsh(&["checkpoint-list", "shop", "--name"]).await?;
        Ok(list.trim().is_empty().then_some(()))
    })
    .await?;
    setting.web.shutdown().await?;
    let left = bitmaps(site).await?;
    ensure!(left.is_subset(forgotten), "bitmaps are left: {left:?}");
    Ok(())
}

/// Files of the site's images, each with a dirty bitmap in it.
async fn bitmaps(site: &Site) -> Result<BTreeSet<(OsString, String)>> {
    let mut found = BTreeSet::new();
    for file in fs::read_dir(site.outside("/var/lib/libvirt/images"))? {
        let file = file?;
        let mut look = site.command("qemu-img");
        look.args(["info", "--output", "json"]).arg(file.path());
        let info: Value = serde_json::from_str(&run(&mut look, "look at an image").await?)?;
        let bitmaps = info["format-specific"]["data"]["bitmaps"].as_array();
        let names = bitmaps.into_iter().flatten().filter_map(|bitmap| bitmap["name"].as_str());
        found.extend(names.map(|name| (file.file_name(), name.to_owned())));
    }
    Ok(found)
}

impl Setting<'_> {
    /// Sizes of a point's disks.
    fn disks_of(&self, point: u64) -> Result<Vec<u64>> {
        let opened = self.points.open(self.web.name(), point)?;
        let mut sizes = Vec::new();
        for number in 0.. {
            let Ok(facts) = fs::metadata(opened.disk(number)) else { break };
            sizes.push(facts.len());
        }
        Ok(sizes)
    }

    /// Lets the guest write to its third disk, and finds just that in a point.
    async fn has_third_disk(&self, after: &str, size: u64) -> Result<()> {
        let last = (size >> 20) - 1;
        for place in [0, last] {
            let seek = format!("seek={place}");
            let write =
                ["dd", "if=/bin/busybox", "of=/dev/vdc", "bs=1M", "count=1", &seek, "conv=fsync"];
            self.web.exec(&write).await?;
        }
        let theirs = self.web.exec(&["sha256sum", "/dev/vdc"]).await?;
        let point = self.goes_on(after).await?;
        ensure!(self.disks_of(point)?.get(2) == Some(&size), "{:?}", self.disks_of(point)?);
        let opened = self.points.open(self.web.name(), point)?;
        let output = Command::new("sha256sum").arg(opened.disk(2)).output()?;
        let ours = String::from_utf8_lossy(&output.stdout).into_owned();
        let digest = |said: &str| said.split(' ').next().map(str::to_owned);
        ensure!(digest(&ours) == digest(&theirs), "{after}: {ours} is not {theirs}");
        self.is_well().await
    }
}
