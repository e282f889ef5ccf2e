//! The way to the hypervisor for work on machines: bounded calls, over a
//! connection that is opened anew when it is gone.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::fault::{Code, Fault};

use super::libvirt::{LibvirtError, Operator};
use super::{CallError, Calls};

/// How long QEMU may take to start.
pub const START_LIMIT: Duration = Duration::from_secs(120);

/// Cheap to clone; all clones share the connection.
#[derive(Clone)]
pub struct Operating(Arc<Inner>);

struct Inner {
    uri: String,
    calls: Calls,
    operator: Mutex<Option<Arc<Operator>>>,
}

impl Operating {
    /// Of the hypervisor at a URI, which is reached at the first question.
    #[must_use]
    pub fn at(uri: &str) -> Self {
        Self(Arc::new(Inner {
            uri: uri.to_owned(),
            calls: Calls::default(),
            operator: Mutex::default(),
        }))
    }

    /// Asks something of the hypervisor. `doing` is a verb phrase with its
    /// object. Dropping the future does not take the question back.
    ///
    /// # Errors
    /// [`Code::MachineGone`], [`Code::HypervisorNotAnswering`],
    /// [`Code::HypervisorRefused`].
    pub async fn ask<T: Send + 'static>(
        &self,
        doing: &str,
        call: impl FnOnce(&Operator) -> Result<T, LibvirtError> + Send + 'static,
    ) -> Result<T, Fault> {
        self.try_ask(call).await.map_err(|error| fault(doing, &error))
    }

    /// As [`ask`](Self::ask), waiting `limit` for the answer.
    ///
    /// # Errors
    /// See [`ask`](Self::ask).
    pub async fn ask_within<T: Send + 'static>(
        &self,
        limit: Duration,
        doing: &str,
        call: impl FnOnce(&Operator) -> Result<T, LibvirtError> + Send + 'static,
    ) -> Result<T, Fault> {
        let asked = async {
            let operator = self.operator().await?;
            self.0.calls.run_within(limit, move || call(&operator)).await
        };
        asked.await.map_err(|error| fault(doing, &error))
    }

    /// As [`ask`](Self::ask), with the hypervisor's own error.
    ///
    /// # Errors
    /// Whatever it said, or that it said nothing.
    pub async fn try_ask<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Operator) -> Result<T, LibvirtError> + Send + 'static,
    ) -> Result<T, CallError> {
        let operator = self.operator().await?;
        self.0.calls.run(move || call(&operator)).await
    }

    async fn operator(&self) -> Result<Arc<Operator>, CallError> {
        let held = || self.0.operator.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(operator) = held().as_ref().filter(|operator| operator.is_alive()) {
            return Ok(Arc::clone(operator));
        }
        let uri = self.0.uri.clone();
        let operator = Arc::new(self.0.calls.run(move || Operator::open(&uri)).await?);
        let old = held().replace(Arc::clone(&operator));
        close(old);
        Ok(operator)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        close(self.operator.get_mut().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// Closes a connection on a thread of its own: a daemon that hangs would hold
/// up whoever waits for its goodbye.
fn close(operator: Option<Arc<Operator>>) {
    if let Some(operator) = operator {
        std::thread::spawn(move || drop(operator));
    }
}

/// What the hypervisor said, as an operator reads it.
#[must_use]
pub fn fault(doing: &str, error: &CallError) -> Fault {
    match error {
        CallError::Libvirt(error) if error.is_gone() => Fault::new(
            Code::MachineGone,
            doing,
            error.to_string(),
            "If it was moved to another host, look for it there: virsh list --all.",
        ),
        CallError::Libvirt(error) => Fault::new(
            Code::HypervisorRefused,
            doing,
            error.to_string(),
            "Look at the machine's log in /var/log/libvirt/qemu and at libvirt's (journalctl -u libvirtd) on that host, mend what they tell, and run it again.",
        ),
        error => Fault::new(
            Code::HypervisorNotAnswering,
            doing,
            error.to_string(),
            "Check that libvirtd or virtqemud runs on that host, and run it again.",
        ),
    }
}
