//! Watching over a cut of a machine that runs, for as long as it is open.
//!
//! ```text
//!   watching ──settled──────────────▶ over: whoever settled it ends the backup
//!      │ ├─────dropped──────────────▶ the backup is ended here
//!      │ └─────scratch files grow───▶ readers are told why, the backup is ended
//!      └───────the backup is gone───▶ waiting for the cut's end
//! ```

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, warn};

use super::cut::Held;
use super::error::Ended;
use super::running::Running;
use super::scratch;

/// How often one tries to let a machine go on whose backup has ended.
const ATTEMPTS: usize = 240;

/// What is watched over.
pub(super) struct Watch {
    pub(super) running: Running,
    /// The socket of the cut's backup, which is this cut's alone.
    pub(super) socket: PathBuf,
    /// Its scratch files.
    pub(super) scratch: Vec<PathBuf>,
    /// Where readers of the cut look when they fail.
    pub(super) ended: Arc<OnceLock<Ended>>,
}

impl Watch {
    /// Until the cut is settled. Ends it when it is dropped, or when its
    /// scratch files grow too large.
    pub(super) async fn keep(self, mut held: Held) {
        let mut ticks = interval(scratch::LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let machine = self.running.access.machine();
        loop {
            tokio::select! {
                settled = held.settled() => {
                    if !settled {
                        warn!(%machine, "a cut was neither accepted nor discarded, and is ended");
                        self.end().await;
                    }
                    return;
                }
                _ = ticks.tick() => {}
            }
            if !self.socket.exists() {
                // The backup is over: nothing grows any more.
                held.settled().await;
                return;
            }
            let folder = self.running.folder.qemu();
            match scratch::measure(folder, self.scratch.clone()).await {
                Err(error) => warn!(%machine, %error, "scratch files cannot be measured"),
                Ok(usage) => {
                    if let Some(filled) = scratch::judge(usage, self.running.scratch_limit) {
                        warn!(%machine, %filled, "the cut is ended to spare the guest");
                        // Told first, so that reads that fail now say why.
                        let _ = self.ended.set(Ended::ScratchFull(filled));
                        self.end_for_sure().await;
                        return;
                    }
                }
            }
        }
    }

    async fn end(&self) {
        let _turn = self.running.turn.lock().await;
        if let Err(error) = self.running.end_backup(Some(self.socket.clone())).await {
            let machine = self.running.access.machine();
            warn!(%machine, %error, "the next cut has to end the backup");
        }
    }

    /// Tries again while the guest is in danger, and for a while until it goes on;
    /// then the next cut has to see to that.
    async fn end_for_sure(&self) {
        let mut ticks = interval(scratch::LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let machine = self.running.access.machine();
        let mut left = ATTEMPTS;
        while left > 0 {
            ticks.tick().await;
            // Without the turn: whoever has it may hang, and the socket is
            // this cut's alone.
            match self.running.end_backup(Some(self.socket.clone())).await {
                Ok(()) => return,
                Err(error) if self.socket.exists() => {
                    error!(%machine, %error, "scratch files go on growing");
                }
                Err(error) => {
                    error!(%machine, %error, "the machine may be held still");
                    left -= 1;
                }
            }
        }
    }
}
