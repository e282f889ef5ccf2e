//! Shipping machines' changes to the hosts that keep their points.
//!
//! Each machine has a [`task`] of its own: when a point is due it takes a cut of
//! the machine ([`crate::capture`]), sends what changed ([`copy`]) on its
//! connection to the keeper ([`sender`]), and has a point made of it
//! ([`round`]). How far it is, it keeps on disk ([`course`], [`folder`]), so that
//! it goes on wherever it was stopped.
//!
//! | looking for | module |
//! | --- | --- |
//! | what must be sent, and why | [`course`] |
//! | comparing source and replica | [`verify`] |
//! | RPO over a day | [`recovery`] |
//! | shipping without schedule and libvirt | [`rounds`] |
//! | what the operator is told | [`fault`] |

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use domain::id::{MachineUuid, ProtectionId};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tracing::{info, warn};
use wire::replication::{Shipping, ShippingReport};

mod copy;
pub mod course;
pub mod fault;
pub mod folder;
pub mod recovery;
mod round;
pub mod rounds;
pub mod sender;
mod task;
mod verify;

pub use task::Surroundings;
use task::{Board, Task};

/// How long a machine that is protected no longer is asked to let us tidy up.
const FORGETTING: Duration = Duration::from_secs(30);
/// How often.
const FORGET_ATTEMPTS: u32 = 120;

/// The machines of this host that are shipped.
pub struct Shippers {
    around: Surroundings,
    by_protection: HashMap<ProtectionId, Shipper>,
}

struct Shipper {
    duty: watch::Sender<Shipping>,
    board: Arc<Board>,
    task: JoinHandle<()>,
}

impl Shippers {
    /// None yet.
    #[must_use]
    pub fn new(around: Surroundings) -> Self {
        Self { around, by_protection: HashMap::new() }
    }

    /// Begins, changes and ends tasks so that they are those of the duties.
    pub fn reconcile(&mut self, duties: &[Shipping]) {
        self.forget_strays(duties);
        let ended: Vec<ProtectionId> = self
            .by_protection
            .keys()
            .filter(|id| !duties.iter().any(|duty| duty.protection == **id))
            .copied()
            .collect();
        for id in ended {
            if let Some(shipper) = self.by_protection.remove(&id) {
                shipper.task.abort();
                let duty = shipper.duty.borrow().clone();
                info!(machine = %duty.name, "it is protected no longer");
                tokio::spawn(forget(self.around.clone(), id, duty.machine));
            }
        }
        for duty in duties {
            match self.by_protection.get(&duty.protection) {
                Some(shipper) => {
                    shipper.duty.send_if_modified(|before| {
                        let changed = before != duty;
                        before.clone_from(duty);
                        changed
                    });
                }
                None => {
                    info!(machine = %duty.name, target = %duty.target_name, "its changes are shipped");
                    let (told, hears) = watch::channel(duty.clone());
                    let board = Board::new(duty, self.around.changed.clone());
                    let task = Task::new(self.around.clone(), hears, Arc::clone(&board));
                    let task = tokio::spawn(task.run());
                    let shipper = Shipper { duty: told, board, task };
                    self.by_protection.insert(duty.protection, shipper);
                }
            }
        }
    }

    /// Tidies up after protections that ended while the agent did not run, or
    /// before it was done with that.
    fn forget_strays(&self, duties: &[Shipping]) {
        for id in self.around.courses.all() {
            let known = self.by_protection.contains_key(&id)
                || duties.iter().any(|duty| duty.protection == id);
            let machine = self.around.courses.read(id).machine.map(MachineUuid::new);
            if let Some(machine) = machine.filter(|_| !known) {
                tokio::spawn(forget(self.around.clone(), id, machine));
            }
        }
    }

    /// How all of them are.
    #[must_use]
    pub fn reports(&self) -> Vec<ShippingReport> {
        let mut reports: Vec<_> =
            self.by_protection.values().map(|shipper| shipper.board.report()).collect();
        reports.sort_by_key(|report| report.protection);
        reports
    }
}

impl Drop for Shippers {
    fn drop(&mut self) {
        self.by_protection.values().for_each(|shipper| shipper.task.abort());
    }
}

/// Tidies up after a protection that ended, as soon as the hypervisor lets us.
async fn forget(around: Surroundings, protection: ProtectionId, machine: MachineUuid) {
    for _ in 0..FORGET_ATTEMPTS {
        match Task::forget(&around, protection, machine).await {
            Ok(()) => return,
            Err(fault) => {
                warn!(%machine, %fault, "what protection left on the machine is still there");
                sleep(FORGETTING).await;
            }
        }
    }
}
