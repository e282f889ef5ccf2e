//! `lifeboat controller`.

use std::path::PathBuf;

use clap::Subcommand;
use controller::config::{Config, Flags};

use crate::failure::Failure;
use crate::settings::{self, ClientFile};
use crate::{logging, output};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the controller
    Run {
        /// Configuration file [default: /etc/lifeboat/controller.toml, if it exists]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        #[command(flatten)]
        flags: Box<Flags>,
    },
    /// Make an administrator's token on the controller itself: the first, or one in place of all that were lost
    AdminToken {
        /// Configuration file [default: /etc/lifeboat/controller.toml, if it exists]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        #[command(flatten)]
        flags: Box<Flags>,
        /// Who will hold it
        #[arg(long, default_value = "admin")]
        name: String,
        /// Keep it, with the URL and the authority's certificate, for this user's commands
        #[arg(long)]
        save: bool,
    },
    /// Check the configuration and show what it amounts to
    CheckConfig {
        /// Configuration file [default: /etc/lifeboat/controller.toml, if it exists]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        #[command(flatten)]
        flags: Box<Flags>,
    },
    /// Print the API's description (OpenAPI)
    Openapi,
}

pub(crate) async fn run(command: Command, json: bool) -> Result<(), Failure> {
    match command {
        Command::Run { config, flags } => {
            logging::start(json);
            let config = Config::load(config.as_deref(), &flags)?;
            Box::pin(controller::run::run(config)).await?;
        }
        Command::AdminToken { config, flags, name, save } => {
            let config = Config::load(config.as_deref(), &flags)?;
            let made = controller::run::admin_token(&config, &name).await?;
            let url = format!("https://127.0.0.1:{}", config.api_address.port());
            if save {
                let file = ClientFile {
                    url: Some(url),
                    token: Some(made.text.into()),
                    authority: Some(made.authority),
                };
                let path = settings::save(&file)?;
                let saved = serde_json::json!({ "name": name, "saved": path });
                output::done(
                    json,
                    &saved,
                    &format!("The token {name} is kept in {}.", path.display()),
                );
            } else if json {
                output::json(&serde_json::json!({
                    "name": name, "text": made.text, "authority": made.authority, "url": url,
                }));
            } else {
                eprintln!(
                    "This token of an administrator works until it is withdrawn and is not shown again. Set it as LIFEBOAT_TOKEN."
                );
                println!("{}", made.text);
            }
        }
        Command::CheckConfig { config, flags } => {
            let config = Config::load(config.as_deref(), &flags)?;
            let shown = serde_json::json!({
                "data_folder": config.data_folder,
                "api_address": config.api_address,
                "agent_address": config.agent_address,
                "public_names": config.public_names,
                "certificate_life": humantime::format_duration(config.certificate_life).to_string(),
            });
            output::json(&shown);
        }
        Command::Openapi => {
            let document = controller::api::openapi().to_pretty_json();
            println!("{}", document.expect("the document is plain"));
        }
    }
    Ok(())
}
