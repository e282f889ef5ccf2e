//! The task that owns a connection.
//!
//! Callers hand it requests through a bounded queue and wait for their
//! answers. A caller that gives up does not disturb the stream: its answer is
//! read and dropped. When anything breaks, every caller is told why.

use std::{
    collections::HashMap,
    pin::pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf},
    sync::{OwnedSemaphorePermit, mpsc, oneshot},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    error::LossCause,
    gather::{Answer, Gather},
};
use crate::{
    inbox::Inbox,
    outbox::Outbox,
    protocol::{
        Violation,
        chunk::{Chunk, DATA_PREFIX},
        constants::{CommandFlags, HeaderStyle},
        reply::{ReplyHeader, kind},
        request::{Command, Request},
    },
};

/// Time for the last bytes and the goodbye.
const GOODBYE: Duration = Duration::from_secs(2);

/// Requests that are taken from the queue before anything is written.
const BATCH: usize = 64;

pub(crate) type Outcome = Result<Answer, Arc<LossCause>>;

/// A request on its way to the server.
#[derive(Debug)]
pub(crate) struct Order {
    /// Its cookie is the driver's to choose.
    pub(crate) request: Request,
    pub(crate) payload: Bytes,
    pub(crate) reply: oneshot::Sender<Outcome>,
    /// Places in the limits on requests and bytes; free when answered.
    pub(crate) _permits: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

struct Pending {
    gather: Gather,
    reply: oneshot::Sender<Outcome>,
    _permits: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

pub(crate) struct Driver<S> {
    reader: ReadHalf<S>,
    writer: WriteHalf<S>,
    inbox: Inbox,
    outbox: Outbox,
    style: HeaderStyle,
    orders: mpsc::Receiver<Order>,
    pending: HashMap<u64, Pending>,
    next_cookie: u64,
    stall: Duration,
    heard: Instant,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    pub(crate) fn new(
        stream: S,
        leftover: BytesMut,
        style: HeaderStyle,
        orders: mpsc::Receiver<Order>,
        stall: Duration,
    ) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self {
            reader,
            writer,
            inbox: Inbox::new(leftover),
            outbox: Outbox::default(),
            style,
            orders,
            pending: HashMap::new(),
            next_cookie: 1,
            stall,
            heard: Instant::now(),
        }
    }

    /// Drives the connection until it is lost or nobody wants it any more.
    /// `told` knows the cause before any caller can miss its answer.
    pub(crate) async fn run(
        mut self,
        told: Arc<OnceLock<Arc<LossCause>>>,
        leave: CancellationToken,
    ) {
        let cause = Arc::new(match self.drive(leave).await {
            Ok(()) => LossCause::Disconnected,
            Err(cause) => cause,
        });
        tracing::debug!(%cause, "connection ended");
        let _ = told.set(Arc::clone(&cause));
        for (_, pending) in self.pending.drain() {
            let _ = pending.reply.send(Err(Arc::clone(&cause)));
        }
        // What is still queued never left; it is told the same.
        self.orders.close();
        while let Some(order) = self.orders.recv().await {
            let _ = order.reply.send(Err(Arc::clone(&cause)));
        }
    }

    async fn drive(&mut self, leave: CancellationToken) -> Result<(), LossCause> {
        let mut leave = pin!(leave.cancelled_owned());
        let mut stall = pin!(sleep(self.stall));
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            self.take_replies()?;
            tokio::select! {
                biased;
                taken = self.orders.recv_many(&mut batch, BATCH) => {
                    if taken == 0 {
                        return self.say_goodbye().await;
                    }
                    batch.drain(..).for_each(|order| self.send(order));
                }
                written = self.outbox.write_some(&mut self.writer), if !self.outbox.is_idle() => {
                    written.map_err(LossCause::Stream)?;
                    self.heard = Instant::now();
                }
                filled = self.inbox.fill(&mut self.reader) => {
                    if !filled.map_err(LossCause::Stream)? {
                        return Err(LossCause::Closed);
                    }
                    self.heard = Instant::now();
                }
                () = &mut leave => return self.say_goodbye().await,
                () = &mut stall, if !self.pending.is_empty() => {
                    let waited = self.heard.elapsed();
                    if waited >= self.stall {
                        return Err(LossCause::Stalled { waited });
                    }
                    stall.as_mut().reset(self.heard + self.stall);
                }
            }
        }
    }

    fn send(&mut self, order: Order) {
        let Order { mut request, payload, reply, _permits } = order;
        if reply.is_closed() {
            // The caller gave up while it stood in the queue.
            return;
        }
        if self.pending.is_empty() {
            self.heard = Instant::now();
        }
        request.cookie = self.next_cookie;
        self.next_cookie = self.next_cookie.wrapping_add(1);
        request.encode(self.style, self.outbox.tail());
        self.outbox.push(payload);
        let pending = Pending { gather: Gather::new(request), reply, _permits };
        self.pending.insert(request.cookie, pending);
    }

    fn take_replies(&mut self) -> Result<(), Violation> {
        while let Some((header, size)) = ReplyHeader::decode(self.style, self.inbox.bytes())? {
            let (cookie, body) = match header {
                ReplyHeader::Simple(reply) => (reply.cookie, 0),
                ReplyHeader::Chunk(chunk) => (chunk.cookie, chunk.length),
            };
            let Some(pending) = self.pending.get_mut(&cookie) else {
                return Err(violation("it answers a request that was not sent"));
            };
            let request = *pending.gather.request();
            let body = match header {
                ReplyHeader::Simple(reply) => {
                    let chunked = matches!(request.command, Command::Read | Command::BlockStatus);
                    if chunked && self.style != HeaderStyle::Simple {
                        return Err(violation("a simple reply where chunks were agreed upon"));
                    }
                    match (request.command, reply.error) {
                        (Command::Read, None) => request.length,
                        _ => 0,
                    }
                }
                ReplyHeader::Chunk(chunk) => {
                    if self.style == HeaderStyle::Extended && chunk.offset != request.offset {
                        return Err(violation("its offset is not the request's"));
                    }
                    let data_limit = request.length.saturating_add(DATA_PREFIX);
                    let limit = match chunk.kind {
                        kind::OFFSET_DATA => data_limit.min(Chunk::limit(chunk.kind)),
                        kind => Chunk::limit(kind),
                    };
                    if body > limit {
                        return Err(Violation::TooLong {
                            what: "reply chunk",
                            length: body,
                            limit,
                        });
                    }
                    body
                }
            };
            let Some(mut message) = self.inbox.take(size + body as usize) else {
                return Ok(());
            };
            let body = message.split_off(size);
            let done = match header {
                ReplyHeader::Simple(reply) => {
                    if let Some(error) = reply.error {
                        pending.gather.add(Chunk::Error {
                            error,
                            message: String::new(),
                            offset: None,
                        })?;
                    } else if request.command == Command::Read {
                        pending.gather.add_simple(body)?;
                    }
                    true
                }
                ReplyHeader::Chunk(chunk) => {
                    let wrong_status = match self.style {
                        HeaderStyle::Extended => kind::BLOCK_STATUS,
                        _ => kind::BLOCK_STATUS_EXT,
                    };
                    if chunk.kind == wrong_status {
                        return Err(violation("its status chunk is of the wrong width"));
                    }
                    pending.gather.add(Chunk::decode(chunk.kind, body)?)?;
                    chunk.is_last()
                }
            };
            if done && let Some(pending) = self.pending.remove(&cookie) {
                let answer = pending.gather.finish()?;
                // A caller that gave up does not want to know.
                let _ = pending.reply.send(Ok(answer));
            }
        }
        Ok(())
    }

    /// Nobody wants an answer any more. The server still finishes what it was
    /// sent (spec, `NBD_CMD_DISC`).
    async fn say_goodbye(&mut self) -> Result<(), LossCause> {
        Request {
            command: Command::Disconnect,
            flags: CommandFlags::empty(),
            cookie: 0,
            offset: 0,
            length: 0,
        }
        .encode(self.style, self.outbox.tail());
        let goodbye = async {
            self.outbox.write_all(&mut self.writer).await?;
            self.writer.shutdown().await
        };
        // Best effort: the connection is over either way.
        let _ = timeout(GOODBYE, goodbye).await;
        Ok(())
    }
}

fn violation(why: &'static str) -> Violation {
    Violation::Value { what: "reply", why }
}
