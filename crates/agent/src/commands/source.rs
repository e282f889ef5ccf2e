//! A machine on its own disks: shutting it down, fencing it, starting it.

use std::time::Duration;

use domain::fault::{Code, Fault};
use domain::id::MachineUuid;
use domain::machine::{GuestAgent, PowerState};
use tokio::time::{Instant, sleep};
use tracing::debug;
use wire::command::{Answer, Downed};

use super::work::Means;
use crate::hypervisor::libvirt::xml::machine::{Aspects, parse};
use crate::hypervisor::libvirt::{LibvirtError, Operator, Power};
use crate::hypervisor::operating::{Operating, START_LIMIT};

/// Between two looks whether a machine is off.
const LOOK: Duration = Duration::from_millis(250);
/// A guest that does not go is asked again by its power button: one that is
/// still booting hears it late.
const ASK_AGAIN: Duration = Duration::from_secs(15);
/// A machine whose guest agent answers for so long is not on its way down.
const SETTLED: Duration = Duration::from_secs(5);
/// Nor is one that has run for so long, whoever answers.
const SETTLED_AT_LAST: Duration = Duration::from_secs(60);

/// Shuts a machine down in order, within a limit.
pub(super) async fn shut_down(
    means: &Means,
    machine: MachineUuid,
    within: Duration,
    force: bool,
) -> Result<Answer, Fault> {
    let doing = format!("shut down machine {machine}");
    let down = |how| Ok(Answer::Down { how });
    let operating = &means.operating;
    let _calm = means.capture.calm.hold(machine).await;
    let begun = Instant::now();
    let mut asked: Option<Instant> = None;
    loop {
        let seen = operating.ask(&doing, move |operator: &Operator| power(operator, machine)).await;
        match (seen, asked) {
            (Ok(Power::On), _) => {}
            (Ok(Power::Off), None) => return down(Downed::WasOff),
            // One that libvirt does not keep is gone with its end.
            (Ok(Power::Off | Power::Unknown), Some(_)) => return down(Downed::InOrder),
            (Ok(Power::Unknown), None) => {
                return Err(Fault::new(
                    Code::MachineGone,
                    doing,
                    "the hypervisor has no such machine",
                    "If it was moved to another host, look for it there: virsh list --all.",
                ));
            }
            (Err(fault), _) if begun.elapsed() >= within => return Err(fault),
            (Err(_), _) => {}
        }
        if begun.elapsed() >= within {
            break;
        }
        if asked.is_none_or(|at| at.elapsed() >= ASK_AGAIN) {
            let first = asked.is_none();
            let ask = move |operator: &Operator| ask_to_go(operator, machine, first);
            match operating.ask(&doing, ask).await {
                Ok(()) => {}
                // It is looked at again, and asked again.
                Err(fault) => debug!(%machine, %fault, "the guest was not asked to shut down"),
            }
            asked = Some(Instant::now());
        }
        sleep(LOOK.min(within.saturating_sub(begun.elapsed()))).await;
    }
    if !force {
        return Err(Fault::new(
            Code::MachineStaysUp,
            doing,
            format!("it still runs after {} s", within.as_secs()),
            "See inside the guest what holds it up, give it more time, or allow it to be switched off.",
        ));
    }
    let stopped =
        operating.ask(&doing, move |operator: &Operator| operator.destroy(machine)).await?;
    down(if stopped { Downed::Forced } else { Downed::InOrder })
}

fn power(operator: &Operator, machine: MachineUuid) -> Result<Power, LibvirtError> {
    operator.power(machine)
}

/// By its agent the first time, if one listens; else by its power button.
fn ask_to_go(operator: &Operator, machine: MachineUuid, first: bool) -> Result<(), LibvirtError> {
    let aspects = Aspects { power: PowerState::Running, persistent: true, autostart: false };
    let agent = parse(&operator.xml(machine)?, aspects)?.guest_agent;
    if first && agent == GuestAgent::Connected && operator.ask_to_shut_down(machine, true).is_ok() {
        return Ok(());
    }
    operator.ask_to_shut_down(machine, false)
}

/// The machine is another side's from this epoch on.
pub(super) async fn fence(
    means: &Means,
    machine: MachineUuid,
    epoch: u64,
) -> Result<Answer, Fault> {
    let _turn = means.epochs.stopping().await;
    // Before anything is done: who is asked from now on knows.
    means.epochs.heed(machine, epoch, false)?;
    let doing = format!("stop machine {machine} for good");
    let (stopped, autostart, power) = means
        .operating
        .ask(&doing, move |operator: &Operator| {
            let autostart = operator.drop_autostart(machine)?;
            let stopped = operator.destroy(machine)?;
            Ok((stopped, autostart, operator.power(machine)?))
        })
        .await?;
    if power == Power::On {
        return Err(Fault::new(
            Code::HypervisorRefused,
            doing,
            "it was started again at once",
            "See who starts it, and run it again: the agent switches it off from now on.",
        ));
    }
    if autostart {
        means.epochs.note_autostart(machine)?;
    }
    Ok(Answer::Down { how: if stopped { Downed::Forced } else { Downed::WasOff } })
}

/// The machine is this host's in this epoch, and runs from its own disks.
pub(super) async fn start(
    means: &Means,
    machine: MachineUuid,
    epoch: u64,
) -> Result<Answer, Fault> {
    means.epochs.heed(machine, epoch, true)?;
    let doing = format!("start machine {machine}");
    let start = move |operator: &Operator| {
        let was_on = operator.power(machine)? == Power::On;
        operator.start(machine).map(|()| was_on)
    };
    while means.operating.ask_within(START_LIMIT, &doing, start).await? {
        if stays_on(&means.operating, &doing, machine).await? {
            break;
        }
    }
    Ok(Answer::Done)
}

/// Whether a machine that was found running goes on with that: it may be on its
/// way down, as a command of before has asked it to.
async fn stays_on(operating: &Operating, doing: &str, machine: MachineUuid) -> Result<bool, Fault> {
    let begun = Instant::now();
    let mut answers_since: Option<Instant> = None;
    while begun.elapsed() < SETTLED_AT_LAST {
        let look = move |operator: &Operator| {
            let power = operator.power(machine)?;
            Ok((power, power == Power::On && operator.guest_answers(machine)?))
        };
        match operating.ask(doing, look).await? {
            (Power::On, true) => {
                let since = *answers_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= SETTLED {
                    return Ok(true);
                }
            }
            // What ends a guest agent may end the machine.
            (Power::On, false) => answers_since = None,
            (Power::Off | Power::Unknown, _) => return Ok(false),
        }
        sleep(LOOK).await;
    }
    Ok(true)
}
