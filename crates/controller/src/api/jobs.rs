//! Jobs.

use api::List;
use api::job::{Job, JobProgress, JobState, JobStep, Note, Say, StepStage};
use api::problem::Problem;
use axum::Json;
use axum::extract::{Path, State};
use domain::fault::{Code, Fault};
use domain::token::Permission;
use jobs::history::Undo;
use jobs::{Cause, End, JobId, Refused, Stage, Standing, Verb, View, Word};

use super::access::Caller;
use super::failure::{Body, Failure};
use crate::Controller;
use crate::runbooks::Order;
use crate::runbooks::commit;

/// A job as it is shown.
pub(super) fn shown(view: &View) -> Job {
    let history = &*view.history;
    let (state, problem) = state(view);
    let (waits_for, waits_until) = match &history.standing {
        Standing::Waiting { wait, .. } => (Some(wait.what.clone()), wait.until),
        _ => (None, None),
    };
    let over = |stage| matches!(stage, Stage::Done | Stage::LeftOut | Stage::Undone);
    let done = history.steps.iter().filter(|step| over(step.stage)).count();
    let order: Option<Order> = history.state().ok();
    let chosen = order.as_ref().and_then(|order| order.chosen);
    let alive = order.as_ref().and_then(|order| order.alive);
    // The step that saw it live ended then.
    let lived = history.steps.iter().find(|step| step.name == "await-life");
    let lived = lived.filter(|step| step.stage == Stage::Done).and_then(|step| step.since);
    let rto = alive.and(lived).map(|at| (at - history.ordered).whole_milliseconds());
    Job {
        id: history.id.uuid(),
        operation: history.order.runbook.clone(),
        target: history.order.target.clone(),
        asked_by: history.order.by.clone(),
        ordered: history.ordered,
        ended: history.ended,
        state,
        waits_for,
        waits_until,
        problem: problem.map(problem_of),
        percent: match state.has_ended() {
            true => 100,
            false => u8::try_from(done * 100 / history.steps.len().max(1)).unwrap_or(100),
        },
        steps: history
            .steps
            .iter()
            .map(|step| JobStep {
                name: step.name.clone(),
                stage: match step.stage {
                    Stage::NotBegun => StepStage::NotBegun,
                    Stage::Begun => StepStage::Begun,
                    Stage::Done => StepStage::Done,
                    Stage::LeftOut => StepStage::LeftOut,
                    Stage::Undone => StepStage::Undone,
                },
                begun: step.begun,
                since: step.since,
                attempts: step.attempts,
                problem: step.fault.as_ref().map(problem_of),
                warnings: step.warnings.clone(),
            })
            .collect(),
        progress: view.progress.as_ref().map(|progress| JobProgress {
            text: progress.text.clone(),
            done: progress.done,
            total: progress.total,
        }),
        point: chosen.map(|chosen| chosen.point),
        point_instant: chosen.map(|chosen| chosen.instant),
        alive_after_ms: alive.map(|alive| alive.after_ms),
        rto_ms: rto.and_then(|ms| u64::try_from(ms).ok()),
        next: order.as_ref().and_then(|order| order.reversal).filter(|_| {
            let asked = history.steps.iter().find(|step| step.name == commit::ASK_FOR_REVERSAL);
            asked.is_some_and(|step| step.stage == Stage::Done)
        }),
        operations: view.verbs.iter().map(operation_of).collect(),
        notes: history
            .words
            .iter()
            .filter(|(_, word)| !word.comment.is_empty())
            .map(|(at, word)| Note { at: *at, by: word.by.clone(), text: word.comment.clone() })
            .collect(),
    }
}

fn operation_of(permitted: &jobs::Permitted) -> api::Operation {
    let name = match permitted.verb {
        Verb::Cancel => "cancel",
        Verb::Resume => "resume",
        Verb::Retry => "retry",
        Verb::Abandon => "abandon",
    };
    let reason = |refusal: &jobs::Refusal| api::Reason {
        reason: refusal.reason.clone(),
        advice: refusal.advice.clone(),
    };
    api::Operation { name: name.into(), refused: permitted.refused.as_ref().map(reason) }
}

fn state(view: &View) -> (JobState, Option<&jobs::Fault>) {
    if let Some(fault) = view.needs_attention() {
        return (JobState::NeedsAttention, Some(fault));
    }
    match &view.history.standing {
        Standing::Ready { .. } | Standing::Running { stopping: None, .. } => {
            (JobState::Running, None)
        }
        Standing::Pausing { step, .. } => {
            (JobState::Running, view.history.steps.get(*step).and_then(|step| step.fault.as_ref()))
        }
        Standing::Waiting { .. } => (JobState::Waiting, None),
        Standing::Asking { fault, .. }
        | Standing::Unwinding { undo: Undo::Stuck { fault, .. }, .. } => {
            (JobState::NeedsAttention, Some(fault))
        }
        Standing::Running { .. } => (JobState::Undoing, None),
        Standing::Unwinding { cause: Cause::Failed(fault), .. } => (JobState::Undoing, Some(fault)),
        Standing::Unwinding { .. } => (JobState::Undoing, None),
        Standing::Ended(End::Succeeded) => (JobState::Succeeded, None),
        Standing::Ended(End::SucceededWithWarnings) => (JobState::SucceededWithWarnings, None),
        Standing::Ended(End::FailedAndUndone { fault }) => (JobState::Failed, Some(fault)),
        Standing::Ended(End::CancelledAndUndone) => (JobState::Cancelled, None),
        Standing::Ended(End::Abandoned { .. }) => (JobState::Abandoned, None),
    }
}

fn problem_of(fault: &jobs::Fault) -> Problem {
    Problem {
        code: code_of(&fault.code).as_str().to_owned(),
        doing: fault.doing.clone(),
        cause: fault.cause.clone(),
        advice: fault.advice.clone(),
    }
}

/// The engine's own faults have names of their own.
fn code_of(code: &str) -> Code {
    use jobs::fault::code as engine;
    match code {
        engine::TOOK_TOO_LONG => Code::StepTooLong,
        engine::INTERRUPTED_TOO_OFTEN => Code::StepInterrupted,
        engine::JOURNAL_FAILED => Code::DatabaseUnusable,
        engine::LOG_UNREADABLE | engine::RUNBOOK_UNKNOWN | engine::STATE_UNREADABLE => {
            Code::JobUnreadable
        }
        other => Code::named(other).unwrap_or(Code::Internal),
    }
}

/// What the engine says, as an operator reads it.
pub(super) fn refused(doing: &str, refused: Refused) -> Failure {
    let cause = refused.to_string();
    match refused {
        Refused::UnknownJob(_) => {
            Fault::new(Code::NotFound, doing, cause, "See what there is with: lifeboat job list.")
        }
        Refused::KeyTaken { holder, .. } => Fault::new(
            Code::StateForbids,
            doing,
            format!("another job is at work on it: {holder}"),
            format!("Watch it until it has ended: lifeboat job watch {holder}"),
        ),
        Refused::TooMany { .. } => {
            Fault::new(Code::StateForbids, doing, cause, "Wait until some of them have ended.")
        }
        Refused::Forbidden(refusal) => {
            Fault::new(Code::StateForbids, doing, refusal.reason, refusal.advice)
        }
        Refused::Stalled(fault) | Refused::Failed(fault) => {
            Fault::new(code_of(&fault.code), fault.doing, fault.cause, fault.advice)
        }
    }
    .into()
}

async fn find(controller: &Controller, id: &str, doing: &str) -> Result<JobId, Failure> {
    if let Ok(id) = id.parse() {
        return Ok(id);
    }
    // By its beginning, as people shorten ids.
    let all = controller.database.newest_jobs().await;
    let all = all.map_err(|error| Failure::of_database(doing, error))?;
    let mut meant = all.into_iter().filter(|job| job.to_string().starts_with(id) && id.len() >= 4);
    match (meant.next(), meant.next()) {
        (Some(job), None) => Ok(JobId::new(job)),
        (None, _) => Err(Fault::new(
            Code::NotFound,
            doing,
            format!("there is no job {id}"),
            "See what there is with: lifeboat job list.",
        )
        .into()),
        (Some(_), Some(_)) => Err(Fault::new(
            Code::Ambiguous,
            doing,
            format!("several jobs begin with {id}"),
            "Say which one by its whole id.",
        )
        .into()),
    }
}

/// One job as it is now.
pub(super) async fn now(
    controller: &Controller,
    job: JobId,
    doing: &str,
) -> Result<Json<Job>, Failure> {
    let view = controller.engine.view(job).await;
    view.map(|view| Json(shown(&view))).map_err(|error| refused(doing, error))
}

/// Jobs, the newest first, at most 500.
#[utoipa::path(get, path = "/jobs", operation_id = "job_list", tag = "job",
    security(("token" = [])), responses(
    (status = 200, description = "The jobs", body = List<Job>),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn list(
    caller: Caller,
    State(controller): State<Controller>,
) -> Result<Json<List<Job>>, Failure> {
    let doing = "list the jobs";
    caller.may(Permission::Read, doing)?;
    let mut items = Vec::new();
    for job in newest(&controller, doing).await? {
        items.extend(readable(&controller, job, doing).await?.as_ref().map(shown));
    }
    Ok(Json(List { items }))
}

/// The newest jobs, the newest first.
pub(super) async fn newest(controller: &Controller, doing: &str) -> Result<Vec<JobId>, Failure> {
    let ids = controller.database.newest_jobs().await;
    let ids = ids.map_err(|error| Failure::of_database(doing, error))?;
    Ok(ids.into_iter().map(JobId::new).collect())
}

/// A job, if this version can read it: one that it cannot is shown when it is asked
/// for.
pub(super) async fn readable(
    controller: &Controller,
    job: JobId,
    doing: &str,
) -> Result<Option<View>, Failure> {
    match controller.engine.view(job).await {
        Ok(view) => Ok(Some(view)),
        Err(Refused::Failed(fault)) if fault.code == jobs::fault::code::JOURNAL_FAILED => {
            Err(refused(doing, Refused::Failed(fault)))
        }
        Err(_) => Ok(None),
    }
}

/// One job.
#[utoipa::path(get, path = "/jobs/{job}", operation_id = "job_show", tag = "job",
    security(("token" = [])), params(("job" = String, Path, description = "Its id, or the beginning of it")), responses(
    (status = 200, description = "The job", body = Job),
    (status = "default", description = "Why not", body = Problem),
))]
pub(super) async fn show(
    caller: Caller,
    State(controller): State<Controller>,
    Path(id): Path<String>,
) -> Result<Json<Job>, Failure> {
    let doing = format!("show job {id}");
    caller.may(Permission::Read, &doing)?;
    let job = find(&controller, &id, &doing).await?;
    now(&controller, job, &doing).await
}

async fn say(
    caller: &Caller,
    controller: &Controller,
    id: &str,
    verb: (Verb, &str),
    comment: String,
) -> Result<Json<Job>, Failure> {
    let doing = format!("{} job {id}", verb.1);
    let job = find(controller, id, &doing).await?;
    let view = controller.engine.view(job).await.map_err(|error| refused(&doing, error))?;
    // Whoever may run drills may end them.
    let permission = match view.history.order.runbook.as_str() {
        "test-failover" => Permission::Drill,
        _ => Permission::Operate,
    };
    caller.may(permission, &doing)?;
    let word = Word::new(caller.name.clone(), comment);
    controller.engine.say(job, verb.0, word).await.map_err(|error| refused(&doing, error))?;
    now(controller, job, &doing).await
}

macro_rules! verbs {
    ($($(#[$doc:meta])* $name:ident = $verb:expr, $path:literal, $id:literal;)*) => { $(
        $(#[$doc])*
        #[utoipa::path(post, path = $path, operation_id = $id, tag = "job",
            security(("token" = [])), params(("job" = String, Path, description = "As for showing it")),
            request_body = Say, responses(
            (status = 200, description = "The job as it is now", body = Job),
            (status = "default", description = "Why not", body = Problem),
        ))]
        pub(super) async fn $name(
            caller: Caller,
            State(controller): State<Controller>,
            Path(id): Path<String>,
            Body(wish): Body<Say>,
        ) -> Result<Json<Job>, Failure> {
            say(&caller, &controller, &id, ($verb, stringify!($name)), wish.comment).await
        }
    )* };
}

verbs! {
    /// Undoes what a job has done, and ends it.
    cancel = Verb::Cancel, "/jobs/{job}/cancel", "job_cancel";
    /// Has a job go on that waits for an operator.
    resume = Verb::Resume, "/jobs/{job}/resume", "job_resume";
    /// Tries once more what failed.
    retry = Verb::Retry, "/jobs/{job}/retry", "job_retry";
    /// Ends a job where it stands, and leaves what cannot be undone.
    abandon = Verb::Abandon, "/jobs/{job}/abandon", "job_abandon";
}
