//! Disks of several kinds that come and go, and others at work on them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use agent::capture::{
    Base, Capture as _, CaptureError, CaptureSettings, CheckpointName, Consistency, Cut,
    CutRequest, LibvirtCapture, Wanted, Way, WholeReason, machine as capture_machine,
};
use anyhow::{Result, bail, ensure};
use domain::id::MachineUuid;
use lab::{Format, Guest, GuestSpec, Size as _, guest, run, wait_for};
use uuid::Uuid;

use crate::SOON;
use crate::copy::{settings, since, uri};

/// A machine with a disk that can be tracked and one that cannot.
pub fn machine() -> GuestSpec {
    guest("mixed").no_nic().disk(16.mib()).disk_as(16.mib(), Format::Raw)
}

/// Captures it through all that may happen to its disks.
pub async fn story(mixed: &Guest) -> Result<()> {
    let uuid = mixed.site().virsh(&["domuuid", "mixed"]).await?.trim().parse()?;
    let capture = capture_machine::open(&uri(mixed.site()), uuid, settings(mixed.site())).await?;
    let mut mixed = Mixed { guest: mixed.clone(), uuid, capture, newest: None };
    mixed.raw_disks_are_told_whole_beside_tracked_ones().await?;
    mixed.a_disk_that_is_new_or_resized_is_told_whole().await?;
    mixed.others_work_is_named().await?;
    mixed.a_folder_that_bars_qemu_is_named().await?;
    mixed.a_daemon_that_hangs_is_not_waited_for().await?;
    mixed.a_broken_bitmap_costs_one_disk().await?;
    mixed.an_unknown_machine_is_said_to_be_so().await?;
    Ok(mixed.capture.forget().await?)
}

struct Mixed {
    guest: Guest,
    uuid: MachineUuid,
    capture: LibvirtCapture,
    newest: Option<CheckpointName>,
}

impl Mixed {
    async fn cut(&mut self) -> Result<Cut> {
        let since = self.newest.clone();
        Ok(self.capture.cut(CutRequest { since, ..CutRequest::default() }).await?)
    }

    async fn accept(&mut self, cut: Cut) -> Result<()> {
        self.newest.clone_from(&cut.checkpoint);
        Ok(self.capture.accept(cut).await?)
    }

    /// Why the next cut is not to be had; tried and not kept.
    async fn in_the_way(&mut self) -> Result<String> {
        match self.cut().await.map_err(|error| error.downcast::<CaptureError>()) {
            Err(Ok(CaptureError::InTheWay { what, .. })) => Ok(what),
            Err(Ok(other)) => bail!("it failed otherwise: {other:?}"),
            Err(Err(other)) => Err(other),
            Ok(cut) => {
                self.capture.discard(cut).await?;
                Ok("nothing".to_owned())
            }
        }
    }

    async fn virsh(&self, words: &[&str]) -> Result<String> {
        self.guest.site().virsh(words).await
    }

    async fn raw_disks_are_told_whole_beside_tracked_ones(&mut self) -> Result<()> {
        let first = self.cut().await?;
        assert_eq!(first.disks[0].way, Way::Bitmap);
        assert_eq!(first.disks[1].way, Way::Whole);
        self.accept(first).await?;
        let cut = self.cut().await?;
        assert_eq!(since(&cut.disks[0].base), self.newest.as_ref());
        let raw = &cut.disks[1].base;
        assert!(matches!(raw, Base::Whole(WholeReason::Format(_))), "{raw:?}");
        let start = cut.disks[1].reader.read(1024 + 0x38, 2).await?;
        assert_eq!(start.as_ref(), [0x53, 0xef], "the raw disk holds an ext4");
        self.accept(cut).await?;

        // With nothing to track there is no checkpoint, and a cut all the same.
        let excluded = ["vda".to_owned()].into();
        let cut = self.capture.cut(CutRequest { excluded, ..CutRequest::default() }).await?;
        assert_eq!((cut.disks.len(), &cut.checkpoint), (1, &None));
        self.newest = None;
        self.capture.accept(cut).await?;
        let excluded = ["vda".to_owned(), "vdb".to_owned()].into();
        let none = self.capture.cut(CutRequest { excluded, ..CutRequest::default() }).await;
        assert!(matches!(none, Err(CaptureError::NoDisk { .. })), "{none:?}");
        let cut = self.cut().await?;
        self.accept(cut).await
    }

    async fn a_disk_that_is_new_or_resized_is_told_whole(&mut self) -> Result<()> {
        let image = "/var/lib/libvirt/images/mixed-2.qcow2";
        let make = ["create", "-q", "-f", "qcow2", image, "8M"];
        run(self.guest.site().command("qemu-img").args(make), "make a disk").await?;
        let attach = ["attach-disk", "mixed", image, "vdc", "--subdriver", "qcow2", "--live"];
        self.virsh(&attach).await?;
        self.virsh(&["blockresize", "mixed", "vda", "24M"]).await?;
        let cut = self.cut().await?;
        let [vda, vdb, vdc] = &cut.disks[..] else { bail!("{:?}", cut.disks) };
        assert_eq!(
            vda.base,
            Base::Whole(WholeReason::Resized { was: 16.mib(), is: 24.mib() }),
            "{cut:?}"
        );
        assert_eq!((vda.size, vdb.size, vdc.size), (24.mib(), 16.mib(), 8.mib()));
        assert!(matches!(vdc.base, Base::Whole(WholeReason::NotTracked(_))), "{:?}", vdc.base);
        self.accept(cut).await?;

        let cut = self.cut().await?;
        assert_eq!(since(&cut.disks[0].base), self.newest.as_ref());
        assert_eq!(since(&cut.disks[2].base), self.newest.as_ref());
        self.accept(cut).await?;

        self.virsh(&["detach-disk", "mixed", "vdc", "--live"]).await?;
        wait_for("the disk's going", SOON, async || {
            let disks = self.virsh(&["domblklist", "mixed"]).await?;
            Ok((!disks.contains("vdc")).then_some(()))
        })
        .await?;
        let cut = self.cut().await?;
        assert_eq!(cut.disks.len(), 2);
        assert_eq!(since(&cut.disks[0].base), self.newest.as_ref());
        self.accept(cut).await
    }

    async fn others_work_is_named(&mut self) -> Result<()> {
        let copy = "/var/lib/libvirt/images/mixed-copy.img";
        let begin = ["blockcopy", "mixed", "vdb", copy, "--format", "raw", "--transient-job"];
        self.virsh(&begin).await?;
        assert_eq!(self.in_the_way().await?, "a block copy on disk vdb");
        self.virsh(&["blockjob", "mixed", "vdb", "--abort"]).await?;

        // A snapshot is not in the way; only the files behind the disks are others.
        self.virsh(&["snapshot-create-as", "mixed", "before", "--disk-only"]).await?;
        let cut = self.cut().await?;
        let base = &cut.disks[0].base;
        assert!(matches!(base, Base::Whole(WholeReason::Replaced { .. })), "{base:?}");
        self.accept(cut).await?;
        let cut = self.cut().await?;
        assert_eq!(since(&cut.disks[0].base), self.newest.as_ref());
        self.accept(cut).await
    }

    async fn a_folder_that_bars_qemu_is_named(&mut self) -> Result<()> {
        let site = self.guest.site();
        let closed = site.folder().join("closed");
        fs::create_dir(&closed)?;
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700))?;
        let barred = CaptureSettings { folder: closed.join("c"), ..settings(site) };
        let mut capture = capture_machine::open(&uri(site), self.uuid, barred).await?;
        let since = self.newest.clone();
        let refused = capture.cut(CutRequest { since, ..CutRequest::default() }).await;
        let Err(CaptureError::Barred { path, .. }) = &refused else {
            bail!("it failed otherwise: {refused:?}");
        };
        assert_eq!(path, &closed);
        Ok(())
    }

    /// Its socket answers again as if nothing had been, and so do cuts.
    async fn a_daemon_that_hangs_is_not_waited_for(&mut self) -> Result<()> {
        let signal = async |site: &lab::Site, name: &str| {
            let words = format!("kill -{name} $(cat /run/libvirtd.pid)");
            run(site.command("sh").args(["-c", &words]), "signal libvirtd").await
        };
        let cut = self.cut().await?;
        signal(self.guest.site(), "STOP").await?;
        let began = Instant::now();
        let refused = self.capture.accept(cut).await;
        let waited = began.elapsed();
        signal(self.guest.site(), "CONT").await?;
        assert!(matches!(refused, Err(CaptureError::Hypervisor { .. })), "{refused:?}");
        ensure!(waited < Duration::from_secs(25), "it waited {waited:?}");
        println!("a daemon that hangs was given up after {waited:.1?}");
        let cut = self.cut().await?;
        self.accept(cut).await
    }

    async fn a_broken_bitmap_costs_one_disk(&mut self) -> Result<()> {
        let image = "/var/lib/libvirt/images/mixed-3.qcow2";
        let site = self.guest.site().clone();
        let make = ["create", "-q", "-f", "qcow2", image, "8M"];
        run(site.command("qemu-img").args(make), "make a disk").await?;
        let attach = ["attach-disk", "mixed", image, "vdd", "--subdriver", "qcow2", "--persistent"];
        self.virsh(&attach).await?;
        let cut = self.cut().await?;
        self.accept(cut).await?;
        let bitmap = self.newest.clone().map(|name| name.to_string()).unwrap_or_default();
        self.guest.shutdown().await?;

        // The guest shut down in order, which is as good as a freeze.
        let app = CutRequest { consistency: Wanted::App, ..CutRequest::default() };
        let cut = self.capture.cut(app).await?;
        assert_eq!(cut.consistency, Consistency::App);
        self.capture.discard(cut).await?;

        let remove = ["bitmap", "--remove", "-f", "qcow2", image, &bitmap];
        run(site.command("qemu-img").args(remove), "remove a bitmap").await?;
        self.virsh(&["start", "mixed"]).await?;
        let cut = self.cut().await?;
        let [vda, _, vdd] = &cut.disks[..] else { bail!("{:?}", cut.disks) };
        assert_eq!(since(&vda.base), self.newest.as_ref());
        assert!(matches!(vdd.base, Base::Whole(WholeReason::BitmapBroken(_))), "{:?}", vdd.base);
        self.accept(cut).await?;
        self.guest.cut_power().await
    }

    async fn an_unknown_machine_is_said_to_be_so(&mut self) -> Result<()> {
        let site = self.guest.site();
        let nobody = MachineUuid::new(Uuid::new_v4());
        let opened = capture_machine::open(&uri(site), nobody, settings(site)).await.map(drop);
        assert!(matches!(opened, Err(CaptureError::NoSuchMachine { .. })), "{opened:?}");
        let folder = fs::read_dir(&settings(site).folder)?.flatten();
        let names: Vec<_> = folder.map(|entry| entry.file_name()).collect();
        ensure!(!names.iter().any(|name| name == &*nobody.to_string()), "{names:?}");
        Ok(())
    }
}
