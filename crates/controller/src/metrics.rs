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
//! | `lifeboat_protection_health` | `machine`, `source`, `target` | 0 normal, 1 warning, 2 critical |
//! | `lifeboat_protection_rpo_seconds` | as above | age of the newest point |
//! | `lifeboat_protection_points` | as above | recovery points that are kept |
//! | `lifeboat_protection_sent_bytes` | as above | sent since the source's agent began |
//! | `lifeboat_protection_backlog_bytes` | as above | left of the copy or cycle that is under way |
//! | `lifeboat_protection_backlog_seconds` | as above | what the rest of it takes at the pace so far |
//!
//! Those of protections are written here and not kept, so that a protection
//! that is gone leaves no series behind.

use std::collections::BTreeMap;

use api::protection::{HealthLevel, Protection};
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
    let mut text = controller.metrics.handle.render();
    write_protections(&mut text, &crate::api::protections(controller).await?);
    Ok(text)
}

type Gauge = (&'static str, fn(&Protection) -> Option<f64>);

#[expect(clippy::cast_precision_loss, reason = "a gauge shows magnitudes")]
const OF_PROTECTIONS: [Gauge; 6] = [
    ("lifeboat_protection_health", |protection| {
        Some(match protection.health.level {
            HealthLevel::Normal => 0.0,
            HealthLevel::Warning => 1.0,
            HealthLevel::Critical => 2.0,
        })
    }),
    ("lifeboat_protection_rpo_seconds", |protection| {
        protection.rpo.now_ms.map(|ms| ms as f64 / 1000.0)
    }),
    ("lifeboat_protection_points", |protection| {
        protection.kept.as_ref().map(|kept| kept.points as f64)
    }),
    ("lifeboat_protection_sent_bytes", |protection| {
        protection.totals.map(|totals| totals.sent_bytes as f64)
    }),
    ("lifeboat_protection_backlog_bytes", |protection| {
        let left = |progress: api::protection::Progress| {
            progress.total_bytes.saturating_sub(progress.done_bytes)
        };
        protection.totals.map(|_| protection.progress.map_or(0, left) as f64)
    }),
    ("lifeboat_protection_backlog_seconds", |protection| {
        let left = |progress: api::protection::Progress| progress.seconds_left;
        protection.totals.map(|_| protection.progress.and_then(left).unwrap_or(0) as f64)
    }),
];

fn write_protections(text: &mut String, protections: &[Protection]) {
    use std::fmt::Write as _;
    for (name, value) in OF_PROTECTIONS {
        let mut begun = false;
        for protection in protections {
            let Some(value) = value(protection) else { continue };
            if !begun {
                let _ = writeln!(text, "# TYPE {name} gauge");
                begun = true;
            }
            let _ = writeln!(
                text,
                "{name}{{machine=\"{}\",source=\"{}/{}\",target=\"{}/{}\"}} {value}",
                escaped(&protection.machine.name),
                protection.source_site.name,
                protection.source.name,
                protection.target_site.name,
                protection.target.name,
            );
        }
        if begun {
            text.push('\n');
        }
    }
}

/// A label's value. Sites and hosts have safe names; hypervisors allow more.
fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
