//! Taking away everything that was made for a recovery.

use domain::fault::{Code, Fault};
use uuid::Uuid;
use wire::command::Answer;

use super::Recoveries;
use super::folder::Folder;
use super::record::{Record, Stage};
use crate::hypervisor::libvirt::Operator;

impl Recoveries {
    /// Stops the machine and takes away what was made; its own earlier self is
    /// defined again. May be repeated; what is not there is gone.
    ///
    /// # Errors
    /// [`Code::DisksStand`] of a machine whose disks stand for themselves; when
    /// something could not be taken away, which the next attempt does.
    pub async fn discard(&self, id: Uuid) -> Result<Answer, Fault> {
        let _turn = self.turn(id).await;
        let Some(mut record) = self.0.records.read(id)? else {
            self.0.keepers.pins().unpin(id);
            return Ok(Answer::Done);
        };
        let doing = format!("discard the recovered machine {}", record.name);
        if record.stage == Stage::Standing {
            return Err(Fault::new(
                Code::DisksStand,
                doing,
                "its disks no longer need the point: they are its own",
                "If it is really to go, remove it as any other machine: virsh undefine, and delete its disks.",
            ));
        }
        record.stage = Stage::Discarding;
        self.0.records.keep(&record)?;
        // What somebody defined in its place since is not ours to touch.
        if self.is_defined(&doing, &record).await? {
            self.undefine(&doing, &record).await?;
        }
        self.serve_no_more(id).await;
        Folder::of(&record).remove()?;
        self.0.records.forget(id)?;
        self.0.keepers.pins().unpin(id);
        Ok(Answer::Done)
    }

    async fn undefine(&self, doing: &str, record: &Record) -> Result<(), Fault> {
        let machine = record.machine();
        let earlier = record.earlier.clone();
        self.0
            .operating
            .ask(doing, move |operator: &Operator| {
                operator.destroy(machine)?;
                let Some(earlier) = earlier else { return operator.undefine(machine) };
                // In its place, so that libvirt keeps what it knows besides.
                operator.define(&earlier.xml)?;
                if earlier.autostart {
                    operator.restore_autostart(machine)?;
                }
                Ok(())
            })
            .await
    }
}
