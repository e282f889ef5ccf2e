//! What the controller has this host do at once.
//!
//! ```text
//!   Command ──▶ begun at once, in a task ──▶ Working, again and again ──▶ Done, Failed
//!      │ the same id again                                                │
//!      └──▶ hears of the one that is under way, or what became of it ◀────┘
//! ```
//! A command that is under way goes on when the connection that it came on ends;
//! whoever gives it again, on another, hears of it. After a restart of the agent
//! nothing is known of it, and it is done again: each work may be repeated.
//! Commands also come over a socket of this host's ([`control`]), so that a
//! machine can be recovered with no controller at all.
//!
//! | looking for | module |
//! | --- | --- |
//! | hearing what becomes of commands | [`attending`] |
//! | which function does what | [`work`] |
//! | the source's side: shutting down, fencing, starting | [`source`] |
//! | points by command | [`points`] |

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::fault::{Code, Fault};
use tokio::sync::watch;
use tracing::{info, warn};
use uuid::Uuid;
use wire::command::{Answer, Command, Outcome};
use wire::replication::Progress;

pub mod attending;
pub mod control;
mod points;
mod source;
mod weigh;
pub mod work;

/// Commands that are done at the same time.
const AT_ONCE: usize = 64;
/// Commands whose end is remembered.
const REMEMBERED: usize = 256;

/// Does a command's work. One implementation does; others are for tests.
pub trait Perform: Clone + Send + Sync + 'static {
    /// Does it; `progress` is told how far it is.
    fn perform(
        &self,
        command: &Command,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> impl Future<Output = Result<Answer, Fault>> + Send;
}

/// Does commands. Clones are one.
#[derive(Debug)]
pub struct Executor<P> {
    perform: P,
    table: Arc<Mutex<Table>>,
}

impl<P: Clone> Clone for Executor<P> {
    fn clone(&self) -> Self {
        Self { perform: self.perform.clone(), table: Arc::clone(&self.table) }
    }
}

#[derive(Debug, Default)]
struct Table {
    outcomes: HashMap<Uuid, watch::Receiver<Outcome>>,
    /// Those that are over, the oldest first.
    over: VecDeque<Uuid>,
}

impl Table {
    fn under_way(&self) -> usize {
        self.outcomes.len() - self.over.len()
    }

    fn note_over(&mut self, id: Uuid) {
        self.over.push_back(id);
        if self.over.len() > REMEMBERED
            && let Some(oldest) = self.over.pop_front()
        {
            self.outcomes.remove(&oldest);
        }
    }
}

impl<P: Perform> Executor<P> {
    /// At no command yet.
    #[must_use]
    pub fn new(perform: P) -> Self {
        Self { perform, table: Arc::default() }
    }

    /// Begins a command, or finds it again by its id; what becomes of it.
    #[must_use]
    pub fn give(&self, command: Command) -> watch::Receiver<Outcome> {
        let mut table = self.lock();
        if let Some(known) = table.outcomes.get(&command.id) {
            return known.clone();
        }
        let (tell, hears) = watch::channel(Outcome::Working { progress: None });
        if table.under_way() >= AT_ONCE {
            tell.send_replace(Outcome::Failed { fault: too_many().into() });
            return hears;
        }
        table.outcomes.insert(command.id, hears.clone());
        drop(table);
        let executor = self.clone();
        tokio::spawn(async move { executor.run(command, tell).await });
        hears
    }

    async fn run(self, command: Command, tell: watch::Sender<Outcome>) {
        let id = command.id;
        info!(command = %id, job = %command.job, work = work::name(&command.work), "a command");
        let task = {
            let (perform, tell) = (self.perform.clone(), tell.clone());
            // Of its own, so that a defect in it ends nothing else.
            tokio::spawn(async move {
                let progress = |progress: Progress| {
                    tell.send_replace(Outcome::Working { progress: Some(progress) });
                };
                perform.perform(&command, &progress).await
            })
        };
        let done = task.await.unwrap_or_else(|error| Err(Fault::internal("do a command", &error)));
        let outcome = match done {
            Ok(answer) => Outcome::Done { answer },
            Err(fault) => {
                warn!(command = %id, code = %fault.code, cause = %fault.cause, advice = %fault.advice, "cannot {}", fault.doing);
                Outcome::Failed { fault: fault.into() }
            }
        };
        tell.send_replace(outcome);
        self.lock().note_over(id);
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Changes are insertions and removals; none stops half-way.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn too_many() -> Fault {
    Fault::new(
        Code::TooManyCommands,
        "begin a command",
        format!("{AT_ONCE} others are under way on this host"),
        "Run it again when others are done.",
    )
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use domain::id::ProtectionId;
    use tokio::sync::Semaphore;
    use wire::command::Work;

    use super::*;

    #[derive(Debug, Clone)]
    struct Counting {
        begun: Arc<AtomicUsize>,
        go: Arc<Semaphore>,
    }

    impl Perform for Counting {
        async fn perform(
            &self,
            command: &Command,
            progress: &(dyn Fn(Progress) + Sync),
        ) -> Result<Answer, Fault> {
            self.begun.fetch_add(1, Ordering::SeqCst);
            progress(Progress { done: 1, total: 2, seconds_left: None });
            let _go = self.go.acquire().await.unwrap();
            assert!(command.job != Uuid::from_u128(13), "a defect");
            Ok(Answer::Done)
        }
    }

    fn counting() -> (Executor<Counting>, Arc<AtomicUsize>, Arc<Semaphore>) {
        let (begun, go) = (Arc::default(), Arc::new(Semaphore::new(0)));
        let perform = Counting { begun: Arc::clone(&begun), go: Arc::clone(&go) };
        (Executor::new(perform), begun, go)
    }

    fn command(id: u128) -> Command {
        let protection = ProtectionId::new(Uuid::from_u128(1));
        let work = Work::ListPoints { protection };
        Command { id: Uuid::from_u128(id), job: Uuid::from_u128(id), work }
    }

    async fn end(mut hears: watch::Receiver<Outcome>) -> Outcome {
        hears.wait_for(Outcome::is_over).await.unwrap().clone()
    }

    #[tokio::test]
    async fn a_command_that_comes_again_is_done_once() {
        let (executor, begun, go) = counting();
        let first = executor.give(command(1));
        let second = executor.give(command(1));
        go.add_permits(1);
        let done = Outcome::Done { answer: Answer::Done };
        assert_eq!((end(first).await, end(second).await), (done.clone(), done.clone()));
        assert_eq!(end(executor.give(command(1))).await, done, "remembered");
        assert_eq!(begun.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn there_is_a_bound_and_a_defect_ends_one_command_alone() {
        let (executor, _, go) = counting();
        let all: Vec<_> =
            (100..100 + AT_ONCE as u128).map(|id| executor.give(command(id))).collect();
        let code = |outcome| match outcome {
            Outcome::Failed { fault } => fault.code,
            other => format!("{other:?}"),
        };
        assert_eq!(code(end(executor.give(command(13))).await), "LB7050");
        go.add_permits(AT_ONCE);
        for hears in all {
            assert_eq!(end(hears).await, Outcome::Done { answer: Answer::Done });
        }
        assert_eq!(
            code(end(executor.give(command(13))).await),
            "LB9001",
            "it was not begun before"
        );
        for id in 1000..1000 + 2 * REMEMBERED as u128 {
            end(executor.give(command(id))).await;
        }
        // The last may still be on its way into the table.
        assert!(executor.lock().outcomes.len() <= REMEMBERED + 2);
    }
}
