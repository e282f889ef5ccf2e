//! What goes wrong in a drill, and the wrappers that make it go wrong.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::context::Context;
use crate::fault::{Failure, Fault};
use crate::journal::{Journal, JournalError, MemoryJournal, Stored};
use crate::log::{Entry, JobId};
use crate::runbook::{Act, ActUndo, Outcome, Runbook, Table, Undoing};

/// Something that goes wrong once, or so many times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Where.
    pub place: Place,
    /// When.
    pub moment: Moment,
    /// What.
    pub kind: Kind,
    /// How often.
    pub times: u32,
}

/// Where something goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// In the step of that name.
    Step(&'static str),
    /// In the undo of the step of that name.
    Undo(&'static str),
    /// While the journal takes so manieth an append, from zero, over all lives
    /// of the engine.
    Append(u32),
}

/// When it goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Moment {
    /// Before anything was done.
    Before,
    /// After so many polls: half of it is done.
    Inside(u32),
    /// When all was done, and nobody was told.
    After,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// It fails, and another attempt may help.
    Fail,
    /// It fails for good.
    FailForGood,
    /// The process ends.
    Crash,
    /// An operator cancels the job.
    Cancel,
}

impl Trouble {
    /// This, once.
    #[must_use]
    pub const fn once(place: Place, moment: Moment, kind: Kind) -> Self {
        Self { place, moment, kind, times: 1 }
    }
}

/// All that goes wrong in one play, and what was seen while it did.
pub(super) struct Script {
    plot: Mutex<Plot>,
    pub(super) crashed: watch::Sender<bool>,
    pub(super) cancel: watch::Sender<Cancel>,
    /// Looks at the world at every poll.
    holds: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cancel {
    NotAsked,
    Asked,
    Settled,
}

#[derive(Default)]
struct Plot {
    troubles: Vec<Trouble>,
    polls: BTreeMap<Place, u32>,
    appends: u32,
    broken: Option<String>,
}

impl Script {
    pub(super) fn new(
        troubles: Vec<Trouble>,
        holds: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
    ) -> Self {
        Self {
            plot: Mutex::new(Plot { troubles, ..Plot::default() }),
            crashed: watch::Sender::new(false),
            cancel: watch::Sender::new(Cancel::NotAsked),
            holds,
        }
    }

    fn plot(&self) -> MutexGuard<'_, Plot> {
        self.plot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What goes wrong here and now, if anything does.
    fn trouble(&self, place: Place, moment: Moment) -> Option<Kind> {
        let mut plot = self.plot();
        let at_hand = |trouble: &&mut Trouble| {
            trouble.place == place && trouble.moment == moment && trouble.times > 0
        };
        let trouble = plot.troubles.iter_mut().find(at_hand)?;
        trouble.times -= 1;
        Some(trouble.kind)
    }

    fn is_trouble(&self, place: Place, moment: Moment) -> bool {
        let plot = self.plot();
        plot.troubles.iter().any(|t| t.place == place && t.moment == moment && t.times > 0)
    }

    fn note_polls(&self, place: Place, polls: u32) {
        let mut plot = self.plot();
        let most = plot.polls.entry(place).or_default();
        *most = polls.max(*most);
    }

    /// How often each step and undo was polled at most, in one attempt.
    pub(super) fn polls(&self) -> BTreeMap<Place, u32> {
        self.plot().polls.clone()
    }

    pub(super) fn appends(&self) -> u32 {
        self.plot().appends
    }

    /// What did not hold, the first time.
    pub(super) fn broken(&self) -> Option<String> {
        self.plot().broken.clone()
    }

    pub(super) fn look(&self, place: &str) {
        if let Err(what) = (self.holds)() {
            self.plot().broken.get_or_insert(format!("{what}, seen in {place}"));
        }
    }

    async fn crash<T>(&self) -> T {
        self.crashed.send_replace(true);
        std::future::pending().await
    }

    /// Returns when the operator has heard an answer.
    async fn cancel(&self) {
        self.cancel.send_replace(Cancel::Asked);
        self.cancel.subscribe().wait_for(|cancel| *cancel == Cancel::Settled).await.ok();
    }

    /// Plays an attempt of a step or an undo.
    async fn play<S, T>(
        &self,
        place: Place,
        mut work: BoxFuture<'static, (S, Result<T, Failure>)>,
    ) -> Result<(S, Result<T, Failure>), Failure> {
        self.meet(place, Moment::Before).await?;
        let mut polls = 0;
        let ended = loop {
            let polled = std::future::poll_fn(|cx| {
                let polled = work.poll_unpin(cx);
                polls += 1;
                self.look(&format!("{place:?} after {polls} polls"));
                match polled {
                    Poll::Ready(ended) => Poll::Ready(Some(ended)),
                    Poll::Pending if self.is_trouble(place, Moment::Inside(polls)) => {
                        Poll::Ready(None)
                    }
                    Poll::Pending => Poll::Pending,
                }
            })
            .await;
            match polled {
                Some(ended) => break ended,
                None => self.meet(place, Moment::Inside(polls)).await?,
            }
        };
        self.note_polls(place, polls);
        self.meet(place, Moment::After).await?;
        Ok(ended)
    }

    async fn meet(&self, place: Place, moment: Moment) -> Result<(), Failure> {
        let fault = || Fault::new("drill", "pass a drill", "the drill wants it so", "None.");
        match self.trouble(place, moment) {
            None => Ok(()),
            // The task that would hear it waits for the journal.
            Some(Kind::Cancel) if matches!(place, Place::Append(_)) => {
                self.cancel.send_replace(Cancel::Asked);
                Ok(())
            }
            Some(Kind::Fail) => Err(Failure::Passing(fault())),
            Some(Kind::FailForGood) => Err(Failure::ForGood(fault())),
            Some(Kind::Crash) => self.crash().await,
            Some(Kind::Cancel) => {
                self.cancel().await;
                Ok(())
            }
        }
    }
}

/// The table, each step and undo of which meets its troubles.
pub(super) fn troubled<R: Runbook>(mut table: Table<R>, script: &Arc<Script>) -> Table<R> {
    for row in &mut table.rows {
        let place = Place::Step(row.name);
        let act = Arc::clone(&row.act);
        row.act = Arc::new(Troubled { act, place, script: Arc::clone(script) });
        if let Undoing::By { act, .. } = &mut row.undo {
            let place = Place::Undo(row.name);
            let inner = Arc::clone(act);
            *act = Arc::new(Troubled { act: inner, place, script: Arc::clone(script) });
        }
    }
    table
}

struct Troubled<A: ?Sized> {
    act: Arc<A>,
    place: Place,
    script: Arc<Script>,
}

impl<R: Runbook> Act<R> for Troubled<dyn Act<R>> {
    fn act(
        self: Arc<Self>,
        state: R::State,
        context: Context<R::World>,
    ) -> BoxFuture<'static, (R::State, Result<Outcome, Failure>)> {
        let work = Arc::clone(&self.act).act(state.clone(), context);
        async move {
            let ended = self.script.play(self.place, work).await;
            ended.unwrap_or_else(|failure| (state, Err(failure)))
        }
        .boxed()
    }
}

impl<R: Runbook> ActUndo<R> for Troubled<dyn ActUndo<R>> {
    fn act(
        self: Arc<Self>,
        state: R::State,
        context: Context<R::World>,
    ) -> BoxFuture<'static, (R::State, Result<(), Failure>)> {
        let work = Arc::clone(&self.act).act(state.clone(), context);
        async move {
            let ended = self.script.play(self.place, work).await;
            ended.unwrap_or_else(|failure| (state, Err(failure)))
        }
        .boxed()
    }
}

/// A journal that meets its troubles.
pub(super) struct TroubledJournal {
    pub(super) journal: MemoryJournal,
    pub(super) script: Arc<Script>,
}

impl Journal for TroubledJournal {
    fn append<'a>(
        &'a self,
        job: JobId,
        entry: &'a Entry,
    ) -> BoxFuture<'a, Result<(), JournalError>> {
        async move {
            let number = {
                let mut plot = self.script.plot();
                plot.appends += 1;
                plot.appends - 1
            };
            let failed = |failure: Failure| JournalError::Failed(failure.fault().cause.clone());
            self.script.meet(Place::Append(number), Moment::Before).await.map_err(failed)?;
            self.journal.append(job, entry).await?;
            self.script.meet(Place::Append(number), Moment::After).await.map_err(failed)
        }
        .boxed()
    }

    fn unfinished(&self) -> BoxFuture<'_, Result<Vec<Stored>, JournalError>> {
        self.journal.unfinished()
    }

    fn load(&self, job: JobId) -> BoxFuture<'_, Result<Option<Stored>, JournalError>> {
        self.journal.load(job)
    }
}
