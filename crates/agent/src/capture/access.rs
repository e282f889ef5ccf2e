//! The way to a machine's hypervisor: bounded calls, over a connection that is
//! opened anew when it is gone.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::id::MachineUuid;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::error::CaptureError;
use crate::hypervisor::libvirt::{LibvirtError, Subject};
use crate::hypervisor::{CallError, Calls};

/// Cheap to clone; all clones share the connection.
#[derive(Clone)]
pub(super) struct Access(Arc<Inner>);

struct Inner {
    uri: String,
    machine: MachineUuid,
    calls: Calls,
    subject: Mutex<Option<Arc<Subject>>>,
    doorbell: Arc<Notify>,
    starts: Arc<AtomicU64>,
}

impl Access {
    pub(super) fn new(uri: &str, machine: MachineUuid) -> Self {
        Self(Arc::new(Inner {
            uri: uri.to_owned(),
            machine,
            calls: Calls::default(),
            subject: Mutex::default(),
            doorbell: Arc::default(),
            starts: Arc::default(),
        }))
    }

    pub(super) fn machine(&self) -> MachineUuid {
        self.0.machine
    }

    /// Grows when the machine was started, and when it may have been started
    /// without our hearing of it.
    pub(super) fn starts(&self) -> u64 {
        self.0.starts.load(Ordering::Acquire)
    }

    /// Waits until something may have happened to the machine, or for `limit`.
    pub(super) async fn something_happens(&self, limit: Duration) {
        // The time's end is as good a reason to look.
        let _ = timeout(limit, self.0.doorbell.notified()).await;
    }

    /// Asks something of the machine. `doing` is a verb phrase that goes before
    /// "of machine". Dropping the future does not take the question back.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        doing: &'static str,
        call: impl FnOnce(&Subject) -> Result<T, LibvirtError> + Send + 'static,
    ) -> Result<T, CaptureError> {
        let subject = self.subject().await;
        let answer = match subject {
            Ok(subject) => self.0.calls.run(move || call(&subject)).await,
            Err(error) => Err(error),
        };
        answer.map_err(|source| self.failed(doing, source))
    }

    /// As [`ask`](Self::ask), waiting `limit` for the answer, and with the
    /// hypervisor's own error.
    pub(super) async fn ask_within<T: Send + 'static>(
        &self,
        limit: Duration,
        call: impl FnOnce(&Subject) -> Result<T, LibvirtError> + Send + 'static,
    ) -> Result<T, CallError> {
        let subject = self.subject().await?;
        self.0.calls.run_within(limit, move || call(&subject)).await
    }

    pub(super) fn failed(&self, doing: &'static str, source: CallError) -> CaptureError {
        let machine = self.0.machine;
        match source {
            CallError::Libvirt(error) if error.is_gone() => CaptureError::NoSuchMachine { machine },
            CallError::Libvirt(LibvirtError::LostJob) => CaptureError::LostJob { machine },
            source => CaptureError::Hypervisor { doing, machine, source },
        }
    }

    async fn subject(&self) -> Result<Arc<Subject>, CallError> {
        let held = || self.0.subject.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(subject) = held().as_ref().filter(|subject| subject.is_alive()) {
            return Ok(Arc::clone(subject));
        }
        // Nobody counted while there was no connection.
        self.0.starts.fetch_add(1, Ordering::AcqRel);
        let inner = Arc::clone(&self.0);
        let open = move || Subject::open(&inner.uri, inner.machine, &inner.doorbell, &inner.starts);
        let subject = Arc::new(self.0.calls.run(open).await?);
        let old = held().replace(Arc::clone(&subject));
        close(old);
        Ok(subject)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        close(self.subject.get_mut().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// Closes a connection on a thread of its own: a daemon that hangs would hold
/// up whoever waits for its goodbye.
fn close(subject: Option<Arc<Subject>>) {
    if let Some(subject) = subject {
        std::thread::spawn(move || drop(subject));
    }
}
