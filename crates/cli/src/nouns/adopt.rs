//! `lifeboat adopt`.

use api::List;
use api::adoption::{Adoption, Which};

use crate::client::Session;
use crate::confirm::confirm;
use crate::failure::Failure;
use crate::output;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only these machines, by name or UUID [default: all that hosts told of]
    machines: Vec<String>,
    /// A host that is lost: what it would tell is not waited for; may be repeated
    #[arg(long, value_name = "HOST")]
    without: Vec<String>,
    /// Only tell what would be done
    #[arg(long, conflicts_with_all = ["renounce", "yes"])]
    plan: bool,
    /// Forget them instead: their hosts end what they do for them, and the points stay
    #[arg(long, requires = "machines")]
    renounce: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub(crate) async fn run(arguments: Arguments, session: &Session) -> Result<(), Failure> {
    let Arguments { machines, without, plan, renounce, yes } = arguments;
    if plan {
        let mut found: List<Adoption> = session.get("/adoptions").await?;
        if !machines.is_empty() {
            found.items.retain(|found| {
                machines
                    .iter()
                    .any(|name| *name == found.machine || *name == found.machine_uuid.to_string())
            });
        }
        show(session, &found);
        return Ok(());
    }
    let verb = if renounce { "renounce" } else { "adopt" };
    let whom = if machines.is_empty() { "all machines".into() } else { machines.join(", ") };
    confirm(&format!("{verb} {whom} of the lost controller"), verb, yes)?;
    let path = if renounce { "/adoptions/renounce" } else { "/adoptions" };
    let done: List<Adoption> = session.post(path, &Which { machines, without }).await?;
    show(session, &done);
    Ok(())
}

fn show(session: &Session, adoptions: &List<Adoption>) {
    output::list(
        session.json,
        adoptions,
        "No host told of anything. Enrol hosts of the lost controller with: lifeboat agent enrol --take-over.",
        &["MACHINE", "FROM", "TO", "POLICY", "STATE", "TOLD BY", "REMARKS"],
        |adoption| {
            let mut remarks = adoption.remarks.clone();
            if let Some(refused) = &adoption.refused {
                remarks.push(format!("not adopted: {}. {}", refused.reason, refused.advice));
            }
            remarks.extend(adoption.job.map(|job| format!("job {job}")));
            vec![
                adoption.machine.clone(),
                format!("{}/{}", adoption.source.site, adoption.source.name),
                format!("{}/{}", adoption.target.site, adoption.target.name),
                output::or_dash(adoption.policy.clone()),
                output::or_dash(adoption.state.clone()),
                adoption.told_by.join(", "),
                remarks.join("\n"),
            ]
        },
    );
}
