//! A recovery point of this host, and what a machine is made of it with.

use std::path::PathBuf;

use domain::fault::{Code, Fault};
use domain::id::ProtectionId;
use replica::geometry::Cycle;

use super::serve;
use crate::hypervisor::libvirt::xml::recovered::{Unfit, data_disks};
use crate::keep::Keepers;

/// What a point tells of its machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    /// libvirt's description of it.
    pub configuration: String,
    /// Bytes of its disks, in order.
    pub disks: Vec<u64>,
}

impl Facts {
    /// The hypervisor's names of its disks, in order.
    pub(super) fn targets(&self, doing: &str) -> Result<Vec<String>, Fault> {
        let told = data_disks(&self.configuration).map_err(|error| unfit(doing, &error))?;
        if told.len() != self.disks.len() {
            let error = Unfit::Disks { disks: self.disks.len(), told: told.len() };
            return Err(unfit(doing, &error));
        }
        Ok(told)
    }
}

/// Finds a point that this host keeps: the folder of the store, and what it tells.
pub(super) async fn find(
    keepers: &Keepers,
    doing: &str,
    protection: ProtectionId,
    point: u32,
) -> Result<(PathBuf, Facts), Fault> {
    if let Some(keeper) = keepers.get(protection) {
        keeper.settle().await?;
    }
    let unreadable = |error: std::io::Error| Fault::internal(doing, &error);
    let folder = keepers.folder_of(protection).map_err(unreadable)?;
    let folder = folder.ok_or_else(|| not_kept(doing, &protection))?;
    let store = serve::open("of the protection", &folder).await?;
    let found = store
        .point(Cycle(point))
        .map_err(|error| serve::unknown_point("of the protection", point, &error.chain()))?;
    let configuration = String::from_utf8_lossy(&found.configuration).into_owned();
    Ok((folder, Facts { configuration, disks: found.disks.to_vec() }))
}

fn not_kept(doing: &str, protection: &ProtectionId) -> Fault {
    Fault::new(
        Code::NotKeptHere,
        doing,
        format!("this host keeps no points of protection {protection}"),
        "Look at where the protection stands, and on which host its points are.",
    )
}

pub(super) fn unfit(doing: &str, error: &Unfit) -> Fault {
    let advice = match error {
        Unfit::Tpm => {
            "Export its disks with lifeboat store export, and attach them to a new machine; have the recovery keys of what the TPM seals at hand."
        }
        Unfit::File(_) => {
            "Put the file there, or install the package that it comes from; for UEFI that is ovmf or edk2-ovmf."
        }
        Unfit::Disks { .. } => {
            "Points of before an upgrade of Lifeboat may be so if disks were excluded; choose a newer one, or export the disks with lifeboat store export."
        }
        Unfit::Xml(_) | Unfit::NoMachine => {
            "Export its disks with lifeboat store export, and attach them to a new machine."
        }
    };
    Fault::new(Code::MachineNotPortable, doing, error.to_string(), advice)
}
