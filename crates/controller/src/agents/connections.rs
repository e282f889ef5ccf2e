//! Which agents are connected now.

use std::collections::HashMap;
use std::sync::Arc;

use domain::fault::{Code, Fault};
use domain::id::HostId;
use domain::protection::CLOCK_ALLOWED;
use time::{Duration, OffsetDateTime};
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
    clock: Clock,
    /// Tells the session to end, and why. One word is enough.
    cut: mpsc::Sender<Fault>,
}

/// An agent's clock beside ours.
#[derive(Debug, Clone, Copy, Default)]
struct Clock {
    /// How far it is ahead of ours, once it told.
    ahead: Option<Duration>,
    /// When it was last seen to be off, on this connection.
    off: Option<OffsetDateTime>,
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
            former =
                by_host.insert(host, Connection { since, session, clock: Clock::default(), cut });
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

    /// How far the clock of a host's agent is ahead of ours; none while that is
    /// not known.
    #[must_use]
    pub fn clock_ahead(&self, host: HostId) -> Option<Duration> {
        self.by_host.borrow().get(&host)?.clock.ahead
    }

    /// Whether a label that a host gave to a point may be compared with our
    /// clock: not while the host's is off, and not when it may be of that time.
    #[must_use]
    pub fn can_date(&self, host: HostId, label: OffsetDateTime) -> bool {
        let by_host = self.by_host.borrow();
        let Some(Connection { clock, .. }) = by_host.get(&host) else { return true };
        clock.ahead.is_none_or(|ahead| ahead.abs() <= CLOCK_ALLOWED)
            && clock.off.is_none_or(|off| label > off)
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

    /// Takes note of the agent's clock.
    pub fn clock_is_ahead_by(&self, ahead: Duration, now: OffsetDateTime) {
        self.connections.by_host.send_if_modified(|by_host| {
            let ours = by_host.get_mut(&self.host).filter(|c| c.session == self.session);
            if let Some(connection) = ours {
                connection.clock.ahead = Some(ahead);
                if ahead.abs() > CLOCK_ALLOWED {
                    connection.clock.off = Some(now);
                }
            }
            // Who is connected has not changed.
            false
        });
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

    #[tokio::test]
    async fn labels_of_a_clock_that_was_off_are_not_compared_with_ours() {
        let connections = Connections::default();
        let host = HostId::new(Uuid::from_u128(1));
        let at = |seconds| OffsetDateTime::from_unix_timestamp(seconds).unwrap();
        let can = |labels: [i64; 2]| labels.map(|label| connections.can_date(host, at(label)));
        assert_eq!(can([5, 500]), [true, true], "nobody said otherwise");
        let place = connections.enter(host, Uuid::from_u128(10), at(1));
        place.clock_is_ahead_by(Duration::seconds(2), at(100));
        assert_eq!(can([5, 500]), [true, true]);
        place.clock_is_ahead_by(Duration::seconds(-50), at(200));
        assert_eq!(can([5, 500]), [false, false]);
        place.clock_is_ahead_by(Duration::ZERO, at(300));
        assert_eq!(can([5, 500]), [false, true], "it may be of before it was right again");
    }
}
