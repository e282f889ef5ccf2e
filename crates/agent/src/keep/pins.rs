//! Points that machines were made of and still need: no policy drops them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::id::ProtectionId;
use replica::geometry::Cycle;
use uuid::Uuid;

/// By the recovery that needs one. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Pins(Arc<Mutex<HashMap<Uuid, (ProtectionId, Cycle)>>>);

impl Pins {
    /// Pins a point for a recovery, in the place of one that it had.
    pub fn pin(&self, recovery: Uuid, protection: ProtectionId, point: u32) {
        self.lock().insert(recovery, (protection, Cycle(point)));
    }

    /// A recovery needs none any more.
    pub fn unpin(&self, recovery: Uuid) {
        self.lock().remove(&recovery);
    }

    /// The points of a protection that are needed.
    #[must_use]
    pub fn of(&self, protection: ProtectionId) -> Vec<Cycle> {
        let pins = self.lock();
        pins.values().filter(|(of, _)| *of == protection).map(|(_, point)| *point).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, (ProtectionId, Cycle)>> {
        // Changes are insertions and removals; none stops half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
