//! The server.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use nbd::{memory::MemoryExport, server::{Exports, Listener, Server, ServerOptions}};
//!
//! let exports = Exports::new();
//! exports.insert("vda", Arc::new(MemoryExport::new(1 << 30)))?;
//! let listener = Listener::unix("/run/example/nbd.sock", 0o660).await?;
//! let server = Server::start(listener, exports, ServerOptions::default());
//! // ...
//! server.shut_down().await;
//! # Ok(())
//! # }
//! ```

mod answer;
mod check;
mod export;
mod exports;
mod haggle;
mod listener;
mod session;
mod shared_export;

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    task::{JoinHandle, JoinSet},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

pub use crate::protocol::write_mode::{Durability, ZeroEffort, ZeroMode};
pub use export::{Export, ExportError, ExportResult, Extent};
pub use exports::{Exports, OfferError};
pub use haggle::serve_connection;
pub use listener::{ListenError, Listener};

use crate::protocol::Violation;
use listener::Accepted;

/// A pause after the system refused to accept (out of file descriptors, say),
/// so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a server allows one client.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Requests in flight per connection. Beyond it nothing more is read.
    pub max_requests: usize,
    /// Bytes of data in flight per connection, replies not yet sent
    /// included. One request may go beyond it, so that any can be served.
    pub max_bytes: usize,
    /// Time for the whole of haggling, TLS included.
    pub handshake: Duration,
    /// Time during which a client may leave its replies unread.
    pub reply_stall: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_requests: 64,
            max_bytes: 64 << 20,
            handshake: Duration::from_secs(10),
            reply_stall: Duration::from_secs(120),
        }
    }
}

/// How a server behaves.
#[derive(Clone)]
pub struct ServerOptions {
    /// With a configuration, clients must use TLS; without, they cannot.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Connections at a time; further ones are closed at once.
    pub max_connections: usize,
    /// What one client may do.
    pub limits: Limits,
    /// Time for connections to finish what is in flight on shutdown.
    pub drain: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            tls: None,
            max_connections: 64,
            limits: Limits::default(),
            drain: Duration::from_secs(10),
        }
    }
}

impl fmt::Debug for ServerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerOptions")
            .field("tls", &self.tls.is_some())
            .field("max_connections", &self.max_connections)
            .field("limits", &self.limits)
            .field("drain", &self.drain)
            .finish()
    }
}

/// How a connection came to its end without a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionEnd {
    /// The client said goodbye.
    Left,
    /// The client closed the stream without a word.
    HungUp,
    /// The server stops, or the export was removed.
    Stopped,
}

/// Why a connection broke.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// The client broke the protocol.
    #[error("the client broke the protocol")]
    Violation(#[from] Violation),
    /// TLS was not established.
    #[error("establish TLS with the client")]
    Tls(#[source] io::Error),
    /// Haggling took too long.
    #[error("the client did not finish haggling in time")]
    HandshakeTimeout,
    /// The server stopped while a client haggled.
    #[error("the server stopped while the client haggled")]
    HandshakeStopped,
    /// Reading from the client failed.
    #[error("receive from the client")]
    Receive(#[source] io::Error),
    /// Writing to the client failed.
    #[error("send to the client")]
    Send(#[source] io::Error),
    /// The client does not read its replies.
    #[error("the client left its replies unread for {waited:?}")]
    Stalled {
        /// For how long.
        waited: Duration,
    },
}

/// How a shutdown went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShutDown {
    /// Connections that did not finish in time and were cut.
    pub cut: usize,
}

/// A running server. Dropping it cuts all connections at once.
#[derive(Debug)]
pub struct Server {
    exports: Exports,
    address: Option<SocketAddr>,
    connections: Arc<AtomicUsize>,
    stop: CancellationToken,
    cut: CancellationToken,
    accepting: JoinHandle<ShutDown>,
}

impl Server {
    /// Begins to accept on `listener`, in a task of its own.
    #[must_use]
    pub fn start(listener: Listener, exports: Exports, options: ServerOptions) -> Self {
        let (stop, cut) = (CancellationToken::new(), CancellationToken::new());
        let connections = Arc::new(AtomicUsize::new(0));
        let address = listener.tcp_address();
        let accepting = tokio::spawn(run(
            listener,
            exports.clone(),
            options,
            Arc::clone(&connections),
            stop.clone(),
            cut.clone(),
        ));
        Self { exports, address, connections, stop, cut, accepting }
    }

    /// The exports, which may be changed at any time.
    #[must_use]
    pub fn exports(&self) -> &Exports {
        &self.exports
    }

    /// The TCP address; `None` for a unix socket.
    #[must_use]
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Connections at the moment.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Stops listening, lets connections finish what is in flight for at
    /// most [`ServerOptions::drain`], and cuts those that did not.
    pub async fn shut_down(mut self) -> ShutDown {
        self.stop.cancel();
        let done = (&mut self.accepting).await;
        done.unwrap_or(ShutDown { cut: 0 })
    }

    /// Closes the listener and all connections now; nothing in flight is
    /// answered. Sockets are closed on return. An export that blocks its
    /// thread delays this.
    pub async fn cut(mut self) {
        self.cut.cancel();
        let _ = (&mut self.accepting).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Owns the listener and the connections' tasks.
async fn run(
    listener: Listener,
    exports: Exports,
    options: ServerOptions,
    count: Arc<AtomicUsize>,
    stop: CancellationToken,
    cut: CancellationToken,
) -> ShutDown {
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = tasks.join_next(), if !tasks.is_empty() => continue,
            () = stop.cancelled() => break,
            () = cut.cancelled() => break,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "accept a client");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if tasks.len() >= options.max_connections {
            tracing::warn!(limit = options.max_connections, "too many clients");
            continue;
        }
        let counted = Counted::new(&count);
        let (exports, options, stop) = (exports.clone(), options.clone(), stop.clone());
        tasks.spawn(async move {
            let _counted = counted;
            let end = match stream {
                Accepted::Unix(stream) => serve_connection(stream, &exports, &options, &stop).await,
                Accepted::Tcp(stream) => serve_connection(stream, &exports, &options, &stop).await,
            };
            match end {
                Ok(end) => tracing::debug!(?end, "connection ended"),
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::info!(error, "connection broke");
                }
            }
        });
    }
    drop(listener);
    tokio::select! {
        () = async { while tasks.join_next().await.is_some() {} } => {}
        () = sleep(options.drain) => {}
        () = cut.cancelled() => {}
    }
    let cut = tasks.len();
    tasks.shutdown().await;
    ShutDown { cut }
}

/// Counts a connection for as long as it lives.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
