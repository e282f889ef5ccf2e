//! Agents: the port where they connect, one [session] for each, who is
//! connected now ([`connections`]), and what each is to do ([`duties`]).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use domain::fault::{Code, Fault};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};
use wire::message::SILENCE_MAX;

use crate::Controller;
use refusals::Refusals;

pub mod commands;
pub mod connections;
pub mod duties;
mod enrolment;
mod refusals;
mod session;

pub use commands::Commands;
pub use connections::Connections;
pub use duties::DutiesChanged;
pub(crate) use session::revoked;

/// Connections that are served at once; more wait to be accepted.
const SESSIONS_MAX: usize = 4096;
/// How long a refused peer has to read the alert that says why.
const FAREWELL: Duration = Duration::from_secs(1);

/// Serves agents until it is told to stop, then ends every session.
pub async fn serve(
    controller: Controller,
    listener: TcpListener,
    tls: rustls::ServerConfig,
    stop: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let refusals = Arc::new(Refusals::default());
    let slots = Arc::new(Semaphore::new(SESSIONS_MAX));
    let sessions = TaskTracker::new();
    loop {
        let slot = tokio::select! {
            slot = Arc::clone(&slots).acquire_owned() => slot.expect("the semaphore is never closed"),
            () = stop.cancelled() => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, mostly: it passes.
                warn!(%error, "cannot accept an agent's connection");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (controller, acceptor, refusals, stop) =
            (controller.clone(), acceptor.clone(), Arc::clone(&refusals), stop.clone());
        sessions.spawn(async move {
            welcome(controller, acceptor, &refusals, stream, peer, stop).await;
            drop(slot);
        });
    }
    sessions.close();
    sessions.wait().await;
}

/// Serves one connection from its handshake to its end.
async fn welcome(
    controller: Controller,
    acceptor: TlsAcceptor,
    refusals: &Refusals,
    stream: TcpStream,
    peer: SocketAddr,
    stop: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%peer, %error, "an agent's connection ended at once");
        return;
    }
    let handshake = timeout(SILENCE_MAX, acceptor.accept(stream).into_fallible());
    match handshake.await {
        Err(_) => debug!(%peer, "no TLS handshake in time"),
        Ok(Ok(stream)) => {
            let ended = session::serve(&controller, stream, peer, stop).await;
            if let Err(session::End::Refused { fault, subject }) = ended {
                refusals.record(&controller, &fault, &subject, peer).await;
            }
        }
        Ok(Err((error, stream))) => {
            let cause = error.to_string();
            let about_certificate = error
                .get_ref()
                .and_then(|inner| inner.downcast_ref::<rustls::Error>())
                .is_some_and(|error| matches!(error, rustls::Error::InvalidCertificate(_)));
            if about_certificate {
                let fault = Fault::new(
                    Code::CertificateForeign,
                    "let an agent connect",
                    format!(
                        "its certificate was not issued by this controller, or has ended: {cause}"
                    ),
                    "If it is one of your hosts, enrol it here with a token of this controller.",
                );
                refusals.record(&controller, &fault, "unknown", peer).await;
            } else {
                debug!(%peer, %cause, "the TLS handshake failed");
            }
            say_farewell(stream).await;
        }
    }
}

/// Lets the peer read the alert: closing with its bytes unread would reset the
/// connection and throw the alert away.
async fn say_farewell(mut stream: TcpStream) {
    let drained = async {
        stream.shutdown().await?;
        let mut scrap = [0; 4096];
        while stream.read(&mut scrap).await? > 0 {}
        std::io::Result::Ok(())
    };
    // Whatever happens here, the connection is over.
    let _ = timeout(FAREWELL, drained).await;
}
