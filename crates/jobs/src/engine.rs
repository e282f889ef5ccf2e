//! The engine: takes orders, owns a task for each unfinished job, and lets
//! operators watch and speak to them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use time::OffsetDateTime;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::context::Progress;
use crate::decide::{HAS_ENDED, Verb};
use crate::fault::{Fault, Refusal, code};
use crate::history::{History, Standing, Undo};
use crate::journal::Journal;
use crate::log::{End, Entry, Event, JobId, Order, Word};
use crate::runbook::{Key, Runbook, Table};
use crate::task::{Command, Task, append, note};

/// So many commands may wait for one job's task.
const MAILBOX: usize = 16;
/// So many jobs may be unfinished, if nothing else is said.
const JOBS_MAX: usize = 1000;

/// Tells the time.
pub trait Clock: Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> OffsetDateTime;
}

impl<F: Fn() -> OffsetDateTime + Send + Sync + 'static> Clock for F {
    fn now(&self) -> OffsetDateTime {
        self()
    }
}

/// Who orders a job, and for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Who.
    pub by: String,
    /// What it is done to, as an operator reads it.
    pub target: String,
    /// The job that it is part of, whose keys it shares while that is not at its end.
    pub parent: Option<JobId>,
}

impl Asked {
    /// An order that stands for itself.
    pub fn new(by: impl Into<String>, target: impl Into<String>) -> Self {
        Self { by: by.into(), target: target.into(), parent: None }
    }
}

/// A job as it can be watched.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// All that its log tells.
    pub history: Arc<History>,
    /// How far the step at hand is.
    pub progress: Option<Progress>,
    /// Why the engine does not go on with it. An operator mends that, and has
    /// the job retry; or abandons it. A job of an unknown runbook is taken up by
    /// the next engine that knows it.
    pub stalled: Option<Fault>,
    /// What an operator may say to it now; nothing while it is only taken up.
    pub verbs: Vec<Permitted>,
}

/// Something that an operator may say to a job, or why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permitted {
    /// What.
    pub verb: Verb,
    /// Why not now, if it may not.
    pub refused: Option<Refusal>,
}

impl View {
    /// Whether nothing happens until an operator says `retry`, `cancel` or
    /// `abandon`, and because of what.
    #[must_use]
    pub fn needs_attention(&self) -> Option<&Fault> {
        match &self.history.standing {
            Standing::Asking { fault, .. }
            | Standing::Unwinding { undo: Undo::Stuck { fault, .. }, .. } => Some(fault),
            _ => self.stalled.as_ref(),
        }
    }

    /// Of a job that no task drives.
    #[must_use]
    pub fn of(history: History, stalled: Option<Fault>) -> Self {
        let verbs = match (&history.standing, &stalled) {
            (Standing::Ended(_), _) => permitted(&[], HAS_ENDED),
            (_, Some(fault)) => permitted(&[Verb::Abandon], (&fault.cause, &fault.advice)),
            _ => Vec::new(),
        };
        Self { history: Arc::new(history), progress: None, stalled, verbs }
    }

    /// It does not go on before this is mended.
    pub(crate) fn stall(&mut self, fault: Fault) {
        self.verbs = permitted(&[Verb::Retry, Verb::Abandon], (&fault.cause, &fault.advice));
        self.stalled = Some(fault);
    }
}

/// All verbs, of which only these are allowed.
fn permitted(allowed: &[Verb], (reason, advice): (&str, &str)) -> Vec<Permitted> {
    let refused = |verb| (!allowed.contains(&verb)).then(|| Refusal::new(reason, advice));
    Verb::ALL.map(|verb| Permitted { verb, refused: refused(verb) }).into()
}

/// Why the engine does not do what it is asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no such job.
    #[error("there is no job {0}")]
    UnknownJob(JobId),
    /// Another job holds a key that this one needs.
    #[error("job {holder} holds {}", key.name)]
    KeyTaken {
        /// The key.
        key: Key,
        /// The other job.
        holder: JobId,
    },
    /// Too many jobs are unfinished.
    #[error("{limit} jobs are unfinished, and no more are taken")]
    TooMany {
        /// How many there may be.
        limit: usize,
    },
    /// The job's standing forbids it.
    #[error("{}", .0.reason)]
    Forbidden(Refusal),
    /// The job does not go on before this is mended.
    #[error(transparent)]
    Stalled(Fault),
    /// It could not be written down or read.
    #[error(transparent)]
    Failed(Fault),
}

/// Takes runbooks, and becomes an [`Engine`].
pub struct EngineBuilder {
    journal: Arc<dyn Journal>,
    clock: Arc<dyn Clock>,
    jobs_max: usize,
    runbooks: BTreeMap<&'static str, Arc<dyn Drive>>,
}

/// Drives jobs. Clones drive the same ones; with the last clone, or with
/// [`Engine::stop`], all of them stand still until another engine goes on.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    journal: Arc<dyn Journal>,
    clock: Arc<dyn Clock>,
    jobs_max: usize,
    runbooks: BTreeMap<&'static str, Arc<dyn Drive>>,
    live: Mutex<BTreeMap<JobId, Live>>,
    tasks: Mutex<JoinSet<()>>,
    unreadable: Vec<(JobId, Fault)>,
}

/// An unfinished job.
struct Live {
    keys: Vec<Key>,
    view: watch::Receiver<View>,
    /// Whether its order is durable, once that is known.
    ordered: watch::Receiver<Option<Result<(), Fault>>>,
    /// Whoever speaks to it, if any task drives it.
    mailbox: Option<mpsc::Sender<Command>>,
}

impl EngineBuilder {
    /// Has jobs of this runbook be driven in this world.
    ///
    /// # Panics
    /// When another runbook has its name.
    #[must_use]
    pub fn register<R: Runbook>(self, runbook: R, world: Arc<R::World>) -> Self {
        let table = runbook.table();
        self.register_table(runbook, table, world)
    }

    pub(crate) fn register_table<R: Runbook>(
        mut self,
        runbook: R,
        table: Table<R>,
        world: Arc<R::World>,
    ) -> Self {
        let registered = Registered { runbook: Arc::new(runbook), table: Arc::new(table), world };
        let other = self.runbooks.insert(R::NAME, Arc::new(registered));
        assert!(other.is_none(), "two runbooks are named {}", R::NAME);
        self
    }

    /// So many jobs may be unfinished.
    #[must_use]
    pub fn jobs_max(self, jobs_max: usize) -> Self {
        Self { jobs_max, ..self }
    }

    /// Goes on with all unfinished jobs, then takes orders.
    ///
    /// # Errors
    /// When the journal cannot be read. A job whose log or runbook is no good
    /// does not keep others from going on.
    pub async fn start(self) -> Result<Engine, Fault> {
        let unfinished = self.journal.unfinished().await.map_err(|error| {
            let advice = "Mend the journal, then start again.";
            let doing = "read the jobs that are not at their end";
            Fault::new(code::JOURNAL_FAILED, doing, error.to_string(), advice)
        })?;
        let mut unreadable = Vec::new();
        let mut found = Vec::new();
        for stored in unfinished {
            let lines = || stored.lines.iter().map(String::as_str);
            match History::read(stored.job, lines()) {
                Ok(history) => found.push((history, None)),
                // Its order still tells what it is and what it holds.
                Err(fault) => match History::read(stored.job, lines().take(1)) {
                    Ok(history) => found.push((history, Some(fault))),
                    Err(_) => unreadable.push((stored.job, fault)),
                },
            }
        }
        let inner = Arc::new(Inner {
            journal: self.journal,
            clock: self.clock,
            jobs_max: self.jobs_max,
            runbooks: self.runbooks,
            live: Mutex::default(),
            tasks: Mutex::default(),
            unreadable,
        });
        let engine = Engine { inner };
        for (history, fault) in found {
            engine.take_up(history, fault);
        }
        Ok(engine)
    }
}

impl Engine {
    /// An engine on this journal.
    pub fn builder(journal: Arc<dyn Journal>, clock: Arc<dyn Clock>) -> EngineBuilder {
        EngineBuilder { journal, clock, jobs_max: JOBS_MAX, runbooks: BTreeMap::new() }
    }

    /// Orders a job; durable on return. Ordering a job again that is known
    /// changes nothing, so an order whose answer was lost can be repeated.
    ///
    /// # Errors
    /// When another job holds a key that it needs, too many are unfinished, or
    /// it cannot be written down.
    ///
    /// # Panics
    /// When the runbook is not registered.
    pub async fn order<R: Runbook>(
        &self,
        job: JobId,
        asked: Asked,
        state: &R::State,
    ) -> Result<(), Refused> {
        let state = serde_json::to_value(state).map_err(|error| {
            let advice = "This is a defect of the runbook; please report it.";
            let doing = format!("write down the order of job {job}");
            Refused::Failed(Fault::new(code::STATE_UNREADABLE, doing, error.to_string(), advice))
        })?;
        assert!(self.inner.runbooks.contains_key(R::NAME), "runbook {} is not registered", R::NAME);
        self.order_state(job, R::NAME, R::VERSION, asked, state).await
    }

    /// Orders what a job that has ended was ordered to do, as another job.
    ///
    /// # Errors
    /// As [`order`](Self::order); and when the job is unknown or not at its end.
    pub async fn order_again(&self, old: JobId, new: JobId, by: &str) -> Result<(), Refused> {
        let view = self.view(old).await?;
        let order = &view.history.order;
        if !matches!(view.history.standing, Standing::Ended(_)) {
            return Err(Refused::Forbidden(Refusal::new(
                "the job has not ended",
                "Wait for its end, or retry what failed.",
            )));
        }
        let asked = Asked { by: by.into(), target: order.target.clone(), parent: order.parent };
        self.order_state(new, &order.runbook, order.version, asked, order.state.clone()).await
    }

    async fn order_state(
        &self,
        job: JobId,
        runbook: &str,
        version: u32,
        asked: Asked,
        state: serde_json::Value,
    ) -> Result<(), Refused> {
        let inner = &self.inner;
        let known = self.live().get(&job).map(|live| live.ordered.clone());
        if let Some(ordered) = known {
            return durable(job, ordered).await;
        }
        if self.load(job).await?.is_some() {
            return Ok(());
        }
        let driver = inner.driver(runbook).map_err(Refused::Failed)?;
        let order = Order {
            runbook: runbook.into(),
            version,
            steps: driver.steps(version).map_err(Refused::Failed)?,
            target: asked.target,
            by: asked.by,
            parent: asked.parent,
            keys: driver.keys(version, &state).map_err(Refused::Failed)?,
            state,
        };
        let entry = Entry::new(0, inner.clock.now(), Event::Ordered(order));
        let history = History::begin(job, entry.clone()).map_err(Refused::Failed)?;
        let ordered = {
            let mut live = self.live();
            if !live.contains_key(&job) {
                if live.len() >= inner.jobs_max {
                    return Err(Refused::TooMany { limit: inner.jobs_max });
                }
                if let Some((key, holder)) = taken(&live, &history.order) {
                    return Err(Refused::KeyTaken { key, holder });
                }
                self.drive(&mut live, history, driver, Some(entry));
            }
            live[&job].ordered.clone()
        };
        durable(job, ordered).await
    }

    /// Goes on with a job that the journal holds.
    fn take_up(&self, history: History, fault: Option<Fault>) {
        let (id, order) = (history.id, &history.order);
        let driver = match fault {
            Some(fault) => Err(fault),
            None => self.inner.driver(&order.runbook).and_then(|driver| {
                driver.steps(order.version).and_then(|steps| {
                    if steps == order.steps { Ok(driver) } else { Err(changed(order)) }
                })
            }),
        };
        let mut live = self.live();
        match driver {
            Ok(driver) => self.drive(&mut live, history, driver, None),
            Err(fault) => {
                tracing::error!(job = %id, %fault, "a job has stalled");
                let keys = order.keys.clone();
                let (_, view) = watch::channel(View::of(history, Some(fault)));
                let (_, ordered) = watch::channel(Some(Ok(())));
                live.insert(id, Live { keys, view, ordered, mailbox: None });
            }
        }
    }

    /// Gives a job a task of its own, which first writes the order down if it is new.
    fn drive(
        &self,
        live: &mut BTreeMap<JobId, Live>,
        history: History,
        driver: Arc<dyn Drive>,
        new: Option<Entry>,
    ) {
        let (mailbox, commands) = mpsc::channel(MAILBOX);
        let (told, view) = watch::channel(View::of(history.clone(), None));
        let (id, keys) = (history.id, history.order.keys.clone());
        let (written, ordered) = watch::channel(new.is_none().then_some(Ok(())));
        live.insert(id, Live { keys, view, ordered, mailbox: Some(mailbox) });
        let journal = Arc::clone(&self.inner.journal);
        let seat = Seat {
            history,
            journal: Arc::clone(&journal),
            clock: Arc::clone(&self.inner.clock),
            mailbox: commands,
            view: told,
        };
        let inner = Arc::downgrade(&self.inner);
        let mut tasks = self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            if let Some(entry) = new {
                let result = append(&*journal, id, &entry).await;
                let failed = result.is_err();
                if failed {
                    leave(&inner, id);
                }
                written.send_replace(Some(result));
                if failed {
                    return;
                }
            }
            driver.drive(seat).await;
            leave(&inner, id);
        });
    }

    /// Says something to a job; durable on return.
    ///
    /// # Errors
    /// When there is no such job, or it may not be said now.
    pub async fn say(&self, job: JobId, verb: Verb, word: Word) -> Result<(), Refused> {
        if verb == Verb::Abandon
            && let Some(history) = self.stranded(job)
        {
            return self.abandon(&history, word).await;
        }
        if let Some(answer) = self.send(job, |reply| Command::Say { verb, word, reply }).await? {
            return answer;
        }
        self.ended_now(job).await?;
        Err(Refused::Forbidden(Refusal::new(HAS_ENDED.0, HAS_ENDED.1)))
    }

    /// An unfinished job that no task drives, since its log or its runbook is no good.
    fn stranded(&self, job: JobId) -> Option<Arc<History>> {
        let live = self.live();
        let stranded = live.get(&job).filter(|live| live.mailbox.is_none())?;
        let history = Arc::clone(&stranded.view.borrow().history);
        Some(history)
    }

    /// Ends a job that no task drives, so that it lets go of its keys. If the end
    /// of its log is unreadable, the journal refuses: the number is taken.
    async fn abandon(&self, history: &History, word: Word) -> Result<(), Refused> {
        let end = End::Abandoned { word, left: history.touched() };
        let entry = Entry::new(history.next, self.inner.clock.now(), Event::Ended { end });
        append(&*self.inner.journal, history.id, &entry).await.map_err(Refused::Failed)?;
        self.live().remove(&history.id);
        Ok(())
    }

    /// A job without a task, which has ended unless this engine was stopped.
    async fn ended_now(&self, job: JobId) -> Result<History, Refused> {
        let history = self.load(job).await?.ok_or(Refused::UnknownJob(job))?;
        match history.standing {
            Standing::Ended(_) => Ok(history),
            _ => Err(Refused::Stalled(stopped(format!("speak to job {job}")))),
        }
    }

    /// Adds a note to a job, also to one that has ended; durable on return.
    ///
    /// # Errors
    /// When there is no such job, it has too many notes, or it cannot be written.
    pub async fn note(&self, job: JobId, word: Word) -> Result<(), Refused> {
        let words = word.clone();
        if let Some(answer) = self.send(job, |reply| Command::Note { word: words, reply }).await? {
            return answer;
        }
        let history = self.ended_now(job).await?;
        let event = note(&history, word).map_err(Refused::Forbidden)?;
        let entry = Entry::new(history.next, self.inner.clock.now(), event);
        append(&*self.inner.journal, job, &entry).await.map_err(Refused::Failed)
    }

    /// Nothing when the job has ended.
    async fn send(
        &self,
        job: JobId,
        command: impl FnOnce(oneshot::Sender<Result<(), Refused>>) -> Command,
    ) -> Result<Option<Result<(), Refused>>, Refused> {
        let known = self.live().get(&job).map(|live| (live.mailbox.clone(), live.view.clone()));
        let mailbox = match known {
            Some((Some(mailbox), _)) => mailbox,
            Some((None, view)) => {
                let stalled = view.borrow().stalled.clone();
                return stalled.map_or(Ok(None), |fault| Err(Refused::Stalled(fault)));
            }
            None if self.load(job).await?.is_some() => return Ok(None),
            None => return Err(Refused::UnknownJob(job)),
        };
        let (reply, answer) = oneshot::channel();
        if mailbox.send(command(reply)).await.is_err() {
            return Ok(None);
        }
        Ok(answer.await.ok())
    }

    /// A job as it is now, or as it ended.
    ///
    /// # Errors
    /// When there is no such job, or its log cannot be read.
    pub async fn view(&self, job: JobId) -> Result<View, Refused> {
        if let Some(live) = self.live().get(&job) {
            return Ok(live.view.borrow().clone());
        }
        let history = self.load(job).await?.ok_or(Refused::UnknownJob(job))?;
        Ok(View::of(history, None))
    }

    /// Watches an unfinished job. The channel closes after its end was shown.
    #[must_use]
    pub fn watch(&self, job: JobId) -> Option<watch::Receiver<View>> {
        self.live().get(&job).map(|live| live.view.clone())
    }

    /// Waits for a job's end.
    ///
    /// # Errors
    /// When there is no such job, or its log cannot be read.
    pub async fn ended(&self, job: JobId) -> Result<View, Refused> {
        if let Some(mut view) = self.watch(job) {
            let ended = |view: &View| matches!(view.history.standing, Standing::Ended(_));
            if let Ok(view) = view.wait_for(ended).await {
                return Ok(view.clone());
            }
        }
        self.view(job).await
    }

    /// All unfinished jobs.
    #[must_use]
    pub fn unfinished(&self) -> Vec<View> {
        self.live().values().map(|live| live.view.borrow().clone()).collect()
    }

    /// Unfinished jobs of which not even the order can be read. What they hold
    /// is not known, so nothing is kept from running beside them.
    #[must_use]
    pub fn unreadable(&self) -> &[(JobId, Fault)] {
        &self.inner.unreadable
    }

    /// Stops driving: every step is dropped where it stands, as by a crash.
    pub async fn stop(&self) {
        let mut tasks = {
            let mut tasks = self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *tasks)
        };
        tasks.shutdown().await;
    }

    async fn load(&self, job: JobId) -> Result<Option<History>, Refused> {
        let stored = self.inner.journal.load(job).await.map_err(|error| {
            let (doing, advice) = (format!("read the log of job {job}"), "Mend the journal.");
            Refused::Failed(Fault::new(code::JOURNAL_FAILED, doing, error.to_string(), advice))
        })?;
        let read = |stored: crate::journal::Stored| {
            History::read(job, stored.lines.iter().map(String::as_str))
        };
        stored.map(read).transpose().map_err(Refused::Failed)
    }

    fn live(&self) -> MutexGuard<'_, BTreeMap<JobId, Live>> {
        self.inner.live()
    }
}

impl Inner {
    fn live(&self) -> MutexGuard<'_, BTreeMap<JobId, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn driver(&self, runbook: &str) -> Result<Arc<dyn Drive>, Fault> {
        self.runbooks.get(runbook).cloned().ok_or_else(|| {
            let advice = "Run the version of the program that began the job.";
            let doing = format!("find runbook {runbook}");
            Fault::new(code::RUNBOOK_UNKNOWN, doing, "this program has none of that name", advice)
        })
    }
}

/// Waits until an order is durable.
async fn durable(
    job: JobId,
    mut ordered: watch::Receiver<Option<Result<(), Fault>>>,
) -> Result<(), Refused> {
    let doing = || format!("write down the order of job {job}");
    match ordered.wait_for(Option::is_some).await {
        Ok(result) => result.clone().unwrap_or(Ok(())).map_err(Refused::Failed),
        Err(_) => Err(Refused::Failed(stopped(doing()))),
    }
}

fn stopped(doing: String) -> Fault {
    Fault::new(code::JOURNAL_FAILED, doing, "the engine was stopped", "Ask again once it runs.")
}

fn leave(inner: &Weak<Inner>, job: JobId) {
    if let Some(inner) = inner.upgrade() {
        inner.live().remove(&job);
    }
}

/// The first key that another job holds already, with that job. What a job has part
/// of it do may have what it holds itself.
fn taken(live: &BTreeMap<JobId, Live>, order: &Order) -> Option<(Key, JobId)> {
    order.keys.iter().find_map(|key| {
        let mut holders = live.iter().filter(|(job, _)| Some(**job) != order.parent);
        let holder = holders.find(|(_, live)| live.keys.iter().any(|held| held.excludes(key)));
        holder.map(|(job, _)| (key.clone(), *job))
    })
}

fn changed(order: &Order) -> Fault {
    Fault::new(
        code::RUNBOOK_UNKNOWN,
        format!("go on with version {} of runbook {}", order.version, order.runbook),
        "its steps are not those that the job was ordered with",
        "Run the version of the program that began the job.",
    )
}

/// What a job's task is given.
struct Seat {
    history: History,
    journal: Arc<dyn Journal>,
    clock: Arc<dyn Clock>,
    mailbox: mpsc::Receiver<Command>,
    view: watch::Sender<View>,
}

/// A runbook without its types.
trait Drive: Send + Sync {
    fn steps(&self, version: u32) -> Result<Vec<String>, Fault>;
    fn keys(&self, version: u32, state: &serde_json::Value) -> Result<Vec<Key>, Fault>;
    fn drive(&self, seat: Seat) -> BoxFuture<'static, ()>;
}

struct Registered<R: Runbook> {
    runbook: Arc<R>,
    table: Arc<Table<R>>,
    world: Arc<R::World>,
}

impl<R: Runbook> Registered<R> {
    fn table(&self, version: u32) -> Result<Arc<Table<R>>, Fault> {
        if version == R::VERSION {
            return Ok(Arc::clone(&self.table));
        }
        self.runbook.older_table(version).map(Arc::new).ok_or_else(|| {
            Fault::new(
                code::RUNBOOK_UNKNOWN,
                format!("go on with version {version} of runbook {}", R::NAME),
                format!("this program has version {}", R::VERSION),
                "Run the version of the program that began the job.",
            )
        })
    }
}

impl<R: Runbook> Drive for Registered<R> {
    fn steps(&self, version: u32) -> Result<Vec<String>, Fault> {
        Ok(self.table(version)?.names().into_iter().map(str::to_owned).collect())
    }

    fn keys(&self, version: u32, state: &serde_json::Value) -> Result<Vec<Key>, Fault> {
        Ok(self.runbook.keys(&self.runbook.read_state(version, state)?))
    }

    fn drive(&self, seat: Seat) -> BoxFuture<'static, ()> {
        let Seat { history, journal, clock, mailbox, view } = seat;
        let table = match self.table(history.order.version) {
            Ok(table) => table,
            Err(fault) => unreachable!("its steps were compared before: {fault}"),
        };
        let task = Task {
            runbook: Arc::clone(&self.runbook),
            table,
            world: Arc::clone(&self.world),
            history,
            journal,
            clock,
            mailbox,
            view,
        };
        task.run().boxed()
    }
}
