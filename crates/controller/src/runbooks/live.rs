//! The world as it is: the database, and agents that are connected.

use std::sync::{Arc, OnceLock};

use domain::failover::{Event, Standing, Tests};
use domain::fault::Code;
use domain::id::{HostId, MachineId, ProtectionId};
use domain::machine::PowerState;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use jobs::{Asked, Engine, Failure, Fault, JobId, Progress, Ticket};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use uuid::Uuid;
use wire::command::{Answer, Command, Work};

use super::reverse::ReverseReplicate;
use super::{Host, NotGiven, Order, Protected, World};
use crate::agents::commands::CommandError;
use crate::agents::{Commands, DutiesChanged};
use crate::database::failover::{Along, HappenError};
use crate::database::{Database, DatabaseError};

/// The world as it is.
pub struct Live {
    database: Database,
    commands: Commands,
    duties: DutiesChanged,
    /// Takes the jobs that jobs order, once it has started.
    engine: Arc<OnceLock<Engine>>,
}

impl Live {
    /// That of a controller.
    #[must_use]
    pub const fn new(
        database: Database,
        commands: Commands,
        duties: DutiesChanged,
        engine: Arc<OnceLock<Engine>>,
    ) -> Self {
        Self { database, commands, duties, engine }
    }

    async fn find(&self, id: ProtectionId, at: Option<HostId>) -> Result<Protected, DatabaseError> {
        let stored = self.database.protection(&id.to_string()).await?;
        let hosts = self.database.hosts().await?;
        let row = |host| hosts.iter().find(|row| row.id().is_ok_and(|id| id == host));
        let name =
            |host| row(host).and_then(|row| row.reference().ok()).map(|reference| reference.name);
        let host = |id| Host { id, name: name(id).unwrap_or_else(|| id.to_string()) };
        let machine = MachineId::on_host(stored.source, stored.machine);
        let seen = self.database.machine_at(machine).await?;
        let ran = seen
            .map(|(machine, _)| !matches!(machine.power, PowerState::Off | PowerState::Crashed));
        Ok(Protected {
            machine: stored.machine,
            name: stored.machine_name.clone(),
            source: host(stored.source),
            target: host(stored.target),
            target_address: row(stored.target).and_then(|row| row.peer_address()).map(Into::into),
            borrower: at.or(stored.compute).filter(|at| *at != stored.target).map(host),
            // What is under way knows its own tests.
            standing: stored.standing(Tests::default()),
            recovery: stored.failover.recovery,
            at_commit: (stored.policy.hydration, stored.policy.points_at_commit),
            unsent: stored.failover.unsent,
            ran,
        })
    }
}

fn database_fault(doing: &str, error: &DatabaseError) -> Fault {
    Fault::new(
        Code::DatabaseUnusable.as_str(),
        doing,
        domain::fault::chain(error),
        "Look at the controller's log and its disk; the job goes on by itself.",
    )
}

impl World for Live {
    fn look(
        &self,
        id: ProtectionId,
        at: Option<HostId>,
    ) -> BoxFuture<'_, Result<Protected, Fault>> {
        async move {
            let found = self.find(id, at).await;
            found.map_err(|error| database_fault(&format!("look at protection {id}"), &error))
        }
        .boxed()
    }

    fn happen<'a>(
        &'a self,
        id: ProtectionId,
        event: Event,
        along: Along,
        by: &'a str,
    ) -> BoxFuture<'a, Result<Standing, Failure>> {
        async move {
            let by = (by, OffsetDateTime::now_utc());
            let happened = self.database.happen(id, &event, Tests::default(), along, by).await;
            let standing = happened.map_err(|error| match error {
                HappenError::Refused(refusal) => Failure::ForGood(Fault::new(
                    Code::StateForbids.as_str(),
                    format!("go on with a machine that is {}", refusal.state),
                    refusal.reason,
                    refusal.advice,
                )),
                HappenError::Database(error) => {
                    database_fault("write down where a machine stands", &error).into()
                }
            })?;
            self.duties.announce();
            Ok(standing)
        }
        .boxed()
    }

    fn let_go(&self, id: ProtectionId) -> BoxFuture<'_, Result<(), Fault>> {
        async move {
            let done = self.database.let_go(id).await;
            done.map_err(|error| database_fault("let shipping go on", &error))?;
            self.duties.announce();
            Ok(())
        }
        .boxed()
    }

    fn reverse<'a>(
        &'a self,
        order: &'a Order,
        job: JobId,
        parent: JobId,
    ) -> BoxFuture<'a, Result<(), Fault>> {
        async move {
            let failed = |doing: String, cause: String| {
                let advice = "It is tried again by itself; or reverse by hand: lifeboat reverse.";
                Fault::new(Code::Internal.as_str(), doing, cause, advice)
            };
            let machine = self.look(order.protection(), None).await?;
            let doing = format!("order the reversal of machine {}", machine.name);
            let Some(engine) = self.engine.get() else {
                return Err(failed(doing, "the engine is only starting".into()));
            };
            let mut asked = Asked::new(order.by.clone(), format!("machine {}", machine.name));
            asked.parent = Some(parent);
            let reversal = Order::new(order.protection, order.by.clone(), job.uuid());
            let ordered = engine.order::<ReverseReplicate>(job, asked, &reversal).await;
            ordered.map_err(|refused| failed(doing, refused.to_string()))
        }
        .boxed()
    }

    fn give<'a>(
        &'a self,
        host: &'a Host,
        ticket: &'a Ticket,
        work: Work,
        report: &'a (dyn Fn(Progress) + Send + Sync),
    ) -> BoxFuture<'a, Result<Answer, NotGiven>> {
        async move {
            let command = Command { id: command_id(ticket, &work), job: ticket.job.uuid(), work };
            let told = |far: wire::replication::Progress| {
                report(Progress {
                    text: format!("working at host {}", host.name),
                    done: far.done,
                    total: Some(far.total),
                    bytes_per_second: None,
                });
            };
            self.commands.reach(host.id).await;
            self.commands.give(host.id, command, told).await.map_err(|error| match error {
                CommandError::NotConnected => NotGiven::NotConnected(Fault::new(
                    Code::SideNotReachable.as_str(),
                    format!("reach host {}", host.name),
                    format!("the agent of {} is not connected, or too old", host.name),
                    "Bring it back; see: lifeboat host list.",
                )),
                CommandError::Failed(refused) => NotGiven::Failed(Fault::new(
                    refused.code,
                    refused.doing,
                    refused.cause,
                    refused.advice,
                )),
            })
        }
        .boxed()
    }
}

/// The same for the same attempt of the same step, and for nothing else.
fn command_id(ticket: &Ticket, work: &Work) -> Uuid {
    let mut hash = Sha256::new();
    hash.update(ticket.job.uuid());
    hash.update(ticket.step);
    hash.update(ticket.attempt.to_le_bytes());
    hash.update(serde_json::to_vec(work).expect("work is plain"));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.finalize()[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}
