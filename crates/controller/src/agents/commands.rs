//! Commands to agents, and their answers.
//!
//! A command goes out on the connection that the agent has now and is answered
//! on the same; if that ends first, nobody knows what has become of it, and
//! whoever gave it gives it again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::id::HostId;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;
use wire::command::{Answer, Answered, Command, Outcome};
use wire::message::Refused;
use wire::replication::Progress;

/// Agents come within so long after the controller has started.
const COMES_BACK: Duration = Duration::from_secs(15);
/// An agent that was started anew, or whose connection broke, comes within so
/// long.
const COMES_AGAIN: Duration = Duration::from_secs(5);
/// Commands that wait to be sent to one agent; beyond, whoever gives another
/// waits.
const ORDERS: usize = 64;

/// Gives commands to the agents that are connected. Cheap to clone; all clones
/// are one.
#[derive(Debug, Clone)]
pub struct Commands {
    desks: Arc<Mutex<HashMap<HostId, Desk>>>,
    /// When each host's last desk was closed.
    left: Arc<Mutex<HashMap<HostId, Instant>>>,
    opened: Arc<watch::Sender<()>>,
    began: Instant,
}

impl Default for Commands {
    fn default() -> Self {
        Self {
            desks: Arc::default(),
            left: Arc::default(),
            opened: Arc::new(watch::Sender::new(())),
            began: Instant::now(),
        }
    }
}

/// One connection.
#[derive(Debug)]
struct Desk {
    session: Uuid,
    orders: mpsc::Sender<Command>,
    answers: HashMap<Uuid, watch::Sender<Option<Outcome>>>,
}

/// Why a command was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The agent is not connected, or its connection ended before it answered.
    #[error("its agent is not connected")]
    NotConnected,
    /// The agent could not do it.
    #[error("{}", .0.cause)]
    Failed(Refused),
}

/// The session's end of a desk; the desk is closed when it is dropped.
#[derive(Debug)]
pub(super) struct Orders {
    commands: Commands,
    host: HostId,
    session: Uuid,
    queue: mpsc::Receiver<Command>,
}

impl Commands {
    /// Opens the desk of a connection, in the place of an earlier one.
    pub(super) fn enter(&self, host: HostId) -> Orders {
        let session = Uuid::new_v4();
        let (orders, queue) = mpsc::channel(ORDERS);
        self.lock().insert(host, Desk { session, orders, answers: HashMap::new() });
        self.opened.send_replace(());
        Orders { commands: self.clone(), host, session, queue }
    }

    /// Waits for an agent that has just left, or that has not come yet since the
    /// controller started; for no other.
    pub async fn reach(&self, host: HostId) {
        let mut opened = self.opened.subscribe();
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner).get(&host).copied();
        let until = left.map_or(self.began + COMES_BACK, |left| left + COMES_AGAIN);
        while !self.lock().contains_key(&host) {
            if timeout_at(until, opened.changed()).await.is_err() {
                return;
            }
        }
    }

    /// Gives a command and waits until it is done, however long that takes;
    /// `progress` is told how far it is. Dropping this forgets the answer, and
    /// does not stop the agent.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub async fn give(
        &self,
        host: HostId,
        command: Command,
        mut progress: impl FnMut(Progress) + Send,
    ) -> Result<Answer, CommandError> {
        let (told, mut hears) = watch::channel(None);
        let orders = {
            let mut desks = self.lock();
            let desk = desks.get_mut(&host).ok_or(CommandError::NotConnected)?;
            desk.answers.insert(command.id, told);
            desk.orders.clone()
        };
        orders.send(command).await.map_err(|_| CommandError::NotConnected)?;
        drop(orders);
        loop {
            // The sender is gone with the desk.
            hears.changed().await.map_err(|_| CommandError::NotConnected)?;
            match hears.borrow_and_update().clone() {
                None | Some(Outcome::Working { progress: None }) => {}
                Some(Outcome::Working { progress: Some(far) }) => progress(far),
                Some(Outcome::Done { answer }) => return Ok(answer),
                Some(Outcome::Failed { fault }) => return Err(CommandError::Failed(fault)),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<HostId, Desk>> {
        // Changes are insertions and removals; none stops half-way.
        self.desks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Orders {
    /// The next command; cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Command> {
        self.queue.recv().await
    }

    /// Hands an answer to whoever gave the command; one that nobody waits for is
    /// passed over.
    pub(super) fn answered(&self, answered: Answered) {
        let mut desks = self.commands.lock();
        let Some(desk) = desks.get_mut(&self.host).filter(|desk| desk.session == self.session)
        else {
            return;
        };
        let is_over = answered.outcome.is_over();
        if let Some(told) = desk.answers.get(&answered.id) {
            told.send_replace(Some(answered.outcome));
        }
        if is_over {
            // What was sent is still heard.
            desk.answers.remove(&answered.id);
        }
    }
}

impl Drop for Orders {
    fn drop(&mut self) {
        let mut desks = self.commands.lock();
        if desks.get(&self.host).is_some_and(|desk| desk.session == self.session) {
            desks.remove(&self.host);
            let left = &self.commands.left;
            let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
            left.insert(self.host, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::id::ProtectionId;
    use wire::command::Work;

    fn host() -> HostId {
        HostId::new(Uuid::from_u128(1))
    }

    fn command(number: u128) -> Command {
        let protection = ProtectionId::new(Uuid::from_u128(9));
        Command {
            id: Uuid::from_u128(number),
            job: Uuid::nil(),
            work: Work::ListPoints { protection },
        }
    }

    #[tokio::test]
    async fn a_command_is_answered_on_its_connection_or_not_at_all() {
        let commands = Commands::default();
        let give = |number| {
            let commands = commands.clone();
            async move { commands.give(host(), command(number), |_| {}).await }
        };
        assert_eq!(give(1).await, Err(CommandError::NotConnected));
        let mut orders = commands.enter(host());
        let first = tokio::spawn(give(1));
        assert_eq!(orders.next().await, Some(command(1)));
        let outcome = Outcome::Done { answer: Answer::Done };
        orders.answered(Answered { id: Uuid::from_u128(77), outcome: outcome.clone() });
        orders.answered(Answered { id: Uuid::from_u128(1), outcome: outcome.clone() });
        assert_eq!(first.await.unwrap(), Ok(Answer::Done));

        // A later connection takes the place of this one.
        let second = tokio::spawn(give(2));
        assert_eq!(orders.next().await, Some(command(2)));
        let mut later = commands.enter(host());
        assert_eq!(second.await.unwrap(), Err(CommandError::NotConnected));
        orders.answered(Answered { id: Uuid::from_u128(3), outcome: outcome.clone() });
        drop(orders);
        let third = tokio::spawn(give(3));
        assert_eq!(later.next().await, Some(command(3)), "it is still open");
        drop(later);
        assert_eq!(third.await.unwrap(), Err(CommandError::NotConnected));
    }
}
