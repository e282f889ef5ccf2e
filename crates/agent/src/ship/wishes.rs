//! Wishes for a point at once, of machines that are shipped: how a command
//! reaches the task that ships.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::fault::{Code, Fault};
use domain::id::ProtectionId;
use tokio::sync::{mpsc, oneshot};
use wire::replication::{PointMark, Progress};

use super::task::Board;

/// Wishes that wait for one task.
const WAITING: usize = 8;

/// A wish for a point of what the disks are from now on.
#[derive(Debug)]
pub(super) struct Wish {
    /// Whether it is compared with the replica, which must find them the same.
    pub(super) compare: bool,
    answer: oneshot::Sender<Result<PointMark, Fault>>,
}

impl Wish {
    /// Whether nobody waits for it any more.
    pub(super) fn is_given_up(&self) -> bool {
        self.answer.is_closed()
    }

    pub(super) fn answer(self, answer: Result<PointMark, Fault>) {
        // Who wished may be gone; the point is made.
        let _ = self.answer.send(answer);
    }
}

/// Where wishes are brought. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Wishes(Arc<Mutex<HashMap<ProtectionId, Desk>>>);

#[derive(Debug)]
struct Desk {
    wishes: mpsc::Sender<Wish>,
    board: Arc<Board>,
}

impl Wishes {
    /// Opens the desk of a task, in the place of an earlier one.
    pub(super) fn enter(
        &self,
        protection: ProtectionId,
        board: &Arc<Board>,
    ) -> mpsc::Receiver<Wish> {
        let (wishes, hears) = mpsc::channel(WAITING);
        let mut desks = self.lock();
        desks.retain(|_, desk| !desk.wishes.is_closed());
        desks.insert(protection, Desk { wishes, board: Arc::clone(board) });
        hears
    }

    /// Has a point made of what the machine's disks are from now on; answers once
    /// it is durable at the target and, with `compare`, found to be the same.
    ///
    /// # Errors
    /// [`Code::NotKeptHere`] when this host does not ship it now; what keeps the
    /// point from being made; [`Code::ReplicaDiffers`].
    pub async fn synchronise(
        &self,
        protection: ProtectionId,
        compare: bool,
    ) -> Result<PointMark, Fault> {
        let desk = self.lock().get(&protection).map(|desk| desk.wishes.clone());
        let desk = desk.ok_or_else(|| not_shipped(protection, "this host does not ship it"))?;
        let (answer, answered) = oneshot::channel();
        let given = desk.try_send(Wish { compare, answer });
        given.map_err(|_| not_shipped(protection, "too many ask for it, or it ends"))?;
        drop(desk);
        answered
            .await
            .unwrap_or_else(|_| Err(not_shipped(protection, "this host ships it no longer")))
    }

    /// How far the copy of a machine is.
    #[must_use]
    pub fn progress(&self, protection: ProtectionId) -> Option<Progress> {
        self.lock().get(&protection).and_then(|desk| desk.board.report().progress)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ProtectionId, Desk>> {
        // Changes are insertions and removals; none stops half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why no point is made now.
pub(super) fn not_shipped(protection: ProtectionId, cause: &str) -> Fault {
    Fault::new(
        Code::NotKeptHere,
        format!("make a point of protection {protection} now"),
        cause,
        "Look at where the protection stands; resume it if it is paused, and run it again.",
    )
}
