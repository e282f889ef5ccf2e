//! One play: a job from its order to its end, with the troubles of a script and
//! an operator who does what an operator does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use crate::decide::Verb;
use crate::drills::Rehearsal;
use crate::drills::script::{Cancel, Place, Script, Trouble, TroubledJournal, troubled};
use crate::engine::{Asked, Engine, Refused, View};
use crate::history::{History, Standing};
use crate::journal::MemoryJournal;
use crate::log::{End, JobId, Word};
use crate::runbook::Runbook;

/// A job that has not ended by then hangs. Longer than any deadline of ours.
const HANGS: Duration = Duration::from_secs(100 * 24 * 3600);
/// An operator who has said so much to a job gives up.
const WORDS_MAX: u32 = 40;

/// What the operator does when a job waits or asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Operator {
    /// When it waits.
    pub waiting: OnWaiting,
    /// When a step failed for good and it asks.
    pub asking: OnAsking,
}

/// What the operator does when a job waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnWaiting {
    /// Resumes it.
    #[default]
    Resume,
    /// Cancels it.
    Cancel,
    /// Lets its deadline pass, if it has one, and else resumes it.
    LetPass,
}

/// What the operator does when a job asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnAsking {
    /// Has it retry.
    #[default]
    Retry,
    /// Cancels it; where that is refused, has it retry.
    Cancel,
}

/// How a play went.
#[derive(Debug, Clone)]
pub struct Played<S> {
    /// How the job ended.
    pub end: End,
    /// The world before it.
    pub before: S,
    /// The world after it.
    pub after: S,
    /// What did not hold, if anything.
    pub broken: Option<String>,
    /// How the job stood on its way.
    pub passed: BTreeSet<Passed>,
    /// How many entries the journal was given.
    pub appends: u32,
    /// How often steps and undos were polled.
    pub polls: BTreeMap<Place, u32>,
    /// The job's log.
    pub log: Vec<String>,
}

/// Standings that further drills begin from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Passed {
    /// It waited.
    Waiting,
    /// It waited, with a deadline.
    WaitingUntil,
    /// It asked.
    Asking,
}

/// Plays a job with these troubles. The time is simulated.
///
/// # Errors
/// When the job does not come to an end.
///
/// # Panics
/// When called in an asynchronous runtime: it brings its own.
pub fn play<H: Rehearsal>(
    rehearsal: &Arc<H>,
    troubles: Vec<Trouble>,
    operator: Operator,
) -> Result<Played<H::Seen>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(|error| format!("begin a simulated time: {error}"))?;
    runtime.block_on(async {
        let stage = Stage::new(rehearsal, troubles);
        stage.play(operator).await
    })
}

struct Stage<H: Rehearsal> {
    rehearsal: Arc<H>,
    world: Arc<<H::Runbook as Runbook>::World>,
    script: Arc<Script>,
    journal: Arc<TroubledJournal>,
    begun: Instant,
}

impl<H: Rehearsal> Stage<H> {
    fn new(rehearsal: &Arc<H>, troubles: Vec<Trouble>) -> Self {
        let world = rehearsal.world();
        let (looker, seen) = (Arc::clone(rehearsal), Arc::clone(&world));
        let script = Arc::new(Script::new(troubles, Box::new(move || looker.holds(&seen))));
        let journal = MemoryJournal::default();
        Self {
            rehearsal: Arc::clone(rehearsal),
            world,
            journal: Arc::new(TroubledJournal { journal, script: Arc::clone(&script) }),
            script,
            begun: Instant::now(),
        }
    }

    async fn engine(&self) -> Result<Engine, String> {
        let runbook = self.rehearsal.runbook();
        let table = troubled(runbook.table(), &self.script);
        let begun = self.begun;
        let clock = move || OffsetDateTime::UNIX_EPOCH + (Instant::now() - begun);
        Engine::builder(Arc::clone(&self.journal) as _, Arc::new(clock))
            .register_table(runbook, table, Arc::clone(&self.world))
            .start()
            .await
            .map_err(|fault| fault.to_string())
    }

    async fn play(self, operator: Operator) -> Result<Played<H::Seen>, String> {
        let before = self.rehearsal.see(&self.world);
        let order = self.rehearsal.order();
        let job = JobId::new(Uuid::from_u128(1));
        let mut passed = BTreeSet::new();
        let mut said = 0;
        let lives = async {
            loop {
                let engine = self.engine().await?;
                let mut crashed = self.script.crashed.subscribe();
                let life = async {
                    let asked = Asked::new("an operator", "a drill");
                    let ordered = engine.order::<H::Runbook>(job, asked, &order).await;
                    ordered.map_err(|refused| format!("the order is refused: {refused}"))?;
                    self.live(&engine, job, operator, &mut passed, &mut said).await
                };
                let ended = tokio::select! {
                    biased;
                    ended = life => Some(ended),
                    _ = crashed.wait_for(|crashed| *crashed) => None,
                };
                engine.stop().await;
                self.script.crashed.send_replace(false);
                if let Some(ended) = ended {
                    return ended;
                }
            }
        };
        let end = tokio::time::timeout(HANGS, lives).await;
        let log = self.log();
        let told = |what: String| format!("{what}\n{}", log.join("\n"));
        let end = end.map_err(|_| told("the job hangs".into()))?.map_err(told)?;
        self.script.look("the end");
        Ok(Played {
            end,
            before,
            after: self.rehearsal.see(&self.world),
            broken: self.script.broken(),
            passed,
            appends: self.script.appends(),
            polls: self.script.polls(),
            log,
        })
    }

    /// One life of the engine, with the operator before it.
    async fn live(
        &self,
        engine: &Engine,
        job: JobId,
        operator: Operator,
        passed: &mut BTreeSet<Passed>,
        said: &mut u32,
    ) -> Result<End, String> {
        let mut cancel = self.script.cancel.subscribe();
        let Some(mut view) = engine.watch(job) else { return self.end(job) };
        loop {
            if *said > WORDS_MAX {
                return Err(format!("the operator has said {WORDS_MAX} things in vain"));
            }
            let asked_to_cancel = *cancel.borrow_and_update() == Cancel::Asked;
            let now = view.borrow_and_update().clone();
            if let Standing::Ended(end) = &now.history.standing {
                return Ok(end.clone());
            }
            let verb =
                if asked_to_cancel { Some(Verb::Cancel) } else { reply(&now, operator, passed) };
            if let Some(verb) = verb {
                *said += 1;
                let answer = engine.say(job, verb, Word::new("an operator", "drill")).await;
                if asked_to_cancel {
                    self.script.cancel.send_replace(Cancel::Settled);
                }
                match answer {
                    Err(Refused::Forbidden(_)) if verb == Verb::Cancel && !asked_to_cancel => {
                        let word = Word::new("an operator", "cancel is refused");
                        engine.say(job, Verb::Retry, word).await.ok();
                    }
                    Ok(()) | Err(Refused::Forbidden(_)) => {}
                    Err(refused) => return Err(format!("{verb:?} comes to nothing: {refused}")),
                }
                continue;
            }
            if !self.news(&mut view, &mut cancel).await {
                return self.end(job);
            }
        }
    }

    /// Waits for news of the job or a wish to cancel it. False when the job's
    /// task is gone.
    async fn news(
        &self,
        view: &mut watch::Receiver<View>,
        cancel: &mut watch::Receiver<Cancel>,
    ) -> bool {
        tokio::select! {
            biased;
            changed = view.changed() => changed.is_ok(),
            _ = cancel.changed() => true,
        }
    }

    fn end(&self, job: JobId) -> Result<End, String> {
        let log = self.log();
        let history = History::read(job, log.iter().map(String::as_str));
        match history.map_err(|fault| fault.to_string())?.standing {
            Standing::Ended(end) => Ok(end),
            standing => Err(format!("the engine has left a job that is {standing:?}")),
        }
    }

    fn log(&self) -> Vec<String> {
        self.journal.journal.logs().into_iter().flat_map(|log| log.lines).collect()
    }
}

/// What the operator says to a job that stands so.
fn reply(view: &View, operator: Operator, passed: &mut BTreeSet<Passed>) -> Option<Verb> {
    if let Standing::Waiting { wait, .. } = &view.history.standing {
        passed.insert(Passed::Waiting);
        if wait.until.is_some() {
            passed.insert(Passed::WaitingUntil);
        }
        return match operator.waiting {
            OnWaiting::Cancel => Some(Verb::Cancel),
            OnWaiting::LetPass if wait.until.is_some() => None,
            OnWaiting::Resume | OnWaiting::LetPass => Some(Verb::Resume),
        };
    }
    view.needs_attention()?;
    let asking = matches!(view.history.standing, Standing::Asking { .. });
    if asking {
        passed.insert(Passed::Asking);
    }
    match operator.asking {
        OnAsking::Cancel if asking && view.stalled.is_none() => Some(Verb::Cancel),
        OnAsking::Cancel | OnAsking::Retry => Some(Verb::Retry),
    }
}
