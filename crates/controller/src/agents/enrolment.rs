//! Making an agent a host.

use std::net::SocketAddr;

use domain::fault::{Code, Fault};
use domain::id::HostId;
use domain::name::{NAME_LENGTH_MAX, Name};
use domain::token::{EnrolmentRefusal, TokenText};
use time::OffsetDateTime;
use tracing::info;
use wire::message::{Enrol, Enrolled, ProtocolRange};

use super::session::{End, database_fault, protocol_mismatch};
use crate::Controller;
use crate::authority::IssueError;
use crate::database::DatabaseError;
use crate::database::hosts::{Candidate, Enrolment, new_id};

/// Why no host was made, besides a token that is no good.
#[derive(Debug, thiserror::Error)]
enum EnrolError {
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error(transparent)]
    Issue(#[from] IssueError),
}

/// Enrols an agent, or says why not.
pub(super) async fn enrol(
    controller: &Controller,
    wish: Enrol,
    peer: SocketAddr,
) -> Result<Enrolled, End> {
    let now = OffsetDateTime::now_utc();
    let wanted = tame(wish.name.as_deref().unwrap_or(&wish.facts.hostname));
    let doing = format!("enrol host {wanted}");
    let refuse = |code, cause: String, advice: String| End::Refused {
        fault: Fault::new(code, doing.clone(), cause, advice),
        subject: wanted.clone(),
    };
    if ProtocolRange::OURS.agree(wish.protocol).is_none() {
        return Err(End::Refused {
            fault: protocol_mismatch(&doing, wish.protocol),
            subject: wanted,
        });
    }
    let name: Name = wanted.parse().map_err(|error: domain::name::NotAName| {
        refuse(
            Code::RequestInvalid,
            error.to_string(),
            "Give the host another name with --name.".into(),
        )
    })?;
    let Ok(TokenText::Enrolment { id, secret, .. }) = wish.token.0.parse() else {
        return Err(refuse_token(refuse, EnrolmentRefusal::Unknown));
    };
    let candidate = Candidate {
        host: HostId::new(wish.former_host.unwrap_or_else(new_id)),
        inherits: wish.former_host.is_some(),
        name,
        token: id,
        secret: &secret,
        facts: wish.facts,
        address: peer.ip().to_string(),
    };
    let mut made = None;
    let enrolment = controller
        .database
        .enrol::<EnrolError>(candidate, now, |host| {
            made = Some(host);
            let life = controller.config.certificate_life;
            Ok(controller.authority.issue_to_host(host, &wish.request, life, now)?)
        })
        .await
        .map_err(|error| match error {
            EnrolError::Database(error) => End::Broken(database_fault(&doing, &error)),
            EnrolError::Issue(error) => refuse(
                Code::ProtocolViolated,
                error.to_string(),
                "Check that the agent is a released version of Lifeboat.".into(),
            ),
        })?;
    match enrolment {
        Enrolment::Done { name, site, issued } => {
            let host = made.expect("a certificate was issued to it");
            // Whoever was connected as this host is not any more.
            controller.connections.cut(host, replaced(name.as_str()));
            // A host that was revoked takes data again.
            controller.duties.announce();
            info!(%host, %name, %site, %peer, "enrolled a host");
            Ok(Enrolled {
                host: host.uuid(),
                name: name.to_string(),
                site,
                certificate: issued.certificate,
                authority: controller.authority.certificate().to_owned(),
            })
        }
        Enrolment::Refused(refusal) => Err(refuse_token(refuse, refusal)),
        Enrolment::FormerTaken { name } => Err(refuse(
            Code::HostNameTaken,
            format!("this host was known as {name} here before"),
            format!(
                "Make a token that replaces it, and enrol with that and --take-over: lifeboat token enrolment --site SITE --replaces {name}."
            ),
        )),
        Enrolment::NameTaken { site } => Err(refuse(
            Code::HostNameTaken,
            format!("site {site} has a host of that name"),
            format!(
                "Choose another with --name, or make a token that replaces it: lifeboat token enrolment --site {site} --replaces {wanted}."
            ),
        )),
    }
}

/// What a stranger calls themselves, fit for a log: short, on one line.
fn tame(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(NAME_LENGTH_MAX + 1).collect()
}

fn refuse_token(
    refuse: impl FnOnce(Code, String, String) -> End,
    refusal: EnrolmentRefusal,
) -> End {
    let code = match refusal {
        EnrolmentRefusal::Unknown => Code::EnrolmentTokenUnknown,
        EnrolmentRefusal::Used { .. } => Code::EnrolmentTokenUsed,
        EnrolmentRefusal::Expired { .. } => Code::EnrolmentTokenExpired,
        EnrolmentRefusal::Withdrawn { .. } => Code::EnrolmentTokenWithdrawn,
    };
    refuse(
        code,
        refusal.to_string(),
        "Make a new token with: lifeboat token enrolment --site SITE.".into(),
    )
}

/// What an agent is told whose certificate another one has taken the place of.
pub(super) fn replaced(host: &str) -> Fault {
    Fault::new(
        Code::CertificateForeign,
        format!("let host {host} connect"),
        "its certificate was replaced by a newer enrolment",
        "If this agent is the right one, enrol it again with a token that replaces the host.",
    )
}
