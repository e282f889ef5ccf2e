//! Which agents are connected now.

use std::collections::HashMap;
use std::sync::Arc;

use domain::fault::{Code, Fault};
use domain::id::HostId;
use time::OffsetDateTime;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

/// Agents that are connected now, by host. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Connections {
    by_host: Arc<watch::Sender<HashMap<HostId, Connection>>>,
}

#[derive(Debug, Clone)]
struct Connection {
    since: OffsetDateTime,
    session: Uuid,
    /// Tells the session to end, and why. One word is enough.
    cut: mpsc::Sender<Fault>,
}

/// The place of a session among the connections; gives it up when dropped.
#[derive(Debug)]
pub struct Place {
    connections: Connections,
    host: HostId,
    session: Uuid,
    cut: mpsc::Receiver<Fault>,
}

impl Default for Connections {
    fn default() -> Self {
        Self { by_host: Arc::new(watch::Sender::new(HashMap::new())) }
    }
}

impl Connections {
    /// Takes the place of a host's agent. A former session of the same host is
    /// cut: either its agent is gone and the network has not said so yet, or
    /// two agents have the same certificate, and then the operator must know.
    #[must_use]
    pub fn enter(&self, host: HostId, session: Uuid, since: OffsetDateTime) -> Place {
        let (cut, told) = mpsc::channel(1);
        let mut former = None;
        self.by_host.send_modify(|by_host| {
            former = by_host.insert(host, Connection { since, session, cut });
        });
        if let Some(former) = former {
            let fault = Fault::new(
                Code::Superseded,
                "keep this agent's connection",
                "another agent connected with the same certificate",
                "If two hosts have this certificate, because one was cloned from the other, remove the state folder of the clone and enrol it with a token of its own.",
            );
            // Full means that it was told to end before.
            let _ = former.cut.try_send(fault);
        }
        Place { connections: self.clone(), host, session, cut: told }
    }

    /// Ends a host's connection, if there is one, with this reason.
    pub fn cut(&self, host: HostId, fault: Fault) {
        if let Some(connection) = self.by_host.borrow().get(&host) {
            let _ = connection.cut.try_send(fault);
        }
    }

    /// Since when a host's agent is connected; none when it is not.
    #[must_use]
    pub fn since(&self, host: HostId) -> Option<OffsetDateTime> {
        self.by_host.borrow().get(&host).map(|connection| connection.since)
    }

    /// How many agents are connected.
    #[must_use]
    pub fn count(&self) -> usize {
        self.by_host.borrow().len()
    }
}

impl Place {
    /// Waits until the session is told to end.
    pub async fn told_to_end(&mut self) -> Fault {
        match self.cut.recv().await {
            Some(fault) => fault,
            // The sender lives in the map until this place is dropped or
            // superseded, and then a word was sent before.
            None => std::future::pending().await,
        }
    }

    /// Whether this session is still the host's.
    #[must_use]
    pub fn is_current(&self) -> bool {
        let by_host = self.connections.by_host.borrow();
        by_host.get(&self.host).is_some_and(|connection| connection.session == self.session)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.by_host.send_if_modified(|by_host| {
            let ours = by_host.get(&self.host).is_some_and(|c| c.session == self.session);
            if ours {
                by_host.remove(&self.host);
            }
            ours
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_newest_session_of_a_host_wins_and_the_former_is_told_why() {
        let connections = Connections::default();
        let host = HostId::new(Uuid::from_u128(1));
        let at = |seconds| OffsetDateTime::from_unix_timestamp(seconds).unwrap();
        let mut first = connections.enter(host, Uuid::from_u128(10), at(1));
        let second = connections.enter(host, Uuid::from_u128(11), at(2));
        assert_eq!(first.told_to_end().await.code, Code::Superseded);
        assert!(!first.is_current() && second.is_current());
        drop(first);
        assert_eq!(connections.since(host), Some(at(2)), "the former takes nothing along");
        drop(second);
        assert_eq!(connections.since(host), None);
    }
}
