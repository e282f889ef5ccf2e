//! The agent at work.

use domain::fault::{Code, Fault};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::config::Config;
use crate::connection::Keeper;
use crate::hypervisor::{self, Observation};
use crate::identity::StateFolder;
use crate::status::{self, ConnectionStatus};

/// Runs the agent until it is told to stop (SIGTERM or SIGINT).
///
/// A hypervisor or a controller that is not there is waited for; only what
/// cannot mend itself ends the agent.
///
/// # Errors
/// When the state folder cannot be used, the host is not enrolled, or the
/// hypervisor's URI makes no sense.
pub async fn run(config: Config) -> Result<(), Fault> {
    // First of all, so that it stops in order whenever it is told to.
    let listen = |kind| signal(kind).map_err(|error| Fault::internal("listen for signals", &error));
    let (mut terminated, mut interrupted) =
        (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let stopped = tokio::select! {
        ended = work(config) => ended,
        _ = terminated.recv() => Ok(()),
        _ = interrupted.recv() => Ok(()),
    };
    if stopped.is_ok() {
        info!("the agent stops");
    }
    stopped
}

/// Works until it is dropped, or until something ends it that cannot mend
/// itself.
async fn work(config: Config) -> Result<(), Fault> {
    let folder = StateFolder::open(&config.state_folder)?;
    let Some(identity) = folder.identity()? else {
        let fault = Fault::new(
            Code::NotEnrolled,
            "run the agent",
            format!("this host is not enrolled: {} says nothing", config.state_folder.display()),
            "Enrol it with: lifeboat agent enrol --controller HOST:PORT --token-file FILE.",
        );
        folder.discard();
        return Err(fault);
    };
    status::write(&folder, ConnectionStatus::Starting);
    match hypervisor::look_once(&config.hypervisor).await {
        Ok(_) => {}
        Err(fault) if fault.code == Code::HypervisorNotAnswering => {
            warn!(%fault, "waiting for the hypervisor");
        }
        Err(fault) => return Err(fault),
    }
    let (observe, observations) = watch::channel(Observation::Nothing);
    let controller = config.controller.unwrap_or_else(|| identity.controller.clone());
    info!(host = %identity.name, site = %identity.site, %controller, hypervisor = %config.hypervisor, "the agent starts");
    let keeper = Keeper { identity, folder, controller, observations };
    tokio::select! {
        () = hypervisor::watch(config.hypervisor, observe) => Ok(()),
        () = keeper.run() => Ok(()),
    }
}
