//! What goes wrong with a store.

use std::{fmt, io, ops::Range};

use crate::{
    format::Malformed,
    geometry::{Cycle, DiskNumber},
};

/// Why the store did not do something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The medium refuses.
    #[error("{doing}")]
    Io {
        /// What was being done to what.
        doing: String,
        /// The medium's reason.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("read {name}")]
    File {
        /// The file.
        name: String,
        /// What is wrong with it.
        source: Malformed,
    },
    /// Bytes that points need are damaged.
    #[error("{0}")]
    Damaged(Damage),
    /// Acknowledged records are damaged; the store opens for reading only.
    #[error("the store lost acknowledged records: {0}. It can be opened read-only")]
    LostRecords(String),
    /// A newer program wrote the store. An older manifest would not do: what it
    /// names may be gone, and what came since would be missing in silence.
    #[error(
        "{name} has version {found} of the format, and version {known} is the newest that is \
         known here: upgrade lifeboat on this host"
    )]
    TooNew {
        /// The manifest.
        name: String,
        /// Its version.
        found: u16,
        /// The newest that is understood.
        known: u16,
    },
    /// Another process writes to this machine's store.
    #[error("another process writes to this store")]
    InUse,
    /// A writer of a later generation took over.
    #[error("generation {ours} writes no longer: generation {theirs} took over")]
    Fenced {
        /// What we were given.
        ours: u64,
        /// What the store has seen.
        theirs: u64,
    },
    /// An earlier failure left the attempt without a known end.
    #[error("the attempt failed earlier; begin another one")]
    AttemptFailed,
    /// Nothing can be written any more by this writer.
    #[error("the writer failed earlier; open the store again")]
    WriterFailed,
    /// No attempt was begun.
    #[error("no attempt is open")]
    NoAttempt,
    /// Too little room to begin a cycle.
    #[error("only {free} bytes are free, and {reserve} are kept in reserve")]
    Full {
        /// Bytes left.
        free: u64,
        /// Bytes that stay free.
        reserve: u64,
    },
    /// There is no such point.
    #[error("there is no {0}")]
    NoSuchPoint(Cycle),
    /// The machine has no such disk at that point.
    #[error("{disk} does not exist at {point}")]
    NoSuchDisk {
        /// Asked for.
        disk: DiskNumber,
        /// Where.
        point: Cycle,
    },
    /// A change that does not fit the disk or the grain of 4 KiB.
    #[error("{length} bytes at {offset} of {disk}: {why}")]
    BadRange {
        /// The disk.
        disk: DiskNumber,
        /// In bytes.
        offset: u64,
        /// In bytes.
        length: u64,
        /// The rule that it breaks.
        why: &'static str,
    },
    /// A disk, configuration or list that is too large.
    #[error("{0}")]
    TooLarge(&'static str),
    /// A point that is kept for a reason.
    #[error("{point} is kept: {why}")]
    Kept {
        /// The point.
        point: Cycle,
        /// By what.
        why: &'static str,
    },
    /// An image that cannot be a disk's base as it is.
    #[error("{path} cannot be adopted: {why}")]
    NotAdoptable {
        /// The image.
        path: String,
        /// The rule that it breaks.
        why: String,
    },
    /// A repair that does not match.
    #[error("the given bytes are not what {disk} had at {offset}")]
    WrongBytes {
        /// The disk.
        disk: DiskNumber,
        /// In bytes.
        offset: u64,
    },
    /// An outside tool failed.
    #[error("{tool}: {message}")]
    Tool {
        /// Which.
        tool: String,
        /// What it said.
        message: String,
    },
}

/// Bytes that are not what was written, and who needs them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The disk.
    pub disk: DiskNumber,
    /// Bytes of the disk.
    pub range: Range<u64>,
    /// The points that need them: the oldest and the newest, if any is kept.
    pub points: Option<(Cycle, Cycle)>,
    /// The file, and the place in it.
    pub place: String,
    /// What is wrong.
    pub why: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Range { start, end } = self.range;
        write!(f, "{} is damaged from byte {start} to {end}", self.disk)?;
        match self.points {
            Some((first, last)) if first == last => write!(f, ", needed by {first}")?,
            Some((first, last)) => write!(f, ", needed by points {} to {}", first.0, last.0)?,
            None => {}
        }
        write!(f, " ({}: {})", self.place, self.why)
    }
}

impl StoreError {
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }

    pub(crate) fn file(name: impl Into<String>) -> impl FnOnce(Malformed) -> Self {
        let name = name.into();
        move |source| Self::File { name, source }
    }

    /// The error and its causes in one line, as an operator is told.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(next) = cause {
            text.push_str(": ");
            text.push_str(&next.to_string());
            cause = next.source();
        }
        text
    }
}

/// Whether a system's error says that no room is left.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// What the store yields.
pub type StoreResult<T> = Result<T, StoreError>;
