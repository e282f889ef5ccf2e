//! When a machine is left alone: while its guest boots, and while it is shut
//! down.
//!
//! In both, the guest agent's channel is opened or closed. libvirt (seen in 11.3)
//! handles that in the same worker as the end of a backup, and waits there for
//! the backup's end: for 30 s nothing is handled, and then the agent is never
//! talked to again as long as this QEMU lives. So no cut is opened when that is
//! to be expected. A guest that restarts its agent during a cut still meets it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::id::MachineUuid;
use domain::machine::GuestAgent;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use tokio::time::{Instant, timeout};

/// How long a guest may take to boot: from when its agent was first found silent.
const BOOT_LIMIT: Duration = Duration::from_secs(60);
/// How long somebody who wants no cut waits for one that is open.
const CUT_LIMIT: Duration = Duration::from_secs(15);

/// The machines of this host that are left alone. Clones are one.
#[derive(Debug, Clone, Default)]
pub struct Calm(Arc<Mutex<HashMap<MachineUuid, Arc<RwLock<()>>>>>);

/// Held by a cut while it is open.
pub(super) type Cutting = OwnedRwLockReadGuard<()>;

/// Held while no cut must be opened.
#[derive(Debug)]
pub struct Calmed {
    /// None if a cut that was open did not end in time.
    _held: Option<OwnedRwLockWriteGuard<()>>,
}

impl Calm {
    fn of(&self, machine: MachineUuid) -> Arc<RwLock<()>> {
        let mut machines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(machines.entry(machine).or_default())
    }

    /// Lets no cut of a machine be opened as long as the result lives, and waits
    /// for the end of one that is: 15 s at the most.
    pub async fn hold(&self, machine: MachineUuid) -> Calmed {
        let held = timeout(CUT_LIMIT, self.of(machine).write_owned()).await;
        Calmed { _held: held.ok() }
    }

    /// Waits until a cut may be opened.
    pub(super) async fn cutting(&self, machine: MachineUuid) -> Cutting {
        self.of(machine).read_owned().await
    }
}

/// Since when a machine's guest agent is silent.
#[derive(Debug, Default)]
pub(super) struct Silence(Option<Instant>);

impl Silence {
    /// Whether the guest may be booting, or be on its way down.
    pub(super) fn may_end(&mut self, agent: GuestAgent, now: Instant) -> bool {
        match agent {
            GuestAgent::Connected | GuestAgent::NoChannel => {
                self.0 = None;
                false
            }
            GuestAgent::NotAnswering => now.duration_since(*self.0.get_or_insert(now)) < BOOT_LIMIT,
        }
    }

    /// The machine is off: it boots when it is started.
    pub(super) const fn is_over(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_waited_for_once_and_for_a_minute() {
        use GuestAgent::{Connected, NoChannel, NotAnswering};
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut silence = Silence::default();
        assert!(!silence.may_end(NoChannel, at(0)));
        assert!(silence.may_end(NotAnswering, at(1)));
        assert!(silence.may_end(NotAnswering, at(60)));
        assert!(!silence.may_end(NotAnswering, at(61)));
        assert!(!silence.may_end(NotAnswering, at(600)));
        assert!(!silence.may_end(Connected, at(700)));
        assert!(silence.may_end(NotAnswering, at(701)));
        silence.is_over();
        assert!(silence.may_end(NotAnswering, at(800)));
    }

    #[tokio::test(start_paused = true)]
    async fn no_cut_is_opened_meanwhile_and_one_that_stays_open_is_not_waited_for() {
        let (calm, machine) = (Calm::default(), MachineUuid::new(uuid::Uuid::nil()));
        let calmed = calm.hold(machine).await;
        let cutting = timeout(Duration::from_secs(600), calm.cutting(machine)).await;
        assert!(cutting.is_err());
        drop(calmed);
        let cutting = calm.cutting(machine).await;
        let begun = Instant::now();
        drop(calm.hold(machine).await);
        assert_eq!(begun.elapsed(), CUT_LIMIT);
        drop(cutting);
        let again = Instant::now();
        drop(calm.hold(machine).await);
        assert_eq!(again.elapsed(), Duration::ZERO);
    }
}
