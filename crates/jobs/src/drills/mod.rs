//! Drills: a runbook is rehearsed in a simulated world, with everything going
//! wrong that can, one thing after the other.
//!
//! A runbook's test is one call of [`rehearse`]. It plays the job
//!
//! - with each step failing, once and for good, before it did anything, after
//!   each of its awaits, and when all was done and nobody was told;
//! - with the process ending, and with an operator cancelling, at each of these
//!   moments; so each step is repeated, stopped, and undone when none, half and
//!   all of it was done;
//! - with the process ending before and after each entry of the journal, on the
//!   way forward and on each way back;
//! - with each undo failing, interrupted and repeated in the same way;
//! - with waits cancelled, and their deadlines passing.
//!
//! After each play, the job must have come to an end, the world must be as after
//! an undisturbed job, or as before it, and at no await may
//! [`holds`](Rehearsal::holds) have been false.
//!
//! A simulated world shows half-done work only if its effects await in between:
//! have each of them call [`tokio::task::yield_now`] before and after it changes
//! anything.

mod play;
mod script;

use std::fmt::{self, Debug};
use std::sync::Arc;

pub use play::{OnAsking, OnWaiting, Operator, Passed, Played, play};
pub use script::{Kind, Moment, Place, Trouble};

use crate::log::End;
use crate::runbook::Runbook;

/// So many awaits of one attempt are interrupted.
const POLLS_MAX: u32 = 40;
/// So many plays that went wrong are told of.
const BROKEN_MAX: usize = 3;

/// A runbook, an order, and a simulated world to rehearse it in.
pub trait Rehearsal: Send + Sync + 'static {
    /// What is rehearsed.
    type Runbook: Runbook;
    /// What of a world is to be the same after a job that was disturbed.
    type Seen: PartialEq + Debug;

    /// The runbook.
    fn runbook(&self) -> Self::Runbook;

    /// A world in which the job succeeds. Each play has one of its own.
    fn world(&self) -> Arc<<Self::Runbook as Runbook>::World>;

    /// What is ordered.
    fn order(&self) -> <Self::Runbook as Runbook>::State;

    /// What is to be seen of a world; without what harms nobody.
    fn see(&self, world: &<Self::Runbook as Runbook>::World) -> Self::Seen;

    /// What must hold at every moment, whatever goes wrong.
    ///
    /// # Errors
    /// What does not hold.
    fn holds(&self, _world: &<Self::Runbook as Runbook>::World) -> Result<(), String> {
        Ok(())
    }

    /// Judges how a disturbed job left the world; `done` is how an undisturbed
    /// one does.
    ///
    /// # Errors
    /// What is wrong with it.
    fn judge(&self, played: &Played<Self::Seen>, done: &Self::Seen) -> Result<(), String> {
        let (wanted, word) = match &played.end {
            End::Succeeded => (done, "an undisturbed one does"),
            // What was left out is the runbook's own business.
            End::SucceededWithWarnings => return Ok(()),
            End::FailedAndUndone { .. } | End::CancelledAndUndone => (&played.before, "it was"),
            End::Abandoned { .. } => return Err("it was abandoned".into()),
        };
        if played.after == *wanted {
            return Ok(());
        }
        Err(format!(
            "it does not leave the world as {word}:\n  left:   {:?}\n  wanted: {wanted:?}",
            played.after
        ))
    }
}

/// What was rehearsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Report {
    /// So many jobs were played.
    pub plays: u32,
    /// So many of them succeeded all the same.
    pub succeeded: u32,
    /// So many failed and were undone.
    pub failed: u32,
    /// So many were cancelled and undone.
    pub cancelled: u32,
}

/// A runbook that did not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The first plays that went wrong: their troubles, what was wrong, and the log.
    pub plays: Vec<String>,
    /// How many went wrong.
    pub count: u32,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} plays went wrong, among them:", self.count)?;
        self.plays.iter().try_for_each(|play| writeln!(f, "\n{play}"))
    }
}

impl std::error::Error for Broken {}

/// Rehearses a runbook.
///
/// # Errors
/// The plays that went wrong.
///
/// # Panics
/// When called in an asynchronous runtime: it brings its own.
pub fn rehearse<H: Rehearsal>(rehearsal: H) -> Result<Report, Broken> {
    let mut drill = Drill::new(Arc::new(rehearsal))?;
    drill.disturb_steps();
    drill.crash_on_the_way_forward();
    drill.disturb_ways_back();
    drill.disturb_waits();
    if drill.broken.count == 0 { Ok(drill.report) } else { Err(drill.broken) }
}

struct Drill<H: Rehearsal> {
    rehearsal: Arc<H>,
    plain: Played<H::Seen>,
    report: Report,
    broken: Broken,
}

impl<H: Rehearsal> Drill<H> {
    /// Plays the job undisturbed, which must succeed.
    fn new(rehearsal: Arc<H>) -> Result<Self, Broken> {
        let wrong = |what| Broken { plays: vec![format!("undisturbed: {what}")], count: 1 };
        let plain = play(&rehearsal, Vec::new(), Operator::default()).map_err(wrong)?;
        if let Some(broken) = plain.broken {
            return Err(wrong(broken));
        }
        if !matches!(plain.end, End::Succeeded | End::SucceededWithWarnings) {
            return Err(wrong(format!("it ends with {:?}\n{}", plain.end, plain.log.join("\n"))));
        }
        let broken = Broken { plays: Vec::new(), count: 0 };
        Ok(Self { rehearsal, plain, report: Report::default(), broken })
    }

    fn disturb_steps(&mut self) {
        let kinds = [Kind::Fail, Kind::FailForGood, Kind::Crash, Kind::Cancel];
        for place in self.steps() {
            for moment in moments(&self.plain, place) {
                for kind in kinds {
                    let trouble = Trouble::once(place, moment, kind);
                    let operator = Operator::default();
                    let passed = self.play(vec![trouble.clone()], operator).map(|p| p.passed);
                    if passed.is_some_and(|passed| passed.contains(&Passed::Asking)) {
                        let asking = OnAsking::Cancel;
                        self.play(vec![trouble], Operator { asking, ..operator });
                    }
                }
                let times = 2;
                self.play(
                    vec![Trouble { place, moment, kind: Kind::Crash, times }],
                    Operator::default(),
                );
            }
        }
    }

    /// The process ends, or the journal fails, at each entry.
    fn crash_on_the_way_forward(&mut self) {
        self.crash_at_appends(&[], self.plain.appends, Operator::default());
        for append in 0..self.plain.appends {
            for moment in [Moment::Before, Moment::After] {
                for kind in [Kind::Fail, Kind::Cancel] {
                    let trouble = Trouble::once(Place::Append(append), moment, kind);
                    self.play(vec![trouble], Operator::default());
                }
            }
        }
    }

    fn crash_at_appends(&mut self, course: &[Trouble], appends: u32, operator: Operator) {
        for append in 0..appends {
            for moment in [Moment::Before, Moment::After] {
                let mut troubles = course.to_vec();
                troubles.push(Trouble::once(Place::Append(append), moment, Kind::Crash));
                self.play(troubles, operator);
            }
        }
    }

    /// The job fails and is cancelled at each step, and its undoing is disturbed.
    fn disturb_ways_back(&mut self) {
        for step in self.steps() {
            for kind in [Kind::FailForGood, Kind::Cancel] {
                let course = vec![Trouble::once(step, Moment::After, kind)];
                let operator = Operator { asking: OnAsking::Cancel, ..Operator::default() };
                let Some(played) = self.play(course.clone(), operator) else { continue };
                self.crash_at_appends(&course, played.appends, operator);
                self.disturb_undos(&course, &played, operator);
            }
        }
    }

    fn disturb_undos(&mut self, course: &[Trouble], played: &Played<H::Seen>, operator: Operator) {
        let undos = played.polls.keys().filter(|place| matches!(place, Place::Undo(_)));
        for place in undos.copied() {
            for moment in moments(played, place) {
                for kind in [Kind::Fail, Kind::FailForGood, Kind::Crash] {
                    let mut troubles = course.to_vec();
                    troubles.push(Trouble::once(place, moment, kind));
                    self.play(troubles, operator);
                }
            }
        }
    }

    fn disturb_waits(&mut self) {
        if self.plain.passed.contains(&Passed::WaitingUntil) {
            let operator = Operator { waiting: OnWaiting::LetPass, ..Operator::default() };
            self.play(Vec::new(), operator);
            self.crash_at_appends(&[], self.plain.appends, operator);
        }
        if self.plain.passed.contains(&Passed::Waiting) {
            let operator = Operator { waiting: OnWaiting::Cancel, ..Operator::default() };
            let Some(played) = self.play(Vec::new(), operator) else { return };
            self.crash_at_appends(&[], played.appends, operator);
            self.disturb_undos(&[], &played, operator);
        }
        // A job that takes back what it made undoes it without being disturbed.
        let plain = self.plain.polls.clone();
        for place in plain.into_keys().filter(|place| matches!(place, Place::Undo(_))) {
            for moment in moments(&self.plain, place) {
                for kind in [Kind::Fail, Kind::FailForGood, Kind::Crash, Kind::Cancel] {
                    self.play(vec![Trouble::once(place, moment, kind)], Operator::default());
                }
            }
        }
    }

    /// The steps that an undisturbed job runs.
    fn steps(&self) -> Vec<Place> {
        self.rehearsal.runbook().table().names().into_iter().map(Place::Step).collect()
    }

    fn play(&mut self, troubles: Vec<Trouble>, operator: Operator) -> Option<Played<H::Seen>> {
        self.report.plays += 1;
        let played = play(&self.rehearsal, troubles.clone(), operator).and_then(|played| {
            let judged = self.rehearsal.judge(&played, &self.plain.after);
            let told = |what| format!("{what}\n{}", played.log.join("\n"));
            played.broken.clone().map_or(judged, Err).map_err(told)?;
            Ok(played)
        });
        match played {
            Ok(played) => {
                match played.end {
                    End::FailedAndUndone { .. } => self.report.failed += 1,
                    End::CancelledAndUndone => self.report.cancelled += 1,
                    _ => self.report.succeeded += 1,
                }
                Some(played)
            }
            Err(what) => {
                self.broken.count += 1;
                if self.broken.plays.len() < BROKEN_MAX {
                    self.broken.plays.push(format!("{troubles:?}, {operator:?}: {what}"));
                }
                None
            }
        }
    }
}

/// When something can go wrong at a place, by how often it was polled.
fn moments<S>(played: &Played<S>, place: Place) -> Vec<Moment> {
    let polls = played.polls.get(&place).copied().unwrap_or_default().min(POLLS_MAX);
    let inside = (1..polls).map(Moment::Inside);
    [Moment::Before].into_iter().chain(inside).chain([Moment::After]).collect()
}
