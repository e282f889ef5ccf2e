//! The connection to the controller, kept for as long as the agent runs.
//!
//! ```text
//!   dialling ──Welcome──▶ connected ── inventory at once, then at each change
//!      ▲   ▲                 │         heartbeat every HEARTBEAT_INTERVAL
//!      │   └── silence, close, error (retried within 2 s)
//!      └────── refused (retried every REFUSED_PAUSE: an operator must act)
//! ```

use std::sync::Arc;
use std::time::Duration;

use domain::fault::Fault;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tracing::{debug, info, warn};
use uuid::Uuid;
use wire::message::{
    AgentMessage, ControllerMessage, HEARTBEAT_INTERVAL, Hello, HypervisorLost, PROTOCOL_HERITAGE,
    PROTOCOL_REPLICATION, ProtocolRange, SILENCE_MAX,
};
use wire::replication::{Duties, Replication};

use crate::backoff::Backoff;
use crate::commands::Executor;
use crate::commands::attending::Attending;
use crate::commands::work::Means;
use crate::heritage;
use crate::hypervisor::Observation;
use crate::identity::{Identity, StateFolder};
use crate::peer::Passport;
use crate::status::{self, ConnectionStatus};
use dial::{Channel, DialError};
use renewal::Renewal;

pub mod dial;
mod renewal;
pub mod request;

/// The pause after a refusal, which only an operator can mend.
const REFUSED_PAUSE: Duration = Duration::from_secs(15);

/// Keeps the connection for ever.
pub struct Keeper {
    /// Who this host is; renewed in place.
    pub identity: Identity,
    /// Where it is kept.
    pub folder: Arc<StateFolder>,
    /// The controller's address.
    pub controller: String,
    /// What the agent sees.
    pub observations: watch::Receiver<Observation>,
    /// Where other agents reach this one.
    pub peer_address: String,
    /// What the controller says that this host is to do.
    pub duties: watch::Sender<Option<Duties>>,
    /// How replication is.
    pub reports: watch::Receiver<Replication>,
    /// Who this host is to other agents.
    pub passport: watch::Sender<Passport>,
    /// Whether the controller understands reports of replication.
    pub tells_replication: bool,
    /// Does what the controller commands.
    pub commands: Executor<Means>,
}

impl Keeper {
    /// Runs until the task is dropped.
    pub async fn run(mut self) {
        let instance = Uuid::new_v4();
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(2));
        let mut last_fault: Option<Fault> = None;
        loop {
            let error = match self.connect(instance).await {
                Ok(channel) => {
                    backoff.reset();
                    last_fault = None;
                    let Err(error) = self.serve(channel).await;
                    error
                }
                Err(error) => error,
            };
            let pause =
                if error.needs_an_operator() { REFUSED_PAUSE } else { backoff.next_pause() };
            let doing = format!("keep the connection to the controller at {}", self.controller);
            let fault = error.into_fault(&doing, &self.controller);
            if last_fault.as_ref() == Some(&fault) {
                debug!(%fault, "still not connected");
            } else {
                warn!(code = %fault.code, cause = %fault.cause, advice = %fault.advice,
                    controller = %self.controller, "not connected to the controller");
                status::write(&self.folder, ConnectionStatus::not_connected(&fault));
                last_fault = Some(fault);
            }
            sleep(pause).await;
        }
    }

    async fn connect(&mut self, instance: Uuid) -> Result<Channel, DialError> {
        let tls = wire::tls::enrolled_agent(&self.identity.credentials, &self.identity.authority)
            .map_err(|error| DialError::Unreachable(std::io::Error::other(error)))?;
        let mut channel = dial::dial(&self.controller, tls).await?;
        let hello = AgentMessage::Hello(Hello {
            protocol: ProtocolRange::OURS,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            instance,
            peer_address: Some(self.peer_address.clone()),
        });
        dial::send(&mut channel, &hello).await?;
        match dial::receive(&mut channel).await? {
            ControllerMessage::Welcome(welcome) => {
                self.tells_replication = welcome.protocol >= PROTOCOL_REPLICATION;
                info!(controller = %self.controller, host = %welcome.name, site = %welcome.site, "connected");
                self.identity.name = welcome.name;
                self.identity.site = welcome.site;
                let connected = ConnectionStatus::Connected { since: OffsetDateTime::now_utc() };
                status::write(&self.folder, connected);
                if welcome.protocol >= PROTOCOL_HERITAGE
                    && let Some(heritage) = heritage::to_tell(&self.folder)
                {
                    dial::send(&mut channel, &AgentMessage::Heritage { heritage }).await?;
                }
                Ok(channel)
            }
            ControllerMessage::Refused(refused) => Err(DialError::Refused(refused)),
            other => Err(DialError::Unexpected(other.kind())),
        }
    }

    /// Serves a connection to its end.
    async fn serve(&mut self, mut channel: Channel) -> Result<std::convert::Infallible, DialError> {
        use futures::StreamExt as _;
        let mut heartbeat = interval(HEARTBEAT_INTERVAL);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut silence = Instant::now() + SILENCE_MAX;
        let mut renewal = Renewal::default();
        // Of commands that came on an earlier connection nothing is said here.
        let mut attending = Attending::new(self.commands.clone());
        // The controller knows nothing of what was seen while it was away.
        self.observations.mark_changed();
        self.reports.mark_changed();
        loop {
            let message = tokio::select! {
                received = channel.next() => {
                    silence = Instant::now() + SILENCE_MAX;
                    match received.ok_or(DialError::Closed)?? {
                        ControllerMessage::Heartbeat => None,
                        ControllerMessage::Renewed { certificate } => {
                            if renewal.finish(certificate, &mut self.identity, &self.folder) {
                                self.passport.send_replace(Passport::of(&self.identity));
                            }
                            None
                        }
                        ControllerMessage::Duties(duties) => {
                            self.duties.send_replace(Some(*duties));
                            None
                        }
                        ControllerMessage::Command(command) => {
                            attending.take(*command);
                            None
                        }
                        ControllerMessage::Refused(refused) => return Err(DialError::Refused(refused)),
                        other => return Err(DialError::Unexpected(other.kind())),
                    }
                }
                changed = self.observations.changed() => {
                    changed.expect("the watch task never ends");
                    report(&self.observations.borrow_and_update())
                }
                changed = self.reports.changed(), if self.tells_replication => {
                    changed.expect("the duties are performed for ever");
                    let report = self.reports.borrow_and_update().clone();
                    // First the clock that labelled what is told.
                    dial::send(&mut channel, &alive()).await?;
                    Some(AgentMessage::Replication(Box::new(report)))
                }
                answered = attending.next() => Some(AgentMessage::Answered(Box::new(answered))),
                _ = heartbeat.tick() => Some(
                    renewal
                        .begin_if_due(&self.identity, OffsetDateTime::now_utc())
                        .unwrap_or_else(alive),
                ),
                () = sleep_until(silence) => return Err(DialError::Silence),
            };
            if let Some(message) = message {
                dial::send(&mut channel, &message).await?;
            }
        }
    }
}

fn alive() -> AgentMessage {
    AgentMessage::Heartbeat { now: Some(OffsetDateTime::now_utc()) }
}

/// What is told of an observation.
fn report(observation: &Observation) -> Option<AgentMessage> {
    match observation {
        Observation::Nothing => None,
        Observation::Seen { inventory, at } => Some(AgentMessage::Inventory(Box::new(
            wire::inventory::Inventory::new((**inventory).clone(), *at),
        ))),
        Observation::NotAnswering { since, reason } => {
            Some(AgentMessage::HypervisorLost(HypervisorLost {
                since: *since,
                reason: reason.clone(),
            }))
        }
    }
}
