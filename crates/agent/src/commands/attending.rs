//! One connection's commands: what becomes of each is told on the connection
//! that it came on, and on no other.

use std::collections::HashSet;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use uuid::Uuid;
use wire::command::{Answered, Command, Outcome};

use super::{Executor, Perform};

/// Whoever waits for a command hears at least this often of it.
const WORKING_INTERVAL: Duration = Duration::from_secs(2);
/// Answers that wait to be sent; beyond, those who have one wait.
const ANSWERS: usize = 64;

/// What a connection has to hear of. Dropped with it; the commands go on.
#[derive(Debug)]
pub struct Attending<P> {
    executor: Executor<P>,
    tell: mpsc::Sender<Answered>,
    answers: mpsc::Receiver<Answered>,
    attended: HashSet<Uuid>,
    tasks: JoinSet<Uuid>,
}

impl<P: Perform> Attending<P> {
    /// Of a connection that begins.
    #[must_use]
    pub fn new(executor: Executor<P>) -> Self {
        let (tell, answers) = mpsc::channel(ANSWERS);
        Self { executor, tell, answers, attended: HashSet::new(), tasks: JoinSet::new() }
    }

    /// Takes a command that came.
    pub fn take(&mut self, command: Command) {
        while let Some(over) = self.tasks.try_join_next() {
            if let Ok(id) = over {
                self.attended.remove(&id);
            }
        }
        let id = command.id;
        let hears = self.executor.give(command);
        // Of one that is under way this connection hears already.
        if self.attended.insert(id) {
            self.tasks.spawn(attend(id, hears, self.tell.clone()));
        }
    }

    /// The next answer to be sent. Cancel safe.
    pub async fn next(&mut self) -> Answered {
        // Our own sender keeps it open.
        self.answers.recv().await.expect("the channel is never closed")
    }
}

/// Tells what becomes of a command until it is over.
async fn attend(
    id: Uuid,
    mut hears: watch::Receiver<Outcome>,
    tell: mpsc::Sender<Answered>,
) -> Uuid {
    loop {
        let outcome = hears.borrow_and_update().clone();
        let is_over = outcome.is_over();
        if tell.send(Answered { id, outcome }).await.is_err() || is_over {
            return id;
        }
        // Progress is told at each interval, the end at once.
        let end = hears.wait_for(Outcome::is_over);
        let _ = timeout(WORKING_INTERVAL, end).await;
    }
}

#[cfg(test)]
mod tests {
    use domain::fault::Fault;
    use domain::id::ProtectionId;
    use wire::command::{Answer, Work};
    use wire::replication::Progress;

    use super::*;

    /// Takes five seconds for everything.
    #[derive(Debug, Clone)]
    struct Slow;

    impl Perform for Slow {
        async fn perform(
            &self,
            _: &Command,
            progress: &(dyn Fn(Progress) + Sync),
        ) -> Result<Answer, Fault> {
            progress(Progress { done: 1, total: 2, seconds_left: None });
            tokio::time::sleep(Duration::from_secs(5)).await;
            Ok(Answer::Done)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_hears_of_its_own_commands_until_they_are_over() {
        let executor = Executor::new(Slow);
        let id = Uuid::from_u128(1);
        let work = Work::ListPoints { protection: ProtectionId::new(id) };
        let command = Command { id, job: id, work };
        let mut first = Attending::new(executor.clone());
        first.take(command.clone());
        first.take(command.clone());
        let mut heard = Vec::new();
        while heard.last() != Some(&Outcome::Done { answer: Answer::Done }) {
            heard.push(first.next().await.outcome);
        }
        let working =
            Outcome::Working { progress: Some(Progress { done: 1, total: 2, seconds_left: None }) };
        assert_eq!(heard.iter().filter(|outcome| **outcome == working).count(), 2, "{heard:?}");
        assert!(timeout(Duration::from_secs(9), first.next()).await.is_err(), "said once");
        // Another connection hears of it when it gives it again, and not before.
        let mut second = Attending::new(executor);
        assert!(timeout(Duration::from_secs(9), second.next()).await.is_err());
        second.take(command);
        assert_eq!(second.next().await.outcome, Outcome::Done { answer: Answer::Done });
    }
}
