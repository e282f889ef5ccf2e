//! Stopping machines that run here and are another side's.
//!
//! A site that was lost comes back: libvirt starts what is set to start, or
//! somebody starts a machine by hand, before or after this agent hears that the
//! machine was failed over. Whatever the reason, it must not run twice.

use std::time::Duration;

use domain::fault::Code;
use domain::id::MachineUuid;
use domain::machine::PowerState;
use tokio::sync::watch::Receiver;
use tokio::time::timeout;
use tracing::{error, warn};

use super::Epochs;
use crate::hypervisor::Observation;
use crate::hypervisor::operating::Operating;

/// Looked at anew after this, should stopping have failed.
const AGAIN: Duration = Duration::from_secs(2);
/// And after this in any case.
const LONG: Duration = Duration::from_secs(60);

/// Watches for ever.
pub async fn watch(epochs: Epochs, mut observations: Receiver<Observation>, operating: Operating) {
    let mut changes = epochs.changes();
    loop {
        let strays = strays(&epochs, &observations.borrow_and_update());
        let mut all_stopped = true;
        for (machine, name) in strays {
            all_stopped &= stop(&epochs, &operating, machine, &name).await;
        }
        let something = async {
            tokio::select! {
                changed = observations.changed() => changed.is_ok(),
                changed = changes.changed() => changed.is_ok(),
            }
        };
        // The time's end is as good a reason to look.
        let limit = if all_stopped { LONG } else { AGAIN };
        if timeout(limit, something).await == Ok(false) {
            return;
        }
    }
}

/// Machines that have power here and must not.
fn strays(epochs: &Epochs, observation: &Observation) -> Vec<(MachineUuid, String)> {
    let Observation::Seen { inventory, .. } = observation else { return Vec::new() };
    let has_power = |power| !matches!(power, PowerState::Off | PowerState::Crashed);
    let strays = inventory.machines.iter();
    strays
        .filter(|machine| has_power(machine.power) && epochs.is_anothers(machine.uuid))
        .map(|machine| (machine.uuid, machine.name.clone()))
        .collect()
}

/// Whether it has no power now.
async fn stop(epochs: &Epochs, operating: &Operating, machine: MachineUuid, name: &str) -> bool {
    let doing = format!("stop machine {name}, which is another side's");
    let _turn = epochs.stopping().await;
    if !epochs.is_anothers(machine) {
        return true;
    }
    let stopped = operating
        .ask(&doing, move |operator| {
            Ok((operator.destroy(machine)?, operator.drop_autostart(machine)?))
        })
        .await;
    match stopped {
        Ok((had_power, autostart)) => {
            if had_power {
                warn!(code = %Code::FencedMachineStopped, machine = name, "a machine that was failed over to another side was running here, and was switched off");
            }
            if autostart && let Err(fault) = epochs.note_autostart(machine) {
                warn!(%fault, "nobody will know that libvirt started the machine by itself");
            }
            true
        }
        Err(fault) => {
            error!(code = %fault.code, cause = %fault.cause, "cannot {}", fault.doing);
            false
        }
    }
}
