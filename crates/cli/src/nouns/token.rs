//! `lifeboat token`.

use std::time::Duration;

use api::List;
use api::token::{
    CreateEnrolmentToken, CreateToken, CreatedToken, Purpose, Role, Token, TokenState,
};
use clap::Subcommand;

use domain::units::utc;

use crate::client::{Session, segment};
use crate::failure::Failure;
use crate::output::{self, or_dash};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the tokens, without their secrets
    List,
    /// Make a token for the API; its text is shown this once
    Create {
        /// Who will hold it
        name: String,
        /// What it may do: reader, drill-operator, operator or administrator
        #[arg(long, default_value = "reader")]
        role: Role,
        /// For how long it works, such as 30d; for ever when absent
        #[arg(long, value_parser = humantime::parse_duration, value_name = "DURATION")]
        valid_for: Option<Duration>,
    },
    /// Make a one-time token that lets one agent become one host
    Enrolment {
        /// The site that the host joins
        #[arg(long)]
        site: String,
        /// The cloud that it joins
        #[arg(long)]
        cloud: Option<String>,
        /// The host whose place it takes; that one's certificate stops working
        #[arg(long, value_name = "HOST")]
        replaces: Option<String>,
        /// For how long it works
        #[arg(long, value_parser = humantime::parse_duration, default_value = "1h", value_name = "DURATION")]
        valid_for: Duration,
    },
    /// Withdraw a token: it stops working at once
    Withdraw {
        /// Id, or the name of an API token
        token: String,
    },
}

pub(crate) async fn run(command: Command, session: &Session) -> Result<(), Failure> {
    match command {
        Command::List => {
            let tokens: List<Token> = session.get("/tokens").await?;
            output::list(
                session.json,
                &tokens,
                "There are no tokens.",
                &["PURPOSE", "STATE", "CREATED", "EXPIRES", "USED", "ID"],
                |token| {
                    vec![
                        purpose(&token.purpose),
                        state(token.state).into(),
                        utc(token.created),
                        token.expires.map_or_else(|| "never".into(), utc),
                        or_dash(token.last_used.map(utc)),
                        token.id.to_string(),
                    ]
                },
            );
        }
        Command::Create { name, role, valid_for } => {
            let valid_for_seconds = valid_for.map(seconds);
            let wish = CreateToken { name, role, valid_for_seconds };
            let created: CreatedToken = session.post("/tokens", &wish).await?;
            show_created(session, &created, "Set it as LIFEBOAT_TOKEN.");
        }
        Command::Enrolment { site, cloud, replaces, valid_for } => {
            let valid_for_seconds = Some(seconds(valid_for));
            let wish = CreateEnrolmentToken { site, cloud, replaces, valid_for_seconds };
            let created: CreatedToken = session.post("/tokens/enrolment", &wish).await?;
            show_created(
                session,
                &created,
                "On the host run: lifeboat agent enrol --controller CONTROLLER:7443, and paste it when asked.",
            );
        }
        Command::Withdraw { token } => {
            session.delete(&format!("/tokens/{}", segment(&token))).await?;
            let withdrawn = serde_json::json!({ "withdrawn": token });
            output::done(session.json, &withdrawn, &format!("Token {token} works no more."));
        }
    }
    Ok(())
}

/// The secret alone goes to standard output, so that it can be piped.
fn show_created(session: &Session, created: &CreatedToken, hint: &str) {
    if session.json {
        return output::json(created);
    }
    let end =
        created.token.expires.map_or_else(|| "for ever".into(), |at| format!("until {}", utc(at)));
    eprintln!("This token works {end} and is not shown again. {hint}");
    println!("{}", created.text);
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

const fn state(state: TokenState) -> &'static str {
    match state {
        TokenState::Active => "active",
        TokenState::Used => "used",
        TokenState::Expired => "expired",
        TokenState::Withdrawn => "withdrawn",
    }
}

fn purpose(purpose: &Purpose) -> String {
    match purpose {
        Purpose::Api { name, role } => format!("{name}: {role}"),
        Purpose::Enrolment { site, cloud, replaces } => {
            let mut text = format!("enrolment at {}", site.name);
            if let Some(cloud) = cloud {
                text = format!("{text}/{}", cloud.name);
            }
            if let Some(host) = replaces {
                text = format!("{text}, replaces {}", host.name);
            }
            text
        }
    }
}
