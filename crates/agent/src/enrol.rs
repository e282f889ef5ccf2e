//! Becoming a host of a controller, by a one-time token.
//!
//! Everything that can fail on this side is tried before the token is spent.

use std::path::Path;

use domain::fault::{Code, Fault};
use domain::id::HostId;
use domain::token::TokenText;
use tracing::info;
use wire::message::{AgentMessage, ControllerMessage, Enrol, ProtocolRange, SecretText};
use wire::tls::Credentials;

use crate::config::Config;
use crate::connection::dial::{self, DialError};
use crate::connection::request;
use crate::hypervisor;
use crate::identity::{Identity, StateFolder};

/// What an operator says when a host is to be enrolled.
#[derive(Debug, Clone)]
pub struct Request {
    /// The controller's address for agents, `HOST:PORT`.
    pub controller: String,
    /// The token; must be one for enrolment.
    pub token: TokenText,
    /// The host's name; its hostname when none is given.
    pub name: Option<String>,
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
    if let Some(identity) = folder.identity()? {
        return Err(already_enrolled(&doing, &identity, &config.state_folder));
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
        name: wish.name,
        request: request_pem,
        facts: facts.into(),
    }));
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

fn already_enrolled(doing: &str, identity: &Identity, folder: &Path) -> Fault {
    Fault::new(
        Code::AlreadyEnrolled,
        doing,
        format!(
            "it is enrolled already, as host {} of site {} at {}",
            identity.name, identity.site, identity.controller
        ),
        format!(
            "To enrol it anew, stop the agent, move {} away, and use a token that replaces {}.",
            folder.display(),
            identity.name
        ),
    )
}
