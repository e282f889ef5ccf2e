//! The agent at work.

use std::sync::Arc;
use std::time::Duration;

use domain::fault::{Code, Fault};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{info, warn};
use wire::replication::Replication;

use crate::capture::CaptureSettings;
use crate::commands::work::Means;
use crate::commands::{Executor, control};
use crate::config::Config;
use crate::connection::Keeper;
use crate::duties;
use crate::epochs::owners::Owners;
use crate::epochs::{self, Epochs};
use crate::hypervisor::operating::Operating;
use crate::hypervisor::{self, Observation};
use crate::identity::{Identity, StateFolder};
use crate::keep::Keepers;
use crate::peer::{self, Passport};
use crate::recover::Recoveries;
use crate::recover::loans::{self, Loans};
use crate::recover::record::{self, Records};
use crate::ship::folder::Courses;
use crate::ship::throttle::Line;
use crate::ship::{Surroundings, Wishes};
use crate::status::{self, ConnectionStatus};

/// How long the start waits for the hypervisor, to tell of what an operator must
/// mend. It may itself wait for this agent: a QEMU that starts reads from it.
const FIRST_LOOK: Duration = Duration::from_secs(3);

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
    match timeout(FIRST_LOOK, hypervisor::look_once(&config.hypervisor)).await {
        Ok(Ok(_)) => {}
        Ok(Err(fault)) if fault.code == Code::HypervisorNotAnswering => {
            warn!(%fault, "waiting for the hypervisor");
        }
        Ok(Err(fault)) => return Err(fault),
        Err(_) => warn!("the hypervisor takes its time; going on without it"),
    }
    let (observe, observations) = watch::channel(Observation::Nothing);
    let controller = config.controller.clone().unwrap_or_else(|| identity.controller.clone());
    let keepers = Keepers::new(&config.store_folder);
    let (tell_passport, passport) = watch::channel(Passport::of(&identity));
    let (tell_duties, learned) = watch::channel(None);
    let (tell_reports, reports) = watch::channel(Replication::default());
    let epochs = Epochs::in_folder(&config.state_folder.join("epochs"))?;
    let around = surroundings(&config, &identity, &epochs, passport.clone(), observations.clone())?;
    let operating = Operating::at(&config.hypervisor);
    // Before any point can be dropped: it pins those that machines stand on.
    let recoveries = Recoveries::open(
        Records::in_folder(config.state_folder.join(record::FOLDER)),
        config.recovery_folder.clone(),
        operating.clone(),
        keepers.clone(),
        epochs.clone(),
        passport.clone(),
    )?;
    let loans = Loans::open(config.state_folder.join(loans::FOLDER), keepers.clone())?;
    let commands = Executor::new(Means {
        hypervisor: config.hypervisor.clone(),
        capture: around.capture.clone(),
        operating: operating.clone(),
        epochs: epochs.clone(),
        recoveries: recoveries.clone(),
        loans: loans.clone(),
        keepers: keepers.clone(),
        wishes: around.wishes.clone(),
    });
    let folder = Arc::new(folder);
    let owners =
        Owners::new(epochs.clone(), operating.clone(), &config.state_folder.join("epochs"));
    let performed = duties::perform(
        Arc::clone(&folder),
        around,
        keepers.clone(),
        (owners, Duration::from_secs(config.alone_after_seconds)),
        learned,
        tell_reports,
    );
    let served_again = async move {
        recoveries.resume().await;
        std::future::pending::<()>().await;
    };
    let watched = epochs::watch::watch(epochs, observations.clone(), operating);
    let controlled = control::serve(config.state_folder.clone(), commands.clone());
    info!(host = %identity.name, site = %identity.site, %controller, hypervisor = %config.hypervisor, "the agent starts");
    let port = config.listen.rsplit(':').next().unwrap_or_default().to_owned();
    let keeper = Keeper {
        identity,
        folder,
        controller,
        observations,
        peer_address: config.peer_address.unwrap_or_else(|| format!(":{port}")),
        duties: tell_duties,
        reports,
        passport: tell_passport,
        tells_replication: false,
        commands,
    };
    tokio::select! {
        () = hypervisor::watch(config.hypervisor, observe) => Ok(()),
        () = keeper.run() => Ok(()),
        () = peer::serve(&config.listen, passport, keepers, loans) => Ok(()),
        () = performed => Ok(()),
        () = served_again => Ok(()),
        () = watched => Ok(()),
        () = controlled => Ok(()),
    }
}

/// What all machines that are shipped have in common.
fn surroundings(
    config: &Config,
    identity: &Identity,
    epochs: &Epochs,
    passport: watch::Receiver<Passport>,
    observations: watch::Receiver<Observation>,
) -> Result<Surroundings, Fault> {
    let courses = config.state_folder.join("courses");
    let courses = Courses::in_folder(&courses).map_err(|error| {
        Fault::new(
            Code::DataFolderUnusable,
            format!("make {}", courses.display()),
            error.to_string(),
            "Make room in the folder and make it writable for the agent's user.",
        )
    })?;
    Ok(Surroundings {
        hypervisor: config.hypervisor.clone(),
        capture: CaptureSettings {
            scratch_limit: config.scratch_limit_mib << 20,
            epochs: Some(epochs.clone()),
            ..CaptureSettings::in_folder(&config.capture_folder)
        },
        courses,
        passport,
        host: identity.name.clone(),
        observations,
        changed: watch::Sender::new(()),
        line: Line::of(Some(config.shipping_limit_mib << 20)),
        wishes: Wishes::default(),
    })
}
