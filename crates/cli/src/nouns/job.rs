//! `lifeboat job`.

use std::time::Duration;

use api::List;
use api::job::{Job, JobState, Say, StepStage};
use clap::Subcommand;
use domain::fault::{Code, Fault};
use domain::units::{ByteCount, span, utc};
use indicatif::{ProgressBar, ProgressStyle};

use crate::client::{Session, segment};
use crate::confirm::confirm;
use crate::failure::Failure;
use crate::output::{self, inner_table, or_dash};

/// How often a job that is watched is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the jobs, the newest first
    List,
    /// Show one job, step by step
    Show {
        /// Its id, or the beginning of it
        job: String,
    },
    /// Watch a job until it has ended or waits for you
    Watch {
        /// As for show
        job: String,
    },
    /// Undo what a job has done, and end it
    Cancel {
        /// As for show
        job: String,
        /// Kept with the job
        #[arg(long, default_value = "")]
        comment: String,
    },
    /// Have a job go on that waits for you
    Resume {
        /// As for show
        job: String,
        /// Kept with the job
        #[arg(long, default_value = "")]
        comment: String,
    },
    /// Try once more, now, what failed
    Retry {
        /// As for show
        job: String,
        /// Kept with the job
        #[arg(long, default_value = "")]
        comment: String,
    },
    /// End a job where it stands, and leave what cannot be undone
    Abandon {
        /// As for show
        job: String,
        /// Kept with the job
        #[arg(long, default_value = "")]
        comment: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

pub(crate) async fn run(command: Command, session: &Session) -> Result<(), Failure> {
    match command {
        Command::List => {
            let jobs: List<Job> = session.get("/jobs").await?;
            output::list(
                session.json,
                &jobs,
                "There are no jobs yet.",
                &["JOB", "OPERATION", "TARGET", "STATE", "DONE", "ORDERED", "BY"],
                |job| {
                    vec![
                        job.id.to_string(),
                        job.operation.clone(),
                        job.target.clone(),
                        job.state.to_string(),
                        format!("{} %", job.percent),
                        utc(job.ordered),
                        job.asked_by.clone(),
                    ]
                },
            );
        }
        Command::Show { job } => show(session, &fetch(session, &job).await?),
        Command::Watch { job } => {
            let job = fetch(session, &job).await?;
            conclude(session, job).await?;
        }
        Command::Cancel { job, comment } => say(session, &job, "cancel", comment).await?,
        Command::Resume { job, comment } => say(session, &job, "resume", comment).await?,
        Command::Retry { job, comment } => say(session, &job, "retry", comment).await?,
        Command::Abandon { job, comment, yes } => {
            let known = fetch(session, &job).await?;
            confirm(&format!("abandon the {} of {}", known.operation, known.target), &job, yes)?;
            say(session, &job, "abandon", comment).await?;
        }
    }
    Ok(())
}

async fn fetch(session: &Session, job: &str) -> Result<Job, Failure> {
    session.get(&format!("/jobs/{}", segment(job))).await
}

async fn say(session: &Session, job: &str, verb: &str, comment: String) -> Result<(), Failure> {
    let path = format!("/jobs/{}/{verb}", segment(job));
    let now: Job = session.post(&path, &Say { comment }).await?;
    let words = format!(
        "The {} of {} is {}. Watch it with: lifeboat job watch {}",
        now.operation, now.target, now.state, now.id
    );
    output::done(session.json, &now, &words);
    Ok(())
}

/// Watches a job until it has ended or needs somebody, and tells how; fails if
/// it did not do what was asked. Goes on with the job that it orders at its end;
/// as JSON, only the last is told.
pub(crate) async fn conclude(session: &Session, job: Job) -> Result<Job, Failure> {
    let mut job = watch(session, job).await?;
    while let (JobState::Succeeded | JobState::SucceededWithWarnings, Some(next)) =
        (job.state, job.next)
    {
        if !session.json {
            tell_end(&job);
        }
        job = watch(session, fetch(session, &next.to_string()).await?).await?;
    }
    if session.json {
        output::json(&job);
    } else {
        tell_end(&job);
    }
    let doing = format!("finish the {} of {}", job.operation, job.target);
    let problem = || {
        job.problem.as_ref().map_or_else(
            || "it was taken back".to_owned(),
            |problem| format!("{}: cannot {}: {}", problem.code, problem.doing, problem.cause),
        )
    };
    let fault =
        |cause, advice: String| Err(Fault::new(Code::JobNotDone, doing, cause, advice).into());
    match job.state {
        JobState::Failed | JobState::Cancelled | JobState::Abandoned => fault(
            problem(),
            format!("All that was undone, and what was not, is in: lifeboat job show {}", job.id),
        ),
        JobState::NeedsAttention => {
            let advice = job.problem.as_ref().map_or("", |problem| problem.advice.as_str());
            fault(
                problem(),
                format!(
                    "{advice} Then: lifeboat job retry {id}; or take it back: lifeboat job cancel {id}.",
                    id = job.id
                ),
            )
        }
        _ => Ok(job),
    }
}

fn tell_end(job: &Job) {
    for warning in job.steps.iter().flat_map(|step| &step.warnings) {
        eprintln!("warning: {warning}");
    }
    println!("{}", outcome(job));
}

fn outcome(job: &Job) -> String {
    let mut words = format!("The {} of {}: {}.", job.operation, job.target, job.state);
    if let (Some(point), Some(instant)) = (job.point, job.point_instant) {
        words.push_str(&format!(" From point {point} of {}.", utc(instant)));
    }
    if let Some(ms) = job.rto_ms {
        words.push_str(&format!(
            " The machine answered {}.{} s after the order.",
            ms / 1000,
            ms % 1000 / 100
        ));
    }
    if let Some(what) = &job.waits_for {
        words.push_str(&format!(
            " It waits for you to {what}. Then: lifeboat job resume {}",
            job.id
        ));
    }
    words
}

/// Watches a job, with progress for people, until it has ended or needs somebody.
pub(crate) async fn watch(session: &Session, mut job: Job) -> Result<Job, Failure> {
    let bar = if session.json { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
    bar.set_style(
        ProgressStyle::with_template("{spinner} {msg} ({elapsed})").expect("the template is sound"),
    );
    bar.enable_steady_tick(Duration::from_millis(200));
    let mut told = Vec::new();
    loop {
        if !session.json {
            for step in &job.steps {
                let line = format!("{:<22} {}", step.name, step.stage);
                if step.stage != StepStage::NotBegun
                    && step.stage != StepStage::Begun
                    && !told.contains(&line)
                {
                    bar.println(format!("  {line}"));
                    told.push(line);
                }
            }
            bar.set_message(at_hand(&job));
        }
        let rests = matches!(job.state, JobState::Waiting | JobState::NeedsAttention);
        if rests || job.state.has_ended() {
            bar.finish_and_clear();
            return Ok(job);
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            _ = tokio::signal::ctrl_c() => {
                return Err(Fault::new(
                    Code::Interrupted,
                    format!("watch the {} of {}", job.operation, job.target),
                    "the command was interrupted; the job goes on",
                    format!("Watch it again with: lifeboat job watch {}", job.id),
                )
                .into());
            }
        }
        job = fetch(session, &job.id.to_string()).await?;
    }
}

/// What a job is doing, in a line.
fn at_hand(job: &Job) -> String {
    let step = job.steps.iter().find(|step| step.stage == StepStage::Begun);
    let step = step.map_or_else(|| job.state.to_string(), |step| step.name.clone());
    let trouble = job.problem.as_ref().map(|problem| format!(": {}", problem.cause));
    let progress = job.progress.as_ref().and_then(|progress| {
        let total = progress.total?;
        Some(format!(": {} of {}", ByteCount::new(progress.done), ByteCount::new(total)))
    });
    step + &progress.or(trouble).unwrap_or_default()
}

fn show(session: &Session, job: &Job) {
    let steps =
        job.steps
            .iter()
            .map(|step| {
                let took = step.begun.zip(step.since).map(|(begun, since)| span(since - begun));
                let mut words: Vec<String> = step.warnings.clone();
                words.extend(step.problem.as_ref().map(|problem| {
                    format!("{}: {}. {}", problem.code, problem.cause, problem.advice)
                }));
                vec![
                    step.name.clone(),
                    step.stage.to_string(),
                    step.attempts.to_string(),
                    or_dash(took),
                    words.join("\n"),
                ]
            })
            .collect();
    let mut fields = vec![
        ("Job", job.id.to_string()),
        ("Operation", job.operation.clone()),
        ("Target", job.target.clone()),
        ("State", job.state.to_string()),
        ("Done", format!("{} %", job.percent)),
        ("Ordered", format!("{} by {}", utc(job.ordered), job.asked_by)),
        ("Ended", or_dash(job.ended.map(utc))),
    ];
    if let Some(what) = &job.waits_for {
        let until = job.waits_until.map(|until| format!("; by itself at {}", utc(until)));
        fields.push(("Waits for", format!("you to {what}{}", until.unwrap_or_default())));
    }
    if let Some(problem) = &job.problem {
        fields.push((
            "Problem",
            format!(
                "{}: cannot {}: {}. {}",
                problem.code, problem.doing, problem.cause, problem.advice
            ),
        ));
    }
    if let (Some(point), Some(instant)) = (job.point, job.point_instant) {
        fields.push(("Point", format!("{point} of {}", utc(instant))));
    }
    if let Some(ms) = job.rto_ms {
        fields.push(("RTO", format!("{ms} ms from the order to the first sign of life")));
    }
    fields.push(("Steps", inner_table(&["STEP", "STAGE", "TRIES", "TOOK", ""], steps)));
    let notes: Vec<String> = job
        .notes
        .iter()
        .map(|note| format!("{} {}: {}", utc(note.at), note.by, note.text))
        .collect();
    if !notes.is_empty() {
        fields.push(("Notes", notes.join("\n")));
    }
    if !job.state.has_ended() {
        fields.push(("May be told to", output::operations(&job.operations)));
    }
    output::item(session.json, job, &fields);
}
