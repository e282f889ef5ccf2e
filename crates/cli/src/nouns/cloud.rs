//! `lifeboat cloud`.

use api::List;
use api::cloud::{Cloud, CreateCloud};
use api::site::Rename;
use clap::Subcommand;

use crate::client::{Session, segment};
use crate::confirm::confirm;
use crate::failure::Failure;
use crate::output;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the clouds
    List,
    /// Show one cloud
    Show {
        /// Name, SITE/NAME, or id
        cloud: String,
    },
    /// Make a cloud
    Create {
        /// Its name
        name: String,
        /// The site it belongs to
        #[arg(long)]
        site: String,
        /// Words about it
        #[arg(long, default_value = "")]
        description: String,
    },
    /// Change a cloud's name or description
    Update {
        /// Name, SITE/NAME, or id
        cloud: String,
        /// The new name
        #[arg(long, required_unless_present = "description")]
        name: Option<String>,
        /// The new words about it
        #[arg(long)]
        description: Option<String>,
    },
    /// Delete a cloud that has no hosts
    Delete {
        /// Name, SITE/NAME, or id
        cloud: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

pub(crate) async fn run(command: Command, session: &Session) -> Result<(), Failure> {
    match command {
        Command::List => {
            let clouds: List<Cloud> = session.get("/clouds").await?;
            output::list(
                session.json,
                &clouds,
                "There are no clouds yet. Make one with: lifeboat cloud create NAME --site SITE",
                &["NAME", "SITE", "HOSTS", "DESCRIPTION"],
                |cloud| {
                    vec![
                        cloud.name.clone(),
                        cloud.site.name.clone(),
                        cloud.hosts.to_string(),
                        cloud.description.clone(),
                    ]
                },
            );
        }
        Command::Show { cloud } => {
            let cloud: Cloud = session.get(&format!("/clouds/{}", segment(&cloud))).await?;
            let fields = [
                ("Name", cloud.name.clone()),
                ("Id", cloud.id.to_string()),
                ("Site", cloud.site.name.clone()),
                ("Description", cloud.description.clone()),
                ("Hosts", cloud.hosts.to_string()),
            ];
            output::item(session.json, &cloud, &fields);
        }
        Command::Create { name, site, description } => {
            let wish = CreateCloud { site, name, description };
            let cloud: Cloud = session.post("/clouds", &wish).await?;
            let words = format!("Cloud {} is made at site {}.", cloud.name, cloud.site.name);
            output::done(session.json, &cloud, &words);
        }
        Command::Update { cloud, name, description } => {
            let path = format!("/clouds/{}", segment(&cloud));
            let cloud: Cloud = session.patch(&path, &Rename { name, description }).await?;
            output::done(session.json, &cloud, &format!("Cloud {} is changed.", cloud.name));
        }
        Command::Delete { cloud, yes } => {
            let cloud: Cloud = session.get(&format!("/clouds/{}", segment(&cloud))).await?;
            confirm(&format!("delete cloud {}", cloud.name), &cloud.name, yes)?;
            session.delete(&format!("/clouds/{}", cloud.id)).await?;
            output::done(session.json, &cloud, &format!("Cloud {} is deleted.", cloud.name));
        }
    }
    Ok(())
}
