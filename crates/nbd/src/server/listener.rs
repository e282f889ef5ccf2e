//! Where a server listens.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// A bound socket.
#[derive(Debug)]
pub struct Listener(pub(crate) Socket);

#[derive(Debug)]
pub(crate) enum Socket {
    Unix(UnixSocket),
    Tcp(TcpListener),
}

/// A unix socket whose file goes when this does.
#[derive(Debug)]
pub(crate) struct UnixSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode, so that nobody else's file is removed.
    identity: (u64, u64),
}

/// Why a server cannot listen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Another process serves this socket.
    #[error("{} is served by somebody else", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// A file that is no socket is in the way; it is left alone.
    #[error("{} is in the way and is no socket", path.display())]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refuses.
    #[error("listen on {address}")]
    Bind {
        /// Path or address.
        address: String,
        /// Its reason.
        source: io::Error,
    },
}

impl Listener {
    /// Listens on a unix socket at `path` and gives it `mode` (such as
    /// `0o660`). Until the mode is set, the process' umask holds.
    ///
    /// A socket file that nobody listens on (left by a crash) is replaced.
    /// The file is removed when the listener is dropped.
    ///
    /// # Errors
    /// The path is in use or cannot be bound.
    pub async fn unix(path: impl Into<PathBuf>, mode: u32) -> Result<Self, ListenError> {
        let path = path.into();
        remove_stale(&path).await?;
        let failed = |source| ListenError::Bind { address: path.display().to_string(), source };
        let listener = UnixListener::bind(&path).map_err(failed)?;
        let metadata = fs::symlink_metadata(&path).map_err(failed)?;
        let socket =
            UnixSocket { listener, identity: (metadata.dev(), metadata.ino()), path: path.clone() };
        // From here on an error removes the file by dropping `socket`.
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(failed)?;
        Ok(Self(Socket::Unix(socket)))
    }

    /// Listens on a TCP address; port 0 takes any free one.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn tcp(address: SocketAddr) -> Result<Self, ListenError> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| ListenError::Bind { address: address.to_string(), source })?;
        Ok(Self(Socket::Tcp(listener)))
    }

    /// The TCP address; `None` for a unix socket.
    #[must_use]
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match &self.0 {
            Socket::Tcp(listener) => listener.local_addr().ok(),
            Socket::Unix(_) => None,
        }
    }

    pub(crate) async fn accept(&self) -> io::Result<Accepted> {
        match &self.0 {
            Socket::Unix(socket) => {
                let (stream, _) = socket.listener.accept().await?;
                Ok(Accepted::Unix(stream))
            }
            Socket::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Replies are batched already; waiting for more only delays
                // them (spec, "Protocol phases").
                stream.set_nodelay(true)?;
                Ok(Accepted::Tcp(stream))
            }
        }
    }
}

#[derive(Debug)]
pub(crate) enum Accepted {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.identity);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "remove the socket");
        }
    }
}

/// Removes a socket file if connecting to it is refused: then nobody listens.
async fn remove_stale(path: &Path) -> Result<(), ListenError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(ListenError::NotASocket { path: path.into() });
        }
        Ok(_) => {}
        // Nothing there, or binding will say what is wrong.
        Err(_) => return Ok(()),
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)
            .map_err(|source| ListenError::Bind { address: path.display().to_string(), source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // It answers, or it has too long a queue to answer: somebody is there.
        _ => Err(ListenError::InUse { path: path.into() }),
    }
}
