//! How much a machine wrote since it was made of a point.
//!
//! Until its disks are made its own, they hold just that. After, QEMU's count of
//! what the guest wrote tells how much was added; QEMU counts anew at each start
//! of the machine, so what it wrote before a start that we do not know of is
//! missing.

use domain::fault::Fault;
use uuid::Uuid;

use super::Recoveries;
use super::record::{Record, Stage, Written};
use crate::hypervisor::libvirt::{Operator, Power};

impl Recoveries {
    /// Bytes that a machine wrote since it was made of a point, the same place
    /// twice counted twice; none if that is not known.
    ///
    /// # Errors
    /// When there is no such recovery, or the hypervisor does not answer.
    pub async fn written(&self, id: Uuid) -> Result<Option<u64>, Fault> {
        let doing = "look how much a machine wrote";
        let record = self.known(doing, id)?;
        if record.stage != Stage::Standing {
            return Ok(Some(self.measure(doing, &record).await?.taken));
        }
        let Some(before) = record.written else { return Ok(None) };
        let now = self.counted(doing, &record).await?;
        Ok(now.map(|now| {
            let since = now.checked_sub(before.counted).unwrap_or(now);
            before.taken.saturating_add(since)
        }))
    }

    /// What its own files hold now, and QEMU's count: before anything else is
    /// brought into them.
    pub(super) async fn measure(&self, doing: &str, record: &Record) -> Result<Written, Fault> {
        let (machine, targets) = (record.machine(), record.targets());
        let sizes = move |operator: &Operator| operator.disk_sizes(machine, &targets);
        let (_, taken) = self.0.operating.ask(doing, sizes).await?;
        let counted = self.counted(doing, record).await?.unwrap_or(0);
        Ok(Written { taken, counted })
    }

    /// What QEMU counts since the machine's start; none while it has no power.
    async fn counted(&self, doing: &str, record: &Record) -> Result<Option<u64>, Fault> {
        let (machine, targets) = (record.machine(), record.targets());
        let count = move |operator: &Operator| match operator.power(machine)? {
            Power::On => operator.disk_bytes_written(machine, &targets).map(Some),
            Power::Off | Power::Unknown => Ok(None),
        };
        self.0.operating.ask(doing, count).await
    }
}
