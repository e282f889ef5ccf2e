//! Hosts: what they are, whether they can be reached, what may be done to them.
//!
//! ```text
//!   enrolled ──first HELLO──▶ connected ◀──HELLO── not reachable
//!      │                        │  └──silence or close──▶ ▲
//!      └────────── revoke ──────┴───────── revoke ────────┘
//!                                 ▼
//!                              revoked (for good; enrol the host again)
//! ```

use std::fmt;

use time::OffsetDateTime;
use uuid::Uuid;

use crate::units::ByteCount;

/// What a host is, as its agent found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFacts {
    /// The host's own name for itself.
    pub hostname: String,
    /// The hypervisor's UUID of the host.
    pub hypervisor_uuid: Option<Uuid>,
    /// The operating system, such as `Debian GNU/Linux 12 (bookworm)`.
    pub operating_system: String,
    /// The kernel's release.
    pub kernel: String,
    /// The CPU architecture, such as `x86_64`.
    pub architecture: String,
    /// The CPU's model, as the hypervisor names it.
    pub cpu_model: String,
    /// Logical CPUs.
    pub cpus: u32,
    /// Memory.
    pub memory: ByteCount,
    /// Whether guests can use hardware virtualisation.
    pub kvm: bool,
    /// Version of libvirt.
    pub libvirt: Version,
    /// Version of QEMU.
    pub qemu: Version,
}

/// A version of three numbers, as libvirt counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Third number.
    pub release: u32,
}

/// The oldest libvirt that the agent works with.
pub const LIBVIRT_OLDEST: Version = Version { major: 9, minor: 0, release: 0 };
/// The oldest QEMU that the agent works with.
pub const QEMU_OLDEST: Version = Version { major: 7, minor: 2, release: 0 };

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.release)
    }
}

/// Whether the controller hears from a host's agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reachability {
    /// Its token was used, and it has not connected since.
    Enrolled {
        /// When the token was used.
        since: OffsetDateTime,
    },
    /// Its agent is connected.
    Connected {
        /// When this connection began.
        since: OffsetDateTime,
    },
    /// Its agent was connected once and is not now.
    NotReachable {
        /// When it was last heard.
        since: OffsetDateTime,
    },
    /// Its certificate is refused for good.
    Revoked {
        /// When an operator revoked it.
        since: OffsetDateTime,
    },
}

/// Whether a connected agent reaches its hypervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hypervisor {
    /// It does, and the inventory is current.
    Answering,
    /// It does not; the inventory is as last known.
    NotAnswering {
        /// When it last answered.
        since: OffsetDateTime,
        /// What the hypervisor's library said.
        reason: String,
    },
}

/// What an operator may do to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HostOperation {
    /// Put it into another cloud of its site, or out of any.
    Move,
    /// Refuse its certificate from now on and cut its connection.
    Revoke,
    /// Forget it and its inventory.
    Remove,
}

impl HostOperation {
    /// All operations, in the order in which they are offered.
    pub const ALL: [Self; 3] = [Self::Move, Self::Revoke, Self::Remove];
}

/// Why an operation is not allowed now, and what to do instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The state and why it forbids the operation.
    pub reason: &'static str,
    /// What to do instead.
    pub advice: &'static str,
}

/// Whether an operation is allowed on a host in this state.
///
/// # Errors
/// The reason why not, with advice.
pub fn permit(operation: HostOperation, state: &Reachability) -> Result<(), Refusal> {
    match (operation, state) {
        (HostOperation::Move, Reachability::Revoked { .. }) => Err(Refusal {
            reason: "the host is revoked",
            advice: "Enrol it again into the cloud where it belongs.",
        }),
        (HostOperation::Revoke, Reachability::Revoked { .. }) => Err(Refusal {
            reason: "the host is revoked already",
            advice: "Nothing is left to do; remove it to forget it.",
        }),
        (HostOperation::Remove, Reachability::Connected { .. }) => Err(Refusal {
            reason: "the host is connected and would appear again",
            advice: "Revoke it first, which cuts its connection for good.",
        }),
        (HostOperation::Move | HostOperation::Revoke | HostOperation::Remove, _) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connected_host_is_revoked_before_it_is_removed() {
        let since = OffsetDateTime::UNIX_EPOCH;
        let states = [
            Reachability::Enrolled { since },
            Reachability::Connected { since },
            Reachability::NotReachable { since },
            Reachability::Revoked { since },
        ];
        let allowed = states.map(|state| {
            HostOperation::ALL
                .into_iter()
                .filter(|operation| permit(*operation, &state).is_ok())
                .collect::<Vec<_>>()
        });
        use HostOperation::{Move, Remove, Revoke};
        assert_eq!(
            allowed,
            [
                vec![Move, Revoke, Remove],
                vec![Move, Revoke],
                vec![Move, Revoke, Remove],
                vec![Remove]
            ]
        );
    }
}
