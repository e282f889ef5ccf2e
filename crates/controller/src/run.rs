//! The controller at work.

use std::collections::BTreeSet;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use domain::fault::{Code, Fault};
use domain::id::TokenId;
use domain::token::{Role, Secret, TokenText};
use time::OffsetDateTime;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::Controller;
use crate::agents::{self, Commands, Connections, DutiesChanged};
use crate::api;
use crate::authority::Authority;
use crate::config::Config;
use crate::data_folder::{self, DataFolder};
use crate::database::tokens::NewApiToken;
use crate::database::{Database, DatabaseError};
use crate::events;
use crate::history;
use crate::metrics::Metrics;
use crate::runbooks;

/// How long requests that are under way may take when the controller stops.
const GRACE: Duration = Duration::from_secs(5);

/// Runs the controller until it is told to stop (SIGTERM or SIGINT).
///
/// # Errors
/// Whatever keeps it from starting; nothing is left half-made then.
pub async fn run(config: Config) -> Result<(), Fault> {
    // The addresses first: a busy port is found before anything is made.
    let api_listener = listen(config.api_address, "the API")?;
    let agent_listener = listen(config.agent_address, "agents")?;
    let folder = DataFolder::open(&config.data_folder)?;
    let database = Database::open(&folder.database()).await?;
    let now = OffsetDateTime::now_utc();
    let authority = Authority::open(&folder, now)?;
    let names = names(&config);
    let credentials = authority.issue_to_controller(&names, now).map_err(|error| {
        Fault::new(
            Code::ConfigInvalid,
            format!("issue the controller's certificate for {}", names.join(", ")),
            error.to_string(),
            "Give only names and addresses as public_names.",
        )
    })?;
    let authority_pem = authority.certificate().to_owned();
    let (commands, duties) = (Commands::default(), DutiesChanged::default());
    let engine = runbooks::start(&database, &commands, &duties).await.map_err(|fault| {
        Fault::new(Code::DatabaseUnusable, fault.doing, fault.cause, fault.advice)
    })?;
    let controller = Controller {
        config: Arc::new(config),
        database,
        authority: Arc::new(authority),
        connections: Connections::default(),
        duties,
        commands,
        engine,
        metrics: Metrics::install().map_err(|error| Fault::internal("keep metrics", &error))?,
    };
    let agent_tls = wire::tls::agent_port(&credentials, &authority_pem)
        .map_err(|error| Fault::internal("set up TLS for agents", &error))?;
    let api_tls = wire::tls::api_port(&credentials)
        .map_err(|error| Fault::internal("set up TLS for the API", &error))?;
    let agent_listener = tokio::net::TcpListener::from_std(agent_listener)
        .map_err(|error| Fault::internal("listen for agents", &error))?;

    let stop = CancellationToken::new();
    let handle = Handle::new();
    let mut terminated =
        signal(SignalKind::terminate()).map_err(|e| Fault::internal("listen for signals", &e))?;
    let mut interrupted =
        signal(SignalKind::interrupt()).map_err(|e| Fault::internal("listen for signals", &e))?;
    let agents =
        tokio::spawn(agents::serve(controller.clone(), agent_listener, agent_tls, stop.clone()));
    let history = tokio::spawn(history::keep(controller.clone(), stop.clone()));
    let events = tokio::spawn(events::notice(controller.clone(), stop.clone()));
    let service = api::router(controller.clone()).into_make_service();
    let server =
        axum_server::from_tcp_rustls(api_listener, RustlsConfig::from_config(Arc::new(api_tls)))
            .map_err(|error| Fault::internal("serve the API", &error))?
            .handle(handle.clone());
    let api = tokio::spawn(server.serve(service));
    info!(
        version = env!("CARGO_PKG_VERSION"),
        api = %controller.config.api_address,
        agents = %controller.config.agent_address,
        data = %controller.config.data_folder.display(),
        "the controller is ready"
    );

    tokio::select! {
        _ = terminated.recv() => {}
        _ = interrupted.recv() => {}
    }
    info!("the controller stops");
    handle.graceful_shutdown(Some(GRACE));
    stop.cancel();
    // Steps stand still where they are, and go on with the next start.
    controller.engine.stop().await;
    if let Err(error) = agents.await {
        error!(%error, "the port for agents ended badly");
    }
    if let Err(error) = history.await {
        error!(%error, "the history of RPO ended badly");
    }
    if let Err(error) = events.await {
        error!(%error, "noticing changes ended badly");
    }
    match api.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => error!(%error, "the API ended badly"),
        Err(error) => error!(%error, "the API ended badly"),
    }
    controller.database.close().await;
    drop(folder);
    Ok(())
}

/// A token that was made on the controller itself.
#[derive(Debug)]
pub struct AdminToken {
    /// Its text, a secret.
    pub text: String,
    /// The authority's certificate, PEM, by which clients know the API.
    pub authority: String,
}

/// Makes an administrator's token straight in the database of a controller
/// that was started at least once: the first token, or one in place of all
/// that were lost. Works while the controller runs.
///
/// # Errors
/// When the data folder cannot be used or an active token has that name.
pub async fn admin_token(config: &Config, name: &str) -> Result<AdminToken, Fault> {
    let doing = format!("make the administrator's token {name}");
    let invalid = |error: domain::name::NotAName| {
        Fault::new(Code::RequestInvalid, doing.clone(), error.to_string(), "Choose another name.")
    };
    let name: domain::name::Name = name.parse().map_err(invalid)?;
    let visit = data_folder::visit(&config.data_folder)?;
    let authority = std::fs::read_to_string(&visit.authority_certificate).map_err(|error| {
        Fault::new(
            Code::AuthorityUnusable,
            format!("read {}", visit.authority_certificate.display()),
            error.to_string(),
            "Run as the controller's user or as root.",
        )
    })?;
    let database = Database::open(&visit.database).await?;
    let id = TokenId::new(crate::database::hosts::new_id());
    let secret = Secret::new(rand::random());
    let token = NewApiToken {
        id,
        name: name.as_str(),
        role: Role::Administrator,
        secret: &secret,
        expires: None,
    };
    let made = database.create_api_token(token, "controller", OffsetDateTime::now_utc()).await;
    database.close().await;
    made.map_err(|error| match error {
        DatabaseError::NameTaken => Fault::new(
            Code::NameTaken,
            doing.clone(),
            "an active token has that name",
            "Choose another with --name, or withdraw that one: lifeboat token withdraw NAME.",
        ),
        error => Fault::new(
            Code::DatabaseUnusable,
            doing.clone(),
            error.to_string(),
            "Look at the controller's log and its disk.",
        ),
    })?;
    Ok(AdminToken { text: TokenText::Api { id, secret: secret.clone() }.reveal(), authority })
}

fn listen(address: SocketAddr, whom: &str) -> Result<TcpListener, Fault> {
    let listener = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    listener.map_err(|error| {
        let advice = match error.kind() {
            io::ErrorKind::AddrInUse => {
                format!("See who has the port with: ss -ltnp 'sport = :{}'. Stop it, or choose another port.", address.port())
            }
            io::ErrorKind::PermissionDenied => {
                "Choose a port from 1024 on, or let the controller's user bind it.".to_owned()
            }
            _ => "Choose an address that this host has.".to_owned(),
        };
        Fault::new(
            Code::AddressUnusable,
            format!("listen for {whom} at {address}"),
            error.to_string(),
            advice,
        )
    })
}

/// By what agents and clients may know the controller: the fixed name for
/// agents, this host's own names and addresses, and those of the settings.
fn names(config: &Config) -> Vec<String> {
    let mut names = BTreeSet::from([
        wire::tls::CONTROLLER_NAME.to_owned(),
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
    ]);
    if let Ok(hostname) = nix::unistd::gethostname() {
        names.insert(hostname.to_string_lossy().into_owned());
    }
    for interface in nix::ifaddrs::getifaddrs().into_iter().flatten() {
        let Some(address) = interface.address else { continue };
        if let Some(v4) = address.as_sockaddr_in() {
            names.insert(v4.ip().to_string());
        } else if let Some(v6) = address.as_sockaddr_in6() {
            names.insert(v6.ip().to_string());
        }
    }
    names.extend(config.public_names.iter().cloned());
    names.into_iter().collect()
}
