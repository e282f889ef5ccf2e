//! From an address to a connection.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::BytesMut;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{Client, error::ConnectError};
use crate::protocol::{
    Violation,
    client_handshake::{
        ClientHandshake, ExportInfo, Goal, HandshakeError, ListedExport, Step, WishedEncryption,
    },
    constants::HeaderStyle,
};

/// Bytes read at once while haggling.
const READ: usize = 4096;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A unix socket.
    Unix(PathBuf),
    /// A TCP port.
    Tcp {
        /// Name or address.
        host: String,
        /// Port; 10809 is NBD's own.
        port: u16,
    },
}

impl Address {
    /// A unix socket.
    #[must_use]
    pub fn unix(path: impl AsRef<Path>) -> Self {
        Self::Unix(path.as_ref().to_owned())
    }

    /// A TCP port.
    #[must_use]
    pub fn tcp(host: impl Into<String>, port: u16) -> Self {
        Self::Tcp { host: host.into(), port }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// How a connection is encrypted.
#[derive(Clone)]
pub struct ClientTls {
    /// Whom to trust, and who we are.
    pub config: Arc<rustls::ClientConfig>,
    /// The name that the server's certificate must have.
    pub server: ServerName<'static>,
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").field("server", &self.server).finish_non_exhaustive()
    }
}

/// What a client wants from a connection.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Name of the export; empty means the server's default.
    pub export: String,
    /// Metadata contexts to ask for. Those that the server has are in
    /// [`ExportInfo::contexts`].
    pub contexts: Vec<String>,
    /// With it, TLS or nothing; without, in the clear.
    pub tls: Option<ClientTls>,
    /// The most that is negotiated; a server may grant less.
    pub headers: HeaderStyle,
    /// Requests in flight; further callers wait.
    pub max_requests: usize,
    /// Bytes of data in flight; further callers wait. At least one request
    /// of any size may be in flight.
    pub max_bytes: usize,
    /// Time for connecting and haggling, TLS included.
    pub connect_timeout: Duration,
    /// Time for which a server may be silent while requests are in flight.
    /// Then the connection is given up.
    pub stall: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            export: String::new(),
            contexts: Vec::new(),
            tls: None,
            headers: HeaderStyle::Extended,
            max_requests: 64,
            max_bytes: 64 << 20,
            connect_timeout: Duration::from_secs(10),
            stall: Duration::from_secs(60),
        }
    }
}

impl ClientOptions {
    /// Asks for an export by name.
    #[must_use]
    pub fn export(name: impl Into<String>) -> Self {
        Self { export: name.into(), ..Self::default() }
    }

    /// Asks for one more metadata context.
    #[must_use]
    pub fn context(mut self, name: impl Into<String>) -> Self {
        self.contexts.push(name.into());
        self
    }
}

impl Client {
    /// Connects and takes an export.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn connect(address: &Address, options: ClientOptions) -> Result<Self, ConnectError> {
        let goal = goal(&options);
        match reach(address, goal, &options).await? {
            Reached::Connected(connection) => Ok(connection.into_client(&options)),
            _ => Err(odd(address)),
        }
    }

    /// Takes an export over a stream that is connected already.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn over<S>(stream: S, options: ClientOptions) -> Result<Self, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let name = "the stream".to_owned();
        match in_time(&name, &options, begin(stream, goal(&options), &options, &name)).await? {
            Reached::Connected(connection) => Ok(connection.into_client(&options)),
            _ => Err(odd(&name)),
        }
    }

    /// Which exports a server lists. Of `options` only TLS and the timeout
    /// matter.
    ///
    /// # Errors
    /// Why there is no list; some servers refuse.
    pub async fn list(
        address: &Address,
        options: &ClientOptions,
    ) -> Result<Vec<ListedExport>, ConnectError> {
        match reach(address, Goal::List, options).await? {
            Reached::Exports(exports) => Ok(exports),
            _ => Err(odd(address)),
        }
    }

    /// Which metadata contexts the export in `options` has: those that match
    /// [`ClientOptions::contexts`] (names, or `namespace:`), or all if that
    /// is empty.
    ///
    /// # Errors
    /// Why there is no list.
    pub async fn list_contexts(
        address: &Address,
        options: &ClientOptions,
    ) -> Result<Vec<String>, ConnectError> {
        let goal = Goal::ListContexts {
            export: options.export.clone(),
            queries: options.contexts.clone(),
        };
        match reach(address, goal, options).await? {
            Reached::Contexts(contexts) => Ok(contexts),
            _ => Err(odd(address)),
        }
    }
}

fn goal(options: &ClientOptions) -> Goal {
    Goal::Connect { export: options.export.clone(), contexts: options.contexts.clone() }
}

enum Reached {
    Connected(Box<Connection>),
    Exports(Vec<ListedExport>),
    Contexts(Vec<String>),
}

/// A stream in the transmission phase.
struct Connection {
    stream: Box<dyn Stream>,
    input: BytesMut,
    info: ExportInfo,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Connection {
    fn into_client(self, options: &ClientOptions) -> Client {
        Client::start(self.stream, self.input, self.info, options)
    }
}

async fn reach(
    address: &Address,
    goal: Goal,
    options: &ClientOptions,
) -> Result<Reached, ConnectError> {
    let name = address.to_string();
    let failed = |source| ConnectError::Connect { address: name.clone(), source };
    let reach = async {
        match address {
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(failed)?;
                begin(stream, goal, options, &name).await
            }
            Address::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(failed)?;
                stream.set_nodelay(true).map_err(failed)?;
                begin(stream, goal, options, &name).await
            }
        }
    };
    in_time(&name, options, reach).await
}

async fn in_time<T>(
    name: &str,
    options: &ClientOptions,
    work: impl Future<Output = Result<T, ConnectError>>,
) -> Result<T, ConnectError> {
    let limit = options.connect_timeout;
    timeout(limit, work)
        .await
        .unwrap_or_else(|_| Err(ConnectError::Timeout { address: name.to_owned(), limit }))
}

async fn begin<S>(
    mut stream: S,
    goal: Goal,
    options: &ClientOptions,
    name: &str,
) -> Result<Reached, ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let encryption = match options.tls {
        Some(_) => WishedEncryption::Required,
        None => WishedEncryption::None,
    };
    let mut machine = ClientHandshake::new(goal, encryption, options.headers);
    let mut input = BytesMut::new();
    let step = haggle(&mut stream, &mut machine, &mut input, BytesMut::new(), name).await?;
    let (Step::StartTls, Some(tls)) = (&step, &options.tls) else {
        return reached(stream, input, step, name);
    };
    if !input.is_empty() {
        // Bytes from before TLS must not count as said inside it.
        return Err(violation(name, "the server did not wait for TLS"));
    }
    let connector = TlsConnector::from(Arc::clone(&tls.config));
    let mut stream = connector
        .connect(tls.server.clone(), stream)
        .await
        .map_err(|source| ConnectError::Tls { address: name.to_owned(), source })?;
    let mut output = BytesMut::new();
    machine.encrypted(&mut output);
    let step = haggle(&mut stream, &mut machine, &mut input, output, name).await?;
    reached(stream, input, step, name)
}

fn reached<S>(stream: S, input: BytesMut, step: Step, name: &str) -> Result<Reached, ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match step {
        Step::Connected(info) => {
            Ok(Reached::Connected(Box::new(Connection { stream: Box::new(stream), input, info })))
        }
        Step::Exports(exports) => Ok(Reached::Exports(exports)),
        Step::Contexts(contexts) => Ok(Reached::Contexts(contexts)),
        Step::Read | Step::Again | Step::StartTls => Err(odd(&name)),
    }
}

/// Lets the machine talk until it has something to say to us.
async fn haggle<S>(
    stream: &mut S,
    machine: &mut ClientHandshake,
    input: &mut BytesMut,
    mut output: BytesMut,
    name: &str,
) -> Result<Step, ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let broke = |source| ConnectError::Stream { address: name.to_owned(), source };
    loop {
        if !output.is_empty() {
            stream.write_all_buf(&mut output).await.map_err(broke)?;
            stream.flush().await.map_err(broke)?;
        }
        let step = machine
            .advance(input, &mut output)
            .map_err(|source| ConnectError::Handshake { address: name.to_owned(), source })?;
        match step {
            Step::Again => {}
            Step::Read => {
                input.reserve(READ);
                if stream.read_buf(input).await.map_err(broke)? == 0 {
                    return Err(broke(std::io::ErrorKind::UnexpectedEof.into()));
                }
            }
            step => {
                // A last word (ABORT) is a courtesy.
                let _ = stream.write_all_buf(&mut output).await;
                let _ = stream.flush().await;
                return Ok(step);
            }
        }
    }
}

/// The machine answered another goal than ours. It cannot, by its phases.
fn odd(name: &impl ToString) -> ConnectError {
    violation(&name.to_string(), "the handshake ended in an unexpected place")
}

fn violation(name: &str, why: &'static str) -> ConnectError {
    ConnectError::Handshake {
        address: name.to_owned(),
        source: HandshakeError::Violation(Violation::Value { what: "handshake", why }),
    }
}
