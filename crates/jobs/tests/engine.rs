//! The engine through its public door.

mod toy;

use std::collections::HashSet;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use jobs::{
    Asked, Cause, Context, End, Engine, Entry, Failure, Fault, History, JobId, Journal,
    JournalError, MemoryJournal, OnFailure, Outcome, Refused, Retry, Runbook, Stage, Standing,
    Step, Stored, Table, Undo, Verb, View, Word,
};
use time::OffsetDateTime;
use tokio::time::Instant;
use toy::{Defect, House, MoveLamp, Moving, lit_house};
use uuid::Uuid;

fn job(number: u128) -> JobId {
    JobId::new(Uuid::from_u128(number))
}

fn asked() -> Asked {
    Asked::new("ada", "lamp 7")
}

fn word(comment: &str) -> Word {
    Word::new("ada", comment)
}

async fn engine(journal: &Arc<MemoryJournal>, house: &Arc<House>, defect: Defect) -> Engine {
    started(Arc::clone(journal) as _, MoveLamp(defect), house).await
}

async fn started<R: Runbook>(
    journal: Arc<dyn Journal>,
    runbook: R,
    world: &Arc<R::World>,
) -> Engine {
    let begun = Instant::now();
    let clock = move || OffsetDateTime::UNIX_EPOCH + (Instant::now() - begun);
    let engine = Engine::builder(journal, Arc::new(clock)).register(runbook, Arc::clone(world));
    engine.start().await.unwrap()
}

/// Waits until the job stands as asked for.
async fn until(engine: &Engine, job: JobId, wanted: impl Fn(&View) -> bool) -> View {
    let mut view = engine.watch(job).expect("the job has not ended");
    view.wait_for(|view| wanted(view)).await.expect("the job stands so before it ends").clone()
}

fn waits(view: &View) -> bool {
    matches!(view.history.standing, Standing::Waiting { .. })
}

#[tokio::test(start_paused = true)]
async fn a_job_survives_its_engine_and_holds_its_keys() {
    let (journal, house) = (Arc::new(MemoryJournal::default()), lit_house());
    let first = engine(&journal, &house, Defect::None).await;
    first.order::<MoveLamp>(job(1), asked(), &Moving::new()).await.unwrap();
    until(&first, job(1), waits).await;
    first.stop().await;
    drop(first);

    let second = engine(&journal, &house, Defect::None).await;
    let refused = second.order::<MoveLamp>(job(2), asked(), &Moving::new()).await;
    assert!(
        matches!(refused, Err(Refused::KeyTaken { holder, .. }) if holder == job(1)),
        "{refused:?}"
    );
    let elsewhere = Moving { socket: 8, ..Moving::new() };
    second.order::<MoveLamp>(job(3), asked(), &elsewhere).await.unwrap();

    second.say(job(1), Verb::Resume, word("it is dark")).await.unwrap();
    let view = second.ended(job(1)).await.unwrap();
    assert_eq!(view.history.standing, Standing::Ended(End::Succeeded));
    assert!(house.rooms().new_is_lit && house.rooms().old_is_gone);
    // What an operator said is typed state of the step that waited for it.
    let stored = journal.load(job(1)).await.unwrap().unwrap();
    assert!(stored.lines.iter().any(|line| line.contains(r#""said":"it is dark""#)));
    second.order::<MoveLamp>(job(2), asked(), &Moving::new()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn part_of_a_job_may_have_what_that_holds() {
    let (journal, house) = (Arc::new(MemoryJournal::default()), lit_house());
    let engine = engine(&journal, &house, Defect::None).await;
    engine.order::<MoveLamp>(job(1), asked(), &Moving::new()).await.unwrap();
    until(&engine, job(1), waits).await;
    let part = Asked { parent: Some(job(1)), ..asked() };
    engine.order::<MoveLamp>(job(2), part.clone(), &Moving::new()).await.unwrap();
    until(&engine, job(2), waits).await;
    // But not what another holds, and be it another part.
    let refused = engine.order::<MoveLamp>(job(3), part, &Moving::new()).await;
    assert!(
        matches!(refused, Err(Refused::KeyTaken { holder, .. }) if holder == job(2)),
        "{refused:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_order_can_be_repeated_and_a_finished_job_ordered_again() {
    let (journal, house) = (Arc::new(MemoryJournal::default()), lit_house());
    let engine = engine(&journal, &house, Defect::None).await;
    engine.order::<MoveLamp>(job(1), asked(), &Moving::new()).await.unwrap();
    engine.order::<MoveLamp>(job(1), asked(), &Moving::new()).await.unwrap();
    until(&engine, job(1), waits).await;
    let early = engine.order_again(job(1), job(2), "bob").await;
    assert!(matches!(early, Err(Refused::Forbidden(_))), "{early:?}");
    engine.say(job(1), Verb::Cancel, word("never mind")).await.unwrap();
    let ended = engine.ended(job(1)).await.unwrap();
    assert_eq!(ended.history.standing, Standing::Ended(End::CancelledAndUndone));
    engine.order::<MoveLamp>(job(1), asked(), &Moving::new()).await.unwrap();
    assert_eq!(journal.logs().len(), 1);
    engine.order_again(job(1), job(2), "bob").await.unwrap();
    let again = until(&engine, job(2), waits).await;
    assert_eq!(again.history.order.by, "bob");
    engine.note(job(1), word("the drill of May")).await.unwrap();
    let noted = engine.view(job(1)).await.unwrap();
    assert_eq!(noted.history.words.last().unwrap().1, word("the drill of May"));
}

#[tokio::test(start_paused = true)]
async fn each_verb_at_the_wrong_moment_is_refused_with_reason_and_advice() {
    let (journal, house) = (Arc::new(MemoryJournal::default()), lit_house());
    let engine = engine(&journal, &house, Defect::None).await;
    engine.order::<MoveLamp>(job(1), asked(), &Moving::new()).await.unwrap();
    let view = until(&engine, job(1), waits).await;
    let allowed = |view: &View| {
        let allowed = view.verbs.iter().filter(|one| one.refused.is_none());
        allowed.map(|one| one.verb).collect::<Vec<_>>()
    };
    assert_eq!(allowed(&view), [Verb::Cancel, Verb::Resume], "as it is shown");
    let mut told = Vec::new();
    for verb in [Verb::Retry, Verb::Abandon] {
        match engine.say(job(1), verb, word("")).await {
            Err(Refused::Forbidden(refusal)) => {
                told.push(format!("{}: {}", refusal.reason, refusal.advice));
            }
            other => panic!("{verb:?}: {other:?}"),
        }
    }
    engine.say(job(1), Verb::Resume, word("")).await.unwrap();
    let ended = engine.ended(job(1)).await.unwrap();
    assert_eq!((allowed(&ended), ended.verbs.len()), (vec![], Verb::ALL.len()));
    for verb in Verb::ALL {
        let refused = engine.say(job(1), verb, word("")).await;
        assert!(matches!(refused, Err(Refused::Forbidden(_))), "{verb:?}: {refused:?}");
    }
    assert_eq!(
        told,
        [
            "nothing has failed; the job waits for: say that it is dark: Resume it.",
            "the job can go on or be undone: \
             Cancel it, or retry what failed; only what cannot be undone is abandoned."
        ]
    );
    let unknown = engine.say(job(9), Verb::Cancel, word("")).await;
    assert_eq!(unknown, Err(Refused::UnknownJob(job(9))));
}

#[tokio::test(start_paused = true)]
async fn a_step_that_does_not_stop_is_dropped_and_undone() {
    let (journal, house) = (Arc::new(MemoryJournal::default()), lit_house());
    let engine = engine(&journal, &house, Defect::Deaf).await;
    engine.order::<MoveLamp>(job(1), asked(), &Moving::new()).await.unwrap();
    let view = until(&engine, job(1), |view| view.progress.is_some()).await;
    assert_eq!(view.progress.unwrap().percent(), Some(50));
    let before = Instant::now();
    engine.say(job(1), Verb::Cancel, word("it hangs")).await.unwrap();
    let view = engine.ended(job(1)).await.unwrap();
    assert_eq!(view.history.standing, Standing::Ended(End::CancelledAndUndone));
    assert_eq!(before.elapsed(), Duration::from_secs(30));
    assert_eq!(view.history.steps[0].stage, Stage::Undone);
}

/// Steps that do what each test wants.
struct Odd(fn(Table<Odd>) -> Table<Odd>);
impl Runbook for Odd {
    const NAME: &'static str = "odd";
    type State = ();
    type World = AtomicBool;
    fn table(&self) -> Table<Self> {
        (self.0)(Table::new())
    }
}

/// Fails until the world is mended.
struct Fragile;
impl Fragile {
    fn attempt(world: &AtomicBool) -> Result<(), Failure> {
        if world.load(Ordering::SeqCst) {
            return Ok(());
        }
        Err(Fault::new("odd", "do it", "the world is broken", "Mend it.").into())
    }
}
impl Step<Odd> for Fragile {
    const NAME: &'static str = "fragile";
    async fn run(&self, (): &mut (), cx: &Context<AtomicBool>) -> Result<Outcome, Failure> {
        Self::attempt(cx.world()).map(|()| Outcome::Done)
    }
}
impl Undo<Odd> for Fragile {
    const NAME: &'static str = "undo-fragile";
    async fn undo(&self, (): &mut (), cx: &Context<AtomicBool>) -> Result<(), Failure> {
        Self::attempt(cx.world())
    }
}

struct Panics;
impl Step<Odd> for Panics {
    const NAME: &'static str = "panics";
    async fn run(&self, (): &mut (), _: &Context<AtomicBool>) -> Result<Outcome, Failure> {
        panic!("a defect");
    }
}

struct Fine;
impl Step<Odd> for Fine {
    const NAME: &'static str = "fine";
    async fn run(&self, (): &mut (), _: &Context<AtomicBool>) -> Result<Outcome, Failure> {
        Ok(Outcome::Done)
    }
}

async fn odd(table: fn(Table<Odd>) -> Table<Odd>) -> (Engine, Arc<AtomicBool>) {
    let world = Arc::new(AtomicBool::new(false));
    let engine = started(Arc::new(MemoryJournal::default()), Odd(table), &world).await;
    engine.order::<Odd>(job(1), asked(), &()).await.unwrap();
    (engine, world)
}

#[tokio::test(start_paused = true)]
async fn an_undo_that_fails_rests_until_an_operator_has_mended_the_world() {
    let (engine, world) =
        odd(|table| table.step(Fine).undone_by(Fragile).step(Panics).never_undone("a test")).await;
    let view = until(&engine, job(1), |view| view.needs_attention().is_some()).await;
    let Standing::Unwinding { cause: Cause::Failed(fault), .. } = &view.history.standing else {
        panic!("{:?}", view.history.standing)
    };
    assert_eq!((fault.code.as_str(), fault.cause.as_str()), ("job-step-panicked", "a defect"));
    assert_eq!(view.history.steps[0].undo_attempts, 5);
    let cancelled = engine.say(job(1), Verb::Cancel, word("")).await;
    assert!(matches!(cancelled, Err(Refused::Forbidden(_))));
    world.store(true, Ordering::SeqCst);
    engine.say(job(1), Verb::Retry, word("mended")).await.unwrap();
    let view = engine.ended(job(1)).await.unwrap();
    assert!(matches!(view.history.standing, Standing::Ended(End::FailedAndUndone { .. })));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_undone_is_abandoned_and_says_what_is_left() {
    let (engine, _) =
        odd(|table| table.step(Fine).undone_by(Fragile).step(Panics).never_undone("a test")).await;
    until(&engine, job(1), |view| view.needs_attention().is_some()).await;
    engine.say(job(1), Verb::Abandon, word("the site is gone")).await.unwrap();
    let view = engine.ended(job(1)).await.unwrap();
    let Standing::Ended(End::Abandoned { left, .. }) = &view.history.standing else {
        panic!("{:?}", view.history.standing)
    };
    assert_eq!(left, &["fine"]);
}

#[tokio::test(start_paused = true)]
async fn past_the_point_of_no_return_a_cancel_is_refused_and_a_failure_asks() {
    let (engine, world) = odd(|table| {
        table.step(Fragile).undone_by(Fragile).no_return("it is done for good").retry(Retry::NEVER)
    })
    .await;
    let view = until(&engine, job(1), |view| view.needs_attention().is_some()).await;
    assert!(matches!(view.history.standing, Standing::Asking { .. }));
    let Err(Refused::Forbidden(refusal)) = engine.say(job(1), Verb::Cancel, word("")).await else {
        panic!("a cancel is allowed")
    };
    assert_eq!(refusal.reason, "the job is past its point of no return: it is done for good");
    world.store(true, Ordering::SeqCst);
    engine.say(job(1), Verb::Retry, word("mended")).await.unwrap();
    let view = engine.ended(job(1)).await.unwrap();
    assert_eq!(view.history.standing, Standing::Ended(End::Succeeded));
}

#[tokio::test(start_paused = true)]
async fn a_best_effort_that_fails_is_a_warning() {
    let (engine, _) = odd(|table| {
        table
            .step(Fragile)
            .never_undone("a test")
            .on_failure(OnFailure::GoOn)
            .step(Fine)
            .never_undone("a test")
    })
    .await;
    let view = engine.ended(job(1)).await.unwrap();
    assert_eq!(view.history.standing, Standing::Ended(End::SucceededWithWarnings));
    assert_eq!(view.history.steps[0].stage, Stage::LeftOut);
    assert_eq!(view.history.steps[0].fault.as_ref().unwrap().cause, "the world is broken");
}

/// A journal that can be full.
struct Full {
    journal: MemoryJournal,
    full: AtomicBool,
}
impl Journal for Full {
    fn append<'a>(
        &'a self,
        job: JobId,
        entry: &'a Entry,
    ) -> BoxFuture<'a, Result<(), JournalError>> {
        if self.full.load(Ordering::SeqCst) {
            return async { Err(JournalError::Failed("the disk is full".into())) }.boxed();
        }
        self.journal.append(job, entry)
    }
    fn unfinished(&self) -> BoxFuture<'_, Result<Vec<Stored>, JournalError>> {
        self.journal.unfinished()
    }
    fn load(&self, job: JobId) -> BoxFuture<'_, Result<Option<Stored>, JournalError>> {
        self.journal.load(job)
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_journal_is_full_stalls_and_goes_on_when_it_is_mended() {
    let journal =
        Arc::new(Full { journal: MemoryJournal::default(), full: AtomicBool::new(false) });
    let house = lit_house();
    let engine = started(Arc::clone(&journal) as _, MoveLamp(Defect::None), &house).await;
    engine.order::<MoveLamp>(job(1), asked(), &Moving::new()).await.unwrap();
    until(&engine, job(1), waits).await;
    journal.full.store(true, Ordering::SeqCst);
    let told = engine.say(job(1), Verb::Resume, word("")).await;
    assert!(matches!(told, Err(Refused::Stalled(_))), "{told:?}");
    let view = until(&engine, job(1), |view| view.stalled.is_some()).await;
    assert_eq!(view.needs_attention().unwrap().cause, "the disk is full");
    let ordered =
        engine.order::<MoveLamp>(job(2), asked(), &Moving { socket: 8, ..Moving::new() }).await;
    assert!(matches!(ordered, Err(Refused::Failed(_))), "{ordered:?}");
    journal.full.store(false, Ordering::SeqCst);
    engine.say(job(1), Verb::Retry, word("")).await.unwrap();
    engine.say(job(1), Verb::Resume, word("")).await.unwrap();
    let view = engine.ended(job(1)).await.unwrap();
    assert_eq!(view.history.standing, Standing::Ended(End::Succeeded));
}

#[tokio::test(start_paused = true)]
async fn a_job_of_an_unknown_runbook_is_kept_with_its_keys() {
    let (journal, house) = (Arc::new(MemoryJournal::default()), lit_house());
    let first = engine(&journal, &house, Defect::None).await;
    first.order::<MoveLamp>(job(1), asked(), &Moving::new()).await.unwrap();
    until(&first, job(1), waits).await;
    first.stop().await;

    let world = Arc::new(AtomicBool::new(false));
    let other = started(Arc::clone(&journal) as _, Odd(|t| t.step(Fine).never_undone("")), &world);
    let other = other.await;
    let view = other.view(job(1)).await.unwrap();
    assert_eq!(view.stalled.unwrap().code, "job-runbook-unknown");
    assert!(matches!(other.say(job(1), Verb::Resume, word("")).await, Err(Refused::Stalled(_))));
    assert_eq!(other.unfinished().len(), 1);
    // A program that never returns must not hold a key for ever.
    other.say(job(1), Verb::Abandon, word("the runbook is gone")).await.unwrap();
    let view = other.view(job(1)).await.unwrap();
    let Standing::Ended(End::Abandoned { left, .. }) = &view.history.standing else {
        panic!("{:?}", view.history.standing)
    };
    assert_eq!(left, &["await-word", "send-letter", "fit-socket"]);
    assert!(other.unfinished().is_empty());
}

/// Between them, the logs have every kind of entry.
const GOLDEN: [&str; 2] =
    [include_str!("golden/log-1.jsonl"), include_str!("golden/log-1-taken-back.jsonl")];

#[test]
fn golden_logs_are_read_and_written_the_same() {
    let mut kinds = HashSet::new();
    for line in GOLDEN.into_iter().flat_map(str::lines) {
        let entry = Entry::decode(line).unwrap();
        assert_eq!(entry.encode(), line);
        kinds.insert(mem::discriminant(&entry.event));
    }
    assert_eq!(kinds.len(), 15);
    let standings = GOLDEN.map(|log| History::read(job(1), log.lines()).unwrap().standing);
    assert!(matches!(
        standings,
        [Standing::Ended(End::Abandoned { .. }), Standing::Ended(End::SucceededWithWarnings)]
    ));
}

#[test]
fn a_log_of_a_later_format_or_with_a_gap_is_not_read() {
    let golden = GOLDEN[0];
    let later = golden.lines().next().unwrap().replacen("\"format\":1", "\"format\":2", 1);
    assert_eq!(Entry::decode(&later).unwrap_err().cause, "it has format 2, and 1 is known");
    let gap: Vec<_> = golden.lines().take(1).chain(golden.lines().skip(2)).collect();
    assert_eq!(History::read(job(1), gap).unwrap_err().cause, "entry 1 was expected");
}
