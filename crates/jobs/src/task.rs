//! The task that owns one job: does what [`decide`](crate::decide) says, and
//! listens meanwhile.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use time::OffsetDateTime;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::context::{Context, Progress, Resumed, Ticket, Warnings};
use crate::decide::{self, Action, Verb};
use crate::engine::{Clock, Permitted, Refused, View};
use crate::fault::{Failure, Fault, Refusal, code};
use crate::history::{History, Standing};
use crate::journal::{Journal, JournalError};
use crate::log::{End, Entry, Event, JobId, Word};
use crate::runbook::{Outcome, Runbook, Table, Undoing};

/// The wall clock is looked at while a job rests, since it may be set: more
/// often when the rest is nearly over, and within these bounds.
const LOOK: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(3600));
/// An entry is offered to the journal so often before the job stalls.
const APPENDS_MAX: u32 = 8;
/// So much of what operators say is kept of a job.
const WORDS_MAX: usize = 1000;

/// What somebody says to a job.
pub(crate) enum Command {
    Say { verb: Verb, word: Word, reply: oneshot::Sender<Result<(), Refused>> },
    Note { word: Word, reply: oneshot::Sender<Result<(), Refused>> },
}

pub(crate) struct Task<R: Runbook> {
    pub(crate) runbook: Arc<R>,
    pub(crate) table: Arc<Table<R>>,
    pub(crate) world: Arc<R::World>,
    pub(crate) history: History,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) mailbox: mpsc::Receiver<Command>,
    pub(crate) view: watch::Sender<View>,
}

/// What came of an attempt.
enum Attempt<S, T> {
    Ended(S, Result<T, Failure>, Vec<String>),
    /// It was told to stop and did not.
    Dropped,
}

impl<R: Runbook> Task<R> {
    /// Drives the job to its end, however long that takes.
    pub(crate) async fn run(mut self) {
        self.publish();
        loop {
            match self.go_on().await {
                Ok(()) => return,
                Err(fault) => {
                    tracing::error!(job = %self.history.id, %fault, "a job has stalled");
                    self.view.send_modify(|view| view.stall(fault.clone()));
                    if !self.revived(&fault).await {
                        return;
                    }
                }
            }
        }
    }

    async fn go_on(&mut self) -> Result<(), Fault> {
        loop {
            match decide::next(&self.history, &self.table, (self.clock).now()) {
                Action::Nothing => return Ok(()),
                Action::End(end) => self.record(Event::Ended { end }).await?,
                Action::Begin { step, attempt } => self.perform(step, attempt).await?,
                Action::BeginUndo { step, attempt } => self.perform_undo(step, attempt).await?,
                Action::Stop { step } => {
                    let step = self.name(step);
                    self.record(Event::Stopped { step }).await?;
                }
                Action::Resume { by } => {
                    let resumed = Resumed { by, comment: String::new() };
                    self.record(Event::Resumed(resumed)).await?;
                }
                Action::GiveUp { step, fault } => {
                    let (step, verdict) = (self.name(step), crate::log::Verdict::Ask);
                    self.record(Event::Failed { step, fault, verdict }).await?;
                }
                Action::GiveUpUndo { step, fault } => {
                    let step = self.name(step);
                    self.record(Event::UndoFailed { step, fault, again: None }).await?;
                }
                Action::Rest { until } => self.rest(until).await?,
            }
        }
    }

    /// Listens until then, or until something was said.
    async fn rest(&mut self, until: Option<OffsetDateTime>) -> Result<(), Fault> {
        let left = until.map(|until| until - (self.clock).now());
        let left = left.map_or(LOOK.1, |left| Duration::try_from(left).unwrap_or_default());
        let look = left.min((left / 8).clamp(LOOK.0, LOOK.1));
        tokio::select! {
            command = self.mailbox.recv() => match command {
                Some(command) => self.hear(command).await,
                // The engine is gone, and this task is about to be.
                None => std::future::pending().await,
            },
            () = tokio::time::sleep(look) => Ok(()),
        }
    }

    async fn perform(&mut self, step: usize, attempt: u32) -> Result<(), Fault> {
        let (name, row) = (self.name(step), &self.table.rows[step]);
        let (act, limits) = (Arc::clone(&row.act), (row.within, row.stop_within));
        let state = self.runbook.read_state(self.history.order.version, &self.history.state)?;
        self.record(Event::Begun { step: name.clone(), attempt }).await?;
        let (context, told) = self.context(step, attempt);
        let work = act.act(state, context);
        let event = match self.attend(&format!("run step {name}"), work, limits, told).await? {
            Attempt::Ended(state, Ok(outcome), warnings) => {
                let state = self.put_down(&state)?;
                match outcome {
                    Outcome::Done => Event::Finished { step: name, state, warnings },
                    Outcome::TakeBack => Event::TakingBack { step: name, state, warnings },
                    Outcome::Wait(wait) => Event::Waiting { step: name, state, wait },
                }
            }
            Attempt::Ended(_, Err(failure), _) => self.failed(step, &failure),
            Attempt::Dropped if self.is_stopping() => Event::Stopped { step: name },
            Attempt::Dropped => self.failed(step, &self.too_long("run", step).into()),
        };
        self.record(event).await
    }

    async fn perform_undo(&mut self, step: usize, attempt: u32) -> Result<(), Fault> {
        let (name, row) = (self.name(step), &self.table.rows[step]);
        let Undoing::By { act, .. } = &row.undo else {
            unreachable!("only a step with an undo is undone")
        };
        let (act, limits, retry) = (Arc::clone(act), (row.within, row.stop_within), row.retry_undo);
        let state = self.runbook.read_state(self.history.order.version, &self.history.state)?;
        self.record(Event::UndoBegun { step: name.clone(), attempt }).await?;
        let (context, told) = self.context(step, attempt);
        let work = act.act(state, context);
        let failure = match self.attend(&format!("undo step {name}"), work, limits, told).await? {
            Attempt::Ended(state, Ok(()), warnings) => {
                let state = self.put_down(&state)?;
                return self.record(Event::UndoFinished { step: name, state, warnings }).await;
            }
            Attempt::Ended(_, Err(failure), _) => failure,
            Attempt::Dropped => self.too_long("undo", step).into(),
        };
        let failures = self.history.tries.failures + 1;
        let again = decide::again(&failure, &retry, failures, (self.clock).now());
        self.record(Event::UndoFailed { step: name, fault: failure.fault().clone(), again }).await
    }

    /// Waits for an attempt and listens meanwhile. Stops it when the job is
    /// cancelled or its time is over, and drops it if it does not stop.
    async fn attend<T>(
        &mut self,
        doing: &str,
        work: BoxFuture<'static, (R::State, Result<T, Failure>)>,
        (within, stop_within): (Duration, Duration),
        mut told: Told,
    ) -> Result<Attempt<R::State, T>, Fault> {
        let mut work = AssertUnwindSafe(work).catch_unwind();
        let mut limit = std::pin::pin!(tokio::time::sleep(within));
        loop {
            tokio::select! {
                biased;
                result = &mut work => {
                    let warnings = std::mem::take(
                        &mut *told.warnings.lock().unwrap_or_else(PoisonError::into_inner),
                    );
                    return match result {
                        Ok((state, result)) => Ok(Attempt::Ended(state, result, warnings)),
                        Err(panic) => {
                            let version = self.history.order.version;
                            let state = self.runbook.read_state(version, &self.history.state)?;
                            let failure = Failure::ForGood(panicked(format!("{doing} of job {}", self.history.id), &*panic));
                            Ok(Attempt::Ended(state, Err(failure), warnings))
                        }
                    };
                }
                () = &mut limit => {
                    if told.stopping.is_cancelled() {
                        return Ok(Attempt::Dropped);
                    }
                    told.stopping.cancel();
                    limit.as_mut().reset(Instant::now() + stop_within);
                }
                Some(command) = self.mailbox.recv() => {
                    self.hear(command).await?;
                    if self.is_stopping() && !told.stopping.is_cancelled() {
                        told.stopping.cancel();
                        limit.as_mut().reset(Instant::now() + stop_within);
                    }
                }
                Ok(()) = told.progress.changed() => {
                    let progress = told.progress.borrow_and_update().clone();
                    self.view.send_modify(|view| view.progress = progress);
                }
            }
        }
    }

    async fn hear(&mut self, command: Command) -> Result<(), Fault> {
        let (event, reply) = match command {
            Command::Note { word, reply } => (note(&self.history, word), reply),
            Command::Say { verb, word, reply } => (self.judge(verb, word), reply),
        };
        let event = match event {
            Ok(event) => event,
            Err(refusal) => {
                reply.send(Err(Refused::Forbidden(refusal))).ok();
                return Ok(());
            }
        };
        let result = self.record(event).await;
        let answer = result.clone().map_err(Refused::Stalled);
        reply.send(answer).ok();
        result
    }

    fn judge(&self, verb: Verb, word: Word) -> Result<Event, Refusal> {
        decide::permit(verb, &self.history, &self.table)?;
        Ok(match verb {
            Verb::Cancel => Event::CancelAsked(word),
            Verb::Retry => Event::Retried(word),
            Verb::Resume => Event::Resumed(Resumed {
                by: crate::log::Resumer::Operator { name: word.by },
                comment: word.comment,
            }),
            Verb::Abandon => {
                let left = decide::left(&self.history, &self.table);
                Event::Ended { end: End::Abandoned { word, left } }
            }
        })
    }

    /// Waits until an operator has a stalled job go on, from what the journal
    /// holds: an entry that failed may be there all the same. False when the job
    /// was abandoned, or the engine is gone.
    async fn revived(&mut self, stalled: &Fault) -> bool {
        while let Some(command) = self.mailbox.recv().await {
            match command {
                Command::Say { verb: Verb::Retry, reply, .. } => {
                    let reloaded = self.reload().await;
                    let revived = reloaded.is_ok();
                    reply.send(reloaded.map_err(Refused::Stalled)).ok();
                    if revived {
                        return true;
                    }
                }
                Command::Say { verb: Verb::Abandon, word, reply } => {
                    let abandoned = self.abandon(word).await;
                    let ended = abandoned.is_ok();
                    reply.send(abandoned.map_err(Refused::Stalled)).ok();
                    if ended {
                        return false;
                    }
                }
                Command::Note { reply, .. } | Command::Say { reply, .. } => {
                    reply.send(Err(Refused::Stalled(stalled.clone()))).ok();
                }
            }
        }
        false
    }

    async fn reload(&mut self) -> Result<(), Fault> {
        self.history = reload(&*self.journal, self.history.id).await?;
        self.publish();
        Ok(())
    }

    async fn abandon(&mut self, word: Word) -> Result<(), Fault> {
        self.reload().await?;
        if matches!(self.history.standing, Standing::Ended(_)) {
            return Ok(());
        }
        let left = decide::left(&self.history, &self.table);
        self.record(Event::Ended { end: End::Abandoned { word, left } }).await
    }

    /// Writes an entry down; durable on return.
    async fn record(&mut self, event: Event) -> Result<(), Fault> {
        let entry = Entry::new(self.history.next, (self.clock).now(), event);
        let after = self.history.clone().after(entry.clone())?;
        append(&*self.journal, self.history.id, &entry).await?;
        self.history = after;
        self.publish();
        Ok(())
    }

    fn publish(&self) {
        let verbs = Verb::ALL.map(|verb| Permitted {
            verb,
            refused: decide::permit(verb, &self.history, &self.table).err(),
        });
        self.view.send_replace(View {
            history: Arc::new(self.history.clone()),
            progress: None,
            stalled: None,
            verbs: verbs.into(),
        });
    }

    fn failed(&self, step: usize, failure: &Failure) -> Event {
        let now = (self.clock).now();
        let verdict = decide::judge(failure, step, &self.history, &self.table, now);
        Event::Failed { step: self.name(step), fault: failure.fault().clone(), verdict }
    }

    fn too_long(&self, verb: &str, step: usize) -> Fault {
        Fault::new(
            code::TOOK_TOO_LONG,
            format!("{verb} step {} of job {}", self.name(step), self.history.id),
            format!("it took longer than {:?}", self.table.rows[step].within),
            "Look at what it works on; then retry it, or cancel the job.",
        )
    }

    fn name(&self, step: usize) -> String {
        self.history.steps[step].name.clone()
    }

    fn is_stopping(&self) -> bool {
        matches!(self.history.standing, Standing::Running { stopping: Some(_), .. })
    }

    fn put_down(&self, state: &R::State) -> Result<serde_json::Value, Fault> {
        serde_json::to_value(state).map_err(|error| {
            Fault::new(
                code::STATE_UNREADABLE,
                format!("put down the state of job {}", self.history.id),
                error.to_string(),
                "This is a defect of the runbook; please report it.",
            )
        })
    }

    fn context(&self, step: usize, attempt: u32) -> (Context<R::World>, Told) {
        let (progress, reports) = watch::channel(None);
        let told = Told {
            stopping: CancellationToken::new(),
            progress: reports,
            warnings: Warnings::default(),
        };
        let context = Context {
            world: Arc::clone(&self.world),
            ticket: Ticket { job: self.history.id, step: self.table.rows[step].name, attempt },
            now: (self.clock).now(),
            stopping: told.stopping.clone(),
            resumed: self.history.resumed.clone(),
            progress,
            warnings: Arc::clone(&told.warnings),
        };
        (context, told)
    }
}

/// The engine's ends of what an attempt's [`Context`] holds.
struct Told {
    stopping: CancellationToken,
    progress: watch::Receiver<Option<Progress>>,
    warnings: Warnings,
}

pub(crate) fn note(history: &History, word: Word) -> Result<Event, Refusal> {
    if history.words.len() >= WORDS_MAX {
        let reason = format!("the job has {WORDS_MAX} notes already");
        return Err(Refusal::new(reason, "Write it down elsewhere."));
    }
    Ok(Event::Noted(word))
}

fn panicked(doing: String, panic: &(dyn Any + Send)) -> Fault {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    let cause = text.unwrap_or_else(|| "a step panicked".into());
    Fault::new(code::PANICKED, doing, cause, "This is a defect of the runbook; please report it.")
}

/// Adds an entry to a log, trying again for some seconds.
pub(crate) async fn append(journal: &dyn Journal, job: JobId, entry: &Entry) -> Result<(), Fault> {
    let doing = || format!("write entry {} of the log of job {job}", entry.number);
    let mut rest = Duration::from_millis(100);
    for last in (0..APPENDS_MAX).rev() {
        match journal.append(job, entry).await {
            Ok(()) => return Ok(()),
            Err(error @ JournalError::NumberTaken) => {
                let advice = "Make sure that only one process drives jobs, then retry the job.";
                return Err(Fault::new(code::JOURNAL_FAILED, doing(), error.to_string(), advice));
            }
            Err(JournalError::Failed(cause)) if last == 0 => {
                let advice = "Mend the journal (is its disk full?), then retry the job.";
                return Err(Fault::new(code::JOURNAL_FAILED, doing(), cause, advice));
            }
            Err(JournalError::Failed(_)) => tokio::time::sleep(rest).await,
        }
        rest = (rest * 2).min(Duration::from_secs(5));
    }
    unreachable!("the last attempt returns")
}

async fn reload(journal: &dyn Journal, job: JobId) -> Result<History, Fault> {
    let fault = |cause: String| {
        let advice = "Mend the journal, then retry the job.";
        Fault::new(code::JOURNAL_FAILED, format!("read the log of job {job}"), cause, advice)
    };
    let stored = journal.load(job).await.map_err(|error| fault(error.to_string()))?;
    let stored = stored.ok_or_else(|| fault("there is none".into()))?;
    History::read(job, stored.lines.iter().map(String::as_str))
}
