//! `lifeboat agent`.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::PathBuf;

use agent::config::{Config, Flags};
use agent::enrol::{self, Request};
use agent::hypervisor::libvirt::end_process;
use agent::status::{self, ConnectionStatus};
use clap::Subcommand;
use domain::fault::{Code, Fault};
use domain::token::TokenText;
use serde::Serialize;
use service::folder::PrivateFolder;

use crate::failure::Failure;
use crate::logging;
use crate::output::{self, since};

mod recover;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make this host a host of a controller, by a one-time token
    Enrol {
        /// Configuration file [default: /etc/lifeboat/agent.toml, if it exists]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        #[command(flatten)]
        flags: Flags,
        /// The host's name [default: its hostname]
        #[arg(long)]
        name: Option<String>,
        /// File with the token; - or nothing for standard input
        #[arg(long, value_name = "FILE")]
        token_file: Option<PathBuf>,
        /// The former controller is lost: this one goes on with what the host does, once
        /// it is said there: lifeboat adopt
        #[arg(long)]
        take_over: bool,
    },
    /// Run the agent
    Run {
        /// Configuration file [default: /etc/lifeboat/agent.toml, if it exists]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        #[command(flatten)]
        flags: Flags,
    },
    /// Show how this host's agent stands
    Status {
        /// Configuration file [default: /etc/lifeboat/agent.toml, if it exists]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        #[command(flatten)]
        flags: Flags,
    },
    /// Run a machine whose points this host keeps, here and now: no controller is
    /// needed
    Recover {
        /// Configuration file [default: /etc/lifeboat/agent.toml, if it exists]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        #[command(flatten)]
        flags: Box<Flags>,
        #[command(flatten)]
        wish: recover::Wish,
    },
    /// List the machines of this host that were made of recovery points, and the points that
    /// it has lent
    Recovered {
        /// Configuration file [default: /etc/lifeboat/agent.toml, if it exists]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        #[command(flatten)]
        flags: Box<Flags>,
    },
    /// Make the disks of a recovered machine its own: it needs its point no more
    Hydrate {
        /// Configuration file [default: /etc/lifeboat/agent.toml, if it exists]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        #[command(flatten)]
        flags: Box<Flags>,
        /// The machine, by name, or the id of the recovery
        machine: String,
        /// At most so many bytes a second
        #[arg(long, value_name = "BYTES")]
        bytes_per_second: Option<u64>,
    },
    /// Stop a recovered machine and take everything of it away; or take a lent point back, by
    /// its id
    Discard {
        /// Configuration file [default: /etc/lifeboat/agent.toml, if it exists]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        #[command(flatten)]
        flags: Box<Flags>,
        /// The machine, by name, or the id of the recovery
        machine: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Serialize)]
struct Status {
    running: bool,
    host: Option<String>,
    site: Option<String>,
    controller: Option<String>,
    connection: Option<ConnectionStatus>,
}

/// Does not return once the command is done; see [`end_process`].
pub(crate) async fn run(command: Command, json: bool) -> Result<(), Failure> {
    let code = match obey(command, json).await {
        Ok(()) => 0,
        Err(failure) => {
            failure.print(json);
            failure.exit_number()
        }
    };
    end_process(code)
}

async fn obey(command: Command, json: bool) -> Result<(), Failure> {
    match command {
        Command::Enrol { config, flags, name, token_file, take_over } => {
            let config = Config::load(config.as_deref(), &flags)?;
            let Some(controller) = config.controller.clone() else {
                return Err(Fault::new(
                    Code::RequestInvalid,
                    "enrol this host",
                    "no controller is given",
                    "Give the controller's address for agents: --controller HOST:7443.",
                )
                .into());
            };
            let token = read_token(token_file)?;
            let identity =
                enrol::enrol(&config, Request { controller, token, name, take_over }).await?;
            let done = serde_json::json!({
                "host": identity.host.to_string(), "name": identity.name, "site": identity.site,
            });
            let next = if take_over {
                "Once the other hosts are enrolled here too, go on at the controller with: lifeboat adopt"
            } else {
                "Protect machines with: lifeboat protect"
            };
            let words = format!(
                "This host is {} of site {} now. Start its agent: systemctl enable --now lifeboat-agent\n{next}",
                identity.name, identity.site
            );
            output::done(json, &done, &words);
        }
        Command::Run { config, flags } => {
            logging::start(json);
            let config = Config::load(config.as_deref(), &flags)?;
            Box::pin(agent::run::run(config)).await?;
        }
        Command::Status { config, flags } => {
            let config = Config::load(config.as_deref(), &flags)?;
            show_status(&config, json)?;
        }
        Command::Recover { config, flags, wish } => {
            let config = Config::load(config.as_deref(), &flags)?;
            recover::recover(&config, &wish, json).await?;
        }
        Command::Recovered { config, flags } => {
            recover::list(&Config::load(config.as_deref(), &flags)?, json)?;
        }
        Command::Hydrate { config, flags, machine, bytes_per_second } => {
            let config = Config::load(config.as_deref(), &flags)?;
            recover::hydrate(&config, &machine, bytes_per_second, json).await?;
        }
        Command::Discard { config, flags, machine, yes } => {
            let config = Config::load(config.as_deref(), &flags)?;
            recover::discard(&config, &machine, yes, json).await?;
        }
    }
    Ok(())
}

fn show_status(config: &Config, json: bool) -> Result<(), Failure> {
    let identity = agent::identity::read_identity(&config.state_folder)?;
    let status = Status {
        running: PrivateFolder::is_held(&config.state_folder),
        host: identity.as_ref().map(|identity| identity.name.clone()),
        site: identity.as_ref().map(|identity| identity.site.clone()),
        controller: config.controller.clone().or(identity.map(|identity| identity.controller)),
        connection: status::read(&config.state_folder)?,
    };
    let connection = match (&status.connection, status.running) {
        (Some(ConnectionStatus::Connected { since: at }), true) => {
            format!("connected {}", since(*at))
        }
        (Some(ConnectionStatus::NotConnected { since: at, code, cause, advice }), true) => {
            format!("not connected {}\n{code}: {cause}\n{advice}", since(*at))
        }
        (Some(ConnectionStatus::Starting) | None, true) => "starting".into(),
        (_, false) => "the agent does not run".into(),
    };
    let fields = [
        ("Host", status.host.clone().unwrap_or_else(|| "not enrolled".into())),
        ("Site", output::or_dash(status.site.as_ref())),
        ("Controller", output::or_dash(status.controller.as_ref())),
        ("Connection", connection),
    ];
    output::item(json, &status, &fields);
    Ok(())
}

/// Reads the token; it is never an argument, where others could see it.
fn read_token(file: Option<PathBuf>) -> Result<TokenText, Failure> {
    let doing = "read the enrolment token";
    let from_input = || {
        if std::io::stdin().is_terminal() {
            eprint!("Enrolment token: ");
            let _ = std::io::stderr().flush();
            let mut line = String::new();
            return std::io::stdin().read_line(&mut line).map(|_| line);
        }
        let mut text = String::new();
        std::io::stdin().take(4096).read_to_string(&mut text).map(|_| text)
    };
    let text = match file {
        Some(path) if path.as_os_str() != "-" => {
            std::fs::read_to_string(&path).map_err(|error| {
                Fault::new(
                    Code::RequestInvalid,
                    doing,
                    format!("{}: {error}", path.display()),
                    "Name a file that holds the token and nothing else.",
                )
            })?
        }
        _ => from_input().map_err(|error| {
            Fault::new(Code::RequestInvalid, doing, error.to_string(), "Give it with --token-file.")
        })?,
    };
    text.parse().map_err(|error: domain::token::NotAToken| {
        Fault::new(
            Code::EnrolmentTokenUnknown,
            doing,
            error.to_string(),
            "Make one with: lifeboat token enrolment --site SITE, and copy it whole.",
        )
        .into()
    })
}
