//! A machine's store as its readers see it.

use std::sync::Arc;

use crate::{
    cache::Cache,
    error::{StoreError, StoreResult},
    format::manifest::Point,
    geometry::Cycle,
    medium::Medium,
    replay::{self, Purpose},
    state::{Follows, Limits, Received, Shared},
};

/// How far a machine's data has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Positions {
    /// Durable changes of the open attempt.
    pub received: Received,
    /// The newest point whose index is in runs on the medium. Later ones are
    /// as readable; opening the store reads their records again.
    pub indexed: Option<Cycle>,
    /// The newest point.
    pub sealed: Option<Cycle>,
}

/// A machine's store, for reading. Clones share it, and with a
/// [`Writer`](crate::writer::Writer) of this process it is always current.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) shared: Arc<Shared>,
}

impl Store {
    /// Opens a machine's store for reading, beside a writer or without one,
    /// and whatever state it is in. Sees what is there at this moment. Nothing
    /// is written.
    ///
    /// # Errors
    /// The medium cannot be read at all, or a newer program wrote to it
    /// ([`TooNew`](StoreError::TooNew)). Damage inside is told by
    /// [`damage`](Self::damage), and by reads that meet it.
    pub fn open(medium: Arc<dyn Medium>, limits: Limits) -> StoreResult<Self> {
        let pages = Arc::new(Cache::new(limits.index_cache));
        // A writer may delete a file between two looks; then there is a newer
        // manifest to look at.
        let mut attempts = 0;
        let found = loop {
            attempts += 1;
            match replay::find(&*medium, &pages, Purpose::Reading) {
                Err(error) if attempts == 4 => return Err(error),
                Err(error @ StoreError::TooNew { .. }) => return Err(error),
                Err(error) => tracing::debug!(error = error.chain(), "the store changed"),
                Ok(found) => break found,
            }
        };
        let shared =
            Shared::new(medium, limits, pages, found.state, found.damage, Follows::Manifests);
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Looks again at what another process wrote since.
    ///
    /// # Errors
    /// The medium cannot be read.
    pub fn refresh(&self) -> StoreResult<()> {
        self.shared.look_again()
    }

    /// All points, the oldest first.
    #[must_use]
    pub fn points(&self) -> Vec<Point> {
        self.shared.state().points.clone()
    }

    /// One point.
    ///
    /// # Errors
    /// There is none.
    pub fn point(&self, cycle: Cycle) -> StoreResult<Point> {
        self.shared.state().point(cycle).cloned()
    }

    /// The newest point.
    #[must_use]
    pub fn newest(&self) -> Option<Point> {
        self.shared.state().points.last().cloned()
    }

    /// How far everything is.
    #[must_use]
    pub fn positions(&self) -> Positions {
        let state = self.shared.state();
        Positions {
            received: state.received,
            indexed: state.indexed(),
            sealed: state.points.last().map(|point| point.cycle),
        }
    }

    /// The generation of the newest writer; 0 before the first.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.shared.state().generation
    }

    /// What acknowledged records were found missing when the store was opened.
    #[must_use]
    pub fn damage(&self) -> Option<&str> {
        self.shared.damage.as_deref()
    }
}
