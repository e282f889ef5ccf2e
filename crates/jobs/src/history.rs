//! Where a job stands, by its log. Pure: entries in, standing out.
//!
//! ```text
//!            ┌──────── retried, its time ─────── Pausing ◀─┐ failed, again
//!            ▼                                             │
//!  ordered ▶ Ready ─── begun ──▶ Running ──────────────────┤
//!            ▲  ▲                │  │  │                   ├─▶ Asking ── retried ──▶ Ready
//!            │  └─ finished, ────┘  │  │                   │     failed for good
//!            │     failed: go on    │  │                   │
//!            └─ resumed ─ Waiting ◀─┘  │ stopped,          │ failed: unwind
//!                                      │ taking back       │
//!   cancel, from any of these ──▶ Unwinding ◀──────────────┘
//!                                   │   │
//!                                   │   └─ Stuck ── retried ──▶ Unwinding
//!                                   ▼
//!                                 Ended ◀── Ready, after the last step
//! ```
//!
//! What runs is found in the log as begun and not ended, so a log alone says
//! what a restart has to repeat. A job that asks or is stuck *needs attention*.

use time::OffsetDateTime;

use crate::context::Resumed;
use crate::fault::{Fault, code};
use crate::log::{End, Entry, Event, JobId, Order, Resumer, Verdict, Word};
use crate::runbook::Wait;

/// All that is known of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct History {
    /// The job.
    pub id: JobId,
    /// What was ordered.
    pub order: Order,
    /// When.
    pub ordered: OffsetDateTime,
    /// Its steps, in order.
    pub steps: Vec<StepHistory>,
    /// Where it stands.
    pub standing: Standing,
    /// What operators said, the oldest first.
    pub words: Vec<(OffsetDateTime, Word)>,
    /// When it ended.
    pub ended: Option<OffsetDateTime>,
    /// What the steps have put down.
    pub(crate) state: serde_json::Value,
    /// Who resumed it, until the step that waited has ended.
    pub(crate) resumed: Option<Resumed>,
    pub(crate) tries: Tries,
    /// Of the entry that comes next.
    pub(crate) next: u32,
}

/// What is known of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepHistory {
    /// Its name.
    pub name: String,
    /// How far it got.
    pub stage: Stage,
    /// How often it was begun.
    pub attempts: u32,
    /// How often its undo was begun.
    pub undo_attempts: u32,
    /// When it was begun first.
    pub begun: Option<OffsetDateTime>,
    /// When its stage was reached.
    pub since: Option<OffsetDateTime>,
    /// What went wrong last, in it or in its undo.
    pub fault: Option<Fault>,
    /// What went less well.
    pub warnings: Vec<String>,
}

/// How far a step got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Nothing was done.
    NotBegun,
    /// It was begun, and there may be some of its effect.
    Begun,
    /// It has had its effect.
    Done,
    /// It failed, and the job went on without it.
    LeftOut,
    /// It was undone.
    Undone,
}

/// Where a job stands. Steps are given by their place in the order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// A step may begin; after the last one, the job may end.
    Ready {
        /// The step.
        step: usize,
    },
    /// A step was begun.
    Running {
        /// The step.
        step: usize,
        /// Cancelled, it is to stop.
        stopping: Option<Word>,
    },
    /// A step failed and is tried again.
    Pausing {
        /// The step.
        step: usize,
        /// Not before.
        until: OffsetDateTime,
    },
    /// A step waits for an operator or for a deadline.
    Waiting {
        /// The step.
        step: usize,
        /// For what.
        wait: Wait,
    },
    /// A step failed for good; an operator says `retry` or `cancel`.
    Asking {
        /// The step.
        step: usize,
        /// Why.
        fault: Fault,
    },
    /// What was done is being undone.
    Unwinding {
        /// Why.
        cause: Cause,
        /// How far.
        undo: Undo,
    },
    /// Nothing is left to do.
    Ended(End),
}

/// Why a job unwinds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// A step failed for good.
    Failed(Fault),
    /// An operator cancelled it.
    Cancelled(Word),
    /// It has been of use.
    Done,
}

/// How far unwinding is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undo {
    /// The steps before this place are still to be undone.
    Ready {
        /// The place.
        below: usize,
    },
    /// A step's undo was begun.
    Running {
        /// The step.
        step: usize,
    },
    /// An undo failed and is tried again.
    Pausing {
        /// The step.
        step: usize,
        /// Not before.
        until: OffsetDateTime,
    },
    /// An undo failed for good; an operator says `retry` or `abandon`.
    Stuck {
        /// The step.
        step: usize,
        /// Why.
        fault: Fault,
    },
}

/// How often the step or undo at hand failed since it was last begun afresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tries {
    pub(crate) failures: u32,
    pub(crate) interruptions: u32,
}

impl History {
    /// Reads a log.
    ///
    /// # Errors
    /// When it is not one that this engine could have written.
    pub fn read<'a>(id: JobId, lines: impl IntoIterator<Item = &'a str>) -> Result<Self, Fault> {
        let mut lines = lines.into_iter();
        let first = Entry::decode(lines.next().unwrap_or_default())?;
        let mut history = Self::begin(id, first)?;
        for line in lines {
            history = history.after(Entry::decode(line)?)?;
        }
        Ok(history)
    }

    /// The history that an order begins.
    ///
    /// # Errors
    /// When the entry is not an order, or not the first.
    pub fn begin(id: JobId, first: Entry) -> Result<Self, Fault> {
        let Entry { number: 0, at, event: Event::Ordered(order), .. } = first else {
            return Err(senseless(id, first.number, "a log begins with an order"));
        };
        let steps = order.steps.iter().map(|name| StepHistory::new(name.clone())).collect();
        Ok(Self {
            id,
            ordered: at,
            steps,
            standing: Standing::Ready { step: 0 },
            words: Vec::new(),
            ended: None,
            state: order.state.clone(),
            resumed: None,
            tries: Tries::default(),
            next: 1,
            order,
        })
    }

    /// What was ordered and what the steps have put down, as its runbook reads it.
    ///
    /// # Errors
    /// When it is that of another runbook, or of another version.
    pub fn state<T: serde::de::DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        T::deserialize(&self.state)
    }

    /// The history with one more entry.
    ///
    /// # Errors
    /// When the entry cannot follow.
    pub fn after(mut self, entry: Entry) -> Result<Self, Fault> {
        let number = entry.number;
        if number != self.next {
            let cause = format!("entry {} was expected", self.next);
            return Err(senseless(self.id, number, &cause));
        }
        self.next += 1;
        let id = self.id;
        self.apply(entry.at, entry.event).map_err(|cause| senseless(id, number, &cause))?;
        Ok(self)
    }

    fn apply(&mut self, at: OffsetDateTime, event: Event) -> Result<(), String> {
        match event {
            Event::Ordered(_) => return Err("a job is ordered once".into()),
            Event::Noted(word) => self.words.push((at, word)),
            Event::Ended { end } => {
                if matches!(self.standing, Standing::Ended(_)) {
                    return Err("a job ends once".into());
                }
                if let End::Abandoned { word, .. } = &end {
                    self.words.push((at, word.clone()));
                }
                self.ended = Some(at);
                self.standing = Standing::Ended(end);
            }
            Event::CancelAsked(word) => self.cancel(at, word)?,
            Event::Retried(word) => self.retry(at, word)?,
            Event::Resumed(resumed) => {
                let Standing::Waiting { step, .. } = self.standing else {
                    return Err("nothing is waited for".into());
                };
                if let Resumer::Operator { name } = &resumed.by {
                    self.words.push((at, Word::new(name, &resumed.comment)));
                }
                self.resumed = Some(resumed);
                self.tries = Tries::default();
                self.standing = Standing::Ready { step };
            }
            Event::UndoBegun { .. } | Event::UndoFinished { .. } | Event::UndoFailed { .. } => {
                self.apply_to_undo(at, event)?;
            }
            Event::Begun { .. }
            | Event::Finished { .. }
            | Event::TakingBack { .. }
            | Event::Waiting { .. }
            | Event::Failed { .. }
            | Event::Stopped { .. } => self.apply_to_step(at, event)?,
        }
        Ok(())
    }

    fn cancel(&mut self, at: OffsetDateTime, word: Word) -> Result<(), String> {
        self.words.push((at, word.clone()));
        let step = match &mut self.standing {
            Standing::Running { stopping: stopping @ None, .. } => {
                *stopping = Some(word);
                return Ok(());
            }
            Standing::Ready { step }
            | Standing::Pausing { step, .. }
            | Standing::Waiting { step, .. }
            | Standing::Asking { step, .. } => *step,
            Standing::Running { .. } | Standing::Unwinding { .. } | Standing::Ended(_) => {
                return Err("nothing is left to cancel".into());
            }
        };
        let begun = self.steps.get(step).is_some_and(|step| step.stage == Stage::Begun);
        self.unwind(Cause::Cancelled(word), if begun { step + 1 } else { step });
        Ok(())
    }

    fn retry(&mut self, at: OffsetDateTime, word: Word) -> Result<(), String> {
        self.standing = match &self.standing {
            Standing::Pausing { step, .. } | Standing::Asking { step, .. } => {
                Standing::Ready { step: *step }
            }
            Standing::Unwinding {
                cause,
                undo: Undo::Pausing { step, .. } | Undo::Stuck { step, .. },
            } => {
                Standing::Unwinding { cause: cause.clone(), undo: Undo::Ready { below: step + 1 } }
            }
            _ => return Err("nothing has failed".into()),
        };
        self.tries = Tries::default();
        self.words.push((at, word));
        Ok(())
    }

    fn apply_to_step(&mut self, at: OffsetDateTime, event: Event) -> Result<(), String> {
        let (step, stopping) = match (&self.standing, &event) {
            (Standing::Ready { step } | Standing::Pausing { step, .. }, Event::Begun { .. }) => {
                (*step, None)
            }
            // The process ended while it ran.
            (Standing::Running { step, stopping: None }, Event::Begun { .. }) => {
                self.tries.interruptions += 1;
                (*step, None)
            }
            (Standing::Running { step, stopping }, event)
                if !matches!(event, Event::Begun { .. }) =>
            {
                (*step, stopping.clone())
            }
            _ => return Err("no step runs that this could be of".into()),
        };
        let Some(record) = self.steps.get_mut(step) else {
            return Err("there is no such step".into());
        };
        let next = match event {
            Event::Begun { step: name, attempt } => {
                record.is(&name)?;
                record.attempts = attempt;
                record.begun.get_or_insert(at);
                record.reach(Stage::Begun, at);
                self.standing = Standing::Running { step, stopping: None };
                return Ok(());
            }
            Event::Finished { step: name, state, warnings } => {
                record.is(&name)?;
                record.warnings.extend(warnings);
                record.reach(Stage::Done, at);
                self.state = state;
                self.resumed = None;
                Standing::Ready { step: step + 1 }
            }
            Event::TakingBack { step: name, state, warnings } => {
                record.is(&name)?;
                record.warnings.extend(warnings);
                record.reach(Stage::Done, at);
                self.state = state;
                self.resumed = None;
                self.unwind(Cause::Done, step + 1);
                self.standing.clone()
            }
            Event::Waiting { step: name, state, wait } => {
                record.is(&name)?;
                self.state = state;
                self.resumed = None;
                Standing::Waiting { step, wait }
            }
            Event::Failed { step: name, fault, verdict } => {
                record.is(&name)?;
                record.fault = Some(fault.clone());
                self.tries.failures += 1;
                match verdict {
                    Verdict::Again { at } => Standing::Pausing { step, until: at },
                    Verdict::Ask => Standing::Asking { step, fault },
                    Verdict::GoOn => {
                        record.reach(Stage::LeftOut, at);
                        self.resumed = None;
                        Standing::Ready { step: step + 1 }
                    }
                    Verdict::Unwind => {
                        self.unwind(Cause::Failed(fault), step + 1);
                        self.standing.clone()
                    }
                }
            }
            Event::Stopped { step: name } => {
                record.is(&name)?;
                if stopping.is_none() {
                    return Err("it was not to stop".into());
                }
                Standing::Ready { step }
            }
            _ => return Err("it is not about a step".into()),
        };
        if matches!(next, Standing::Ready { .. }) {
            self.tries = Tries::default();
        }
        self.standing = next;
        // Whatever it came to: what was begun is undone.
        if let Some(word) = stopping {
            self.unwind(Cause::Cancelled(word), step + 1);
        }
        Ok(())
    }

    fn apply_to_undo(&mut self, at: OffsetDateTime, event: Event) -> Result<(), String> {
        let Standing::Unwinding { cause, undo } = &self.standing else {
            return Err("nothing is being undone".into());
        };
        let cause = cause.clone();
        let undo = match (undo, event) {
            (undo, Event::UndoBegun { step: name, attempt }) => {
                let found = self.steps.iter().position(|step| step.name == name);
                let step = found.ok_or_else(|| format!("there is no step {name}"))?;
                match undo {
                    Undo::Ready { below } if step < *below => self.tries = Tries::default(),
                    Undo::Pausing { step: tried, .. } if step == *tried => {}
                    Undo::Running { step: tried } if step == *tried => {
                        self.tries.interruptions += 1;
                    }
                    _ => return Err(format!("{name} is not to be undone now")),
                }
                self.steps[step].undo_attempts = attempt;
                Undo::Running { step }
            }
            (Undo::Running { step }, Event::UndoFinished { step: name, state, warnings }) => {
                let record = &mut self.steps[*step];
                record.is(&name)?;
                record.warnings.extend(warnings);
                record.reach(Stage::Undone, at);
                self.state = state;
                Undo::Ready { below: *step }
            }
            (Undo::Running { step }, Event::UndoFailed { step: name, fault, again }) => {
                let record = &mut self.steps[*step];
                record.is(&name)?;
                record.fault = Some(fault.clone());
                self.tries.failures += 1;
                match again {
                    Some(until) => Undo::Pausing { step: *step, until },
                    None => Undo::Stuck { step: *step, fault },
                }
            }
            _ => return Err("no undo runs that this could be of".into()),
        };
        self.standing = Standing::Unwinding { cause, undo };
        Ok(())
    }

    fn unwind(&mut self, cause: Cause, below: usize) {
        self.tries = Tries::default();
        self.standing = Standing::Unwinding { cause, undo: Undo::Ready { below } };
    }

    /// The steps of whose effects there may be something, the latest first.
    pub(crate) fn touched(&self) -> Vec<String> {
        let touched = self.steps.iter().rev().filter(|step| step.has_effect());
        touched.map(|step| step.name.clone()).collect()
    }

    /// Whether anything went less well than it should.
    #[must_use]
    pub fn has_warnings(&self) -> bool {
        self.steps.iter().any(|step| step.stage == Stage::LeftOut || !step.warnings.is_empty())
    }
}

impl StepHistory {
    fn new(name: String) -> Self {
        Self {
            name,
            stage: Stage::NotBegun,
            attempts: 0,
            undo_attempts: 0,
            begun: None,
            since: None,
            fault: None,
            warnings: Vec::new(),
        }
    }

    pub(crate) const fn has_effect(&self) -> bool {
        matches!(self.stage, Stage::Begun | Stage::Done | Stage::LeftOut)
    }

    fn is(&self, name: &str) -> Result<(), String> {
        if self.name == name { Ok(()) } else { Err(format!("step {} is at hand", self.name)) }
    }

    fn reach(&mut self, stage: Stage, at: OffsetDateTime) {
        self.stage = stage;
        self.since = Some(at);
    }
}

fn senseless(id: JobId, number: u32, cause: &str) -> Fault {
    Fault::new(
        code::LOG_UNREADABLE,
        format!("read entry {number} of the log of job {id}"),
        cause,
        "Restore the journal from a backup, and look at what the job had done.",
    )
}
