//! `lifeboat site`.

use api::List;
use api::site::{CreateSite, Rename, Site, SiteKind};
use clap::Subcommand;

use crate::client::{Session, segment};
use crate::confirm::confirm;
use crate::failure::Failure;
use crate::output;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the sites
    List,
    /// Show one site
    Show {
        /// Name or id
        site: String,
    },
    /// Make a site
    Create {
        /// Its name
        name: String,
        /// What stands there: managed, standalone-host, physical, vmware, hyper-v or cloud-provider
        #[arg(long, default_value = "managed")]
        kind: SiteKind,
        /// Words about it
        #[arg(long, default_value = "")]
        description: String,
    },
    /// Change a site's name or description
    Update {
        /// Name or id
        site: String,
        /// The new name
        #[arg(long, required_unless_present = "description")]
        name: Option<String>,
        /// The new words about it
        #[arg(long)]
        description: Option<String>,
    },
    /// Delete a site that has neither hosts nor clouds
    Delete {
        /// Name or id
        site: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

pub(crate) async fn run(command: Command, session: &Session) -> Result<(), Failure> {
    match command {
        Command::List => {
            let sites: List<Site> = session.get("/sites").await?;
            output::list(
                session.json,
                &sites,
                "There are no sites yet. Make one with: lifeboat site create NAME",
                &["NAME", "KIND", "CLOUDS", "HOSTS", "CONNECTED", "MACHINES", "DESCRIPTION"],
                |site| {
                    vec![
                        site.name.clone(),
                        site.kind.to_string(),
                        site.clouds.to_string(),
                        site.hosts.to_string(),
                        site.hosts_connected.to_string(),
                        site.machines.to_string(),
                        site.description.clone(),
                    ]
                },
            );
        }
        Command::Show { site } => {
            let site: Site = session.get(&format!("/sites/{}", segment(&site))).await?;
            let fields = [
                ("Name", site.name.clone()),
                ("Id", site.id.to_string()),
                ("Kind", site.kind.to_string()),
                ("Description", site.description.clone()),
                ("Clouds", site.clouds.to_string()),
                ("Hosts", format!("{}, {} connected", site.hosts, site.hosts_connected)),
                ("Machines", site.machines.to_string()),
            ];
            output::item(session.json, &site, &fields);
        }
        Command::Create { name, kind, description } => {
            let site: Site =
                session.post("/sites", &CreateSite { name, kind, description }).await?;
            output::done(session.json, &site, &format!("Site {} is made.", site.name));
        }
        Command::Update { site, name, description } => {
            let path = format!("/sites/{}", segment(&site));
            let site: Site = session.patch(&path, &Rename { name, description }).await?;
            output::done(session.json, &site, &format!("Site {} is changed.", site.name));
        }
        Command::Delete { site, yes } => {
            let site: Site = session.get(&format!("/sites/{}", segment(&site))).await?;
            confirm(&format!("delete site {}", site.name), &site.name, yes)?;
            session.delete(&format!("/sites/{}", site.id)).await?;
            output::done(session.json, &site, &format!("Site {} is deleted.", site.name));
        }
    }
    Ok(())
}
