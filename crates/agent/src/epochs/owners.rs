//! What follows when the controller says whose machines are.
//!
//! libvirt starts none of them by itself: a site that comes back would run a
//! machine before it hears that it was failed over. What libvirt would have
//! started is remembered, and given back to libvirt when the machine is protected
//! no longer. After the host was restarted, this agent starts such a machine once
//! the controller has confirmed that it is this host's (ADR 15); without the
//! controller it stays down, unless its policy says otherwise.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::fault::Fault;
use domain::id::MachineUuid;
use tokio::time::sleep;
use tracing::{info, warn};
use wire::replication::Ownership;

use super::Epochs;
use crate::hypervisor::libvirt::{Operator, Power};
use crate::hypervisor::operating::{Operating, START_LIMIT};

/// Changes with each start of the host's kernel.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";
/// Where the last one is kept, in the folder of epochs.
const FILE: &str = "boot";
/// Between two attempts to start a machine after the host, and how many there are.
const PAUSE: Duration = Duration::from_secs(10);
const ATTEMPTS: usize = 60;

/// Clones are one.
#[derive(Clone)]
pub struct Owners {
    epochs: Epochs,
    operating: Operating,
    /// Machines that may still be started because the host was restarted; none
    /// when it was not.
    restarted: Option<Arc<Mutex<HashSet<MachineUuid>>>>,
}

impl Owners {
    /// With the folder of epochs, where the host's last start is remembered.
    #[must_use]
    pub fn new(epochs: Epochs, operating: Operating, folder: &Path) -> Self {
        let restarted = is_restarted(folder.join(FILE), fs::read_to_string(BOOT).ok());
        Self { epochs, operating, restarted: restarted.then(Arc::default) }
    }

    /// Takes up what the controller has just said.
    pub async fn learn(&self, ownerships: &[Ownership]) {
        for machine in self.epochs.learn(ownerships) {
            let doing = format!("have libvirt start machine {machine} by itself again");
            let given = self
                .operating
                .ask(&doing, move |operator: &Operator| match operator.power(machine)? {
                    Power::Unknown => Ok(()),
                    Power::Off | Power::On => operator.restore_autostart(machine),
                })
                .await;
            told(given);
        }
        let ours = ownerships.iter().filter(|one| {
            one.ours && self.epochs.known(one.machine).is_some_and(|known| known.ours)
        });
        for machine in ours.map(|one| one.machine) {
            told(self.keep(machine).await);
        }
    }

    /// Nobody has answered for a while since this agent began: machines are started of
    /// which the policy wants that.
    pub fn nobody_answers(&self) {
        for machine in self.epochs.startable_alone() {
            self.start_once(machine, "nobody can be asked, and it was this host's");
        }
    }

    /// Of a machine that is this host's, as the controller has confirmed.
    async fn keep(&self, machine: MachineUuid) -> Result<(), Fault> {
        let doing = format!("take over the start of machine {machine}");
        let drop = move |operator: &Operator| operator.drop_autostart(machine);
        if self.operating.ask(&doing, drop).await? {
            self.epochs.note_autostart(machine)?;
        }
        self.start_once(machine, "the controller says that it is this host's");
        Ok(())
    }

    /// Starts a machine that would have started with the host; once.
    fn start_once(&self, machine: MachineUuid, why: &'static str) {
        let Some(started) = &self.restarted else { return };
        // Once: who shuts it down afterwards means it.
        let is_first = started.lock().unwrap_or_else(PoisonError::into_inner).insert(machine);
        if is_first && self.epochs.starts_by_itself(machine) {
            let this = self.clone();
            // Nothing else that was learned waits for it.
            tokio::spawn(async move { this.start(machine, why).await });
        }
    }

    /// What it needs may come only after this agent: a point that is served here or
    /// lent by another host, a network, a pool.
    async fn start(&self, machine: MachineUuid, why: &'static str) {
        let doing = format!("start machine {machine} after the restart of the host");
        for _ in 0..ATTEMPTS {
            // Who fences it meanwhile waits, and does not find it off just before it runs.
            let turn = self.epochs.stopping().await;
            if !self.epochs.known(machine).is_some_and(|known| known.ours) {
                return;
            }
            let start = move |operator: &Operator| match operator.power(machine)? {
                Power::Off => operator.start(machine).map(|()| true),
                Power::On | Power::Unknown => Ok(false),
            };
            let started = self.operating.ask_within(START_LIMIT, &doing, start).await;
            drop(turn);
            match started {
                Ok(true) => return info!(%machine, why, "started after the restart of the host"),
                Ok(false) => return,
                Err(fault) => told(Err(fault)),
            }
            sleep(PAUSE).await;
        }
    }
}

fn told(done: Result<(), Fault>) {
    if let Err(fault) = done {
        warn!(code = %fault.code, cause = %fault.cause, advice = %fault.advice, "cannot {}", fault.doing);
    }
}

/// Whether the host was restarted since the file was written, which is written
/// anew. A first look is none.
fn is_restarted(file: PathBuf, now: Option<String>) -> bool {
    let Some(now) = now else { return false };
    let before = fs::read_to_string(&file).ok();
    if before.as_ref() != Some(&now)
        && let Err(error) = fs::write(&file, &now)
    {
        warn!(%error, path = %file.display(), "nobody will know of the next restart of the host");
    }
    before.is_some_and(|before| before != now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_of_the_host_is_seen_once() {
        let folder = tempfile::tempdir().unwrap();
        let look = |boot: &str| is_restarted(folder.path().join(FILE), Some(boot.to_owned()));
        assert_eq!([look("a"), look("a"), look("b"), look("b")], [false, false, true, false]);
    }
}
