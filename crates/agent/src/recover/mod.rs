//! Machines that are made of recovery points.
//!
//! ```text
//!            Define                    StartRecovered, StopRecovered, …
//!   (none) ─────────▶ making ──▶ defined ────────────▶ standing
//!      ▲                │           │      Hydrate       │
//!      └─── Discard ────┴───────────┘                    └─ Discard is refused
//! ```
//! A disk is a qcow2 file on a read-only view of the point, which this agent
//! serves over a unix socket: a machine of any size starts at once. The point is
//! pinned as long as a view of it is needed. What was made is written down before
//! it is made ([`record`]), so that it is served again after a restart of the
//! agent, meanwhile QEMU waits, and found again when it is discarded.
//!
//! The point may be kept by another host, which has lent it ([`loans`], [`borrow`]):
//! then the socket leads there.
//!
//! | looking for | module |
//! | --- | --- |
//! | what is written down | [`record`], [`files`] |
//! | files and sockets | [`folder`] |
//! | making a machine of a point | [`define`] |
//! | finding a point | [`point`] |
//! | serving the point's disks, and the memory for it | [`serve`], [`memory`] |
//! | points for machines at other hosts | [`loans`] |
//! | machines of other hosts' points | [`borrow`] |
//! | starting, stopping, and signs of life | [`life`] |
//! | disks that stand for themselves | [`hydrate`] |
//! | taking everything away | [`discard`] |

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::fault::{Code, Fault};
use tokio::sync::{OwnedMutexGuard, watch};
use tokio::time::sleep;
use tracing::{info, warn};
use uuid::Uuid;

use crate::epochs::Epochs;
use crate::hypervisor::operating::Operating;
use crate::keep::Keepers;
use crate::peer::Passport;
use record::{Record, Records, Stage};
use serve::Served;

mod borrow;
mod define;
mod discard;
pub mod files;
mod folder;
mod hydrate;
mod life;
pub mod loans;
mod memory;
mod point;
pub mod record;
mod serve;
mod written;

/// Pauses between attempts to serve a point again after a restart.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// The machines of this host that were made of points. Clones share them.
#[derive(Clone)]
pub struct Recoveries(Arc<Inner>);

struct Inner {
    records: Records,
    /// Where disks and sockets of all of them are.
    folder: PathBuf,
    operating: Operating,
    keepers: Keepers,
    epochs: Epochs,
    /// Who this host is to those that lend it points.
    passport: watch::Receiver<Passport>,
    served: Mutex<HashMap<Uuid, Served>>,
    /// Held by whatever changes a recovery.
    turns: Mutex<HashMap<Uuid, Arc<tokio::sync::Mutex<()>>>>,
}

impl Recoveries {
    /// Reads what was made before, and pins its points. `folder` is where disks
    /// and sockets go.
    ///
    /// # Errors
    /// [`Code::DataFolderUnusable`].
    pub fn open(
        records: Records,
        folder: PathBuf,
        operating: Operating,
        keepers: Keepers,
        epochs: Epochs,
        passport: watch::Receiver<Passport>,
    ) -> Result<Self, Fault> {
        for record in records.all()? {
            if record.needs_a_point_here() {
                keepers.pins().pin(record.id, record.protection(), record.point);
            }
        }
        Ok(Self(Arc::new(Inner {
            records,
            folder,
            operating,
            keepers,
            epochs,
            passport,
            served: Mutex::default(),
            turns: Mutex::default(),
        })))
    }

    /// Serves again what was served before the agent ended: machines may be
    /// waiting for it.
    pub async fn resume(&self) {
        let records = match self.0.records.all() {
            Ok(records) => records,
            Err(fault) => {
                warn!(%fault, "recoveries cannot be read, and none is served");
                return;
            }
        };
        let defined = records.into_iter().filter(|record| record.stage == Stage::Defined);
        let serving = defined.map(|record| self.serve_again(record.id));
        futures::future::join_all(serving).await;
    }

    async fn serve_again(&self, id: Uuid) {
        let mut pause = FIRST_PAUSE;
        loop {
            let attempt = async {
                let _turn = self.turn(id).await;
                match self.0.records.read(id)? {
                    Some(record) if record.stage == Stage::Defined => self.serve(&record).await,
                    _ => Ok(()),
                }
            };
            match attempt.await {
                Ok(()) => {
                    info!(recovery = %id, "the point of a recovered machine is served again");
                    return;
                }
                Err(fault) => {
                    warn!(recovery = %id, code = %fault.code, cause = %fault.cause, "cannot {}", fault.doing);
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Waits for the turn to change a recovery.
    async fn turn(&self, id: Uuid) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(turns.entry(id).or_default())
        };
        turn.lock_owned().await
    }

    /// What is written down of a recovery.
    fn known(&self, doing: &str, id: Uuid) -> Result<Record, Fault> {
        self.0.records.read(id)?.ok_or_else(|| {
            Fault::new(
                Code::RecoveryUnknown,
                doing,
                format!("this host knows of no recovery {id}"),
                "See what is there with: lifeboat agent recovered. Run the operation anew.",
            )
        })
    }
}
