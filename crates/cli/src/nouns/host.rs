//! `lifeboat host`.

use api::List;
use api::host::{Host, Hypervisor, MoveHost, Reachability, ReachabilityState};
use clap::Subcommand;
use domain::units::ByteCount;

use domain::units::utc;

use crate::client::{Session, narrow, segment};
use crate::confirm::confirm;
use crate::failure::Failure;
use crate::output::{self, or_dash, since};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the hosts
    List {
        /// Only of this site
        #[arg(long)]
        site: Option<String>,
    },
    /// Show one host
    Show {
        /// Name, SITE/NAME, or id
        host: String,
    },
    /// Move a host into another cloud of its site, or out of any
    Move {
        /// Name, SITE/NAME, or id
        host: String,
        /// The cloud
        #[arg(long, required_unless_present = "no_cloud", conflicts_with = "no_cloud")]
        cloud: Option<String>,
        /// Out of any cloud
        #[arg(long)]
        no_cloud: bool,
    },
    /// Refuse a host's certificate from now on and cut its connection
    Revoke {
        /// Name, SITE/NAME, or id
        host: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Forget a host and its inventory
    Remove {
        /// Name, SITE/NAME, or id
        host: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

pub(crate) async fn run(command: Command, session: &Session) -> Result<(), Failure> {
    match command {
        Command::List { site } => {
            let path = format!("/hosts{}", narrow(site.as_deref(), None));
            let hosts: List<Host> = session.get(&path).await?;
            output::list(
                session.json,
                &hosts,
                "There are no hosts yet. Make a token with: lifeboat token enrolment --site SITE, then on the host: lifeboat agent enrol",
                &["NAME", "SITE", "CLOUD", "STATE", "HYPERVISOR", "MACHINES", "AGENT"],
                |host| {
                    vec![
                        host.name.clone(),
                        host.site.name.clone(),
                        or_dash(host.cloud.as_ref().map(|cloud| &cloud.name)),
                        state(host.reachability),
                        hypervisor(host),
                        host.machines.to_string(),
                        or_dash(host.agent_version.as_ref()),
                    ]
                },
            );
        }
        Command::Show { host } => show(session, &fetch(session, &host).await?),
        Command::Move { host, cloud, no_cloud: _ } => {
            let path = format!("/hosts/{}/move", segment(&host));
            let host: Host = session.post(&path, &MoveHost { cloud }).await?;
            let words = match &host.cloud {
                Some(cloud) => format!("Host {} is in cloud {}.", host.name, cloud.name),
                None => format!("Host {} is in no cloud.", host.name),
            };
            output::done(session.json, &host, &words);
        }
        Command::Revoke { host, yes } => {
            let host = fetch(session, &host).await?;
            confirm(&format!("revoke host {}", host.name), &host.name, yes)?;
            let path = format!("/hosts/{}/revoke", host.id);
            let host: Host = session.post(&path, &serde_json::json!({})).await?;
            let words = format!("Host {} is revoked; its agent is cut off.", host.name);
            output::done(session.json, &host, &words);
        }
        Command::Remove { host, yes } => {
            let host = fetch(session, &host).await?;
            confirm(&format!("forget host {} and its inventory", host.name), &host.name, yes)?;
            session.delete(&format!("/hosts/{}", host.id)).await?;
            output::done(session.json, &host, &format!("Host {} is forgotten.", host.name));
        }
    }
    Ok(())
}

async fn fetch(session: &Session, reference: &str) -> Result<Host, Failure> {
    session.get(&format!("/hosts/{}", segment(reference))).await
}

fn show(session: &Session, host: &Host) {
    let mut fields = vec![
        ("Name", host.name.clone()),
        ("Id", host.id.to_string()),
        ("Site", host.site.name.clone()),
        ("Cloud", or_dash(host.cloud.as_ref().map(|cloud| &cloud.name))),
        ("State", state(host.reachability)),
        ("Hypervisor", hypervisor(host)),
        ("Machines", host.machines.to_string()),
        (
            "Inventory",
            host.inventory_seen
                .map_or_else(|| "never seen".into(), |at| format!("as of {}", utc(at))),
        ),
        ("Agent", or_dash(host.agent_version.as_ref())),
        ("Certificate", format!("until {}", utc(host.certificate_expires))),
    ];
    if let Some(facts) = &host.facts {
        fields.extend([
            ("Hostname", facts.hostname.clone()),
            ("System", format!("{}, kernel {}", facts.operating_system, facts.kernel)),
            (
                "Hardware",
                format!(
                    "{} CPUs {} ({}), {} memory, {}",
                    facts.cpus,
                    facts.cpu_model,
                    facts.architecture,
                    ByteCount::new(facts.memory_bytes),
                    if facts.kvm { "KVM" } else { "no KVM" },
                ),
            ),
            ("Versions", format!("libvirt {}, QEMU {}", facts.libvirt, facts.qemu)),
        ]);
    }
    fields.push(("May be", output::operations(&host.operations)));
    output::item(session.json, host, &fields);
}

/// The state of a host as people read it.
fn state(reachability: Reachability) -> String {
    match reachability.state {
        ReachabilityState::Enrolled => {
            format!("enrolled, never connected, {}", since(reachability.since))
        }
        ReachabilityState::Connected => "connected".into(),
        ReachabilityState::NotReachable => format!("not reachable {}", since(reachability.since)),
        ReachabilityState::Revoked => format!("revoked {}", since(reachability.since)),
    }
}

fn hypervisor(host: &Host) -> String {
    if host.reachability.state != ReachabilityState::Connected || host.inventory_seen.is_none() {
        return "unknown".into();
    }
    match &host.hypervisor {
        Hypervisor::Answering => "answering".into(),
        Hypervisor::NotAnswering { since: lost, reason } => {
            format!("not answering {}: {reason}", since(*lost))
        }
    }
}
