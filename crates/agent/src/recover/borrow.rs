//! A point that another host keeps, as if it were here: what it tells, and its
//! disks on a unix socket of this host.
//!
//! Whatever QEMU and the keeper say to one another is passed on as it is. When
//! the way to the keeper breaks, QEMU's connection is closed, and QEMU asks again;
//! meanwhile the guest waits.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use domain::fault::{Code, Fault};
use futures::{SinkExt as _, StreamExt as _};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncWriteExt as _, copy_bidirectional_with_sizes};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::client::TlsStream;
use tokio_util::codec::Framed;
use tracing::{debug, warn};
use uuid::Uuid;
use wire::data::{Borrow, KeeperMessage, Lent, ShipperCodec, ShipperFrame, ShipperMessage};

use super::point::Facts;
use super::record::RecordedKeeper;
use crate::peer::{self, Passport};

/// How long the keeper may take to open the point.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// How often a keeper that says nothing is asked whether it is there.
const ALIVE: Duration = Duration::from_secs(5);
/// QEMU opens one connection for each disk; others wait.
const CONNECTIONS: usize = 64;
/// The pause after a connection that could not be taken.
const PAUSE: Duration = Duration::from_millis(100);
/// What is passed on at once, in bytes each way.
const BUFFERS: (usize, usize) = (64 << 10, 1 << 20);

type Channel = Framed<TlsStream<TcpStream>, ShipperCodec>;

/// Where a point was lent, and for what.
#[derive(Debug, Clone)]
pub(super) struct Borrowed {
    pub keeper: RecordedKeeper,
    pub recovery: Uuid,
}

impl Borrowed {
    /// What the point tells.
    pub(super) async fn facts(&self, passport: &Passport) -> Result<Facts, Fault> {
        let (_, Lent { disks, configuration }) = self.open(passport).await?;
        Ok(Facts { configuration, disks })
    }

    /// A connection on which the keeper goes on as an NBD server.
    async fn open(&self, passport: &Passport) -> Result<(Channel, Lent), Fault> {
        let RecordedKeeper { name, address, .. } = &self.keeper;
        let stream = peer::dial(address, self.keeper.host(), name, passport).await?;
        let alive = TcpKeepalive::new().with_time(ALIVE).with_interval(ALIVE).with_retries(3);
        let socket = SockRef::from(stream.get_ref().0);
        // A guest waits for an answer that a keeper without power will never give.
        let set = socket
            .set_tcp_keepalive(&alive)
            .and_then(|()| socket.set_tcp_user_timeout(Some(ALIVE * 4)));
        if let Err(error) = set {
            debug!(%error, "a keeper that is gone is noticed late");
        }
        let mut channel = Framed::new(stream, ShipperCodec::default());
        let gone = |cause: String| {
            Fault::new(
                Code::PeerUnreachable,
                format!("borrow a point from host {name}"),
                cause,
                "Check that the agent runs there; it is tried again by itself.",
            )
        };
        let borrow = ShipperMessage::Borrow(Borrow { recovery: self.recovery });
        let sent = channel.send(ShipperFrame::Message(borrow)).await;
        sent.map_err(|error| gone(error.to_string()))?;
        match timeout(ANSWER_LIMIT, channel.next()).await {
            Ok(Some(Ok(KeeperMessage::Lent(lent)))) => Ok((channel, lent)),
            Ok(Some(Ok(KeeperMessage::Refused(refused)))) => {
                Err(crate::connection::dial::refusal(refused))
            }
            Ok(Some(Ok(other))) => Err(gone(format!("it answered {other:?}"))),
            Ok(Some(Err(error))) => Err(gone(error.to_string())),
            Ok(None) => Err(gone("it closed the connection".into())),
            Err(_) => Err(gone(format!("no answer within {} s", ANSWER_LIMIT.as_secs()))),
        }
    }

    async fn pass_on(&self, mut qemu: UnixStream, passport: &Passport) -> io::Result<()> {
        let opened = self.open(passport).await;
        let (channel, _) = opened.map_err(|fault| io::Error::other(fault.to_string()))?;
        let mut parts = channel.into_parts();
        // The keeper speaks first, and may have begun.
        qemu.write_all(&parts.read_buf).await?;
        let (up, down) = BUFFERS;
        copy_bidirectional_with_sizes(&mut qemu, &mut parts.io, up, down).await.map(drop)
    }
}

/// Serves a borrowed point's disks on a socket until it is dropped.
#[derive(Debug)]
pub(super) struct Relay {
    socket: PathBuf,
    tasks: JoinSet<()>,
}

impl Relay {
    /// Listens in the place of whatever was at the socket before.
    pub(super) async fn start(
        socket: PathBuf,
        borrowed: Borrowed,
        passport: watch::Receiver<Passport>,
    ) -> io::Result<Self> {
        match std::fs::remove_file(&socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&socket)?;
        // The folder lets in QEMU's user alone.
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666))?;
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, borrowed, passport));
        Ok(Self { socket, tasks })
    }

    /// Ends all connections and listens no more.
    pub(super) async fn cut(mut self) {
        self.tasks.shutdown().await;
        // Nobody listens on it any more.
        if let Err(error) = std::fs::remove_file(&self.socket) {
            debug!(%error, socket = %self.socket.display(), "a socket stays");
        }
    }
}

async fn accept(listener: UnixListener, borrowed: Borrowed, passport: watch::Receiver<Passport>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await.expect("it is never closed");
        while connections.try_join_next().is_some() {}
        let qemu = match listener.accept().await {
            Ok((qemu, _)) => qemu,
            Err(error) => {
                warn!(%error, "a connection to a borrowed point was not taken");
                sleep(PAUSE).await;
                continue;
            }
        };
        let (borrowed, passport) = (borrowed.clone(), passport.borrow().clone());
        connections.spawn(async move {
            if let Err(error) = borrowed.pass_on(qemu, &passport).await {
                let (recovery, keeper) = (borrowed.recovery, &borrowed.keeper.name);
                warn!(%recovery, keeper, %error, "the way to a borrowed point broke");
            }
            drop(slot);
        });
    }
}
