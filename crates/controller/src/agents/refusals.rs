//! Agents that were refused: told to the log, the metrics and the audit log,
//! without letting a stranger fill any of them.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use domain::fault::{Code, Fault};
use time::OffsetDateTime;
use tracing::{debug, error, warn};

use crate::Controller;
use crate::database::audit::Deed;

/// One refusal for the same reason from the same address is told within this.
const REPEAT: Duration = Duration::from_secs(60);
/// Addresses and reasons that are remembered; more are told of, not recorded.
const REMEMBERED_MAX: usize = 1024;

/// What was told of lately.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    told: Mutex<HashMap<(IpAddr, Code), Instant>>,
}

impl Refusals {
    /// Tells of a refusal.
    pub(super) async fn record(
        &self,
        controller: &Controller,
        fault: &Fault,
        subject: &str,
        peer: SocketAddr,
    ) {
        metrics::counter!("lifeboat_agent_refusals_total", "code" => fault.code.as_str())
            .increment(1);
        if !self.is_news(fault.code, peer.ip(), Instant::now()) {
            debug!(%peer, code = %fault.code, "refused an agent again");
            return;
        }
        warn!(%peer, %subject, code = %fault.code, cause = %fault.cause, "refused an agent");
        let deed = Deed {
            actor: format!("agent at {}", peer.ip()),
            action: "agent refused",
            subject: subject.to_owned(),
            detail: format!("{}: {}", fault.code, fault.cause),
        };
        if let Err(error) = controller.database.record(deed, OffsetDateTime::now_utc()).await {
            error!(%error, "cannot record a refusal");
        }
    }

    fn is_news(&self, code: Code, address: IpAddr, now: Instant) -> bool {
        let mut told = self.told.lock().expect("nobody panics while holding it");
        told.retain(|_, at| now.duration_since(*at) < REPEAT);
        if told.contains_key(&(address, code)) || told.len() >= REMEMBERED_MAX {
            return false;
        }
        told.insert((address, code), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_refusal_is_told_once_a_minute() {
        let refusals = Refusals::default();
        let start = Instant::now();
        let (a, b) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let news = [
            (a, Code::HostRevoked, 0),
            (a, Code::HostRevoked, 59),
            (b, Code::HostRevoked, 59),
            (a, Code::CertificateForeign, 59),
            (a, Code::HostRevoked, 60),
        ]
        .map(|(address, code, s)| refusals.is_news(code, address, start + Duration::from_secs(s)));
        assert_eq!(news, [true, false, true, true, true]);
    }
}
