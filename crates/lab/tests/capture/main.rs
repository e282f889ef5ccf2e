//! Cuts of a machine that works: what they hold is what the guest wrote, and
//! the guest never notices.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use agent::capture::{
    Base, Capture as _, CaptureError, CaptureSettings, CheckpointName, Consistency, Cut,
    CutRequest, LibvirtCapture, Wanted, WholeReason, machine,
};
use anyhow::{Context as _, Result, bail, ensure};
use domain::id::MachineUuid;
use lab::{Format, Guest, Lab, Site, Size as _, guest, run, wait_for};

mod copy;
mod mixed;

use copy::{Copy, same, scratch_folder, settings, since, uri};

const SOON: Duration = Duration::from_secs(30);

const STORY: &str = "cuts hold what the guest wrote";

#[test]
fn cuts_hold_what_the_guest_wrote() -> Result<()> {
    if lab::skipped(STORY) {
        return Ok(());
    }
    tokio::runtime::Runtime::new()?.block_on(story())?;
    println!("{STORY}: all of it came true");
    // A process that has used libvirt ends in no other way, see there.
    agent::hypervisor::libvirt::end_process(0)
}

async fn story() -> Result<()> {
    let lab = Lab::start(STORY).await?;
    let spec = guest("web").disk(64.mib()).disk(32.mib()).workload(50).overwrite(1, 512, 50);
    let (web, mixed) = tokio::try_join!(lab.east().boot(spec), lab.east().boot(mixed::machine()))?;
    mixed::story(&mixed).await?;
    let mut subject = Subject::open(&web).await?;

    let mut copy = subject.a_whole_cut_is_a_copy().await?;
    subject.cuts_of_changes_keep_the_copy_up_to_date(&mut copy).await?;
    subject.a_copy_boots_without_a_hole(&mut copy).await?;
    subject.a_discarded_cut_loses_nothing(&mut copy).await?;
    subject.an_excluded_disk_is_left_out(&mut copy).await?;
    subject.file_systems_freeze_around_a_cut(&mut copy).await?;
    subject.a_guest_agent_that_hangs_freezes_nothing_for_long(&mut copy).await?;
    subject.a_full_scratch_file_ends_the_cut_and_not_the_guest(&copy).await?;
    subject.others_work_is_left_alone(&copy).await?;
    subject.a_dead_agents_leftovers_are_cleaned_up(&mut copy).await?;
    subject.libvirtd_may_restart_under_a_cut(&mut copy).await?;
    subject.the_last_cut_is_the_machine_that_is_off(&mut copy).await?;
    subject.a_machine_that_is_read_may_start(&mut copy).await?;
    subject.a_killed_qemu_costs_a_whole_cut(&mut copy).await?;
    subject.nothing_is_left_when_all_is_forgotten().await?;
    lab.stop().await
}

/// The machine, and how it is captured.
struct Subject {
    web: Guest,
    uuid: MachineUuid,
    capture: LibvirtCapture,
}

impl Subject {
    async fn open(web: &Guest) -> Result<Self> {
        let site = web.site();
        let uuid = site.virsh(&["domuuid", web.name()]).await?.trim().parse()?;
        let capture = machine::open(&uri(site), uuid, settings(site)).await?;
        Ok(Self { web: web.clone(), uuid, capture })
    }

    /// As another agent process would.
    async fn open_again(&self, settings: CaptureSettings) -> Result<LibvirtCapture> {
        Ok(machine::open(&uri(self.web.site()), self.uuid, settings).await?)
    }

    fn site(&self) -> &Site {
        self.web.site()
    }

    fn scratch_files(&self) -> Vec<PathBuf> {
        let folder = scratch_folder(self.site()).join(self.uuid.to_string()).join("qemu");
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    }

    async fn checkpoints(&self) -> Result<Vec<String>> {
        let list = self.site().virsh(&["checkpoint-list", "web", "--name"]).await?;
        Ok(list.split_whitespace().map(str::to_owned).collect())
    }

    async fn has_job(&self) -> bool {
        self.web.has_backup().await
    }

    /// The machine is as if it had never been cut, but for the checkpoint.
    async fn is_tidy(&self, checkpoint: Option<&CheckpointName>) -> Result<()> {
        ensure!(!self.has_job().await, "a job is left");
        let expected: Vec<String> = checkpoint.into_iter().map(ToString::to_string).collect();
        assert_eq!(self.checkpoints().await?, expected);
        assert_eq!(self.scratch_files(), Vec::<PathBuf>::new());
        Ok(())
    }

    /// Takes a cut of what changed, applies and accepts it.
    async fn update(&mut self, copy: &mut Copy, request: CutRequest) -> Result<()> {
        let cut = self.capture.cut(request).await?;
        ensure!(since(&cut.base()) == copy.checkpoint.as_ref(), "{:?}", cut.base());
        copy.apply(&cut).await?;
        self.settle(copy, cut).await
    }

    async fn settle(&mut self, copy: &mut Copy, cut: Cut) -> Result<()> {
        self.capture.confirm(&cut).await?;
        if cut.checkpoint.is_some() {
            copy.checkpoint.clone_from(&cut.checkpoint);
        }
        self.capture.accept(cut).await?;
        Ok(())
    }

    async fn a_whole_cut_is_a_copy(&mut self) -> Result<Copy> {
        self.web.acknowledges(20).await?;
        let folder = self.site().folder().join("copy");
        fs::create_dir(&folder)?;
        let mut copy = Copy { folder, checkpoint: None };
        let cut = self.capture.cut(copy.request()).await?;
        assert_eq!(cut.base(), Base::Whole(WholeReason::First));
        assert_eq!(cut.consistency, Consistency::Crash { short_of_app: None });
        ensure!(cut.configuration.contains("<name>web</name>"), "{}", cut.configuration);
        let shown: Vec<_> = cut.disks.iter().map(|d| (d.target.as_str(), d.size)).collect();
        assert_eq!(shown, [("vda", 64.mib()), ("vdb", 32.mib())]);

        // The guest goes on while the cut stands still.
        self.web.acknowledges(5).await?;
        let (told, read) = copy.apply(&cut).await?;
        assert_eq!(told, 96.mib());
        ensure!(read < told / 2, "holes are told as such: {read} of {told} were read");
        self.settle(&mut copy, cut).await?;
        self.is_tidy(copy.checkpoint.as_ref()).await?;
        Ok(copy)
    }

    async fn cuts_of_changes_keep_the_copy_up_to_date(&mut self, copy: &mut Copy) -> Result<()> {
        let (mut told_most, mut times) = (0, Vec::new());
        for _ in 0..10 {
            self.web.acknowledges(5).await?;
            let began = Instant::now();
            let cut = self.capture.cut(copy.request()).await?;
            let cut_at = began.elapsed();
            assert!(cut.disks.iter().all(|d| since(&d.base) == copy.checkpoint.as_ref()));
            let (told, _) = copy.apply(&cut).await?;
            told_most = told_most.max(told);
            let read_at = began.elapsed();
            self.settle(copy, cut).await?;
            times.push([cut_at, read_at - cut_at, began.elapsed() - read_at]);
        }
        println!("cut, copied, accepted: {times:.0?}");
        ensure!(told_most > 0 && told_most < 48.mib(), "{told_most} bytes were told of 96 MiB");
        self.is_tidy(copy.checkpoint.as_ref()).await
    }

    /// Boots another machine from the copy: the guest's own check finds every
    /// record that was acknowledged before the last cut.
    async fn a_copy_boots_without_a_hole(&mut self, copy: &mut Copy) -> Result<()> {
        let acknowledged = self.web.acknowledged()?;
        self.update(copy, copy.request()).await?;

        let spec = guest("copy").disk_as(64.mib(), Format::Raw).disk_as(32.mib(), Format::Raw);
        let twin = self.site().define(spec).await?;
        for (target, index) in [("vda", 0), ("vdb", 1)] {
            let image = format!("/var/lib/libvirt/images/copy-{index}.img");
            fs::copy(copy.image(target), self.site().outside(image))?;
        }
        twin.start().await?;
        let report = twin.boot_check()?;
        ensure!(report.is_clean(), "{report}");
        ensure!(report.last >= acknowledged, "{report}: {acknowledged} was acknowledged");
        ensure!(report.disks[1].overwrites > 0, "{report:?}");
        twin.cut_power().await?;
        twin.remove().await
    }

    async fn a_discarded_cut_loses_nothing(&mut self, copy: &mut Copy) -> Result<()> {
        let cut = self.capture.cut(copy.request()).await?;
        self.web.acknowledges(5).await?;
        self.capture.discard(cut).await?;
        self.is_tidy(copy.checkpoint.as_ref()).await?;

        // Dropped without a word, it is ended all the same.
        drop(self.capture.cut(copy.request()).await?);
        wait_for("the end of a cut that was dropped", SOON, async || {
            Ok((!self.has_job().await).then_some(()))
        })
        .await?;

        // One that another has taken the place of cannot be accepted.
        let stale = self.capture.cut(copy.request()).await?;
        let cut = self.capture.cut(copy.request()).await?;
        let refused = self.capture.accept(stale).await;
        assert!(matches!(refused, Err(CaptureError::Superseded { .. })), "{refused:?}");
        copy.apply(&cut).await?;
        self.settle(copy, cut).await?;
        self.is_tidy(copy.checkpoint.as_ref()).await
    }

    async fn an_excluded_disk_is_left_out(&mut self, copy: &mut Copy) -> Result<()> {
        let excluded = ["vdb".to_owned()].into();
        let cut = self.capture.cut(CutRequest { excluded, ..copy.request() }).await?;
        let shown: Vec<_> = cut.disks.iter().map(|disk| disk.target.as_str()).collect();
        assert_eq!(shown, ["vda"]);
        copy.apply(&cut).await?;
        self.settle(copy, cut).await?;

        // The checkpoint knows nothing of it, so it is told whole.
        let cut = self.capture.cut(copy.request()).await?;
        assert_eq!(since(&cut.disks[0].base), copy.checkpoint.as_ref());
        let reason = &cut.disks[1].base;
        assert!(matches!(reason, Base::Whole(WholeReason::NotTracked(_))), "{reason:?}");
        copy.apply(&cut).await?;
        self.settle(copy, cut).await
    }

    async fn file_systems_freeze_around_a_cut(&mut self, copy: &mut Copy) -> Result<()> {
        let status = || self.web.ask("guest-fsfreeze-status", serde_json::json!({}));
        let app = CutRequest { consistency: Wanted::App, ..copy.request() };
        let cut = self.capture.cut(app.clone()).await?;
        assert_eq!(cut.consistency, Consistency::App);
        assert_eq!(status().await?, "thawed");
        self.capture.discard(cut).await?;

        // Frozen by somebody else, it is neither claimed nor thawed.
        self.web.freeze().await?;
        let cut = self.capture.cut(app.clone()).await?;
        let Consistency::Crash { short_of_app: Some(reason) } = &cut.consistency else {
            bail!("{:?} of a guest frozen by another", cut.consistency);
        };
        println!("no app-consistent cut: {reason}");
        assert_eq!(status().await?, "frozen");
        self.capture.discard(cut).await?;

        // What an agent froze before it died is thawed by the next one.
        let note = scratch_folder(self.site()).join(self.uuid.to_string()).join("frozen");
        fs::write(&note, b"")?;
        let mut next = self.open_again(settings(self.site())).await?;
        assert_eq!(status().await?, "thawed");
        ensure!(!note.exists(), "the note is left");

        // A freeze that takes no time is over before the disks stand.
        let hasty =
            CaptureSettings { freeze_limit: Duration::from_millis(1), ..settings(self.site()) };
        let mut hasty = self.open_again(hasty).await?;
        let cut = hasty.cut(app).await?;
        let Consistency::Crash { short_of_app: Some(_) } = &cut.consistency else {
            bail!("{:?} within a millisecond", cut.consistency);
        };
        hasty.discard(cut).await?;
        wait_for("the thaw after all", SOON, async || {
            Ok((!note.exists() && status().await? == "thawed").then_some(()))
        })
        .await?;
        // So that the story's own capture is the only one again.
        let cut = next.cut(copy.request()).await?;
        next.discard(cut).await?;
        self.update(copy, copy.request()).await
    }

    async fn a_guest_agent_that_hangs_freezes_nothing_for_long(
        &mut self,
        copy: &mut Copy,
    ) -> Result<()> {
        const HANG: &str = "(sleep 1; P=$(pidof qemu-ga); kill -STOP $P; echo stopped > /dev/ttyS0; \
                            sleep 8; kill -CONT $P) > /dev/null 2>&1 &";
        self.web.exec(&["sh", "-c", HANG]).await?;
        wait_for("the guest agent's standstill", SOON, async || {
            Ok(self.web.console()?.contains("stopped").then_some(()))
        })
        .await?;
        let patient =
            CaptureSettings { freeze_limit: Duration::from_secs(2), ..settings(self.site()) };
        let mut capture = self.open_again(patient).await?;
        let began = Instant::now();
        let app = CutRequest { consistency: Wanted::App, ..copy.request() };
        let cut = capture.cut(app).await?;
        let Consistency::Crash { short_of_app: Some(reason) } = &cut.consistency else {
            bail!("{:?} without a guest agent", cut.consistency);
        };
        println!("no app-consistent cut after {:.1?}: {reason}", began.elapsed());
        ensure!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        capture.discard(cut).await?;

        let note = scratch_folder(self.site()).join(self.uuid.to_string()).join("frozen");
        wait_for("the thaw after all", SOON, async || Ok((!note.exists()).then_some(()))).await?;
        assert_eq!(self.web.ask("guest-fsfreeze-status", serde_json::json!({})).await?, "thawed");
        self.web.acknowledges(5).await?;
        self.update(copy, copy.request()).await
    }

    async fn a_full_scratch_file_ends_the_cut_and_not_the_guest(
        &mut self,
        copy: &Copy,
    ) -> Result<()> {
        let tight = CaptureSettings { scratch_limit: 3.mib(), ..settings(self.site()) };
        let mut tight = self.open_again(tight).await?;
        let cut = tight.cut(copy.request()).await?;
        let ended = wait_for("scratch files fill up", SOON, async || {
            Ok(cut.disks[0].reader.read(0, 4096).await.err())
        })
        .await?;
        ensure!(matches!(ended, CaptureError::ScratchFull { .. }), "it ended otherwise: {ended}");
        println!("{ended}");
        tight.discard(cut).await?;
        self.is_tidy(copy.checkpoint.as_ref()).await?;
        let before = self.web.overwritten()?;
        self.web.acknowledges(5).await?;
        wait_for("the overwrite load goes on", SOON, async || {
            Ok((self.web.overwritten()? > before).then_some(()))
        })
        .await?;
        let report = self.web.check().await?;
        ensure!(report.is_clean(), "{report}");
        let console = self.web.console()?;
        ensure!(!console.contains("I/O error"), "{console}");
        Ok(())
    }

    async fn others_work_is_left_alone(&mut self, copy: &Copy) -> Result<()> {
        self.site().virsh(&["checkpoint-create-as", "web", "daily"]).await?;
        let xml = "<domainbackup mode='pull'><server transport='unix' \
                   socket='/var/lib/libvirt/qemu/other.sock'/></domainbackup>";
        fs::write(self.site().outside("/run/other.xml"), xml)?;
        self.site().virsh(&["backup-begin", "web", "/run/other.xml"]).await?;
        let refused = self.capture.cut(copy.request()).await.map(drop);
        let Err(CaptureError::InTheWay { what, .. }) = &refused else {
            bail!("a foreign backup was not in the way: {refused:?}");
        };
        ensure!(what.contains("/var/lib/libvirt/qemu/other.sock"), "{what}");
        ensure!(self.has_job().await, "somebody else's backup was ended");
        self.site().virsh(&["domjobabort", "web"]).await?;
        wait_for("the foreign backup's end", SOON, async || {
            Ok((!self.has_job().await).then_some(()))
        })
        .await?;

        let mut mine = self.open_again(settings(self.site())).await?;
        let cut = mine.cut(copy.request()).await?;
        assert_eq!(since(&cut.base()), copy.checkpoint.as_ref());
        mine.discard(cut).await?;
        ensure!(self.checkpoints().await?.contains(&"daily".to_owned()), "daily is gone");
        self.site().virsh(&["checkpoint-delete", "web", "daily"]).await.map(drop)
    }

    /// An agent that is killed runs none of its code any more: its tasks are
    /// gone from one moment to the next.
    async fn a_dead_agents_leftovers_are_cleaned_up(&mut self, copy: &mut Copy) -> Result<()> {
        let site = self.site();
        let (uri, uuid, settings, request) = (uri(site), self.uuid, settings(site), copy.request());
        let died = std::thread::spawn(move || -> Result<()> {
            let agent = tokio::runtime::Runtime::new()?;
            let cut = agent.block_on(async {
                let mut capture = machine::open(&uri, uuid, settings).await?;
                let cut = capture.cut(request).await?;
                anyhow::Ok((capture, cut))
            });
            agent.shutdown_background();
            drop(cut?);
            Ok(())
        });
        tokio::task::spawn_blocking(move || died.join().expect("no panic")).await??;
        ensure!(self.has_job().await, "the backup outlives the agent");
        assert_eq!(self.checkpoints().await?.len(), 2);
        ensure!(!self.scratch_files().is_empty(), "scratch files outlive the agent");

        self.capture = self.open_again(copy::settings(self.site())).await?;
        ensure!(!self.has_job().await, "the backup outlives the next agent's start");
        assert_eq!(self.scratch_files(), Vec::<PathBuf>::new());
        self.update(copy, copy.request()).await?;
        self.is_tidy(copy.checkpoint.as_ref()).await
    }

    async fn libvirtd_may_restart_under_a_cut(&mut self, copy: &mut Copy) -> Result<()> {
        let cut = self.capture.cut(copy.request()).await?;
        self.site().kill_libvirtd().await?;
        copy.apply(&cut).await?;
        let checkpoint = cut.checkpoint.clone();
        let refused = self.capture.accept(cut).await;
        assert!(matches!(refused, Err(CaptureError::Hypervisor { .. })), "{refused:?}");
        let refused = self.capture.cut(copy.request()).await.map(drop);
        assert!(matches!(refused, Err(CaptureError::Hypervisor { .. })), "{refused:?}");

        self.site().start_libvirtd().await?;
        // What is durable may be named, whatever became of the acceptance.
        copy.checkpoint = checkpoint;
        self.update(copy, copy.request()).await?;
        self.is_tidy(copy.checkpoint.as_ref()).await
    }

    async fn the_last_cut_is_the_machine_that_is_off(&mut self, copy: &mut Copy) -> Result<()> {
        self.web.acknowledges(5).await?;
        self.web.freeze().await?;
        self.update(copy, copy.request()).await?;
        self.web.cut_power().await?;

        // QEMU saved its bitmaps when it was told to end: they tell what changed.
        let cut = self.capture.cut(copy.request()).await?;
        let since = copy.checkpoint.clone().context("a checkpoint")?;
        assert_eq!(cut.base(), Base::Since(since));
        assert_eq!(cut.checkpoint, None);
        let all: u64 = cut.disks.iter().map(|disk| disk.size).sum();
        let (told, _) = copy.apply(&cut).await?;
        ensure!(told < all / 2, "{told} bytes of {all} changed in a frozen guest");
        self.settle(copy, cut).await?;

        let cut = self.capture.cut(CutRequest::default()).await?;
        assert_eq!(cut.base(), Base::Whole(WholeReason::Off));
        let folder = self.site().folder().join("off");
        fs::create_dir(&folder)?;
        let mut off = Copy { folder, checkpoint: None };
        off.apply(&cut).await?;
        self.settle(copy, cut).await?;
        for target in ["vda", "vdb"] {
            same(&copy.image(target), &off.image(target))?;
        }
        // The journal is replayed in a copy; after that there is nothing wrong.
        for target in ["vda", "vdb"] {
            let image = off.image(target);
            let mut replay = tokio::process::Command::new("e2fsck");
            replay.args(["-p", "-E", "journal_only"]).arg(&image);
            run(&mut replay, "replay the journal").await?;
            let mut check = tokio::process::Command::new("e2fsck");
            run(check.args(["-f", "-n"]).arg(&image), "check the copy").await?;
        }
        Ok(())
    }

    async fn a_machine_that_is_read_may_start(&mut self, copy: &mut Copy) -> Result<()> {
        let cut = self.capture.cut(copy.request()).await?;
        self.capture.confirm(&cut).await?;
        self.web.start().await?;
        let refused = self.capture.confirm(&cut).await;
        assert!(matches!(refused, Err(CaptureError::Started { .. })), "{refused:?}");
        self.capture.discard(cut).await?;

        // QEMU saved its bitmaps when it was told to end.
        self.web.acknowledges(5).await?;
        self.update(copy, copy.request()).await?;
        self.is_tidy(copy.checkpoint.as_ref()).await
    }

    async fn a_killed_qemu_costs_a_whole_cut(&mut self, copy: &mut Copy) -> Result<()> {
        let kill = "kill -9 $(cat /run/libvirt/qemu/web.pid)";
        run(self.site().command("sh").args(["-c", kill]), "kill QEMU").await?;
        wait_for("the end of QEMU", SOON, async || {
            Ok((!self.web.is_running().await?).then_some(()))
        })
        .await?;
        self.web.start().await?;
        let cut = self.capture.cut(copy.request()).await?;
        for disk in &cut.disks {
            let base = &disk.base;
            assert!(matches!(base, Base::Whole(WholeReason::BitmapBroken(_))), "{base:?}");
        }
        copy.apply(&cut).await?;
        self.settle(copy, cut).await?;
        self.is_tidy(copy.checkpoint.as_ref()).await?;
        self.web.acknowledges(5).await?;
        self.update(copy, copy.request()).await
    }

    async fn nothing_is_left_when_all_is_forgotten(&mut self) -> Result<()> {
        let open = self.capture.cut(CutRequest::default()).await?;
        self.capture.forget().await?;
        let refused = self.capture.accept(open).await;
        assert!(matches!(refused, Err(CaptureError::Superseded { .. })), "{refused:?}");
        self.is_tidy(None).await?;
        let own = scratch_folder(self.site()).join(self.uuid.to_string());
        ensure!(!own.exists(), "files are left");

        // Bitmaps of a machine that is off are in its images.
        let cut = self.capture.cut(CutRequest::default()).await?;
        self.capture.accept(cut).await?;
        self.web.shutdown().await?;
        assert_eq!(self.checkpoints().await?.len(), 1);
        self.capture.forget().await?;
        assert_eq!(self.checkpoints().await?, Vec::<String>::new());
        for index in [0, 1] {
            let image = format!("/var/lib/libvirt/images/web-{index}.qcow2");
            let info = run(self.site().command("qemu-img").args(["info", &image]), "look").await?;
            ensure!(!info.contains("lifeboat-"), "a bitmap is left: {info}");
        }
        Ok(())
    }
}
