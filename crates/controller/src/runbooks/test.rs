//! Test failover: a copy beside production, from a point, until somebody
//! completes the test. Replication goes on meanwhile, and so may a failover.
//!
//! | step | undone by |
//! | --- | --- |
//! | choose-point | nothing: a choice changes nothing |
//! | define-at-target | what was made is discarded |
//! | start-at-target | it is stopped |
//! | await-life (best effort) | nothing: looking changes nothing |
//! | await-completion | nothing; then all of it is taken away |

use jobs::{Context, Failure, Key, Outcome, Runbook, Step, Table, Wait};

use super::World;
use super::order::Order;
use super::steps::{ChoosePoint, run_at_target};

/// The operation.
pub struct TestFailover;

impl Runbook for TestFailover {
    const NAME: &'static str = "test-failover";
    type State = Order;
    type World = dyn World;

    fn table(&self) -> Table<Self> {
        let chosen = Table::new().step(ChoosePoint).never_undone("a choice changes nothing");
        run_at_target(chosen).step(AwaitCompletion).never_undone("it only waits")
    }

    fn keys(&self, order: &Order) -> Vec<Key> {
        order.keys()
    }
}

/// The name of the step in which a test runs.
pub const RUNNING: &str = "await-completion";

/// Somebody has completed the test, or its time is over.
struct AwaitCompletion;

impl Step<TestFailover> for AwaitCompletion {
    const NAME: &'static str = RUNNING;

    async fn run(&self, order: &mut Order, cx: &Context<dyn World>) -> Result<Outcome, Failure> {
        if cx.resumed().is_some() {
            return Ok(Outcome::TakeBack);
        }
        let wait = Wait::for_operator("complete the test");
        Ok(Outcome::Wait(match &order.test {
            Some(test) => wait.until(test.until),
            None => wait,
        }))
    }
}
