//! The client.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use nbd::client::{Address, Client, ClientOptions};
//!
//! let address = Address::unix("/run/example/backup.sock");
//! let options = ClientOptions::export("vda").context("qemu:dirty-bitmap:backup-vda");
//! let disk = Client::connect(&address, options).await?;
//! let mut changed = disk.walk("qemu:dirty-bitmap:backup-vda", 0, disk.info().size);
//! while let Some(extent) = changed.next().await? {
//!     if extent.flags != 0 {
//!         let length = extent.length.min(1 << 20);
//!         let _first = disk.read(extent.offset, length as u32).await?;
//!     }
//! }
//! disk.disconnect().await;
//! # Ok(())
//! # }
//! ```

mod connect;
mod driver;
mod error;
mod gather;
mod walk;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Semaphore, mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

pub use crate::protocol::{
    client_handshake::{ExportInfo, ListedExport, MetaContext},
    write_mode::{Durability, ZeroEffort, ZeroMode},
};
pub use connect::{Address, ClientOptions, ClientTls};
pub use error::{ClientError, ConnectError, LossCause, Operation};
pub use walk::{Walk, WalkExtent};

use crate::protocol::{
    chunk::StatusExtent,
    constants::{CommandFlags, HeaderStyle, MAX_PAYLOAD, TransmissionFlags},
    request::{Command, Request},
};
use driver::{Driver, Order, Outcome};
use gather::{Answer, flatten};

/// Bytes that one permit of the byte limit stands for, so that 32 MiB fit a
/// semaphore's count.
const PERMIT: usize = 4096;

/// How long [`Client::disconnect`] waits for the goodbye.
const DISCONNECT: Duration = Duration::from_secs(5);

/// The longest length of a zeroing or trimming request without extended
/// headers: the greatest 32-bit length that keeps any alignment.
const MAX_COMPACT: u64 = 0xffff_0000;

/// A stretch of what was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadExtent {
    /// Bytes.
    Data {
        /// First byte.
        offset: u64,
        /// The bytes.
        data: Bytes,
    },
    /// Zeroes that were not sent.
    Hole {
        /// First byte.
        offset: u64,
        /// Length in bytes.
        length: u64,
    },
}

impl ReadExtent {
    /// First byte.
    #[must_use]
    pub fn offset(&self) -> u64 {
        match self {
            Self::Data { offset, .. } | Self::Hole { offset, .. } => *offset,
        }
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Data { data, .. } => data.len() as u64,
            Self::Hole { length, .. } => *length,
        }
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The state of a range in the terms of one metadata context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContextStatus {
    /// The context's name.
    pub context: String,
    /// From the request's offset on; never empty. They may end before the
    /// range does, and never end after it.
    pub extents: Vec<StatusExtent>,
}

/// A connection to an export. Clones share it; requests of all clones are in
/// flight together, and may be answered in any order. Do not have overlapping
/// writes in flight.
///
/// Dropping a future of a method does not take the request back. When the
/// last clone is dropped, the server is told goodbye in the background.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
    orders: mpsc::Sender<Order>,
}

#[derive(Debug)]
struct Shared {
    info: ExportInfo,
    requests: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    byte_permits: u32,
    /// Why the connection is gone, once it is.
    cause: Arc<OnceLock<Arc<LossCause>>>,
    /// Tells the driver to say goodbye although handles are left.
    leave: CancellationToken,
    /// Taken by the first to disconnect.
    driver: std::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Client {
    pub(crate) fn start<S>(
        stream: S,
        input: BytesMut,
        info: ExportInfo,
        options: &ClientOptions,
    ) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let max_requests = options.max_requests.max(1);
        let byte_permits = options.max_bytes.max(MAX_PAYLOAD as usize) / PERMIT + 1;
        // Whoever holds a permit finds a place: sending never waits.
        let (orders, queue) = mpsc::channel(max_requests);
        let cause = Arc::new(OnceLock::new());
        let leave = CancellationToken::new();
        let driver = Driver::new(stream, input, info.style, queue, options.stall);
        let told_to_leave = leave.clone();
        let told = Arc::clone(&cause);
        let task = tokio::spawn(async move {
            driver.run(told, told_to_leave).await;
        });
        Self {
            shared: Arc::new(Shared {
                info,
                requests: Arc::new(Semaphore::new(max_requests)),
                bytes: Arc::new(Semaphore::new(byte_permits)),
                byte_permits: u32::try_from(byte_permits).unwrap_or(u32::MAX),
                cause,
                leave,
                driver: std::sync::Mutex::new(Some(task)),
            }),
            orders,
        }
    }

    /// What the server said about the export.
    #[must_use]
    pub fn info(&self) -> &ExportInfo {
        &self.shared.info
    }

    /// The most bytes that one [`read`](Self::read) or
    /// [`write`](Self::write) may have.
    #[must_use]
    pub fn max_length(&self) -> u32 {
        self.info().block_sizes.maximum.min(MAX_PAYLOAD)
    }

    /// Whether the connection is gone.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.shared.cause.get().is_some()
    }

    /// Reads `length` bytes, at most [`max_length`](Self::max_length). Small
    /// results share a receive buffer of 64 KiB or so: copy what is kept for
    /// long.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn read(&self, offset: u64, length: u32) -> Result<Bytes, ClientError> {
        let extents = self.read_sparse(offset, length).await?;
        Ok(flatten(extents, length.into()))
    }

    /// Reads like [`read`](Self::read), and tells holes apart where the
    /// server does. Extents are in order and leave no gap.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn read_sparse(
        &self,
        offset: u64,
        length: u32,
    ) -> Result<Vec<ReadExtent>, ClientError> {
        let request = request(Command::Read, CommandFlags::empty(), offset, length.into());
        match self.submit(request, Bytes::new()).await? {
            Answer::Read(extents) => Ok(extents),
            _ => Ok(Vec::new()),
        }
    }

    /// Writes `data`, at most [`max_length`](Self::max_length) bytes.
    ///
    /// # Errors
    /// See [`ClientError`]. After a loss, whether it was written is not known.
    pub async fn write(
        &self,
        offset: u64,
        data: Bytes,
        durability: Durability,
    ) -> Result<(), ClientError> {
        let flags = fua(durability);
        let request = request(Command::Write, flags, offset, data.len() as u64);
        self.submit(request, data).await.map(drop)
    }

    /// Makes a range of any length read as zeroes, in several requests if
    /// need be; on an error, a part may be done.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn write_zeroes(
        &self,
        offset: u64,
        length: u64,
        mode: ZeroMode,
        effort: ZeroEffort,
        durability: Durability,
    ) -> Result<(), ClientError> {
        let mut flags = fua(durability);
        flags.set(CommandFlags::NO_HOLE, mode == ZeroMode::KeepAllocated);
        flags.set(CommandFlags::FAST_ZERO, effort == ZeroEffort::OnlyFast);
        let most = match self.info().block_sizes.maximum {
            u32::MAX => self.max_dataless(u64::MAX),
            maximum => self.max_dataless(maximum.into()),
        };
        self.in_parts(Command::WriteZeroes, flags, (offset, length), most).await
    }

    /// Forgets a range of any length, in several requests if need be.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn trim(
        &self,
        offset: u64,
        length: u64,
        durability: Durability,
    ) -> Result<(), ClientError> {
        let flags = fua(durability);
        let most = self.max_dataless(u64::MAX);
        self.in_parts(Command::Trim, flags, (offset, length), most).await
    }

    /// Makes durable all writes that were answered before. A server without
    /// flush has nothing to make durable: then this does nothing.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn flush(&self) -> Result<(), ClientError> {
        if !self.can(TransmissionFlags::SEND_FLUSH) {
            return Ok(());
        }
        let request = request(Command::Flush, CommandFlags::empty(), 0, 0);
        self.submit(request, Bytes::new()).await.map(drop)
    }

    /// Hints that a range will be read soon.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn cache(&self, offset: u64, length: u32) -> Result<(), ClientError> {
        let request = request(Command::Cache, CommandFlags::empty(), offset, length.into());
        self.submit(request, Bytes::new()).await.map(drop)
    }

    /// The state of a range in all negotiated contexts, as far as the server
    /// tells at once. [`walk`](Self::walk) asks on.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn block_status(
        &self,
        offset: u64,
        length: u64,
    ) -> Result<Vec<ContextStatus>, ClientError> {
        let length = length.min(self.max_dataless(u64::MAX));
        let request = request(Command::BlockStatus, CommandFlags::empty(), offset, length);
        let Answer::Status(statuses) = self.submit(request, Bytes::new()).await? else {
            return Ok(Vec::new());
        };
        let contexts = &self.info().contexts;
        let known = statuses.into_iter().filter_map(|(id, extents)| {
            let context = contexts.iter().find(|context| context.id == id)?;
            Some(ContextStatus { context: context.name.clone(), extents: clip(extents, length) })
        });
        Ok(known.collect())
    }

    /// Goes through the state of a range in the terms of one context, extent
    /// by extent, asking the server as often as it takes.
    #[must_use]
    pub fn walk(&self, context: &str, offset: u64, length: u64) -> Walk {
        Walk::new(self.clone(), context, offset, length)
    }

    /// Says goodbye, for all clones: what they have in flight is lost. Bounded
    /// to a few seconds.
    pub async fn disconnect(self) {
        let shared = &self.shared;
        shared.leave.cancel();
        let task = shared.driver.lock().ok().and_then(|mut task| task.take());
        if let Some(mut task) = task
            && timeout(DISCONNECT, &mut task).await.is_err()
        {
            task.abort();
        }
    }

    async fn in_parts(
        &self,
        command: Command,
        flags: CommandFlags,
        (mut offset, mut length): (u64, u64),
        most: u64,
    ) -> Result<(), ClientError> {
        loop {
            let part = length.min(most);
            self.submit(request(command, flags, offset, part), Bytes::new()).await?;
            length -= part;
            if length == 0 {
                return Ok(());
            }
            offset += part;
        }
    }

    /// The longest length of a request without data.
    fn max_dataless(&self, limit: u64) -> u64 {
        match self.info().style {
            HeaderStyle::Extended => limit,
            _ => limit.min(MAX_COMPACT),
        }
    }

    fn can(&self, flags: TransmissionFlags) -> bool {
        self.info().flags.contains(flags)
    }

    async fn submit(&self, request: Request, payload: Bytes) -> Result<Answer, ClientError> {
        let operation =
            Operation { command: request.command, offset: request.offset, length: request.length };
        if let Err(why) = self.check(&request) {
            return Err(ClientError::NotSent { operation, why });
        }
        if request.length == 0 && request.command != Command::Flush {
            return Ok(Answer::Done);
        }
        match self.exchange(request, payload).await {
            Ok(Answer::Refused { errno, message, at }) => {
                Err(ClientError::Server { operation, errno, message, at })
            }
            Ok(answer) => Ok(answer),
            Err(source) => Err(ClientError::Lost { operation, source }),
        }
    }

    async fn exchange(&self, request: Request, payload: Bytes) -> Outcome {
        let shared = &self.shared;
        let data = match request.command {
            Command::Read | Command::Write => request.length as usize,
            _ => 0,
        };
        let permits = u32::try_from(data.div_ceil(PERMIT)).unwrap_or(u32::MAX);
        let permits = permits.clamp(1, shared.byte_permits);
        let lost = || self.loss();
        let requests = Arc::clone(&shared.requests).acquire_owned();
        let requests = requests.await.map_err(|_| lost())?;
        let bytes = Arc::clone(&shared.bytes).acquire_many_owned(permits);
        let bytes = bytes.await.map_err(|_| lost())?;
        let (reply, answer) = oneshot::channel();
        let order = Order { request, payload, reply, _permits: (requests, bytes) };
        self.orders.send(order).await.map_err(|_| lost())?;
        answer.await.map_err(|_| lost())?
    }

    /// Why the connection is gone. The driver tells before it lets go.
    fn loss(&self) -> Arc<LossCause> {
        let told = self.shared.cause.get().cloned();
        told.unwrap_or_else(|| Arc::new(LossCause::Disconnected))
    }

    /// Rules that the spec lays upon clients.
    fn check(&self, request: &Request) -> Result<(), &'static str> {
        let info = self.info();
        let needed = match request.command {
            Command::WriteZeroes => TransmissionFlags::SEND_WRITE_ZEROES,
            Command::Trim => TransmissionFlags::SEND_TRIM,
            Command::Cache => TransmissionFlags::SEND_CACHE,
            _ => TransmissionFlags::empty(),
        };
        let writes =
            matches!(request.command, Command::Write | Command::WriteZeroes | Command::Trim);
        if writes && self.can(TransmissionFlags::READ_ONLY) {
            return Err("the export is read-only");
        }
        if !self.can(needed) {
            return Err("the server does not offer it");
        }
        if request.flags.contains(CommandFlags::FAST_ZERO)
            && !self.can(TransmissionFlags::SEND_FAST_ZERO)
        {
            return Err("the server does not offer fast zeroing");
        }
        if request.flags.contains(CommandFlags::FUA) && !self.can(TransmissionFlags::SEND_FUA) {
            return Err("the server does not offer FUA; flush instead");
        }
        if request.command == Command::BlockStatus && info.contexts.is_empty() {
            return Err("no metadata context was negotiated");
        }
        let end = request.offset.checked_add(request.length);
        if end.is_none_or(|end| end > info.size) {
            return Err("it reaches beyond the export's end");
        }
        let minimum = u64::from(info.block_sizes.minimum);
        if !request.offset.is_multiple_of(minimum) || !request.length.is_multiple_of(minimum) {
            return Err("it is not aligned to the export's minimum block size");
        }
        let data = matches!(request.command, Command::Read | Command::Write);
        if data && request.length > self.max_length().into() {
            return Err("it is longer than the export's maximum");
        }
        Ok(())
    }
}

fn request(command: Command, flags: CommandFlags, offset: u64, length: u64) -> Request {
    Request { command, flags, cookie: 0, offset, length }
}

fn fua(durability: Durability) -> CommandFlags {
    match durability {
        Durability::Cached => CommandFlags::empty(),
        Durability::OnReturn => CommandFlags::FUA,
    }
}

/// The last extent may tell of more than was asked for (spec,
/// `NBD_CMD_BLOCK_STATUS`).
fn clip(mut extents: Vec<StatusExtent>, length: u64) -> Vec<StatusExtent> {
    let mut room = length;
    extents.retain_mut(|extent| {
        extent.length = extent.length.min(room);
        room -= extent.length;
        extent.length > 0
    });
    extents
}
