//! What a server serves.

use std::{future::Future, io};

use bytes::Bytes;

use crate::protocol::{
    chunk::StatusExtent,
    constants::{STATE_HOLE, STATE_ZERO},
    errno::Errno,
    facts::ExportFacts,
    write_mode::{Durability, ZeroEffort, ZeroMode},
};

/// A stretch of a read answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extent {
    /// These bytes.
    Data(Bytes),
    /// So many zeroes, of which none are sent if the client understands that.
    Hole(u64),
}

impl Extent {
    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Data(data) => data.len() as u64,
            Self::Hole(length) => *length,
        }
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl StatusExtent {
    /// A stretch with data, in the terms of `base:allocation`.
    #[must_use]
    pub fn data(length: u64) -> Self {
        Self { length, flags: 0 }
    }

    /// A stretch that is not allocated and reads as zeroes, in the terms of
    /// `base:allocation`.
    #[must_use]
    pub fn hole(length: u64) -> Self {
        Self { length, flags: STATE_HOLE | STATE_ZERO }
    }
}

/// Why an export could not do something. Goes to the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{errno}: {message}")]
pub struct ExportError {
    /// The number on the wire.
    pub errno: Errno,
    /// A sentence for people at the other end; no secrets.
    pub message: String,
    /// The first byte concerned, if known; must lie inside the request.
    pub offset: Option<u64>,
}

impl ExportError {
    /// An error that concerns the whole request.
    #[must_use]
    pub fn new(errno: Errno, message: impl Into<String>) -> Self {
        Self { errno, message: message.into(), offset: None }
    }

    /// An error at byte `offset` of the export.
    #[must_use]
    pub fn at(mut self, offset: u64) -> Self {
        self.offset = Some(offset);
        self
    }
}

impl From<io::Error> for ExportError {
    fn from(error: io::Error) -> Self {
        Self::new(Errno::of_io(&error), error.to_string())
    }
}

/// What an operation of an export yields.
pub type ExportResult<T> = Result<T, ExportError>;

/// A disk that a server serves.
///
/// Ranges were checked before: they are not empty, lie inside `size`, keep to
/// the minimum block size, and have at most
/// [`MAX_PAYLOAD`](crate::protocol::constants::MAX_PAYLOAD) bytes of data.
/// Commands that [`ExportFacts::flags`] does not announce never arrive.
///
/// Requests of one connection are polled for the first time in the order in
/// which they arrived, before the next one is looked at: an export that takes
/// its arrival number before its first `await` sees the order of arrival.
/// Afterwards they run concurrently, and they may finish in any order.
///
/// All futures of a connection share one task. An export that computes for
/// long or blocks moves that to other threads (`spawn_blocking`), both for
/// its neighbours' sake and because a single client then uses more than one
/// core. Futures are dropped when the connection is cut.
pub trait Export: Send + Sync + 'static {
    /// What is told to clients. Asked once per connection (and per LIST);
    /// must not change while anybody is connected.
    fn facts(&self) -> ExportFacts;

    /// Reads `length` bytes from `offset` on: extents in order, whose lengths
    /// sum up to `length`. Holes spare the wire; data may come in pieces
    /// (from cached pages, say), which are sent as one.
    fn read(
        &self,
        offset: u64,
        length: u32,
    ) -> impl Future<Output = ExportResult<Vec<Extent>>> + Send;

    /// The state of a range in the terms of `context`, which is one of
    /// [`ExportFacts::contexts`]: extents in order from `offset` on. They may
    /// stop early, but not before the first, and the last may reach beyond
    /// the range. At most `limit` of them are of use.
    ///
    /// The default knows of data only, which is always safe to say.
    fn block_status(
        &self,
        context: &str,
        offset: u64,
        length: u64,
        limit: usize,
    ) -> impl Future<Output = ExportResult<Vec<StatusExtent>>> + Send {
        let _ = (context, offset, limit);
        async move { Ok(vec![StatusExtent::data(length)]) }
    }

    /// Writes.
    fn write(
        &self,
        offset: u64,
        data: Bytes,
        durability: Durability,
    ) -> impl Future<Output = ExportResult<()>> + Send {
        let _ = (offset, data, durability);
        async { Err(read_only()) }
    }

    /// Makes a range read as zeroes.
    fn write_zeroes(
        &self,
        offset: u64,
        length: u64,
        mode: ZeroMode,
        effort: ZeroEffort,
        durability: Durability,
    ) -> impl Future<Output = ExportResult<()>> + Send {
        let _ = (offset, length, mode, effort, durability);
        async { Err(read_only()) }
    }

    /// Forgets a range; what it reads as afterwards is not defined.
    fn trim(
        &self,
        offset: u64,
        length: u64,
        durability: Durability,
    ) -> impl Future<Output = ExportResult<()>> + Send {
        let _ = (offset, length, durability);
        async { Err(read_only()) }
    }

    /// Makes durable every write that was answered before this was called, on
    /// all connections if `CAN_MULTI_CONN` is announced.
    fn flush(&self) -> impl Future<Output = ExportResult<()>> + Send {
        async { Ok(()) }
    }

    /// A hint that a range will be read soon.
    fn cache(&self, offset: u64, length: u64) -> impl Future<Output = ExportResult<()>> + Send {
        let _ = (offset, length);
        async { Ok(()) }
    }
}

fn read_only() -> ExportError {
    ExportError::new(Errno::Perm, "this export is read-only")
}
