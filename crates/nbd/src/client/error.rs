//! What can go wrong, and what was being done.

use std::{fmt, io, sync::Arc, time::Duration};

use crate::protocol::{
    Violation, client_handshake::HandshakeError, errno::Errno, request::Command,
};

/// A request in the caller's terms, for errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation {
    /// What was asked.
    pub command: Command,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.command {
            Command::Flush | Command::Disconnect => write!(f, "{}", self.command),
            _ => write!(f, "{} {} bytes at {}", self.command, self.length, self.offset),
        }
    }
}

/// Why a connection could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Nobody answers.
    #[error("connect to {address}")]
    Connect {
        /// The server.
        address: String,
        /// The system's reason.
        source: io::Error,
    },
    /// TLS was not established.
    #[error("establish TLS with {address}")]
    Tls {
        /// The server.
        address: String,
        /// Its reason.
        source: io::Error,
    },
    /// The server refused, or broke the protocol.
    #[error("haggle with {address}")]
    Handshake {
        /// The server.
        address: String,
        /// Its reason.
        source: HandshakeError,
    },
    /// The stream broke while haggling.
    #[error("haggle with {address}")]
    Stream {
        /// The server.
        address: String,
        /// The system's reason.
        source: io::Error,
    },
    /// It took too long.
    #[error("{address} did not finish haggling within {limit:?}")]
    Timeout {
        /// The server.
        address: String,
        /// The time it had.
        limit: Duration,
    },
}

/// Why a request failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The server says no; the connection goes on.
    #[error("{operation}: the server answered {errno}{}", with_message(message))]
    Server {
        /// What was being done.
        operation: Operation,
        /// Its number.
        errno: Errno,
        /// Its words; may be empty.
        message: String,
        /// The first byte concerned, if it said so.
        at: Option<u64>,
    },
    /// The connection is gone; whether the server did it, nobody knows.
    #[error("{operation}: the connection is lost")]
    Lost {
        /// What was being done.
        operation: Operation,
        /// Why it is gone; the same for all requests in flight.
        source: Arc<LossCause>,
    },
    /// The request was not sent: the export does not allow it.
    #[error("{operation}: {why}")]
    NotSent {
        /// What should have been done.
        operation: Operation,
        /// The rule that forbids it.
        why: &'static str,
    },
}

impl ClientError {
    /// What was being done.
    #[must_use]
    pub fn operation(&self) -> Operation {
        match self {
            Self::Server { operation, .. }
            | Self::Lost { operation, .. }
            | Self::NotSent { operation, .. } => *operation,
        }
    }

    /// Whether the connection is of no further use.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Lost { .. })
    }
}

fn with_message(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" ({message})") }
}

/// Why a connection is gone.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LossCause {
    /// The server closed it.
    #[error("the server closed the connection")]
    Closed,
    /// This side closed it.
    #[error("the connection was closed by this side")]
    Disconnected,
    /// The stream broke.
    #[error("the stream broke")]
    Stream(#[source] io::Error),
    /// The server broke the protocol.
    #[error("the server broke the protocol")]
    Violation(#[from] Violation),
    /// The server answered nothing for too long.
    #[error("the server was silent for {waited:?} with requests in flight")]
    Stalled {
        /// For how long.
        waited: Duration,
    },
}
