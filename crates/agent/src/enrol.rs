//! Becoming a host of a controller, by a one-time token.
//!
//! Everything that can fail on this side is tried before the token is spent.

use std::io;
use std::path::Path;

use domain::fault::{Code, Fault};
use domain::id::HostId;
use domain::token::TokenText;
use tracing::info;
use wire::heritage::Heritage;
use wire::message::{AgentMessage, ControllerMessage, Enrol, ProtocolRange, SecretText};
use wire::tls::Credentials;

use crate::config::Config;
use crate::connection::dial::{self, DialError};
use crate::connection::request;
use crate::identity::{Identity, StateFolder};
use crate::{heritage, hypervisor};

/// What an operator says when a host is to be enrolled.
#[derive(Debug, Clone)]
pub struct Request {
    /// The controller's address for agents, `HOST:PORT`.
    pub controller: String,
    /// The token; must be one for enrolment.
    pub token: TokenText,
    /// The host's name; its hostname when none is given, or the name that it had.
    pub name: Option<String>,
    /// Whether its former controller is lost, and this one goes on.
    pub take_over: bool,
}

/// Enrols this host. Durable on return; nothing is left behind on failure.
///
/// # Errors
/// Whatever kept the host from being enrolled, with advice.
pub async fn enrol(config: &Config, request: Request) -> Result<Identity, Fault> {
    let folder = StateFolder::open(&config.state_folder)?;
    match enrol_into(&folder, config, request).await {
        Ok(identity) => Ok(identity),
        Err(fault) => {
            folder.discard();
            Err(fault)
        }
    }
}

async fn enrol_into(
    folder: &StateFolder,
    config: &Config,
    wish: Request,
) -> Result<Identity, Fault> {
    let doing = format!("enrol this host at {}", wish.controller);
    let former = match folder.identity()? {
        Some(identity) if !wish.take_over => {
            return Err(already_enrolled(&doing, &identity, &config.state_folder));
        }
        former => former,
    };
    let left = if wish.take_over { left_here(&doing, folder, config)? } else { Vec::new() };
    let former_host = former
        .as_ref()
        .map(|former| former.host)
        .or_else(|| heritage::keeper_of(&left, &config.store_folder));
    if former_host.is_none() && !left.is_empty() {
        return Err(Fault::new(
            Code::DataFolderUnusable,
            doing,
            "the agent's state folder does not say which host this was",
            "Bring its file identity.json back; if it is lost, move the state folder away and enrol without --take-over.",
        ));
    }
    let TokenText::Enrolment { authority, .. } = &wish.token else {
        return Err(Fault::new(
            Code::EnrolmentTokenUnknown,
            doing,
            "the token is one for the API, not for enrolment",
            "Make one with: lifeboat token enrolment --site SITE.",
        ));
    };
    let tls =
        wire::tls::enrolling_agent(*authority).map_err(|error| Fault::internal(&doing, &error))?;
    let facts = hypervisor::look_once(&config.hypervisor).await?.facts;
    let (key, request_pem) = request::new_key().map_err(|error| Fault::internal(&doing, &error))?;

    let enrol = AgentMessage::Enrol(Box::new(Enrol {
        protocol: ProtocolRange::OURS,
        token: SecretText(wish.token.reveal()),
        name: wish.name.or_else(|| former.as_ref().map(|former| former.name.clone())),
        request: request_pem,
        facts: facts.into(),
        former_host: former_host.map(HostId::uuid),
    }));
    if wish.take_over {
        // Before the token is spent; whoever is not to inherit does not listen.
        heritage::keep_to_tell(folder, &left).map_err(|error| unkept(&doing, folder, &error))?;
    }
    let answer = dial::ask_once(&wish.controller, tls, enrol)
        .await
        .map_err(|error| error.into_fault(&doing, &wish.controller))?;
    let enrolled = match answer {
        ControllerMessage::Enrolled(enrolled) => enrolled,
        ControllerMessage::Refused(refused) => {
            return Err(dial::refusal(refused));
        }
        other => {
            return Err(DialError::Unexpected(other.kind()).into_fault(&doing, &wish.controller));
        }
    };
    let identity = Identity {
        host: HostId::new(enrolled.host),
        name: enrolled.name,
        site: enrolled.site,
        controller: wish.controller,
        authority: enrolled.authority,
        credentials: Credentials { certificate: enrolled.certificate, key },
    };
    folder.keep_identity(&identity)?;
    info!(host = %identity.host, name = %identity.name, site = %identity.site, "enrolled");
    Ok(identity)
}

/// What a controller left with this host that is lost now.
fn left_here(doing: &str, folder: &StateFolder, config: &Config) -> Result<Vec<Heritage>, Fault> {
    heritage::gather(folder.path(), &config.store_folder).map_err(|error| {
        Fault::new(
            Code::DataFolderUnusable,
            doing,
            format!("what the former controller left cannot be read: {error}"),
            "Make it readable for the agent's user; if a file is damaged, move it away: its protection is then not taken over.",
        )
    })
}

fn unkept(doing: &str, folder: &StateFolder, error: &io::Error) -> Fault {
    Fault::new(
        Code::DataFolderUnusable,
        doing,
        format!("write in {}: {error}", folder.path().display()),
        "Make room in the folder and make it writable for the agent's user.",
    )
}

fn already_enrolled(doing: &str, identity: &Identity, folder: &Path) -> Fault {
    Fault::new(
        Code::AlreadyEnrolled,
        doing,
        format!(
            "it is enrolled already, as host {} of site {} at {}",
            identity.name, identity.site, identity.controller
        ),
        format!(
            "If that controller is lost, enrol it at a new one with --take-over, which keeps what it does. To enrol it anew at the same, stop the agent, move {} away, and use a token that replaces {}.",
            folder.display(),
            identity.name
        ),
    )
}
