//! From an accepted stream to the transmission phase.

use std::sync::Arc;

use bytes::BytesMut;
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{
    ConnectionEnd, ConnectionError, Limits, ServerOptions,
    check::Terms,
    exports::{Exports, Served},
    session,
};
use crate::protocol::{
    Violation,
    server_handshake::{Agreement, Encryption, ServerHandshake, Step},
};

/// Bytes read at once while haggling.
const READ: usize = 4096;

/// Serves one connection from the greeting to the end.
///
/// `stop` ends it gracefully: what is in flight is finished and answered,
/// nothing new is read. To cut it at once, drop the future.
///
/// # Errors
/// Why the connection broke. That a client leaves or hangs up is no error.
pub async fn serve_connection<S>(
    stream: S,
    exports: &Exports,
    options: &ServerOptions,
    stop: &CancellationToken,
) -> Result<ConnectionEnd, ConnectionError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let limits = &options.limits;
    let mut input = BytesMut::with_capacity(READ);
    let mut stream = stream;
    let encryption = match options.tls {
        Some(_) => Encryption::Awaited,
        None => Encryption::Off,
    };
    let mut greeting = BytesMut::new();
    let mut machine = ServerHandshake::new(encryption, &mut greeting);
    let in_clear = haggle(&mut stream, &mut machine, exports, &mut input, greeting);
    match in_time(limits, stop, in_clear).await? {
        Haggled::Ended(end) => Ok(end),
        Haggled::Agreed(agreement) => transmit(stream, input, *agreement, limits, stop).await,
        Haggled::StartTls => {
            let Some(config) = options.tls.clone() else {
                return Ok(ConnectionEnd::Left);
            };
            // Bytes from before TLS must not count as said inside it.
            if !input.is_empty() {
                return Err(ConnectionError::Violation(Violation::Value {
                    what: "STARTTLS",
                    why: "the client did not wait for TLS",
                }));
            }
            // Boxed: the TLS path is rare, and large.
            Box::pin(encrypted(stream, machine, config, exports, limits, stop)).await
        }
    }
}

async fn encrypted<S>(
    stream: S,
    mut machine: ServerHandshake,
    config: Arc<ServerConfig>,
    exports: &Exports,
    limits: &Limits,
    stop: &CancellationToken,
) -> Result<ConnectionEnd, ConnectionError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let accept =
        async { TlsAcceptor::from(config).accept(stream).await.map_err(ConnectionError::Tls) };
    let mut stream = in_time(limits, stop, accept).await?;
    machine.encrypted();
    let mut input = BytesMut::with_capacity(READ);
    let inside = haggle(&mut stream, &mut machine, exports, &mut input, BytesMut::new());
    match in_time(limits, stop, inside).await? {
        Haggled::Agreed(agreement) => transmit(stream, input, *agreement, limits, stop).await,
        Haggled::Ended(end) => {
            let _ = timeout(limits.handshake, stream.shutdown()).await;
            Ok(end)
        }
        // The machine grants STARTTLS once.
        Haggled::StartTls => Ok(ConnectionEnd::Left),
    }
}

enum Haggled {
    Agreed(Box<Agreement<Served>>),
    StartTls,
    Ended(ConnectionEnd),
}

async fn haggle<S>(
    stream: &mut S,
    machine: &mut ServerHandshake,
    exports: &Exports,
    input: &mut BytesMut,
    mut output: BytesMut,
) -> Result<Haggled, ConnectionError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        let step = machine.advance(exports, input, &mut output)?;
        if !output.is_empty() {
            stream.write_all_buf(&mut output).await.map_err(ConnectionError::Send)?;
            stream.flush().await.map_err(ConnectionError::Send)?;
        }
        match step {
            Step::Again => {}
            Step::Read => {
                input.reserve(READ);
                let read = stream.read_buf(input).await.map_err(ConnectionError::Receive)?;
                if read == 0 {
                    return Ok(Haggled::Ended(ConnectionEnd::HungUp));
                }
            }
            Step::StartTls => return Ok(Haggled::StartTls),
            Step::Transmit(agreement) => return Ok(Haggled::Agreed(Box::new(agreement))),
            Step::Abort => return Ok(Haggled::Ended(ConnectionEnd::Left)),
        }
    }
}

async fn transmit<S>(
    stream: S,
    input: BytesMut,
    agreement: Agreement<Served>,
    limits: &Limits,
    stop: &CancellationToken,
) -> Result<ConnectionEnd, ConnectionError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Agreement { export: Served { export, removed }, facts, flags, style, contexts } = agreement;
    tracing::debug!(size = facts.size, ?flags, ?style, "client took an export");
    let terms = Terms {
        size: facts.size,
        flags,
        block_sizes: facts.block_sizes,
        style,
        contexts: contexts.into(),
    };
    let stopped = async {
        tokio::select! {
            () = stop.cancelled() => {}
            () = removed.cancelled() => {}
        }
    };
    session::serve(stream, input, export, terms, limits, stopped).await
}

/// Haggling is bounded in time, and ends at once when the server stops.
async fn in_time<T>(
    limits: &Limits,
    stop: &CancellationToken,
    work: impl Future<Output = Result<T, ConnectionError>>,
) -> Result<T, ConnectionError> {
    tokio::select! {
        done = timeout(limits.handshake, work) => {
            done.unwrap_or(Err(ConnectionError::HandshakeTimeout))
        }
        () = stop.cancelled() => Err(ConnectionError::HandshakeStopped),
    }
}
