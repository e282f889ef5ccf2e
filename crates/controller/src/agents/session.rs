//! One connection of an agent.
//!
//! ```text
//!   no certificate: Enrol ──▶ Enrolled, end
//!   certificate:    Hello ──▶ standing good? ── no ──▶ Refused, end
//!                              │ yes
//!                              ▼
//!                   Welcome; duties are sent, at first and when they change;
//!                   inventories and reports are applied, heartbeats answered,
//!                   until silence, close, or an operator ends it (Refused)
//! ```

use std::net::SocketAddr;
use std::time::Duration;

use domain::fault::{self, Code, Fault};
use domain::id::HostId;
use futures::{SinkExt as _, StreamExt as _};
use time::OffsetDateTime;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::server::TlsStream;
use tokio_util::codec::Framed;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};
use uuid::Uuid;
use wire::command::Command;
use wire::frame::{ControlCodec, FrameError};
use wire::message::{
    AgentMessage, ControllerMessage, Hello, PROTOCOL_COMMANDS, PROTOCOL_REPLICATION, ProtocolRange,
    SILENCE_MAX, Welcome,
};
use wire::replication::Duties;

use super::commands::Orders;
use super::connections::Place;
use super::{duties, enrolment};
use crate::Controller;
use crate::authority::hexadecimal;
use crate::database::DatabaseError;
use crate::database::hosts::{Greeting, Standing};

type Channel = Framed<TlsStream<TcpStream>, ControlCodec<ControllerMessage, AgentMessage>>;

/// How often it is written down that an agent is still heard.
const HEARD_INTERVAL: Duration = Duration::from_secs(10);

/// Why a session ended, other than that its agent went away.
#[derive(Debug)]
pub(super) enum End {
    /// The agent has no business here.
    Refused {
        /// What it was told.
        fault: Fault,
        /// What is known of who it is.
        subject: String,
    },
    /// The controller cannot serve it now; it may come again.
    Broken(Fault),
    /// The connection is over: closed, silent, or told to stop.
    Gone,
}

impl From<FrameError> for End {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Io(_) => Self::Gone,
            error => Self::Refused {
                fault: Fault::new(
                    Code::ProtocolViolated,
                    "understand an agent",
                    fault::chain(&error),
                    "Check that the agent is a released version of Lifeboat, and that nothing else uses the port for agents.",
                ),
                subject: "unknown".into(),
            },
        }
    }
}

/// An agent that proved which host it is.
struct Session<'a> {
    controller: &'a Controller,
    host: HostId,
    name: String,
    serial: String,
    channel: Channel,
    place: Place,
    last_heard: OffsetDateTime,
    protocol: u16,
    duties_changed: watch::Receiver<()>,
    /// What the agent was last told to do on this connection.
    duties: Option<Duties>,
    /// What it is to do at once; none if it is too old for that.
    orders: Option<Orders>,
}

/// Serves a connection to its end.
pub(super) async fn serve(
    controller: &Controller,
    stream: TlsStream<TcpStream>,
    peer: SocketAddr,
    stop: CancellationToken,
) -> Result<(), End> {
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).cloned();
    let mut channel: Channel = Framed::new(stream, ControlCodec::for_stranger());
    let result = tokio::select! {
        result = converse(controller, &mut channel, certificate.as_deref(), peer) => result,
        () = stop.cancelled() => return Ok(()),
    };
    let (hello, host, serial) = match result {
        Ok(Begun::Greeted { hello, host, serial }) => (hello, host, serial),
        Ok(Begun::Enrolled) => return Ok(()),
        Err(end) => return tell(channel, end).await,
    };
    let (name, welcome) = match greet(controller, &hello, host, &serial, peer).await {
        Ok(greeted) => greeted,
        Err(end) => return tell(channel, end).await,
    };
    channel.codec_mut().trust();
    // Only now: a certificate that is no good must not push out a good one.
    let now = OffsetDateTime::now_utc();
    let place = controller.connections.enter(host, Uuid::new_v4(), now);
    let mut session = Session {
        controller,
        host,
        name,
        serial,
        channel,
        place,
        last_heard: now,
        protocol: welcome.protocol,
        duties_changed: controller.duties.subscribe(),
        duties: None,
        orders: None,
    };
    let end = match session.begin(welcome).await {
        Ok(()) => tokio::select! {
            end = session.run() => end,
            () = stop.cancelled() => End::Gone,
        },
        Err(end) => end,
    };
    if session.place.is_current() {
        session.note_heard().await;
        info!(host = %session.name, "an agent is gone");
    }
    tell(session.channel, end).await
}

/// How a connection began.
enum Begun {
    Enrolled,
    Greeted { hello: Hello, host: HostId, serial: String },
}

async fn converse(
    controller: &Controller,
    channel: &mut Channel,
    certificate: Option<&[u8]>,
    peer: SocketAddr,
) -> Result<Begun, End> {
    let first = timeout(SILENCE_MAX, channel.next()).await.map_err(|_| End::Gone)?;
    let first = first.ok_or(End::Gone)??;
    let out_of_turn = |kind: &str, subject: String| End::Refused {
        fault: Fault::new(
            Code::ProtocolViolated,
            "let an agent connect",
            format!("it said {kind:?} out of turn"),
            "Check that the agent is a released version of Lifeboat.",
        ),
        subject,
    };
    match (first, certificate) {
        (AgentMessage::Enrol(wish), None) => {
            let enrolled = enrolment::enrol(controller, *wish, peer).await?;
            send(channel, &ControllerMessage::Enrolled(enrolled)).await?;
            // The agent ends the connection once it has read the answer.
            let _ = timeout(SILENCE_MAX, channel.next()).await;
            Ok(Begun::Enrolled)
        }
        (AgentMessage::Hello(hello), Some(certificate)) => {
            let host = wire::tls::host_of(&certificate.into());
            let serial = x509_parser::parse_x509_certificate(certificate)
                .map(|(_, certificate)| hexadecimal(certificate.raw_serial()));
            match (host, serial) {
                (Some(host), Ok(serial)) => Ok(Begun::Greeted { hello, host, serial }),
                _ => Err(out_of_turn(
                    "hello with a certificate that is no agent's",
                    "unknown".into(),
                )),
            }
        }
        (other, _) => Err(out_of_turn(other.kind(), "unknown".into())),
    }
}

/// Answers a hello: the host's name and the welcome, or the refusal.
async fn greet(
    controller: &Controller,
    hello: &Hello,
    host: HostId,
    serial: &str,
    peer: SocketAddr,
) -> Result<(String, Welcome), End> {
    let (name, site) = stand(controller, host, serial).await?;
    let doing = format!("let host {name} connect");
    let Some(protocol) = ProtocolRange::OURS.agree(hello.protocol) else {
        return Err(End::Refused {
            fault: protocol_mismatch(&doing, hello.protocol),
            subject: name,
        });
    };
    let address = hello.peer_address.as_deref().and_then(|told| {
        let address = duties::peer_address(told, peer.ip());
        if address.is_none() {
            warn!(host = %name, %told, "an agent's address for others makes no sense");
        }
        address
    });
    let greeting =
        Greeting { version: &hello.agent_version, protocol, peer_address: address.as_deref() };
    let moved = controller
        .database
        .greeted(host, greeting, OffsetDateTime::now_utc())
        .await
        .map_err(|error| End::Broken(database_fault(&doing, &error)))?;
    if moved {
        controller.duties.announce();
    }
    info!(host = %name, %site, agent = %hello.agent_version, "an agent is connected");
    Ok((name.clone(), Welcome { protocol, name, site }))
}

/// The names of a host and its site, if its certificate is good now.
async fn stand(
    controller: &Controller,
    host: HostId,
    serial: &str,
) -> Result<(String, String), End> {
    let doing = format!("let host {host} connect");
    let standing = controller
        .database
        .standing(host, serial)
        .await
        .map_err(|error| End::Broken(database_fault(&doing, &error)))?;
    let fault = match standing {
        Standing::Good { name, site } => return Ok((name, site)),
        Standing::Revoked => revoked(&host.to_string()),
        Standing::Replaced => enrolment::replaced(&host.to_string()),
        Standing::Unknown => Fault::new(
            Code::HostRevoked,
            doing,
            "the host was removed from this controller",
            "To bring it back, move the agent's state folder away and enrol it again.",
        ),
    };
    Err(End::Refused { fault, subject: host.to_string() })
}

/// The next command; never without a desk.
async fn next(orders: &mut Option<Orders>) -> Command {
    match orders {
        Some(orders) => match orders.next().await {
            Some(command) => command,
            // A later connection of the agent has taken the desk.
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

impl Session<'_> {
    /// Welcomes the agent, unless an operator revoked the host in the instant
    /// between the look at its certificate and its entering.
    async fn begin(&mut self, welcome: Welcome) -> Result<(), End> {
        stand(self.controller, self.host, &self.serial).await?;
        send(&mut self.channel, &ControllerMessage::Welcome(welcome)).await?;
        self.tell_duties().await?;
        if self.protocol >= PROTOCOL_COMMANDS {
            self.orders = Some(self.controller.commands.enter(self.host));
        }
        Ok(())
    }

    /// Tells the agent what it is to do, unless it was told just that. One whose
    /// controller is lost goes on with what that said, until it is adopted.
    async fn tell_duties(&mut self) -> Result<(), End> {
        if self.protocol < PROTOCOL_REPLICATION {
            return Ok(());
        }
        let doing = format!("tell host {} its duties", self.name);
        let broken = |error| End::Broken(database_fault(&doing, &error));
        let database = &self.controller.database;
        if database.inherits(self.host).await.map_err(broken)? {
            return Ok(());
        }
        let duties = duties::current(database, self.host).await.map_err(broken)?;
        if self.duties.as_ref() == Some(&duties) {
            return Ok(());
        }
        debug!(host = %self.name, shipping = duties.shipping.len(), keeping = duties.keeping.len(), "duties");
        let word = ControllerMessage::Duties(Box::new(duties.clone()));
        send(&mut self.channel, &word).await?;
        self.duties = Some(duties);
        Ok(())
    }

    /// Serves the agent until something ends the session.
    async fn run(&mut self) -> End {
        let mut silence = Instant::now() + SILENCE_MAX;
        let mut noted = Instant::now();
        loop {
            let message = tokio::select! {
                received = self.channel.next() => match received {
                    Some(Ok(message)) => message,
                    Some(Err(error)) => return error.into(),
                    None => return End::Gone,
                },
                changed = self.duties_changed.changed() => {
                    changed.expect("the controller keeps the sender");
                    if let Err(end) = self.tell_duties().await {
                        return end;
                    }
                    continue;
                }
                command = next(&mut self.orders) => {
                    let word = ControllerMessage::Command(Box::new(command));
                    if let Err(end) = send(&mut self.channel, &word).await {
                        return end;
                    }
                    continue;
                }
                fault = self.place.told_to_end() => {
                    return End::Refused { fault, subject: self.name.clone() };
                }
                () = sleep_until(silence) => {
                    debug!(host = %self.name, "an agent fell silent");
                    return End::Gone;
                }
            };
            silence = Instant::now() + SILENCE_MAX;
            self.last_heard = OffsetDateTime::now_utc();
            if let Err(end) = self.apply(message).await {
                return end;
            }
            if noted.elapsed() >= HEARD_INTERVAL {
                noted = Instant::now();
                self.note_heard().await;
            }
        }
    }

    async fn apply(&mut self, message: AgentMessage) -> Result<(), End> {
        let database = &self.controller.database;
        let now = OffsetDateTime::now_utc();
        let broken = |doing: &str, error: DatabaseError| {
            End::Broken(database_fault(&format!("{doing} of host {}", self.name), &error))
        };
        match message {
            AgentMessage::Heartbeat { now: theirs } => {
                if let Some(theirs) = theirs {
                    self.place.clock_is_ahead_by(theirs - now, now);
                }
                send(&mut self.channel, &ControllerMessage::Heartbeat).await
            }
            AgentMessage::Inventory(inventory) => {
                debug!(host = %self.name, machines = inventory.machines.len(), "inventory");
                let renamed = database
                    .apply_inventory(self.host, *inventory, now)
                    .await
                    .map_err(|error| broken("keep the inventory", error))?;
                if renamed {
                    self.controller.duties.announce();
                }
                Ok(())
            }
            AgentMessage::HypervisorLost(lost) => {
                warn!(host = %self.name, reason = %lost.reason, "a hypervisor does not answer");
                database
                    .hypervisor_lost(self.host, lost.since, &lost.reason)
                    .await
                    .map_err(|error| broken("keep the state of the hypervisor", error))
            }
            AgentMessage::Replication(report) => {
                let connections = &self.controller.connections;
                let in_time = |host, label| connections.can_date(host, label);
                let changed = database
                    .apply_replication(self.host, *report, self.duties.as_ref(), in_time, now)
                    .await
                    .map_err(|error| broken("keep the report on replication", error))?;
                if changed {
                    self.controller.duties.announce();
                }
                Ok(())
            }
            AgentMessage::Answered(answered) => {
                if let Some(orders) = &self.orders {
                    orders.answered(*answered);
                }
                Ok(())
            }
            AgentMessage::Heritage { heritage } => {
                let done = database
                    .keep_heritage(self.host, &heritage)
                    .await
                    .map_err(|error| broken("keep what a lost controller left", error))?;
                if done {
                    return self.tell_duties().await;
                }
                Ok(())
            }
            AgentMessage::Renew { request } => self.renew(&request, now).await,
            other @ (AgentMessage::Enrol(_) | AgentMessage::Hello(_)) => Err(End::Refused {
                fault: Fault::new(
                    Code::ProtocolViolated,
                    format!("serve host {}", self.name),
                    format!("it said {:?} out of turn", other.kind()),
                    "Check that the agent is a released version of Lifeboat.",
                ),
                subject: self.name.clone(),
            }),
        }
    }

    async fn renew(&mut self, request: &str, now: OffsetDateTime) -> Result<(), End> {
        let doing = format!("renew the certificate of host {}", self.name);
        let life = self.controller.config.certificate_life;
        let issued =
            self.controller.authority.issue_to_host(self.host, request, life, now).map_err(
                |error| End::Refused {
                    fault: Fault::new(
                        Code::ProtocolViolated,
                        doing.clone(),
                        fault::chain(&error),
                        "Check that the agent is a released version of Lifeboat.",
                    ),
                    subject: self.name.clone(),
                },
            )?;
        self.controller
            .database
            .renewed(self.host, &self.serial, &issued)
            .await
            .map_err(|error| End::Broken(database_fault(&doing, &error)))?;
        info!(host = %self.name, expires = %issued.expires, "renewed a certificate");
        send(&mut self.channel, &ControllerMessage::Renewed { certificate: issued.certificate })
            .await
    }

    /// Writes down when the agent was last heard.
    async fn note_heard(&self) {
        if let Err(error) = self.controller.database.heard(self.host, self.last_heard).await {
            error!(%error, host = %self.name, "cannot write down when a host was last heard");
        }
    }
}

/// What an agent is told whose host was revoked.
pub(crate) fn revoked(host: &str) -> Fault {
    Fault::new(
        Code::HostRevoked,
        format!("let host {host} connect"),
        "the host was revoked by an operator",
        "If that was a mistake, make a token that replaces the host and enrol it again: lifeboat token enrolment --site SITE --replaces HOST.",
    )
}

pub(super) fn protocol_mismatch(doing: &str, theirs: ProtocolRange) -> Fault {
    let ours = ProtocolRange::OURS;
    Fault::new(
        Code::ProtocolMismatch,
        doing,
        format!(
            "the agent speaks versions {} to {} of the protocol, the controller {} to {}",
            theirs.oldest, theirs.newest, ours.oldest, ours.newest
        ),
        "Upgrade the older of the two.",
    )
}

pub(super) fn database_fault(doing: &str, error: &DatabaseError) -> Fault {
    Fault::new(
        Code::DatabaseUnusable,
        doing,
        fault::chain(error),
        "Look at the controller's log and its disk; agents come again by themselves.",
    )
}

async fn send(channel: &mut Channel, message: &ControllerMessage) -> Result<(), End> {
    match timeout(SILENCE_MAX, channel.send(message)).await {
        Err(_) => Err(End::Gone),
        Ok(sent) => Ok(sent?),
    }
}

/// Tells the agent why its session ends, if there is something to tell.
async fn tell(mut channel: Channel, end: End) -> Result<(), End> {
    let fault = match &end {
        End::Refused { fault, .. } => fault,
        End::Broken(fault) => {
            error!(%fault, "cannot serve an agent");
            fault
        }
        End::Gone => return Err(end),
    };
    let word = ControllerMessage::Refused(fault.clone().into());
    if send(&mut channel, &word).await.is_ok() {
        // Closing at once could overtake the word; see the farewell in `agents`.
        let _ = timeout(super::FAREWELL, channel.close()).await;
        let drained = async { while let Some(Ok(_)) = channel.next().await {} };
        let _ = timeout(super::FAREWELL, drained).await;
    }
    Err(end)
}
