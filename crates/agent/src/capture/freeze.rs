//! Freezing the guest's file systems around a cut, and thawing them whatever
//! happens.
//!
//! A file remembers that the guest may be frozen by us: it is made before the
//! freeze and removed after the thaw. While it exists, somebody goes on trying
//! to thaw: first whoever froze, then a task in the background, and after the
//! agent's death whoever opens the machine next.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::fs;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{error, info, warn};

use super::access::Access;
use super::error::CaptureError;
use super::folder::remove_if_there;
use crate::hypervisor::CallError;
use crate::hypervisor::libvirt::Subject;

/// How long a thaw may take before it counts as failed; libvirt itself waits
/// this long for a guest agent that is busy.
const THAW_LIMIT: Duration = Duration::from_secs(30);
/// Between two attempts in the background.
const PAUSE: Duration = Duration::from_secs(2);
/// Attempts in the background: an hour and more of a guest agent that hangs.
const ATTEMPTS: usize = 2000;

/// Freezes one machine, at most once at a time.
#[derive(Clone)]
pub(super) struct Freezer {
    access: Access,
    note: PathBuf,
    limit: Duration,
    turn: Arc<Mutex<()>>,
}

/// How a freeze around something went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Thawed {
    /// It was frozen throughout.
    Afterwards,
    /// It was thawed before the end, since the limit was reached.
    TooEarly,
}

/// A guest that is frozen.
pub(super) struct Frozen {
    freezer: Freezer,
    until: Instant,
    turn: OwnedMutexGuard<()>,
}

impl Freezer {
    /// Freezes for at most `limit`, remembering it in the file `note`.
    pub(super) fn new(access: Access, note: PathBuf, limit: Duration) -> Self {
        Self { access, note, limit, turn: Arc::default() }
    }

    /// Freezes all file systems.
    ///
    /// # Errors
    /// Why they are not frozen, for people. It is being made sure that they
    /// will not be.
    pub(super) async fn freeze(&self) -> Result<Frozen, String> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        if self.note.exists() {
            self.thaw().await.map_err(|error| format!("an earlier freeze goes on: {error}"))?;
        }
        fs::write(&self.note, b"")
            .await
            .map_err(|error| format!("note the freeze in {}: {error}", self.note.display()))?;
        let until = Instant::now() + self.limit;
        match self.access.ask_within(self.limit, |subject| subject.freeze()).await {
            Ok(0) => {
                self.thaw_in_background(turn);
                Err("the guest agent froze no file system".to_owned())
            }
            Ok(_) => Ok(Frozen { freezer: self.clone(), until, turn }),
            Err(error) => {
                let frozen_perhaps = match &error {
                    CallError::Hung(_) => true,
                    CallError::Libvirt(error) => !error.is_refusal_by_the_guest_agent(),
                    CallError::TooManyHung | CallError::Closed(_) => false,
                };
                if frozen_perhaps {
                    self.thaw_in_background(turn);
                } else if let Err(error) = remove_if_there(&self.note).await {
                    // Then there is one thaw too many later, which harms nobody.
                    warn!(machine = %self.access.machine(), %error, "the note of a freeze stays");
                }
                Err(error.to_string())
            }
        }
    }

    /// Thaws a machine that an agent before this one left frozen.
    pub(super) async fn thaw_leftover(&self) {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        if self.note.exists() {
            info!(machine = %self.access.machine(), "thawing what an earlier agent froze");
            self.thaw_or_go_on(turn).await;
        }
    }

    async fn thaw_or_go_on(&self, turn: OwnedMutexGuard<()>) {
        if let Err(error) = self.thaw().await {
            warn!(machine = %self.access.machine(), %error, "the guest is not thawed yet");
            self.thaw_in_background(turn);
        }
    }

    async fn thaw(&self) -> Result<(), CaptureError> {
        let thaw = |subject: &Subject| {
            // A guest that is off is not frozen, whatever it was before.
            if subject.is_active()? { subject.thaw().map(drop) } else { Ok(()) }
        };
        match self.access.ask_within(THAW_LIMIT, thaw).await {
            Err(CallError::Libvirt(error)) if error.is_gone() => {}
            Err(error) => return Err(self.access.failed("thaw the guest", error)),
            Ok(()) => {}
        }
        remove_if_there(&self.note).await
    }

    fn thaw_in_background(&self, turn: OwnedMutexGuard<()>) {
        let freezer = self.clone();
        tokio::spawn(async move {
            let mut turn = Some(turn);
            for _ in 0..ATTEMPTS {
                let held = match turn.take() {
                    Some(turn) => turn,
                    None => Arc::clone(&freezer.turn).lock_owned().await,
                };
                // Another freeze may have thawed it first.
                if !freezer.note.exists() || freezer.thaw().await.is_ok() {
                    return;
                }
                drop(held);
                sleep(PAUSE).await;
            }
            error!(machine = %freezer.access.machine(), "the guest may still be frozen by us");
        });
    }
}

impl Frozen {
    /// Does something while the guest is frozen, and thaws it at its end or at
    /// the limit, whichever comes first.
    pub(super) async fn during<T>(self, work: impl Future<Output = T>) -> (T, Thawed) {
        let Self { freezer, until, turn } = self;
        thawing_by(until, work, freezer.thaw_or_go_on(turn)).await
    }
}

/// Does `work`, and then `thaw`, or as soon as it is time.
async fn thawing_by<T>(
    until: Instant,
    work: impl Future<Output = T>,
    thaw: impl Future<Output = ()>,
) -> (T, Thawed) {
    let mut work = std::pin::pin!(work);
    match timeout_at(until, &mut work).await {
        Ok(done) => {
            thaw.await;
            (done, Thawed::Afterwards)
        }
        Err(_) => {
            thaw.await;
            (work.await, Thawed::TooEarly)
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn work_that_hangs_does_not_keep_the_guest_frozen() {
        let thawed = Notify::new();
        // This work ends only once the guest is thawed.
        let hangs = async {
            thawed.notified().await;
            7
        };
        let thaw = async { thawed.notify_one() };
        assert_eq!(thawing_by(Instant::now(), hangs, thaw).await, (7, Thawed::TooEarly));
    }

    #[tokio::test]
    async fn work_that_ends_is_frozen_throughout() {
        let order = std::sync::Mutex::new(Vec::new());
        let note = |what| order.lock().unwrap().push(what);
        let later = Instant::now() + Duration::from_secs(600);
        let ((), thawed) =
            thawing_by(later, async { note("held still") }, async { note("thawed") }).await;
        assert_eq!(thawed, Thawed::Afterwards);
        assert_eq!(order.into_inner().unwrap(), ["held still", "thawed"]);
    }
}
