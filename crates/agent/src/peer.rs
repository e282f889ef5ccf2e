//! The port where other agents bring what they ship, and the way to theirs.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use domain::fault::{Code, Fault};
use domain::id::HostId;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};
use tracing::{debug, info, warn};
use wire::tls::{Credentials, host_of, peer_agent, peer_name, peer_port};

use crate::identity::Identity;
use crate::keep::session::Borrower;
use crate::keep::{Keepers, session};
use crate::recover::loans::Loans;

/// Shippers that are served at once.
const SESSIONS_MAX: usize = 512;
/// The pause between attempts to open the port.
const LISTEN_PAUSE: Duration = Duration::from_secs(5);
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(6);
/// How long the network may take to reach a peer.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Whether a peer that says nothing is still there is asked after this, and again
/// as often as this.
const ALIVE_AFTER: Duration = Duration::from_secs(60);
const ALIVE_EVERY: Duration = Duration::from_secs(15);

/// A connection that came in.
type ServerStream = tokio_rustls::server::TlsStream<TcpStream>;

/// Bytes that the kernel takes beyond those that are on their way.
const UNSENT_MAX: u32 = 256 << 10;

/// Who this host is to its peers; renewed while the agent runs.
#[derive(Debug, Clone)]
pub struct Passport {
    /// The host.
    pub host: HostId,
    /// The authority whose certificates count.
    pub authority: String,
    /// What proves that this is the host.
    pub credentials: Credentials,
}

impl Passport {
    /// Out of who this host is.
    #[must_use]
    pub fn of(identity: &Identity) -> Self {
        Self {
            host: identity.host,
            authority: identity.authority.clone(),
            credentials: identity.credentials.clone(),
        }
    }
}

/// Opens the port, as soon as that can be done: without it, the agent still
/// ships.
async fn listen(address: &str) -> TcpListener {
    let mut told = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) if told => debug!(%error, address, "still not listening for other agents"),
            Err(error) => {
                told = true;
                let fault = Fault::new(
                    Code::AddressUnusable,
                    format!("listen for other agents at {address}"),
                    error.to_string(),
                    "Give another address as `listen` in the agent's configuration, or end what uses it; until then this host keeps no points.",
                );
                warn!(code = %fault.code, cause = %fault.cause, advice = %fault.advice, "cannot {}", fault.doing);
            }
        }
        sleep(LISTEN_PAUSE).await;
    }
}

/// Serves shippers and borrowers for ever.
pub async fn serve(
    address: &str,
    passport: watch::Receiver<Passport>,
    keepers: Keepers,
    loans: Loans,
) {
    let listener = listen(address).await;
    let slots = Arc::new(Semaphore::new(SESSIONS_MAX));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, mostly: it passes.
                warn!(%error, "cannot accept a connection of another agent");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let passport = passport.borrow().clone();
        let (keepers, loans) = (keepers.clone(), loans.clone());
        tokio::spawn(async move {
            match welcome(stream, passport, &keepers).await {
                Ok(None) => {}
                Ok(Some((borrower, peer))) => {
                    // For days, maybe: it keeps no shipper out.
                    drop(slot);
                    loans.serve(borrower, peer).await;
                }
                Err(error) => {
                    debug!(%error, "a connection to the port for agents came to nothing");
                }
            }
        });
    }
}

async fn welcome(
    stream: TcpStream,
    passport: Passport,
    keepers: &Keepers,
) -> io::Result<Option<(Borrower<ServerStream>, HostId)>> {
    stream.set_nodelay(true)?;
    // A borrower may have nothing to read for days; one that is gone is found so.
    let alive = TcpKeepalive::new().with_time(ALIVE_AFTER).with_interval(ALIVE_EVERY);
    SockRef::from(&stream).set_tcp_keepalive(&alive)?;
    let tls = peer_port(&passport.credentials, &passport.authority).map_err(io::Error::other)?;
    let handshake = timeout(HANDSHAKE, TlsAcceptor::from(Arc::new(tls)).accept(stream));
    let stream = handshake.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let peer = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).and_then(host_of);
    let Some(peer) = peer else {
        return Err(io::Error::other("its certificate is no agent's"));
    };
    info!(%peer, "another agent is connected");
    let borrower = session::serve(keepers, passport.host, peer, stream).await;
    Ok(borrower.map(|borrower| (borrower, peer)))
}

/// Connects to the agent of `peer`.
///
/// # Errors
/// [`Code::PeerUnreachable`], [`Code::PeerNotTrusted`].
pub async fn dial(
    address: &str,
    peer: HostId,
    peer_host: &str,
    passport: &Passport,
) -> Result<TlsStream<TcpStream>, Fault> {
    let doing = format!("reach the agent of host {peer_host} at {address}");
    let unreachable = |cause: String| {
        Fault::new(
            Code::PeerUnreachable,
            doing.clone(),
            cause,
            "Check that the agent runs there and that its port for agents is open from here; it is tried again by itself.",
        )
    };
    let stream = timeout(CONNECT_LIMIT, TcpStream::connect(address)).await;
    let stream = stream
        .map_err(|_| unreachable(format!("no answer within {} s", CONNECT_LIMIT.as_secs())))?
        .map_err(|error| unreachable(error.to_string()))?;
    stream.set_nodelay(true).map_err(|error| unreachable(error.to_string()))?;
    // Else what the kernel holds for a slow network, megabytes, would seem done.
    let unsent = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_MAX);
    unsent.map_err(|error| unreachable(error.to_string()))?;
    let tls = peer_agent(&passport.credentials, &passport.authority, peer)
        .map_err(|error| Fault::internal(&doing, &domain::fault::chain(&error)))?;
    let handshake =
        timeout(HANDSHAKE, TlsConnector::from(Arc::new(tls)).connect(peer_name(), stream));
    match handshake.await {
        Err(_) => Err(unreachable("no TLS handshake in time".into())),
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => {
            let about_trust =
                error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            match about_trust {
                Some(rustls::Error::InvalidCertificate(_)) => Err(Fault::new(
                    Code::PeerNotTrusted,
                    doing,
                    format!("what answers there is not that host: {error}"),
                    "Check the address that the host announces (`peer_address` in its configuration), and that no other host uses it.",
                )),
                _ => Err(unreachable(error.to_string())),
            }
        }
    }
}
