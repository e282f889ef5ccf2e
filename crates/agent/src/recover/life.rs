//! Starting and stopping a machine that was made of a point, and seeing whether
//! it lives.

use std::time::Duration;

use domain::fault::{Code, Fault};
use domain::units::milliseconds;
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};
use uuid::Uuid;
use wire::command::{Answer, Downed, LifeSign};

use super::Recoveries;
use super::record::{Record, Stage};
use crate::hypervisor::libvirt::xml::machine::{Aspects, parse};
use crate::hypervisor::libvirt::{Operator, Power};
use crate::hypervisor::operating::START_LIMIT;
use domain::machine::{GuestAgent, PowerState};

/// Between two looks for a sign of life.
const LOOK: Duration = Duration::from_millis(500);
/// A machine without a guest agent lives if it has run for so long and its disks
/// were used in two looks.
const RUN_AT_LEAST: Duration = Duration::from_secs(5);

impl Recoveries {
    /// Starts the machine. With an epoch, it is this host's in that epoch, which
    /// is durable first. May be repeated.
    ///
    /// # Errors
    /// [`Code::EpochStale`] when it belongs to another side since; when it cannot
    /// be started.
    pub async fn start(&self, id: Uuid, epoch: Option<u64>) -> Result<Answer, Fault> {
        let _turn = self.turn(id).await;
        let mut record = self.known("start a recovered machine", id)?;
        let doing = format!("start the recovered machine {}", record.name);
        record.must_be_made(&doing)?;
        let machine = record.machine();
        if let Some(epoch) = epoch {
            self.0.epochs.heed(machine, epoch, true)?;
        } else if self.0.epochs.is_anothers(machine) {
            return Err(Fault::new(
                Code::EpochStale,
                doing,
                "the machine is another side's",
                "Look at where the machine stands before anything else is done with it.",
            ));
        }
        if record.starts_with_host {
            // As there, so here; the agent starts it, once the controller confirms.
            self.0.epochs.note_autostart(machine)?;
        }
        if record.stage == Stage::Defined {
            self.serve(&record).await?;
        }
        if self.power(&doing, &record).await? != Power::On {
            record.started = Some(milliseconds(OffsetDateTime::now_utc()));
            self.0.records.keep(&record)?;
        }
        self.0.operating.ask_within(START_LIMIT, &doing, move |o| o.start(machine)).await?;
        Ok(Answer::Done)
    }

    async fn power(&self, doing: &str, record: &Record) -> Result<Power, Fault> {
        let machine = record.machine();
        self.0.operating.ask(doing, move |operator: &Operator| operator.power(machine)).await
    }

    /// Takes the machine's power away. May be repeated; one that is not there has
    /// none.
    ///
    /// # Errors
    /// What the hypervisor says.
    pub async fn stop(&self, id: Uuid) -> Result<Answer, Fault> {
        let _turn = self.turn(id).await;
        let Some(record) = self.0.records.read(id)? else {
            return Ok(Answer::Down { how: Downed::WasOff });
        };
        let doing = format!("stop the recovered machine {}", record.name);
        if !self.is_defined(&doing, &record).await? {
            return Ok(Answer::Down { how: Downed::WasOff });
        }
        let machine = record.machine();
        let stopped = self.0.operating.ask(&doing, move |o: &Operator| o.destroy(machine)).await?;
        let how = if stopped { Downed::Forced } else { Downed::WasOff };
        Ok(Answer::Down { how })
    }

    /// Waits until the machine gives a sign of life: its guest agent answers; or,
    /// if it has no channel for one, or none answers up to the limit, it runs and
    /// uses its disks.
    ///
    /// # Errors
    /// [`Code::NoSignOfLife`] when there is none in time, or it stopped.
    pub async fn await_life(&self, id: Uuid, within: Duration) -> Result<Answer, Fault> {
        let record = self.known("wait for a sign of life", id)?;
        let doing = format!("wait for a sign of life of {}", record.name);
        let none = |cause: String| {
            Fault::new(
                Code::NoSignOfLife,
                &doing,
                cause,
                "Look at its console; if it cannot boot, choose an earlier point, or one that is application-consistent.",
            )
        };
        let begun = Instant::now();
        let mut watch = DiskWatch::default();
        loop {
            let machine = record.machine();
            let targets = record.targets();
            let seen = self
                .0
                .operating
                .ask(&doing, move |operator: &Operator| look(operator, machine, &targets))
                .await?;
            let Some(seen) = seen else {
                return Err(none("it has stopped by itself".into()));
            };
            let lives = match seen.agent {
                Agent::Answers => Some(LifeSign::GuestAgent),
                Agent::NoChannel if watch.lives(begun, seen.requests) => Some(LifeSign::Disks),
                Agent::NoChannel => None,
                Agent::Silent => {
                    let lives = watch.lives(begun, seen.requests);
                    (lives && begun.elapsed() >= within).then_some(LifeSign::Disks)
                }
            };
            if let Some(by) = lives {
                let now = milliseconds(OffsetDateTime::now_utc());
                let started = record.started.unwrap_or(now);
                let after_ms = u64::try_from(now - started).unwrap_or(0);
                return Ok(Answer::Alive { by, after_ms });
            }
            if begun.elapsed() >= within {
                return Err(none(format!(
                    "neither its guest agent answered nor were its disks at work within {} s",
                    within.as_secs()
                )));
            }
            sleep(LOOK.min(within.saturating_sub(begun.elapsed()))).await;
        }
    }
}

/// What is seen of a machine that runs.
struct Seen {
    agent: Agent,
    requests: u64,
}

enum Agent {
    NoChannel,
    Silent,
    Answers,
}

/// None when it does not run.
fn look(
    operator: &Operator,
    machine: domain::id::MachineUuid,
    targets: &[String],
) -> Result<Option<Seen>, crate::hypervisor::libvirt::LibvirtError> {
    if operator.power(machine)? != Power::On {
        return Ok(None);
    }
    let aspects = Aspects { power: PowerState::Running, persistent: true, autostart: false };
    let agent = match parse(&operator.xml(machine)?, aspects)?.guest_agent {
        GuestAgent::NoChannel => Agent::NoChannel,
        // The channel is open; somebody may listen, or have gone.
        GuestAgent::Connected if operator.guest_answers(machine)? => Agent::Answers,
        GuestAgent::Connected | GuestAgent::NotAnswering => Agent::Silent,
    };
    let requests = operator.disk_requests(machine, targets).unwrap_or(0);
    Ok(Some(Seen { agent, requests }))
}

/// Whether disks are used again and again.
#[derive(Debug, Default)]
struct DiskWatch {
    last: Option<u64>,
    grown: u32,
}

impl DiskWatch {
    fn lives(&mut self, begun: Instant, requests: u64) -> bool {
        if self.last.is_some_and(|last| requests > last) {
            self.grown += 1;
        }
        self.last = Some(requests);
        self.grown >= 2 && begun.elapsed() >= RUN_AT_LEAST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn disks_that_are_used_for_a_while_are_a_sign_of_life() {
        let begun = Instant::now();
        let mut watch = DiskWatch::default();
        for requests in [0, 10, 10, 20, 30] {
            assert!(!watch.lives(begun, requests), "too early");
        }
        sleep(RUN_AT_LEAST).await;
        assert!(watch.lives(begun, 30));
        let mut silent = DiskWatch::default();
        assert!((0..9).all(|_| !silent.lives(begun, 7)));
    }
}
