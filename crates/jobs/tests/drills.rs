//! The drills pass a sound runbook, and catch each defect.

mod toy;

use std::sync::Arc;

use jobs::End;
use jobs::drills::{
    Kind, Moment, OnAsking, OnWaiting, Operator, Passed, Place, Trouble, play, rehearse,
};
use proptest::prelude::*;
use toy::{Defect, Moves, Tries};

#[test]
fn a_sound_runbook_passes() {
    let report = rehearse(Moves(Defect::None)).unwrap_or_else(|broken| panic!("{broken}"));
    // Each of the three ends was come to, many times.
    assert!(report.succeeded > 50 && report.failed > 50 && report.cancelled > 50, "{report:?}");
}

#[test]
fn a_runbook_that_takes_back_what_it_made_passes() {
    let report = rehearse(Tries).unwrap_or_else(|broken| panic!("{broken}"));
    assert!(report.succeeded > 20 && report.failed > 20 && report.cancelled > 20, "{report:?}");
}

fn caught(defect: Defect, sign: &str) {
    let broken = rehearse(Moves(defect)).expect_err("the defect was not caught");
    assert!(broken.to_string().contains(sign), "{broken}");
}

#[test]
fn a_step_without_undo_is_caught() {
    caught(Defect::MissingUndo, "it does not leave the world as it was");
}

#[test]
fn a_step_that_cannot_be_repeated_is_caught() {
    caught(Defect::NotIdempotent, "as an undisturbed one does");
}

#[test]
fn an_undo_that_meets_only_a_whole_step_is_caught() {
    caught(Defect::UndoNeedsAll, "it does not leave the world as it was");
}

#[test]
fn an_undo_that_cannot_be_repeated_is_caught() {
    caught(Defect::UndoOnce, "in vain");
}

#[test]
fn an_order_of_steps_that_breaks_what_must_hold_is_caught() {
    caught(Defect::LitTwice, "both lamps are lit");
}

#[test]
fn a_step_that_never_ends_is_caught() {
    caught(Defect::Deaf, "it ends with FailedAndUndone");
}

#[test]
fn a_step_that_ends_the_process_again_and_again_is_not_repeated_without_a_word() {
    let place = Place::Step("put-out-old");
    let trouble = Trouble { place, moment: Moment::After, kind: Kind::Crash, times: 12 };
    let rehearsal = Arc::new(Moves(Defect::None));
    let played = play(&rehearsal, vec![trouble], Operator::default()).unwrap();
    assert!(played.passed.contains(&Passed::Asking), "{:?}", played.log);
    assert_eq!(played.end, End::Succeeded);
    let asked = played.log.iter().filter(|line| line.contains("interrupted-too-often"));
    assert_eq!(asked.count(), 1);
}

const STEPS: [&str; 6] =
    ["fit-socket", "send-letter", "await-word", "put-out-old", "light-new", "take-old-away"];
const UNDONE: [&str; 3] = ["fit-socket", "put-out-old", "light-new"];

fn troubles() -> impl Strategy<Value = Vec<Trouble>> {
    let place = prop_oneof![
        4 => proptest::sample::select(&STEPS[..]).prop_map(Place::Step),
        2 => proptest::sample::select(&UNDONE[..]).prop_map(Place::Undo),
        3 => (0..40_u32).prop_map(Place::Append),
    ];
    let moment = prop_oneof![
        Just(Moment::Before),
        (1..5_u32).prop_map(Moment::Inside),
        Just(Moment::After),
    ];
    let kind = prop_oneof![
        Just(Kind::Fail),
        Just(Kind::FailForGood),
        Just(Kind::Crash),
        Just(Kind::Cancel),
    ];
    let trouble = (place, moment, kind, 1..4_u32)
        .prop_map(|(place, moment, kind, times)| Trouble { place, moment, kind, times });
    proptest::collection::vec(trouble, 0..8)
}

fn operator() -> impl Strategy<Value = Operator> {
    let waiting = prop_oneof![
        3 => Just(OnWaiting::Resume),
        1 => Just(OnWaiting::Cancel),
        1 => Just(OnWaiting::LetPass),
    ];
    let asking = prop_oneof![Just(OnAsking::Retry), Just(OnAsking::Cancel)];
    (waiting, asking).prop_map(|(waiting, asking)| Operator { waiting, asking })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_goes_wrong_a_job_ends_and_the_world_is_clean(
        troubles in troubles(),
        operator in operator(),
    ) {
        let rehearsal = Arc::new(Moves(Defect::None));
        let played = play(&rehearsal, troubles, operator).map_err(TestCaseError::fail)?;
        prop_assert_eq!(&played.broken, &None);
        let mut done = played.before.clone();
        done.sockets.insert(7, 1);
        (done.old_is_lit, done.new_is_lit, done.old_is_gone) = (false, true, true);
        match played.end {
            // A letter that was not sent is all that may be left out.
            End::Succeeded | End::SucceededWithWarnings => prop_assert_eq!(&played.after, &done),
            End::FailedAndUndone { .. } | End::CancelledAndUndone => {
                prop_assert_eq!(&played.after, &played.before);
            }
            End::Abandoned { .. } => prop_assert!(false, "nobody abandoned it"),
        }
    }
}
