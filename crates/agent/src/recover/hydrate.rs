//! Making a recovered machine's disks stand for themselves: what the point has
//! goes into the machine's own files, by QEMU while it runs, by `qemu-img` while
//! it is off.
//!
//! Nothing of how far it is needs to be remembered: a disk whose image stands on
//! nothing is done, and one that is being pulled is found so.

use std::process::Stdio;
use std::time::Duration;

use domain::fault::{Code, Fault};
use domain::id::MachineUuid;
use tokio::process::Command;
use tokio::time::sleep;
use uuid::Uuid;
use wire::command::Answer;
use wire::replication::Progress;

use super::Recoveries;
use super::folder::Folder;
use super::record::{Record, Stage};
use crate::hypervisor::CallError;
use crate::hypervisor::libvirt::xml::recovered::{standing_on_views, without_backing};
use crate::hypervisor::libvirt::{LibvirtError, Operator, Power};
use crate::hypervisor::operating::fault;

/// Between two looks how far it is.
const LOOK: Duration = Duration::from_millis(500);
/// Looks at which the hypervisor may be away before it is given up for now.
const AWAY_MAX: u32 = 120;
/// Times that a pull that ended early is begun anew.
const ATTEMPTS: u32 = 3;

/// What a look at a disk finds.
enum Pull {
    /// It stands on nothing.
    Done,
    /// So many bytes were gone through.
    At(u64),
    /// It stands on a view, and nothing is done about it.
    Idle,
    /// The machine has no power.
    Off,
}

impl Recoveries {
    /// Makes its disks stand for themselves, at most so many bytes a second;
    /// `progress` is told bytes. May be repeated, and goes on then.
    ///
    /// # Errors
    /// [`Code::HydrationFailed`], and the machine goes on from its point.
    pub async fn hydrate(
        &self,
        id: Uuid,
        bytes_per_second: Option<u64>,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Answer, Fault> {
        let record = self.known("make a machine's disks its own", id)?;
        let doing = format!("make the disks of {} its own", record.name);
        record.must_be_made(&doing)?;
        if record.stage == Stage::Standing {
            return Ok(Answer::Done);
        }
        {
            let _turn = self.turn(id).await;
            self.serve(&record).await?;
            self.note_written(&doing, id).await?;
        }
        let total = record.disks.iter().map(|disk| disk.size).sum();
        let mut done = 0;
        for disk in &record.disks {
            let told = |at: u64| {
                progress(Progress { done: done + at.min(disk.size), total, seconds_left: None })
            };
            self.pull(&doing, &record, &disk.target, bytes_per_second, &told).await?;
            done += disk.size;
        }
        self.stand(&doing, id).await?;
        Ok(Answer::Done)
    }

    /// Writes down how much it wrote so far, which its files alone tell until the
    /// point is brought into them; once.
    async fn note_written(&self, doing: &str, id: Uuid) -> Result<(), Fault> {
        let mut record = self.known(doing, id)?;
        if record.written.is_none() {
            record.written = Some(self.measure(doing, &record).await?);
            self.0.records.keep(&record)?;
        }
        Ok(())
    }

    /// Drops the points of a machine that needs them no more, but for the newest and
    /// those that something holds or needs. May be repeated.
    ///
    /// # Errors
    /// [`Code::HydrationFailed`] while its disks do not stand for themselves; or the
    /// store fails.
    pub async fn drop_points(&self, id: Uuid) -> Result<Answer, Fault> {
        let doing = "drop the points of a machine";
        let record = self.known(doing, id)?;
        if record.stage != Stage::Standing || !record.production {
            return Err(Fault::new(
                Code::HydrationFailed,
                doing,
                format!("the disks of {} do not stand for themselves", record.name),
                "Its points stay; make its disks its own first: lifeboat agent hydrate.",
            ));
        }
        let keeper = self.0.keepers.get(record.protection()).ok_or_else(|| {
            Fault::new(
                Code::NotKeptHere,
                doing,
                format!("this host keeps no points of protection {}", record.protection()),
                "They were kept here before, and are dropped as the policy says when they are again.",
            )
        })?;
        let (dropped, kept) = keeper.drop_all().await?;
        Ok(Answer::Dropped { dropped, kept })
    }

    /// One disk.
    async fn pull(
        &self,
        doing: &str,
        record: &Record,
        target: &str,
        limit: Option<u64>,
        told: &(dyn Fn(u64) + Sync),
    ) -> Result<(), Fault> {
        let machine = record.machine();
        let (mut attempts, mut away) = (0, 0);
        loop {
            let name = target.to_owned();
            let seen = self.0.operating.try_ask(move |o| look(o, machine, &name)).await;
            match seen {
                Ok(Pull::Done) => return Ok(()),
                Ok(Pull::At(at)) => {
                    away = 0;
                    told(at);
                }
                Ok(Pull::Off) => {
                    let _turn = self.turn(record.id).await;
                    return self.rebase(doing, record, target).await;
                }
                Ok(Pull::Idle) if attempts == ATTEMPTS => {
                    return Err(failed(
                        doing,
                        format!("QEMU ended the pull of disk {target} before its end"),
                    ));
                }
                Ok(Pull::Idle) => {
                    attempts += 1;
                    let name = target.to_owned();
                    let begun =
                        self.0.operating.try_ask(move |o| o.pull(machine, &name, limit)).await;
                    if let Err(error) = begun
                        && (attempts == ATTEMPTS || !is_passing(&error))
                    {
                        return Err(failed(doing, fault(doing, &error).cause));
                    }
                }
                Err(error) if is_passing(&error) && away < AWAY_MAX => away += 1,
                Err(error) => return Err(failed(doing, fault(doing, &error).cause)),
            }
            sleep(LOOK).await;
        }
    }

    /// Of a machine that is off.
    async fn rebase(&self, doing: &str, record: &Record, target: &str) -> Result<(), Fault> {
        let overlay = Folder::of(record).overlay(target);
        let rebasing = Command::new("qemu-img")
            .args(["rebase", "-f", "qcow2", "-b", ""])
            .arg(&overlay)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = rebasing.await.map_err(|error| failed(doing, format!("qemu-img: {error}")))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(failed(doing, format!("qemu-img: {said}")))
    }

    /// Its disks stand for themselves: the point is needed no more.
    async fn stand(&self, doing: &str, id: Uuid) -> Result<(), Fault> {
        let _turn = self.turn(id).await;
        let mut record = self.known(doing, id)?;
        if record.stage != Stage::Defined {
            return Err(failed(doing, "it was discarded meanwhile".into()));
        }
        let machine = record.machine();
        self.0
            .operating
            .ask(doing, move |operator: &Operator| {
                // Of a machine that was off, and for one where libvirt keeps an
                // older description of the next start.
                let xml = operator.inactive_xml(machine)?;
                match xml.as_deref().map(standing_on_views) {
                    Some(Ok(disks)) if !disks.is_empty() => {
                        let own = xml.as_deref().map(without_backing);
                        own.and_then(Result::ok).map_or(Ok(()), |own| operator.define(&own))
                    }
                    _ => Ok(()),
                }
            })
            .await?;
        record.stage = Stage::Standing;
        self.0.records.keep(&record)?;
        self.serve_no_more(id).await;
        self.0.keepers.pins().unpin(id);
        Ok(())
    }
}

fn look(operator: &Operator, machine: MachineUuid, target: &str) -> Result<Pull, LibvirtError> {
    match operator.power(machine)? {
        Power::On => {}
        Power::Off => return Ok(Pull::Off),
        // Says that it is gone.
        Power::Unknown => return operator.xml(machine).map(|_| Pull::Off),
    }
    if let Some((at, _)) = operator.pull_progress(machine, target)? {
        return Ok(Pull::At(at));
    }
    let views = standing_on_views(&operator.xml(machine)?);
    let stands_on_one = views.is_ok_and(|disks| disks.iter().any(|disk| disk == target));
    Ok(if stands_on_one { Pull::Idle } else { Pull::Done })
}

fn is_passing(error: &CallError) -> bool {
    match error {
        CallError::Libvirt(error) => error.may_pass(),
        CallError::Hung(_) | CallError::TooManyHung | CallError::Closed(_) => true,
    }
}

fn failed(doing: &str, cause: String) -> Fault {
    Fault::new(
        Code::HydrationFailed,
        doing,
        cause,
        "See that there is room in the `recovery_folder` and that the store is whole (lifeboat store verify), and run it again: it goes on with what is left.",
    )
}
