//! The transmission phase with one client.
//!
//! One task owns the connection and everything in flight on it. Each turn of
//! its loop takes what is ready, in this order: finished requests become
//! bytes, bytes are written, new requests are read. So all that arrived in
//! one read is worked on and answered by one vectored write, and a client
//! that does not read its replies stops being read from.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, future::poll_fn, stream::FuturesUnordered};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf},
    time::{Instant, sleep, timeout},
};

use super::{
    ConnectionEnd, ConnectionError, Limits, answer,
    check::Terms,
    export::ExportResult,
    shared_export::{Answer, SharedExport, Working},
};
use crate::{
    inbox::Inbox,
    outbox::Outbox,
    protocol::{
        Violation,
        request::{Command, Request},
    },
};

/// What a request costs of the byte budget beyond its data.
const OVERHEAD: usize = 256;

/// How long a client may take to see us off.
const GOODBYE: Duration = Duration::from_secs(1);

/// Serves until the client leaves, `stopped` resolves, or something breaks.
pub(crate) async fn serve<S>(
    stream: S,
    leftover: BytesMut,
    export: Arc<dyn SharedExport>,
    terms: Terms,
    limits: &Limits,
    stopped: impl Future<Output = ()>,
) -> Result<ConnectionEnd, ConnectionError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (reader, writer) = tokio::io::split(stream);
    let mut session = Session {
        reader,
        writer,
        inbox: Inbox::new(leftover),
        outbox: Outbox::default(),
        running: FuturesUnordered::new(),
        open_bytes: 0,
        moved: Instant::now(),
        export,
        terms,
        limits,
    };
    let end = session.run(stopped).await?;
    // The client is being left; whether it hears the goodbye is its affair.
    let _ = timeout(GOODBYE, session.writer.shutdown()).await;
    Ok(end)
}

struct Session<'a, S> {
    reader: ReadHalf<S>,
    writer: WriteHalf<S>,
    inbox: Inbox,
    outbox: Outbox,
    running: FuturesUnordered<InFlight>,
    /// Data in bytes that running requests hold or will yield.
    open_bytes: usize,
    /// When replies last moved.
    moved: Instant,
    export: Arc<dyn SharedExport>,
    terms: Terms,
    limits: &'a Limits,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<'_, S> {
    async fn run(
        &mut self,
        stopped: impl Future<Output = ()>,
    ) -> Result<ConnectionEnd, ConnectionError> {
        let mut stopped = pin!(stopped);
        let mut stall = pin!(sleep(self.limits.reply_stall));
        let mut ending = None;
        loop {
            while ending.is_none() && self.has_room() {
                match self.next_request()? {
                    Some((request, _)) if request.command == Command::Disconnect => {
                        ending = Some(ConnectionEnd::Left);
                    }
                    Some((request, payload)) => self.begin(request, payload).await,
                    None => break,
                }
            }
            if let Some(end) = ending
                && self.running.is_empty()
                && self.outbox.is_idle()
            {
                return Ok(end);
            }
            let has_room = self.has_room();
            tokio::select! {
                biased;
                Some((request, result)) = self.running.next(), if !self.running.is_empty() => {
                    self.open_bytes -= cost(&request);
                    self.answer(&request, result);
                }
                written = self.outbox.write_some(&mut self.writer), if !self.outbox.is_idle() => {
                    written.map_err(ConnectionError::Send)?;
                    self.moved = Instant::now();
                }
                filled = self.inbox.fill(&mut self.reader), if ending.is_none() && has_room => {
                    if !filled.map_err(ConnectionError::Receive)? {
                        ending = Some(ConnectionEnd::HungUp);
                    }
                }
                () = &mut stopped, if ending.is_none() => ending = Some(ConnectionEnd::Stopped),
                () = &mut stall, if !self.outbox.is_idle() => {
                    let waited = self.moved.elapsed();
                    if waited >= self.limits.reply_stall {
                        return Err(ConnectionError::Stalled { waited });
                    }
                    stall.as_mut().reset(self.moved + self.limits.reply_stall);
                }
            }
        }
    }

    fn has_room(&self) -> bool {
        self.running.len() < self.limits.max_requests
            && self.open_bytes + self.outbox.len() < self.limits.max_bytes
    }

    fn next_request(&mut self) -> Result<Option<(Request, Bytes)>, Violation> {
        let style = self.terms.style;
        let Some(request) = Request::decode(style, self.inbox.bytes())? else {
            return Ok(None);
        };
        let head = Request::size(style);
        let whole = head + request.payload(style) as usize;
        let Some(mut message) = self.inbox.take(whole) else {
            return Ok(None);
        };
        Ok(Some((request, message.split_off(head))))
    }

    /// Polls the request once, at once: see [`Export`](super::Export) for
    /// the order that this promises. What an export has at hand is answered
    /// without a detour.
    async fn begin(&mut self, request: Request, payload: Bytes) {
        let work = match self.terms.check(&request, payload) {
            Ok(work) => work,
            Err(error) => return self.answer(&request, Err(error)),
        };
        let mut working = Arc::clone(&self.export).work(work);
        let first = poll_fn(|context| Poll::Ready(working.as_mut().poll(context))).await;
        match first {
            Poll::Ready(result) => self.answer(&request, result),
            Poll::Pending => {
                self.open_bytes += cost(&request);
                self.running.push(InFlight { request, working });
            }
        }
    }

    fn answer(&mut self, request: &Request, result: ExportResult<Answer>) {
        if self.outbox.is_idle() {
            self.moved = Instant::now();
        }
        if let Err(error) = &result {
            tracing::debug!(
                command = %request.command,
                offset = request.offset,
                length = request.length,
                %error,
                "request failed"
            );
        }
        answer::reply(&mut self.outbox, &self.terms, request, result);
    }
}

fn cost(request: &Request) -> usize {
    let data = match request.command {
        Command::Read | Command::Write => request.length as usize,
        _ => 0,
    };
    data + OVERHEAD
}

struct InFlight {
    request: Request,
    working: Working,
}

impl Future for InFlight {
    type Output = (Request, ExportResult<Answer>);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let request = self.request;
        self.working.as_mut().poll(context).map(|result| (request, result))
    }
}
