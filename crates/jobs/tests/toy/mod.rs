//! A toy runbook: a lamp is moved from one room to another, and shines in one
//! of them at most. It can be built with defects.

#![allow(dead_code, clippy::allow_attributes, reason = "each test uses a part of it")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use jobs::drills::Rehearsal;
use jobs::{
    Context, Failure, Fault, Key, OnFailure, Outcome, Progress, Retry, Runbook, Step, Table, Undo,
    Wait,
};
use serde::{Deserialize, Serialize};

/// What is wrong with the runbook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Defect {
    #[default]
    None,
    /// A step that says it need not be undone.
    MissingUndo,
    /// A step that makes another one each time.
    NotIdempotent,
    /// An undo that fails when there is nothing to undo.
    UndoNeedsAll,
    /// An undo that cannot be repeated.
    UndoOnce,
    /// The new lamp is lit before the old one is out.
    LitTwice,
    /// A step that never stops.
    Deaf,
}

#[derive(Default)]
pub struct House {
    rooms: Mutex<Rooms>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rooms {
    pub sockets: BTreeMap<u32, u32>,
    pub old_is_lit: bool,
    pub new_is_lit: bool,
    pub old_is_gone: bool,
    pub letters: u32,
}

impl House {
    pub fn rooms(&self) -> MutexGuard<'_, Rooms> {
        self.rooms.lock().unwrap()
    }

    /// Changes something, with awaits before and after.
    async fn change(&self, change: impl FnOnce(&mut Rooms)) {
        tokio::task::yield_now().await;
        change(&mut self.rooms());
        tokio::task::yield_now().await;
    }
}

pub struct MoveLamp(pub Defect);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moving {
    /// Chosen with the order, so that a repetition finds it again.
    pub socket: u32,
    pub wired: Option<u32>,
    pub said: Option<String>,
}

impl Moving {
    pub fn new() -> Self {
        Self { socket: 7, wired: None, said: None }
    }
}

pub const PATIENCE: Duration = Duration::from_secs(14 * 24 * 3600);

impl Runbook for MoveLamp {
    const NAME: &'static str = "move-lamp";
    type State = Moving;
    type World = House;

    fn table(&self) -> Table<Self> {
        let table = Table::new().step(FitSocket(self.0));
        let table = match self.0 {
            Defect::MissingUndo => table.never_undone("a defect"),
            _ => table.undone_by(RemoveSocket(self.0)),
        };
        let table = table
            .retry(Retry::times(2, Duration::from_secs(1), Duration::from_secs(1)))
            .step(SendLetter)
            .never_undone("a letter cannot be called back")
            .on_failure(OnFailure::GoOn)
            .step(AwaitWord)
            .never_undone("it changes nothing");
        let table = match self.0 {
            Defect::LitTwice => {
                table.step(LightNew).undone_by(PutOutNew).step(PutOutOld).undone_by(LightOld)
            }
            _ => table.step(PutOutOld).undone_by(LightOld).step(LightNew).undone_by(PutOutNew),
        };
        table
            .on_failure(OnFailure::Ask)
            .step(TakeOldAway)
            .never_undone("it is thrown away")
            .no_return("the old lamp is thrown away")
            .retry(Retry::NEVER)
    }

    fn keys(&self, order: &Moving) -> Vec<Key> {
        vec![Key::exclusive(format!("lamp/{}", order.socket)), Key::shared("house")]
    }
}

struct FitSocket(Defect);
impl Step<MoveLamp> for FitSocket {
    const NAME: &'static str = "fit-socket";
    async fn run(&self, moving: &mut Moving, cx: &Context<House>) -> Result<Outcome, Failure> {
        cx.report(Progress {
            text: "fitting".into(),
            done: 1,
            total: Some(2),
            ..Progress::default()
        });
        if self.0 == Defect::Deaf {
            std::future::pending::<()>().await;
        }
        let socket = moving.socket;
        let again = self.0 == Defect::NotIdempotent;
        cx.world()
            .change(|rooms| {
                let fitted = rooms.sockets.entry(socket).or_default();
                *fitted = if again { *fitted + 1 } else { 1 };
            })
            .await;
        cx.world().change(|_| {}).await;
        moving.wired = Some(socket);
        Ok(Outcome::Done)
    }
}

struct RemoveSocket(Defect);
impl Undo<MoveLamp> for RemoveSocket {
    const NAME: &'static str = "remove-socket";
    async fn undo(&self, moving: &mut Moving, cx: &Context<House>) -> Result<(), Failure> {
        // Not what the step put down: it may have been interrupted before.
        let socket =
            if self.0 == Defect::UndoNeedsAll { moving.wired.unwrap_or(0) } else { moving.socket };
        let known = cx.world().rooms().sockets.contains_key(&socket);
        if self.0 == Defect::UndoOnce && !known {
            let fault = Fault::new("toy", "remove the socket", "there is none", "None.");
            return Err(Failure::ForGood(fault));
        }
        cx.world()
            .change(|rooms| {
                rooms.sockets.remove(&socket);
            })
            .await;
        moving.wired = None;
        Ok(())
    }
}

struct SendLetter;
impl Step<MoveLamp> for SendLetter {
    const NAME: &'static str = "send-letter";
    async fn run(&self, _: &mut Moving, cx: &Context<House>) -> Result<Outcome, Failure> {
        cx.world().change(|rooms| rooms.letters += 1).await;
        Ok(Outcome::Done)
    }
}

struct AwaitWord;
impl Step<MoveLamp> for AwaitWord {
    const NAME: &'static str = "await-word";
    async fn run(&self, moving: &mut Moving, cx: &Context<House>) -> Result<Outcome, Failure> {
        match cx.resumed() {
            None => Ok(Outcome::Wait(
                Wait::for_operator("say that it is dark").until(cx.begun() + PATIENCE),
            )),
            Some(resumed) => {
                moving.said = Some(resumed.comment.clone());
                Ok(Outcome::Done)
            }
        }
    }
}

macro_rules! effects {
    ($($step:ident = $name:literal, $trait:ident $function:ident -> $result:ty: $change:expr, $done:expr;)*) => {$(
        struct $step;
        impl $trait<MoveLamp> for $step {
            const NAME: &'static str = $name;
            async fn $function(&self, _: &mut Moving, cx: &Context<House>) -> Result<$result, Failure> {
                let change: fn(&mut Rooms) = $change;
                cx.world().change(change).await;
                Ok($done)
            }
        }
    )*};
}

effects! {
    PutOutOld = "put-out-old", Step run -> Outcome: |rooms| rooms.old_is_lit = false, Outcome::Done;
    LightOld = "light-old", Undo undo -> (): |rooms| rooms.old_is_lit = true, ();
    LightNew = "light-new", Step run -> Outcome: |rooms| rooms.new_is_lit = true, Outcome::Done;
    PutOutNew = "put-out-new", Undo undo -> (): |rooms| rooms.new_is_lit = false, ();
    TakeOldAway = "take-old-away", Step run -> Outcome: |rooms| rooms.old_is_gone = true, Outcome::Done;
}

/// A toy test failover: it makes something, waits, and takes it back.
pub struct TryLamp;

impl Runbook for TryLamp {
    const NAME: &'static str = "try-lamp";
    type State = Moving;
    type World = House;

    fn table(&self) -> Table<Self> {
        Table::new()
            .step(FitForTrial)
            .undone_by(RemoveTrial)
            .step(AwaitVerdict)
            .never_undone("it changes nothing")
    }
}

struct FitForTrial;
impl Step<TryLamp> for FitForTrial {
    const NAME: &'static str = "fit-for-trial";
    async fn run(&self, moving: &mut Moving, cx: &Context<House>) -> Result<Outcome, Failure> {
        let socket = moving.socket;
        cx.world()
            .change(|rooms| {
                rooms.sockets.insert(socket, 1);
            })
            .await;
        Ok(Outcome::Done)
    }
}

struct RemoveTrial;
impl Undo<TryLamp> for RemoveTrial {
    const NAME: &'static str = "remove-trial";
    async fn undo(&self, moving: &mut Moving, cx: &Context<House>) -> Result<(), Failure> {
        let socket = moving.socket;
        cx.world()
            .change(|rooms| {
                rooms.sockets.remove(&socket);
            })
            .await;
        Ok(())
    }
}

struct AwaitVerdict;
impl Step<TryLamp> for AwaitVerdict {
    const NAME: &'static str = "await-verdict";
    async fn run(&self, moving: &mut Moving, cx: &Context<House>) -> Result<Outcome, Failure> {
        if let Some(resumed) = cx.resumed() {
            moving.said = Some(resumed.comment.clone());
            return Ok(Outcome::TakeBack);
        }
        Ok(Outcome::Wait(Wait::for_operator("complete the trial").until(cx.begun() + PATIENCE)))
    }
}

pub fn lit_house() -> Arc<House> {
    let house = House::default();
    house.rooms().old_is_lit = true;
    Arc::new(house)
}

/// What is to be seen of a house: a letter too many harms nobody.
fn without_letters(house: &House) -> Rooms {
    Rooms { letters: 0, ..house.rooms().clone() }
}

fn shines_once(house: &House) -> Result<(), String> {
    let rooms = house.rooms();
    if rooms.old_is_lit && rooms.new_is_lit { Err("both lamps are lit".into()) } else { Ok(()) }
}

pub struct Moves(pub Defect);

impl Rehearsal for Moves {
    type Runbook = MoveLamp;
    type Seen = Rooms;

    fn runbook(&self) -> MoveLamp {
        MoveLamp(self.0)
    }

    fn world(&self) -> Arc<House> {
        lit_house()
    }

    fn order(&self) -> Moving {
        Moving::new()
    }

    fn see(&self, house: &House) -> Rooms {
        without_letters(house)
    }

    fn holds(&self, house: &House) -> Result<(), String> {
        shines_once(house)
    }
}

pub struct Tries;

impl Rehearsal for Tries {
    type Runbook = TryLamp;
    type Seen = Rooms;

    fn runbook(&self) -> TryLamp {
        TryLamp
    }

    fn world(&self) -> Arc<House> {
        lit_house()
    }

    fn order(&self) -> Moving {
        Moving::new()
    }

    fn see(&self, house: &House) -> Rooms {
        without_letters(house)
    }
}
