//! What is done next with a job. Pure: its history, its table and the time in;
//! an action with its reason out.

use time::OffsetDateTime;

use crate::fault::{Failure, Fault, Refusal, code};
use crate::history::{Cause, History, Stage, Standing, Undo};
use crate::log::{End, Resumer, Verdict};
use crate::runbook::{OnFailure, Retry, Row, Runbook, Table, Undoing};

/// A step that the process did not survive so often is not tried again
/// without an operator's word: it may be what ends the process.
const INTERRUPTIONS_MAX: u32 = 8;

/// What is done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Begin this attempt of a step.
    Begin { step: usize, attempt: u32 },
    /// Note that a step that was to stop is not gone on with.
    Stop { step: usize },
    /// Begin this attempt of a step's undo.
    BeginUndo { step: usize, attempt: u32 },
    /// Nothing until then, or until somebody says something.
    Rest { until: Option<OffsetDateTime> },
    /// A deadline has passed.
    Resume { by: Resumer },
    /// Give up a step that the process does not survive.
    GiveUp { step: usize, fault: Fault },
    /// Give up an undo that the process does not survive.
    GiveUpUndo { step: usize, fault: Fault },
    /// All is done.
    End(End),
    /// It has ended.
    Nothing,
}

/// What is done next with a job whose task is doing nothing.
pub(crate) fn next<R: Runbook>(history: &History, table: &Table<R>, now: OffsetDateTime) -> Action {
    let begin = |step: usize| match history.steps.get(step) {
        Some(record) => Action::Begin { step, attempt: record.attempts + 1 },
        None if history.has_warnings() => Action::End(End::SucceededWithWarnings),
        None => Action::End(End::Succeeded),
    };
    match &history.standing {
        Standing::Ready { step } => begin(*step),
        Standing::Running { step, stopping: Some(_) } => Action::Stop { step: *step },
        Standing::Running { step, stopping: None } => {
            if history.tries.interruptions < INTERRUPTIONS_MAX {
                return begin(*step);
            }
            Action::GiveUp { step: *step, fault: interrupted(&history.steps[*step].name, "run") }
        }
        Standing::Pausing { step, until } if *until <= now => begin(*step),
        Standing::Pausing { until, .. } => Action::Rest { until: Some(*until) },
        Standing::Waiting { wait, .. } if wait.until.is_some_and(|until| until <= now) => {
            Action::Resume { by: Resumer::Deadline }
        }
        Standing::Waiting { wait, .. } => Action::Rest { until: wait.until },
        Standing::Asking { .. } => Action::Rest { until: None },
        Standing::Unwinding { cause, undo } => next_undo(history, table, cause, undo, now),
        Standing::Ended(_) => Action::Nothing,
    }
}

fn next_undo<R: Runbook>(
    history: &History,
    table: &Table<R>,
    cause: &Cause,
    undo: &Undo,
    now: OffsetDateTime,
) -> Action {
    let begin =
        |step: usize| Action::BeginUndo { step, attempt: history.steps[step].undo_attempts + 1 };
    match undo {
        Undo::Ready { below } => {
            let undone = |row: &Row<R>| matches!(row.undo, Undoing::By { .. });
            let floor = point_passed(history, table).map_or(0, |(step, _)| step + 1);
            match (floor..*below).rev().find(|step| undone(&table.rows[*step])) {
                Some(step) => begin(step),
                None => Action::End(end_of(cause, history)),
            }
        }
        Undo::Running { step } if history.tries.interruptions >= INTERRUPTIONS_MAX => {
            let fault = interrupted(&history.steps[*step].name, "undo");
            Action::GiveUpUndo { step: *step, fault }
        }
        Undo::Running { step } => begin(*step),
        Undo::Pausing { step, until } if *until <= now => begin(*step),
        Undo::Pausing { until, .. } => Action::Rest { until: Some(*until) },
        Undo::Stuck { .. } => Action::Rest { until: None },
    }
}

fn end_of(cause: &Cause, history: &History) -> End {
    match cause {
        Cause::Failed(fault) => End::FailedAndUndone { fault: fault.clone() },
        Cause::Cancelled(_) => End::CancelledAndUndone,
        Cause::Done if history.has_warnings() => End::SucceededWithWarnings,
        Cause::Done => End::Succeeded,
    }
}

fn interrupted(step: &str, verb: &str) -> Fault {
    Fault::new(
        code::INTERRUPTED_TOO_OFTEN,
        format!("{verb} step {step}"),
        format!("the process ended {INTERRUPTIONS_MAX} times while it was doing so"),
        "Look into the process's own log for why it ended, and have the job retry.",
    )
}

/// The first point of no return that has begun, with its reason.
fn point_passed<'a, R: Runbook>(
    history: &History,
    table: &'a Table<R>,
) -> Option<(usize, &'a str)> {
    let mut points = table.rows.iter().zip(&history.steps).enumerate();
    points.find_map(|(step, (row, record))| {
        let reason = row.no_return?;
        (record.stage != Stage::NotBegun).then_some((step, reason))
    })
}

/// What is done about an attempt of a step that failed.
pub(crate) fn judge<R: Runbook>(
    failure: &Failure,
    step: usize,
    history: &History,
    table: &Table<R>,
    now: OffsetDateTime,
) -> Verdict {
    let row = &table.rows[step];
    if let Some(at) = again(failure, &row.retry, history.tries.failures + 1, now) {
        return Verdict::Again { at };
    }
    match row.on_failure {
        OnFailure::GoOn => Verdict::GoOn,
        OnFailure::Ask => Verdict::Ask,
        OnFailure::Unwind if point_passed(history, table).is_some() => Verdict::Ask,
        OnFailure::Unwind => Verdict::Unwind,
    }
}

/// When an attempt that failed is followed by another.
pub(crate) fn again(
    failure: &Failure,
    retry: &Retry,
    failures: u32,
    now: OffsetDateTime,
) -> Option<OffsetDateTime> {
    match failure {
        Failure::ForGood(_) => None,
        Failure::Passing(_) => Some(now + retry.rest_after(failures)?),
    }
}

/// What an operator may say to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Undo what was done.
    Cancel,
    /// Go on: what was waited for is there.
    Resume,
    /// Try what failed once more, now.
    Retry,
    /// End it where it stands, and leave what is not undone.
    Abandon,
}

impl Verb {
    /// All of them, in the order in which they are offered.
    pub const ALL: [Self; 4] = [Self::Cancel, Self::Resume, Self::Retry, Self::Abandon];
}

/// Why nothing may be said to a job that has ended, and what to do instead.
pub(crate) const HAS_ENDED: (&str, &str) =
    ("the job has ended", "Order it again if it is still wanted.");

/// Whether an operator may say this to a job now.
///
/// # Errors
/// The reason why not, with advice.
pub(crate) fn permit<R: Runbook>(
    verb: Verb,
    history: &History,
    table: &Table<R>,
) -> Result<(), Refusal> {
    let standing = &history.standing;
    if let Standing::Ended(_) = standing {
        let (reason, advice) = HAS_ENDED;
        return refuse(reason, advice);
    }
    match (verb, standing) {
        (Verb::Cancel, Standing::Unwinding { cause: Cause::Done, .. }) => {
            refuse("the job is done and takes back what it made", "Wait until it has ended.")
        }
        (
            Verb::Cancel,
            Standing::Unwinding { .. } | Standing::Running { stopping: Some(_), .. },
        ) => refuse(
            "the job is being undone already",
            "Wait until it has ended; if an undo fails, retry it.",
        ),
        (Verb::Cancel, _) => match point_passed(history, table) {
            Some((_, reason)) => refuse(
                format!("the job is past its point of no return: {reason}"),
                "Let it end; if a step fails, retry it.",
            ),
            None => Ok(()),
        },
        (Verb::Resume, Standing::Waiting { .. }) => Ok(()),
        (Verb::Resume, Standing::Asking { .. }) => {
            refuse("the job waits because a step failed", "Retry it, or cancel the job.")
        }
        (Verb::Resume, _) => refuse("the job waits for nobody", "Watch it; it goes on by itself."),
        (
            Verb::Retry,
            Standing::Asking { .. }
            | Standing::Pausing { .. }
            | Standing::Unwinding { undo: Undo::Stuck { .. } | Undo::Pausing { .. }, .. },
        ) => Ok(()),
        (Verb::Retry, Standing::Waiting { wait, .. }) => {
            refuse(format!("nothing has failed; the job waits for: {}", wait.what), "Resume it.")
        }
        (Verb::Retry, _) => refuse("nothing has failed", "Watch the job; it goes on by itself."),
        (Verb::Abandon, Standing::Unwinding { undo: Undo::Stuck { .. }, .. }) => Ok(()),
        (Verb::Abandon, Standing::Asking { .. }) if point_passed(history, table).is_some() => {
            Ok(())
        }
        (Verb::Abandon, _) => refuse(
            "the job can go on or be undone",
            "Cancel it, or retry what failed; only what cannot be undone is abandoned.",
        ),
    }
}

/// The steps whose effects may be left, the latest first.
pub(crate) fn left<R: Runbook>(history: &History, table: &Table<R>) -> Vec<String> {
    let steps = history.steps.iter().zip(&table.rows);
    let left =
        steps.filter(|(record, row)| matches!(row.undo, Undoing::By { .. }) && record.has_effect());
    let mut left: Vec<_> = left.map(|(record, _)| record.name.clone()).collect();
    left.reverse();
    left
}

fn refuse(reason: impl Into<String>, advice: &str) -> Result<(), Refusal> {
    Err(Refusal::new(reason, advice))
}
