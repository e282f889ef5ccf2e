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
//! | what may differ from the newest point | [`suspects`] |
//! | comparing source and replica | [`verify`] |
//! | what was compared a moment ago | [`proved`] |
//! | what the hours of a policy allow | [`hours`] |
//! | a first copy that is carried in a folder | [`carried`] |
//! | RPO over a day | [`recovery`] |
//! | a point at once, by command | [`wishes`] |
//! | shipping without schedule and libvirt | [`rounds`] |
//! | what the operator is told | [`fault`] |

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use domain::id::{MachineUuid, ProtectionId};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tracing::{error, info, warn};
use wire::replication::{Shipping, ShippingReport};

mod backlog;
mod carried;
mod copy;
pub mod course;
pub mod fault;
pub mod folder;
mod hours;
mod off;
mod proved;
pub mod recovery;
mod round;
pub mod rounds;
pub mod sender;
#[cfg(test)]
mod simulated;
mod suspects;
mod task;
pub mod throttle;
mod verify;
mod wishes;

pub use task::Surroundings;
use task::{Board, Task};
pub use wishes::Wishes;

/// How long a machine that is protected no longer is asked to let us tidy up.
const FORGETTING: Duration = Duration::from_secs(30);
/// How often.
const FORGET_ATTEMPTS: u32 = 120;

/// The machines of this host that are shipped.
pub struct Shippers {
    around: Surroundings,
    by_protection: HashMap<ProtectionId, Shipper>,
    /// Machines that are tidied up after.
    forgetting: HashMap<MachineUuid, JoinHandle<()>>,
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
        Self { around, by_protection: HashMap::new(), forgetting: HashMap::new() }
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
                let duty = shipper.duty.borrow().clone();
                info!(machine = %duty.name, "it is protected no longer");
                self.forget(id, duty.machine, Some(shipper.task));
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
                    // Tidying up after an earlier protection would disturb.
                    if let Some(forgetting) = self.forgetting.remove(&duty.machine) {
                        forgetting.abort();
                    }
                    let task = self.begin(hears, &board);
                    let shipper = Shipper { duty: told, board, task };
                    self.by_protection.insert(duty.protection, shipper);
                }
            }
        }
    }

    /// Tidies up after protections that ended while the agent did not run, or
    /// before it was done with that.
    fn forget_strays(&mut self, duties: &[Shipping]) {
        for id in self.around.courses.all() {
            let known = self.by_protection.contains_key(&id)
                || duties.iter().any(|duty| duty.protection == id);
            if known {
                continue;
            }
            if let Some(machine) = self.around.courses.read(id).machine {
                self.forget(id, MachineUuid::new(machine), None);
            }
        }
    }

    /// Begins to tidy up, unless that is under way.
    fn forget(&mut self, id: ProtectionId, machine: MachineUuid, task: Option<JoinHandle<()>>) {
        if let Some(task) = &task {
            task.abort();
        }
        if self.forgetting.get(&machine).is_some_and(|before| !before.is_finished()) {
            return;
        }
        let around = self.around.clone();
        let work = async move {
            if let Some(task) = task {
                // What it was doing to the machine is over first.
                let _ = task.await;
            }
            forget(around, id, machine).await;
        };
        self.forgetting.insert(machine, tokio::spawn(work));
    }

    /// Begins the task of a machine.
    fn begin(&self, hears: watch::Receiver<Shipping>, board: &Arc<Board>) -> JoinHandle<()> {
        let protection = hears.borrow().protection;
        let wishes = self.around.wishes.enter(protection, board);
        tokio::spawn(Task::new(self.around.clone(), hears, wishes, Arc::clone(board)).run())
    }

    /// Begins tasks anew that ended by a defect of ours.
    pub fn revive(&mut self) {
        let dead: Vec<ProtectionId> = self
            .by_protection
            .iter()
            .filter(|(_, shipper)| shipper.task.is_finished())
            .map(|(id, _)| *id)
            .collect();
        for id in dead {
            let Some(mut shipper) = self.by_protection.remove(&id) else { continue };
            error!(machine = %shipper.duty.borrow().name, "its shipping ended by a defect, and is begun again");
            shipper.task = self.begin(shipper.duty.subscribe(), &shipper.board);
            self.by_protection.insert(id, shipper);
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
