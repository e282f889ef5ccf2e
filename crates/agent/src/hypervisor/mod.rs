//! The hypervisor of this host, as the rest of the agent sees it.
//!
//! One task ([`watch`]) owns the connection to the hypervisor and publishes
//! what it sees as an [`Observation`]. Events of the hypervisor are doorbells
//! only: whatever rang, the whole inventory is read afresh, so a lost event
//! costs time and never truth.
//!
//! ```text
//!   connecting ──opened──▶ looking ──published──▶ waiting
//!       ▲                     │  ▲                   │
//!       │                     │  └─ doorbell, timer ─┘
//!       └── failed, hung, closed (published as NotAnswering) ◀── all
//! ```

use std::sync::Arc;
use std::time::Duration;

use domain::fault::{Code, Fault};
use domain::inventory::Inventory;
use time::OffsetDateTime;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::backoff::Backoff;
use libvirt::{Connection, LibvirtError};

pub mod libvirt;
pub mod operating;
mod uri;

/// How long a call into the hypervisor's library may take. Calls can hang for
/// as long as a disk or a peer does, and cannot be cancelled.
const CALL_LIMIT: Duration = Duration::from_secs(20);
/// How many hung calls are left behind before no new one is made.
const HUNG_CALLS_MAX: usize = 8;
/// Sizes of disks and pools change without an event, so look again after this.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// Events come in bursts; one look serves all that ring within this.
const SETTLE: Duration = Duration::from_millis(150);

/// What the agent knows of its hypervisor now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    /// Nothing yet: the agent has just started.
    Nothing,
    /// The hypervisor answers, and this is what it has.
    Seen {
        /// Everything.
        inventory: Arc<Inventory>,
        /// When it came to be so, as far as the agent saw.
        at: OffsetDateTime,
    },
    /// The hypervisor does not answer.
    NotAnswering {
        /// When it last did, or when the agent started.
        since: OffsetDateTime,
        /// What its library said.
        reason: String,
    },
}

/// Checks a hypervisor's URI by connecting once.
///
/// # Errors
/// [`Code::HypervisorUriUnknown`] when no driver knows the URI,
/// [`Code::HypervisorNotAnswering`] when the hypervisor is not there now,
/// [`Code::HypervisorTooOld`] when the agent cannot work with it.
pub async fn look_once(uri: &str) -> Result<Inventory, Fault> {
    let doing = format!("look at the hypervisor {uri}");
    let unknown = |cause: String| {
        Fault::new(
            Code::HypervisorUriUnknown,
            doing.clone(),
            cause,
            "Give the URI of the host's libvirt, usually qemu:///system, as `hypervisor` in the agent's configuration.",
        )
    };
    if let Some(mistake) = uri::mistake_in(uri) {
        return Err(unknown(mistake));
    }
    let calls = Calls::default();
    let doorbell = Arc::new(Notify::new());
    let name = uri.to_owned();
    let looked = calls
        .run(move || {
            let connection = Connection::open(&name, &doorbell)?;
            connection.look()
        })
        .await;
    match looked {
        Ok(inventory) => match too_old(&inventory) {
            None => Ok(inventory),
            Some(cause) => Err(Fault::new(
                Code::HypervisorTooOld,
                doing,
                cause,
                "Upgrade the host; Debian 12 and Ubuntu 24.04 are recent enough.",
            )),
        },
        Err(CallError::Libvirt(error)) if error.is_about_the_uri() => {
            Err(unknown(error.to_string()))
        }
        Err(error) => Err(Fault::new(
            Code::HypervisorNotAnswering,
            doing,
            error.to_string(),
            "Check that libvirtd or virtqemud runs and that this user may use its socket (group libvirt).",
        )),
    }
}

fn too_old(inventory: &Inventory) -> Option<String> {
    use domain::host::{LIBVIRT_OLDEST, QEMU_OLDEST};
    let facts = &inventory.facts;
    if facts.libvirt < LIBVIRT_OLDEST {
        return Some(format!("libvirt is {}, at least {LIBVIRT_OLDEST} is needed", facts.libvirt));
    }
    (facts.qemu < QEMU_OLDEST)
        .then(|| format!("QEMU is {}, at least {QEMU_OLDEST} is needed", facts.qemu))
}

/// Watches the hypervisor for ever, publishing each change of what it sees.
pub async fn watch(uri: String, observations: watch::Sender<Observation>) {
    let calls = Calls::default();
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(2));
    let mut last_answer = OffsetDateTime::now_utc();
    loop {
        let lost =
            watch_connection(&uri, &calls, &observations, &mut backoff, &mut last_answer).await;
        let reason = lost.to_string();
        observations.send_if_modified(|observation| {
            if !matches!(observation, Observation::NotAnswering { .. }) {
                warn!(hypervisor = %uri, %reason, "the hypervisor does not answer");
            }
            let now = Observation::NotAnswering { since: last_answer, reason };
            let modified = *observation != now;
            *observation = now;
            modified
        });
        sleep(backoff.next_pause()).await;
    }
}

/// Serves one connection from its opening to its end; returns why it ended.
async fn watch_connection(
    uri: &str,
    calls: &Calls,
    observations: &watch::Sender<Observation>,
    backoff: &mut Backoff,
    last_answer: &mut OffsetDateTime,
) -> CallError {
    let doorbell = Arc::new(Notify::new());
    let opened = {
        let (uri, doorbell) = (uri.to_owned(), Arc::clone(&doorbell));
        calls.run(move || Connection::open(&uri, &doorbell)).await
    };
    let connection = match opened {
        Ok(connection) => Arc::new(connection),
        Err(error) => return error,
    };
    loop {
        let looking = Arc::clone(&connection);
        let inventory = match calls.run(move || looking.look()).await {
            Ok(inventory) => inventory,
            Err(error) => return error,
        };
        *last_answer = OffsetDateTime::now_utc();
        backoff.reset();
        publish(observations, inventory, *last_answer);

        // The timer's end is as good a reason to look as the doorbell.
        let _ = timeout(LOOK_INTERVAL, doorbell.notified()).await;
        if let Some(reason) = connection.closed() {
            return CallError::Closed(reason);
        }
        sleep(SETTLE).await;
    }
}

fn publish(observations: &watch::Sender<Observation>, seen: Inventory, at: OffsetDateTime) {
    observations.send_if_modified(|observation| {
        match observation {
            Observation::Seen { inventory, .. } if **inventory == seen => return false,
            Observation::Seen { .. } => {}
            Observation::Nothing | Observation::NotAnswering { .. } => {
                info!(machines = seen.machines.len(), "the hypervisor answers");
            }
        }
        *observation = Observation::Seen { inventory: Arc::new(seen), at };
        true
    });
}

/// Blocking calls with a time limit and a bound on how many may hang.
pub(crate) struct Calls {
    slots: Arc<Semaphore>,
}

impl Default for Calls {
    fn default() -> Self {
        Self { slots: Arc::new(Semaphore::new(HUNG_CALLS_MAX)) }
    }
}

/// Why a call into the hypervisor's library gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// It failed.
    #[error(transparent)]
    Libvirt(#[from] LibvirtError),
    /// It may still be going on, and may yet succeed.
    #[error("no answer within {} s", .0.as_secs())]
    Hung(Duration),
    /// It was not made.
    #[error("{HUNG_CALLS_MAX} earlier calls still hang")]
    TooManyHung,
    /// The way to the hypervisor is gone.
    #[error("the connection was closed: {0}")]
    Closed(&'static str),
}

impl Calls {
    /// Makes a call. Dropping the future does not take the call back.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> Result<T, LibvirtError> + Send + 'static,
    ) -> Result<T, CallError> {
        self.run_within(CALL_LIMIT, call).await
    }

    /// As [`run`](Self::run), waiting `limit` for its end.
    pub(crate) async fn run_within<T: Send + 'static>(
        &self,
        limit: Duration,
        call: impl FnOnce() -> Result<T, LibvirtError> + Send + 'static,
    ) -> Result<T, CallError> {
        let slot: OwnedSemaphorePermit =
            timeout(CALL_LIMIT, Arc::clone(&self.slots).acquire_owned())
                .await
                .map_err(|_| CallError::TooManyHung)?
                .expect("the semaphore is never closed");
        let call = spawn_blocking(move || {
            let result = call();
            // Held until the call is over, however long nobody waits for it.
            drop(slot);
            result
        });
        match timeout(limit, call).await {
            Ok(joined) => Ok(joined.expect("the call does not panic")?),
            Err(_) => Err(CallError::Hung(limit)),
        }
    }
}
