//! How much a machine's disks hold here, to estimate what a reversal sends.

use std::path::Path;

use domain::fault::Fault;
use domain::id::MachineUuid;
use tokio::task::spawn_blocking;
use uuid::Uuid;
use wire::command::Answer;

use super::points::images;
use super::work::Means;
use crate::hypervisor::libvirt::Operator;
use crate::hypervisor::libvirt::xml::machine::{Aspects, parse};

/// A machine's disks: those of a recovery, or those that it has here by itself.
pub(super) async fn weigh(
    means: &Means,
    machine: MachineUuid,
    recovery: Option<Uuid>,
) -> Result<Answer, Fault> {
    let doing = format!("look at the disks of machine {machine}");
    let look = move |operator: &Operator| operator.inactive_xml(machine);
    let Some(xml) = means.operating.ask(&doing, look).await? else {
        return Ok(unusable("the hypervisor has no such machine"));
    };
    let parsed = parse(&xml, Aspects::OFF).map_err(|error| Fault::internal(&doing, &error))?;
    let targets: Vec<String> = parsed.disks.into_iter().map(|disk| disk.target).collect();
    if recovery.is_none() {
        // As for making a point of them.
        let images = match images(&doing, &xml) {
            Ok(images) => images,
            Err(fault) => return Ok(unusable(&fault.cause)),
        };
        let paths = images.into_iter().map(|(path, _)| path);
        let gone = spawn_blocking(move || paths.into_iter().find(|path| is_gone(path))).await;
        if let Some(gone) = gone.map_err(|error| Fault::internal(&doing, &error))? {
            return Ok(unusable(&format!("{} is gone", gone.display())));
        }
    }
    let sizes = move |operator: &Operator| operator.disk_sizes(machine, &targets);
    let (bytes, taken_bytes) = means.operating.ask(&doing, sizes).await?;
    let written_bytes = match recovery {
        Some(recovery) => means.recoveries.written(recovery).await?,
        None => None,
    };
    Ok(Answer::Weight { bytes, taken_bytes, written_bytes, unusable: None })
}

fn is_gone(path: &Path) -> bool {
    matches!(path.try_exists(), Ok(false))
}

fn unusable(why: &str) -> Answer {
    let unusable = Some(why.to_owned());
    Answer::Weight { bytes: 0, taken_bytes: 0, written_bytes: None, unusable }
}
