//! Typed ids, so that a host's id is never taken for a site's.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

macro_rules! typed_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps an id that was drawn or read elsewhere.
            #[must_use]
            pub const fn new(id: Uuid) -> Self {
                Self(id)
            }

            /// The bare id, for a boundary that stores or sends it.
            #[must_use]
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }
    };
}

typed_id!(
    /// A site: a place that can be lost as a whole.
    SiteId
);
typed_id!(
    /// A cloud: a named group of hosts inside a site.
    CloudId
);
typed_id!(
    /// A host: a machine with an agent.
    HostId
);
typed_id!(
    /// A machine as one host knows it. See [`MachineId::on_host`].
    MachineId
);
typed_id!(
    /// The UUID that the hypervisor gives a machine. It stays the same when
    /// the machine fails over, so two hosts may both know it.
    MachineUuid
);
typed_id!(
    /// A virtual network as one host knows it.
    NetworkId
);
typed_id!(
    /// A storage pool as one host knows it.
    PoolId
);
typed_id!(
    /// A protection: one machine, replicated from one host to another.
    ProtectionId
);
typed_id!(
    /// A policy: how machines are protected.
    PolicyId
);
typed_id!(
    /// A token, for the API or for one enrolment.
    TokenId
);

impl MachineId {
    /// The id of a machine on a host. It follows from the two, so the same
    /// machine reported twice can never become two.
    #[must_use]
    pub fn on_host(host: HostId, machine: MachineUuid) -> Self {
        Self(derive(host, "machine", machine.uuid()))
    }
}

impl NetworkId {
    /// The id of a virtual network on a host, from the hypervisor's UUID.
    #[must_use]
    pub fn on_host(host: HostId, network: Uuid) -> Self {
        Self(derive(host, "network", network))
    }
}

impl PoolId {
    /// The id of a storage pool on a host, from the hypervisor's UUID.
    #[must_use]
    pub fn on_host(host: HostId, pool: Uuid) -> Self {
        Self(derive(host, "pool", pool))
    }
}

fn derive(host: HostId, noun: &str, id: Uuid) -> Uuid {
    Uuid::new_v5(&host.0, format!("{noun}/{id}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_machine_on_two_hosts_has_two_ids_that_never_change() {
        let machine = MachineUuid::new(Uuid::from_u128(7));
        let east = HostId::new(Uuid::from_u128(1));
        let west = HostId::new(Uuid::from_u128(2));
        assert_ne!(MachineId::on_host(east, machine), MachineId::on_host(west, machine));
        // Stored in databases: a change here would make every machine a new one.
        assert_eq!(
            MachineId::on_host(east, machine).to_string(),
            "43c8fd47-4bae-580c-a384-b79e88d7817c"
        );
    }
}
