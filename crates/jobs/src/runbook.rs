//! Runbooks: what an operation does, as a table of typed steps.
//!
//! ```
//! use jobs::{Context, Failure, Outcome, Runbook, Step, Table, Undo};
//! use serde::{Deserialize, Serialize};
//!
//! /// Lends a book to a reader.
//! struct Lend;
//!
//! impl Runbook for Lend {
//!     const NAME: &'static str = "lend";
//!     type State = Lending;
//!     type World = Library;
//!
//!     fn table(&self) -> Table<Self> {
//!         Table::new()
//!             .step(TakeFromShelf).undone_by(PutBack)
//!             .step(TellReader).never_undone("a letter cannot be called back")
//!     }
//! }
//!
//! /// What was ordered, and what steps put down for later ones.
//! #[derive(Clone, Serialize, Deserialize)]
//! struct Lending { book: String, shelf: Option<u32> }
//! # struct Library;
//! # impl Library { async fn take(&self, _: &str) -> Result<u32, jobs::Fault> { Ok(3) } }
//!
//! struct TakeFromShelf;
//! impl Step<Lend> for TakeFromShelf {
//!     const NAME: &'static str = "take-from-shelf";
//!     async fn run(&self, lending: &mut Lending, cx: &Context<Library>) -> Result<Outcome, Failure> {
//!         lending.shelf = Some(cx.world().take(&lending.book).await?);
//!         Ok(Outcome::Done)
//!     }
//! }
//! # struct PutBack;
//! # impl Undo<Lend> for PutBack {
//! #     const NAME: &'static str = "put-back";
//! #     async fn undo(&self, _: &mut Lending, _: &Context<Library>) -> Result<(), Failure> { Ok(()) }
//! # }
//! # struct TellReader;
//! # impl Step<Lend> for TellReader {
//! #     const NAME: &'static str = "tell-reader";
//! #     async fn run(&self, _: &mut Lending, _: &Context<Library>) -> Result<Outcome, Failure> { Ok(Outcome::Done) }
//! # }
//! assert_eq!(Lend.table().names(), ["take-from-shelf", "tell-reader"]);
//! ```
//!
//! What a step must be:
//!
//! - **Repeatable.** After a crash it runs again, on the state from before its
//!   first run. What it makes it finds again by an id that is in the state
//!   before it begins, chosen by the order or by an earlier step.
//! - **Undone whole.** Its undo meets nothing, half or all of what it does, and
//!   may run more than once.
//! - **Stoppable.** It watches [`Context::stopping`] where it waits long. A step
//!   that does not stop in time is dropped where it stands.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::context::Context;
use crate::fault::{Failure, Fault, code};

/// An operation: a table of steps, the state that they share, and the world
/// that they change.
pub trait Runbook: Sized + Send + Sync + 'static {
    /// Names the operation in journals for good.
    const NAME: &'static str;
    /// Of the table and the state. Raised when either changes, since a journal
    /// may hold jobs that an older version began.
    const VERSION: u32 = 1;
    /// What was ordered and what steps put down; durable after each step.
    type State: Clone + Serialize + DeserializeOwned + Send + Sync + 'static;
    /// What the steps change, real or simulated.
    type World: ?Sized + Send + Sync + 'static;

    /// The steps, in order.
    fn table(&self) -> Table<Self>;

    /// The steps as an older version had them, to finish its jobs.
    fn older_table(&self, _version: u32) -> Option<Table<Self>> {
        None
    }

    /// Reads a state that this or an older version wrote; of an older version that has
    /// a table, as it stands.
    ///
    /// # Errors
    /// When it cannot be read; the job then waits for a program that can.
    fn read_state(&self, version: u32, state: &serde_json::Value) -> Result<Self::State, Fault> {
        let doing = || format!("read the state of a job of runbook {}", Self::NAME);
        let advice = "Run the version of the program that began the job.";
        if version != Self::VERSION && self.older_table(version).is_none() {
            let cause = format!("version {version} wrote it, this is {}", Self::VERSION);
            return Err(Fault::new(code::STATE_UNREADABLE, doing(), cause, advice));
        }
        Self::State::deserialize(state)
            .map_err(|error| Fault::new(code::STATE_UNREADABLE, doing(), error.to_string(), advice))
    }

    /// What a job takes for itself while it is not at its end.
    fn keys(&self, _order: &Self::State) -> Vec<Key> {
        Vec::new()
    }
}

/// One effect on the world.
pub trait Step<R: Runbook>: Send + Sync + 'static {
    /// The effect: `fence-source`. Unique in its table, and kept for good.
    const NAME: &'static str;

    /// Brings the effect about, whether or not it was begun before. What it
    /// changes in `state` is durable, and seen by later steps, when it succeeds;
    /// else it is forgotten.
    fn run(
        &self,
        state: &mut R::State,
        context: &Context<R::World>,
    ) -> impl Future<Output = Result<Outcome, Failure>> + Send;
}

/// Takes a step's effect back.
pub trait Undo<R: Runbook>: Send + Sync + 'static {
    /// The effect: `start-source`.
    const NAME: &'static str;

    /// Takes the effect back, however much of it there is.
    fn undo(
        &self,
        state: &mut R::State,
        context: &Context<R::World>,
    ) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// How a step ended that did not fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The effect is there; the next step may begin.
    Done,
    /// It needs an operator or a deadline, and is run again then, with
    /// [`Context::resumed`] saying who resumed it.
    Wait(Wait),
    /// The job has been of use: what its steps have made is undone, and the job
    /// has succeeded. A test ends so. Steps up to a point of no return stay.
    TakeBack,
}

/// What a job waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wait {
    /// As an operator reads it: `complete the test`.
    pub what: String,
    /// Resumed by itself then.
    #[serde(with = "time::serde::rfc3339::option")]
    pub until: Option<OffsetDateTime>,
}

impl Wait {
    /// Waits for an operator, as long as it takes.
    pub fn for_operator(what: impl Into<String>) -> Self {
        Self { what: what.into(), until: None }
    }

    /// Goes on by itself then, if nobody resumes it before.
    #[must_use]
    pub fn until(self, until: OffsetDateTime) -> Self {
        Self { until: Some(until), ..self }
    }
}

/// How often a step is tried, and how long it rests in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    attempts: u32,
    first: Duration,
    longest: Duration,
}

impl Retry {
    /// Tried once.
    pub const NEVER: Self = Self { attempts: 1, first: Duration::ZERO, longest: Duration::ZERO };

    /// Tried so often, with rests that begin with `first` and double up to `longest`.
    #[must_use]
    pub const fn times(attempts: u32, first: Duration, longest: Duration) -> Self {
        assert!(attempts > 0, "a step is tried at least once");
        Self { attempts, first, longest }
    }

    /// The rest after so many failures, if another attempt is due.
    #[must_use]
    pub fn rest_after(&self, failures: u32) -> Option<Duration> {
        if failures >= self.attempts {
            return None;
        }
        let doublings = failures.saturating_sub(1).min(31);
        Some(self.first.saturating_mul(1 << doublings).min(self.longest))
    }
}

/// What is done when a step has failed for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// What was done is undone. After a point of no return: ask.
    Unwind,
    /// The job stops until an operator says `retry` or `cancel`.
    Ask,
    /// The failure becomes a warning, and the next step begins: best effort.
    GoOn,
}

/// What a job takes while it is not at its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// What it is: `protection/6f1c…`.
    pub name: String,
    /// Whether others may take it as well.
    pub hold: Hold,
}

/// How a key is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hold {
    /// By one job alone.
    Exclusive,
    /// Beside others that share it.
    Shared,
}

impl Key {
    /// Taken by one job alone.
    pub fn exclusive(name: impl Into<String>) -> Self {
        Self { name: name.into(), hold: Hold::Exclusive }
    }

    /// Taken beside others that share it.
    pub fn shared(name: impl Into<String>) -> Self {
        Self { name: name.into(), hold: Hold::Shared }
    }

    /// Whether both cannot be held at once.
    #[must_use]
    pub fn excludes(&self, other: &Self) -> bool {
        self.name == other.name && (self.hold, other.hold) != (Hold::Shared, Hold::Shared)
    }
}

/// The steps of a runbook, in order.
pub struct Table<R: Runbook> {
    pub(crate) rows: Vec<Row<R>>,
}

/// A step with all that is declared of it.
pub(crate) struct Row<R: Runbook> {
    pub(crate) name: &'static str,
    pub(crate) act: Arc<dyn Act<R>>,
    pub(crate) undo: Undoing<R>,
    pub(crate) retry: Retry,
    pub(crate) retry_undo: Retry,
    pub(crate) on_failure: OnFailure,
    pub(crate) within: Duration,
    pub(crate) stop_within: Duration,
    pub(crate) no_return: Option<&'static str>,
}

pub(crate) enum Undoing<R: Runbook> {
    By { name: &'static str, act: Arc<dyn ActUndo<R>> },
    Never { reason: &'static str },
}

/// A step whose undo, or the reason for none, is still to be said.
#[must_use = "say how the step is undone, or why it never is"]
pub struct Undecided<R: Runbook> {
    table: Table<R>,
    name: &'static str,
    act: Arc<dyn Act<R>>,
}

impl<R: Runbook> Default for Table<R> {
    fn default() -> Self {
        Self::new()
    }
}

impl<R: Runbook> Table<R> {
    /// No steps yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { rows: Vec::new() }
    }

    /// Adds a step.
    ///
    /// # Panics
    /// When another step has its name.
    pub fn step<S: Step<R>>(self, step: S) -> Undecided<R> {
        assert!(self.rows.iter().all(|row| row.name != S::NAME), "two steps are named {}", S::NAME);
        Undecided { table: self, name: S::NAME, act: Arc::new(Acting(step, PhantomData)) }
    }

    /// How often the last step is tried. Three times, if nothing is said.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.last().retry = retry;
        self
    }

    /// How often the last step's undo is tried before an operator is asked.
    /// Five times, if nothing is said.
    #[must_use]
    pub fn retry_undo(mut self, retry: Retry) -> Self {
        self.last().retry_undo = retry;
        self
    }

    /// What is done when the last step has failed for good.
    #[must_use]
    pub fn on_failure(mut self, on_failure: OnFailure) -> Self {
        self.last().on_failure = on_failure;
        self
    }

    /// How long one attempt of the last step, or of its undo, may take. An hour,
    /// if nothing is said. What it waits for with [`Outcome::Wait`] is not counted.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.last().within = limit;
        self
    }

    /// How long the last step has to stop when it is told to, before it is
    /// dropped where it stands. Half a minute, if nothing is said.
    #[must_use]
    pub fn stop_within(mut self, limit: Duration) -> Self {
        self.last().stop_within = limit;
        self
    }

    /// Once the last step has begun, a cancel is refused for this reason, and a
    /// failure never unwinds what came before: it is tried again until it works.
    #[must_use]
    pub fn no_return(mut self, reason: &'static str) -> Self {
        self.last().no_return = Some(reason);
        self
    }

    /// The names of the steps.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        self.rows.iter().map(|row| row.name).collect()
    }

    fn last(&mut self) -> &mut Row<R> {
        self.rows.last_mut().expect("a table's settings follow a step")
    }
}

impl<R: Runbook> Undecided<R> {
    /// How the step is undone.
    #[must_use]
    pub fn undone_by<U: Undo<R>>(self, undo: U) -> Table<R> {
        self.decided(Undoing::By { name: U::NAME, act: Arc::new(ActingUndo(undo, PhantomData)) })
    }

    /// Why the step need not be undone.
    #[must_use]
    pub fn never_undone(self, reason: &'static str) -> Table<R> {
        self.decided(Undoing::Never { reason })
    }

    fn decided(self, undo: Undoing<R>) -> Table<R> {
        let mut table = self.table;
        table.rows.push(Row {
            name: self.name,
            act: self.act,
            undo,
            retry: Retry::times(3, Duration::from_secs(1), Duration::from_secs(10)),
            retry_undo: Retry::times(5, Duration::from_secs(1), Duration::from_secs(30)),
            on_failure: OnFailure::Unwind,
            within: Duration::from_secs(3600),
            stop_within: Duration::from_secs(30),
            no_return: None,
        });
        table
    }
}

impl<R: Runbook> fmt::Display for Table<R> {
    /// One line per step, as a dry run shows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, row) in self.rows.iter().enumerate() {
            write!(f, "{:>2}. {}", number + 1, row.name)?;
            match row.undo {
                Undoing::By { name, .. } => write!(f, ", undone by {name}")?,
                Undoing::Never { reason } => write!(f, ", never undone: {reason}")?,
            }
            if let Some(reason) = row.no_return {
                write!(f, " (no return: {reason})")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// A step without its type: what was put down, and how it ended.
pub(crate) trait Act<R: Runbook>: Send + Sync {
    fn act(
        self: Arc<Self>,
        state: R::State,
        context: Context<R::World>,
    ) -> BoxFuture<'static, (R::State, Result<Outcome, Failure>)>;
}

/// An undo without its type.
pub(crate) trait ActUndo<R: Runbook>: Send + Sync {
    fn act(
        self: Arc<Self>,
        state: R::State,
        context: Context<R::World>,
    ) -> BoxFuture<'static, (R::State, Result<(), Failure>)>;
}

struct Acting<R, S>(S, PhantomData<fn(R)>);

impl<R: Runbook, S: Step<R>> Act<R> for Acting<R, S> {
    fn act(
        self: Arc<Self>,
        mut state: R::State,
        context: Context<R::World>,
    ) -> BoxFuture<'static, (R::State, Result<Outcome, Failure>)> {
        async move {
            let result = self.0.run(&mut state, &context).await;
            (state, result)
        }
        .boxed()
    }
}

struct ActingUndo<R, U>(U, PhantomData<fn(R)>);

impl<R: Runbook, U: Undo<R>> ActUndo<R> for ActingUndo<R, U> {
    fn act(
        self: Arc<Self>,
        mut state: R::State,
        context: Context<R::World>,
    ) -> BoxFuture<'static, (R::State, Result<(), Failure>)> {
        async move {
            let result = self.0.undo(&mut state, &context).await;
            (state, result)
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_double_up_to_the_longest_and_end_with_the_last_attempt() {
        let retry = Retry::times(5, Duration::from_secs(1), Duration::from_secs(3));
        let rests: Vec<_> = (1..=5).map(|failures| retry.rest_after(failures)).collect();
        let seconds = |s| Some(Duration::from_secs(s));
        assert_eq!(rests, [seconds(1), seconds(2), seconds(3), seconds(3), None]);
        assert_eq!(Retry::NEVER.rest_after(1), None);
    }

    #[test]
    fn a_key_is_shared_only_by_those_who_share() {
        let (alone, shared) = (Key::exclusive("m"), Key::shared("m"));
        assert!(alone.excludes(&alone) && alone.excludes(&shared) && shared.excludes(&alone));
        assert!(!shared.excludes(&shared) && !alone.excludes(&Key::exclusive("n")));
    }
}
