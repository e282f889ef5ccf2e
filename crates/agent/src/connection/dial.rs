//! Opening a connection to the controller, and what can go wrong with it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use domain::fault::{Code, Fault};
use futures::StreamExt as _;
use rustls::{AlertDescription, ClientConfig};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::codec::Framed;
use wire::frame::{ControlCodec, FrameError};
use wire::message::{AgentMessage, ControllerMessage, Refused, SILENCE_MAX};

/// How long the network may take to reach the controller.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);

/// A connection on which messages go both ways.
pub type Channel = Framed<TlsStream<TcpStream>, ControlCodec<AgentMessage, ControllerMessage>>;

/// Why there is no connection, or no more.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Nobody is there.
    #[error("nobody answers there: {0}")]
    Unreachable(io::Error),
    /// The network does not say whether anybody is there.
    #[error("no answer within {} s", CONNECT_LIMIT.as_secs())]
    NoAnswer,
    /// Somebody is there and says nothing.
    #[error("nothing heard for {} s", SILENCE_MAX.as_secs())]
    Silence,
    /// The other side ended the connection without a word.
    #[error("the controller closed the connection")]
    Closed,
    /// It refuses our certificate.
    #[error("the controller refuses this host's certificate: {0:?}")]
    CertificateRefused(AlertDescription),
    /// Its certificate is not of the authority that we believe.
    #[error("its certificate is not of the authority that this host believes: {0}")]
    NotTrusted(rustls::CertificateError),
    /// The connection failed, or does not carry our frames.
    #[error("{0}")]
    Broken(FrameError),
    /// A message that has no place here.
    #[error("the controller said {0:?} out of turn")]
    Unexpected(&'static str),
    /// The controller said why.
    #[error("{}", .0.cause)]
    Refused(Refused),
}

impl DialError {
    /// Whether trying again soon is in vain.
    #[must_use]
    pub fn needs_an_operator(&self) -> bool {
        match self {
            // The controller is there and in trouble itself.
            Self::Refused(refused) => refused.code != Code::DatabaseUnusable.as_str(),
            Self::CertificateRefused(_) | Self::NotTrusted(_) => true,
            _ => false,
        }
    }

    /// The error as an operator reads it.
    #[must_use]
    pub fn into_fault(self, doing: &str, controller: &str) -> Fault {
        let cause = self.to_string();
        match self {
            Self::Refused(refused) => refusal(refused),
            Self::CertificateRefused(_) => Fault::new(
                Code::CertificateForeign,
                doing,
                cause,
                "The controller did not issue it, or it has ended. Check the address; if the controller was set up anew, move the state folder away and enrol this host again.",
            ),
            Self::NotTrusted(_) => Fault::new(
                Code::ControllerNotTrusted,
                doing,
                cause,
                format!(
                    "Check that {controller} is your controller; if it was set up anew, enrol this host with a new token."
                ),
            ),
            Self::Unexpected(_) => Fault::new(
                Code::ProtocolViolated,
                doing,
                cause,
                "Check that both sides run a released version of Lifeboat.",
            ),
            Self::Unreachable(_)
            | Self::NoAnswer
            | Self::Silence
            | Self::Closed
            | Self::Broken(_) => Fault::new(
                Code::ControllerUnreachable,
                doing,
                cause,
                format!(
                    "Check that the controller runs and that {controller} is its address for agents, reachable from here."
                ),
            ),
        }
    }
}

impl From<FrameError> for DialError {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Io(error) => error.into(),
            other => Self::Broken(other),
        }
    }
}

impl From<io::Error> for DialError {
    fn from(error: io::Error) -> Self {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match tls {
            Some(rustls::Error::AlertReceived(alert)) => Self::CertificateRefused(*alert),
            Some(rustls::Error::InvalidCertificate(error)) => Self::NotTrusted(error.clone()),
            _ if error.kind() == io::ErrorKind::UnexpectedEof => Self::Closed,
            _ => Self::Broken(FrameError::Io(error)),
        }
    }
}

/// What the controller said, as an operator reads it.
#[must_use]
pub fn refusal(refused: Refused) -> Fault {
    let code = Code::named(&refused.code).unwrap_or(Code::ProtocolViolated);
    Fault::new(code, refused.doing, refused.cause, refused.advice)
}

/// Opens a connection. Whether the controller accepts this side's certificate
/// shows only at the first message from it.
///
/// # Errors
/// See [`DialError`].
pub async fn dial(controller: &str, tls: ClientConfig) -> Result<Channel, DialError> {
    let stream = timeout(CONNECT_LIMIT, TcpStream::connect(controller))
        .await
        .map_err(|_| DialError::NoAnswer)?
        .map_err(DialError::Unreachable)?;
    // Heartbeats and inventories are small and wanted at once.
    stream.set_nodelay(true).map_err(DialError::Unreachable)?;
    let connector = TlsConnector::from(Arc::new(tls));
    let stream = timeout(SILENCE_MAX, connector.connect(wire::tls::controller_name(), stream))
        .await
        .map_err(|_| DialError::Silence)??;
    Ok(Framed::new(stream, ControlCodec::default()))
}

/// Waits for the next message, but not for ever.
///
/// # Errors
/// See [`DialError`].
pub async fn receive(channel: &mut Channel) -> Result<ControllerMessage, DialError> {
    match timeout(SILENCE_MAX, channel.next()).await {
        Err(_) => Err(DialError::Silence),
        Ok(None) => Err(DialError::Closed),
        Ok(Some(message)) => Ok(message?),
    }
}

/// Opens a connection for one question and its answer.
///
/// # Errors
/// See [`DialError`].
pub async fn ask_once(
    controller: &str,
    tls: ClientConfig,
    question: AgentMessage,
) -> Result<ControllerMessage, DialError> {
    let mut channel = dial(controller, tls).await?;
    send(&mut channel, &question).await?;
    receive(&mut channel).await
}

/// Sends a message, but does not wait for ever for the network to take it.
///
/// # Errors
/// See [`DialError`].
pub async fn send(channel: &mut Channel, message: &AgentMessage) -> Result<(), DialError> {
    use futures::SinkExt as _;
    match timeout(SILENCE_MAX, channel.send(message)).await {
        Err(_) => Err(DialError::Silence),
        Ok(sent) => Ok(sent?),
    }
}
