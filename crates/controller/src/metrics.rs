//! Prometheus metrics. Counters are kept as things happen; what is a matter
//! of counting rows is counted when the metrics are asked for.
//!
//! | metric | labels | meaning |
//! | --- | --- | --- |
//! | `lifeboat_build_info` | `version` | always 1 |
//! | `lifeboat_hosts` | `site`, `state` | hosts by reachability |
//! | `lifeboat_machines` | `site` | machines, as last known |
//! | `lifeboat_agents_connected` | | agents that are connected now |
//! | `lifeboat_agent_refusals_total` | `code` | agents that were refused |
//! | `lifeboat_api_requests_total` | `method`, `status` | requests to the API |

use std::collections::BTreeMap;

use metrics::{counter, gauge};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};

use crate::Controller;
use crate::database::Result;

/// Renders the metrics of this process.
#[derive(Debug, Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
}

impl Metrics {
    /// Takes over the metrics of this process; works once.
    ///
    /// # Errors
    /// When they were taken over before.
    pub fn install() -> std::result::Result<Self, BuildError> {
        let handle = PrometheusBuilder::new().install_recorder()?;
        Ok(Self { handle })
    }
}

/// Counts a request to the API.
pub fn count_request(method: &str, status: u16) {
    // Anybody can make up methods, and each would be a series for ever.
    let method = match method {
        "GET" | "POST" | "PATCH" | "DELETE" => method,
        _ => "other",
    };
    counter!("lifeboat_api_requests_total", "method" => method.to_owned(), "status" => status.to_string())
        .increment(1);
}

/// The metrics in Prometheus' text format.
///
/// # Errors
/// When the database fails.
pub async fn render(controller: &Controller) -> Result<String> {
    gauge!("lifeboat_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    gauge!("lifeboat_agents_connected").set(controller.connections.count() as f64);

    let sites = controller.database.sites().await?;
    let mut hosts: BTreeMap<(String, &str), u32> = BTreeMap::new();
    for site in sites {
        let site = site.view(0)?;
        // States without a host are told too: a series that vanishes is no zero.
        for state in ["enrolled", "connected", "not-reachable", "revoked"] {
            hosts.insert((site.name.clone(), state), 0);
        }
        gauge!("lifeboat_machines", "site" => site.name).set(site.machines);
    }
    for host in controller.database.hosts().await? {
        use domain::host::Reachability;
        let state = match host.reachability(controller.connections.since(host.id()?))? {
            Reachability::Enrolled { .. } => "enrolled",
            Reachability::Connected { .. } => "connected",
            Reachability::NotReachable { .. } => "not-reachable",
            Reachability::Revoked { .. } => "revoked",
        };
        *hosts.entry((host.site()?.name, state)).or_default() += 1;
    }
    for ((site, state), count) in hosts {
        gauge!("lifeboat_hosts", "site" => site, "state" => state).set(count);
    }
    Ok(controller.metrics.handle.render())
}
