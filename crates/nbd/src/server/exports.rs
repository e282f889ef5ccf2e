//! The exports that a server offers, by name.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use tokio_util::sync::CancellationToken;

use super::{export::Export, shared_export::SharedExport};
use crate::protocol::{
    Violation, constants::MAX_STRING, facts::ExportFacts, server_handshake::Directory,
};

/// A set of exports that may change while it is served. Clones share it.
#[derive(Clone, Default)]
pub struct Exports {
    /// Held for a look-up, never across an await.
    table: Arc<RwLock<Table>>,
}

#[derive(Default)]
struct Table {
    by_name: BTreeMap<String, Served>,
    default: Option<String>,
}

/// An export with the news of its removal.
#[derive(Clone)]
pub struct Served {
    pub(crate) export: Arc<dyn SharedExport>,
    pub(crate) removed: CancellationToken,
}

/// Why an export cannot be offered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OfferError {
    /// The name is in use.
    #[error("an export called {name:?} exists already")]
    Taken {
        /// The name.
        name: String,
    },
    /// The name breaks the spec's rules for strings.
    #[error("{name:?} is no export name: at most 4096 bytes, no NUL")]
    Name {
        /// The name.
        name: String,
    },
    /// The export's block sizes break the spec's rules.
    #[error("offer the export {name:?}")]
    BlockSizes {
        /// The export's name.
        name: String,
        /// The broken rule.
        source: Violation,
    },
}

impl Exports {
    /// Offers nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Offers `export` as `name` from now on.
    ///
    /// # Errors
    /// The name is taken or impossible, or the facts break the protocol.
    pub fn insert<E: Export>(
        &self,
        name: impl Into<String>,
        export: Arc<E>,
    ) -> Result<(), OfferError> {
        let name = name.into();
        if name.len() > MAX_STRING || name.contains('\0') {
            return Err(OfferError::Name { name });
        }
        if let Err(source) = Export::facts(&*export).block_sizes.check() {
            return Err(OfferError::BlockSizes { name, source });
        }
        let mut table = self.write();
        if table.by_name.contains_key(&name) {
            return Err(OfferError::Taken { name });
        }
        let removed = CancellationToken::new();
        table.by_name.insert(name, Served { export, removed });
        Ok(())
    }

    /// Offers `name` no longer. Connections to it finish and answer what is
    /// in flight, and are closed. Returns whether there was such an export.
    pub fn remove(&self, name: &str) -> bool {
        let mut table = self.write();
        if table.default.as_deref() == Some(name) {
            table.default = None;
        }
        match table.by_name.remove(name) {
            Some(served) => {
                served.removed.cancel();
                true
            }
            None => false,
        }
    }

    /// Makes `name` what clients get that name nothing. It need not exist
    /// yet. An export whose own name is empty comes first.
    pub fn set_default(&self, name: impl Into<String>) {
        self.write().default = Some(name.into());
    }

    /// Names in order.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.read().by_name.keys().cloned().collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        // The table is whole between any two statements that hold the lock.
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Directory for Exports {
    type Handle = Served;

    fn open(&self, name: &str) -> Option<(ExportFacts, Served)> {
        let served = {
            let table = self.read();
            let named = table.by_name.get(name);
            let found = match (&table.default, named) {
                (Some(default), None) if name.is_empty() => table.by_name.get(default),
                _ => named,
            };
            found.cloned()
        }?;
        Some((served.export.facts(), served))
    }

    fn list(&self) -> Vec<(String, String)> {
        // Facts are asked for outside the lock: they are somebody else's code.
        let served: Vec<_> = {
            let table = self.read();
            let pairs = table.by_name.iter();
            pairs.map(|(name, served)| (name.clone(), Arc::clone(&served.export))).collect()
        };
        served.into_iter().map(|(name, export)| (name, export.facts().description)).collect()
    }
}

impl fmt::Debug for Exports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Served")
    }
}
