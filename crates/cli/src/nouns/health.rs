//! `lifeboat health`.

use api::health::{Health, HealthStatus};

use crate::client::Session;
use crate::failure::Failure;
use crate::output;

pub(crate) async fn run(session: &Session) -> Result<(), Failure> {
    let health: Health = session.get("/health").await?;
    let status = match health.status {
        HealthStatus::Well => "well",
        HealthStatus::Failing => "failing",
    };
    let fields = [
        ("Controller", status.to_owned()),
        ("Version", health.version.clone()),
        ("Reasons", health.reasons.join("\n")),
    ];
    let shown = if health.reasons.is_empty() { &fields[..2] } else { &fields[..] };
    output::item(session.json, &health, shown);
    Ok(())
}
