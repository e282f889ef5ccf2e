//! Telling whether anything can have happened to a machine that is off.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use domain::id::MachineUuid;
use domain::machine::{DiskSource, PowerState};

use crate::hypervisor::Observation;

/// What tells a machine that is off, with its definition and the files of its
/// disks, from the same machine after it ran or was changed. None if it runs, or
/// if that cannot be told.
pub(super) fn print(observation: &Observation, machine: MachineUuid) -> Option<String> {
    let Observation::Seen { inventory, .. } = observation else { return None };
    let machine = inventory.machines.iter().find(|known| known.uuid == machine)?;
    if !matches!(machine.power, PowerState::Off | PowerState::Crashed) {
        return None;
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("{machine:?}").as_bytes());
    for disk in &machine.disks {
        // Of others than files nobody knows when they were written to.
        let DiskSource::File(path) = &disk.source else { return None };
        let facts = fs::metadata(path).ok()?;
        let print = (facts.ino(), facts.len(), facts.mtime(), facts.mtime_nsec());
        hasher.update(format!("{print:?}").as_bytes());
    }
    Some(hasher.finalize().to_hex().to_string())
}
