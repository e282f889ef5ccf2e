//! Which kinds of failover there are between which kinds of places.

use crate::failover::operation::Operation;
use crate::site::SiteKind;

/// From where a machine's changes come, and where they go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Route {
    /// Where the source is.
    pub source: SiteKind,
    /// Where the target is.
    pub target: SiteKind,
}

impl Route {
    /// Between two managed sites, or two clouds of one.
    pub const SITES: Self = Self { source: SiteKind::Managed, target: SiteKind::Managed };

    /// The way back.
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self { source: self.target, target: self.source }
    }

    /// Whether a kind of failover exists on this route.
    ///
    /// # Errors
    /// The reason why not, with advice.
    pub fn supports(self, operation: Operation) -> Result<(), (&'static str, &'static str)> {
        match (operation, self.source, self.target) {
            (
                Operation::TestFailover | Operation::UnplannedFailover,
                SiteKind::CloudProvider,
                _,
            ) => Err((
                "from a cloud provider, there is only the planned failover",
                "Use a planned failover: what runs there is brought back whole.",
            )),
            (Operation::PlannedFailover, SiteKind::Vmware | SiteKind::Physical, _) => Err((
                "a VMware or physical source cannot be shut down and verified by us",
                "Shut it down, and use an unplanned failover to the latest point.",
            )),
            (Operation::ReverseReplicate, _, SiteKind::CloudProvider) => Err((
                "a cloud provider is no source that is replicated all the time",
                "Use a planned failover back, which brings the data along.",
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_route_has_the_kinds_that_the_specification_gives_it() {
        use Operation::{PlannedFailover, TestFailover, UnplannedFailover};
        use SiteKind::{CloudProvider, Managed, Physical, StandaloneHost, Vmware};
        let table = [
            (Managed, Managed, "test planned unplanned"),
            (Managed, StandaloneHost, "test planned unplanned"),
            (Managed, CloudProvider, "test planned unplanned"),
            (StandaloneHost, CloudProvider, "test planned unplanned"),
            (CloudProvider, Managed, "planned"),
            (CloudProvider, StandaloneHost, "planned"),
            (Vmware, CloudProvider, "test unplanned"),
            (Physical, CloudProvider, "test unplanned"),
        ];
        for (source, target, expected) in table {
            let route = Route { source, target };
            let kinds = [
                ("test", TestFailover),
                ("planned", PlannedFailover),
                ("unplanned", UnplannedFailover),
            ];
            let kinds = kinds.into_iter().filter(|(_, kind)| route.supports(*kind).is_ok());
            let kinds: Vec<_> = kinds.map(|(name, _)| name).collect();
            assert_eq!(kinds.join(" "), expected, "{route:?}");
        }
    }
}
