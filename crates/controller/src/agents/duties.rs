//! What each agent is to do: made anew from all protections whenever anything
//! changes, and sent whole to whom it concerns.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use domain::failover::{Alone, Epoch, Known, Side, Tests};
use domain::id::HostId;
use domain::policy::{self, Policy};
use domain::units::ByteCount;
use tokio::sync::watch;
use wire::heritage::{Heritage, Place};
use wire::replication::{
    BandwidthRule, Compression, Duties, Keeping, Ownership, Retention, RetentionTier, Shipping,
    ShippingPolicy,
};

use crate::database::failover::host_at;
use crate::database::heritage::heritage_of;
use crate::database::protections::Protection;
use crate::database::{Database, Result};

/// Tells sessions that somebody's duties may have changed. Cheap to clone; all
/// clones are one.
#[derive(Debug, Clone)]
pub struct DutiesChanged(Arc<watch::Sender<()>>);

impl Default for DutiesChanged {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(())))
    }
}

impl DutiesChanged {
    /// Has every session look again. The change must be in the database.
    pub fn announce(&self) {
        self.0.send_replace(());
    }

    /// Sees each announcement from now on.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.0.subscribe()
    }
}

/// A host as other agents have to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// The name of its site.
    pub site: String,
    /// Where its agent takes data, `HOST:PORT`.
    pub address: Option<String>,
}

/// What a host's agent is to do now.
///
/// # Errors
/// When the database fails.
pub(super) async fn current(database: &Database, host: HostId) -> Result<Duties> {
    let protections = database.protections().await?;
    let hosts = database.hosts().await?;
    let mut peers = HashMap::new();
    for host in hosts {
        // Whoever is revoked takes nothing from anybody.
        let address = host.peer_address().filter(|_| !host.is_revoked()).map(str::to_owned);
        let (name, site) = (host.reference()?.name, host.site()?.name);
        peers.insert(host.id()?, Peer { name, site, address });
    }
    Ok(duties_of(host, &protections, &peers))
}

/// What a host's agent is to do. What is being disabled is no duty any more.
#[must_use]
pub fn duties_of(
    host: HostId,
    protections: &[Protection],
    peers: &HashMap<HostId, Peer>,
) -> Duties {
    let lasting = || protections.iter().filter(|protection| protection.disabling.is_none());
    Duties {
        shipping: lasting()
            .filter(|protection| protection.source == host)
            .map(|protection| shipping(protection, peers.get(&protection.target)))
            .collect(),
        keeping: lasting().filter(|protection| protection.target == host).map(keeping).collect(),
        ownership: lasting().flat_map(|protection| ownership(protection, host)).collect(),
        heritage: lasting()
            .filter(|protection| {
                [protection.source, protection.target, protection.away()].contains(&host)
                    || protection.former_hosts.contains(&host)
            })
            .map(|protection| heritage(protection, peers))
            .collect(),
    }
}

/// What another controller must know, if this one is lost.
fn heritage(protection: &Protection, peers: &HashMap<HostId, Peer>) -> Heritage {
    let place = |host: HostId| {
        let peer = peers.get(&host);
        let name = peer.map(|peer| peer.name.clone()).unwrap_or_default();
        Place { host, name, site: peer.map(|peer| peer.site.clone()).unwrap_or_default() }
    };
    heritage_of(protection, place)
}

/// Whose a machine is, once it was ever failed over.
fn ownership(protection: &Protection, host: HostId) -> Option<Ownership> {
    let standing = protection.standing(Tests::default());
    if standing.epoch == Epoch::FIRST && protection.failover.state.is_none() {
        return None;
    }
    let Some(side) = Side::BOTH.into_iter().find(|side| host_at(protection, *side) == host) else {
        // A host that the machine has left, or that only lends its points.
        let is_near = protection.former_hosts.contains(&host) || protection.target == host;
        let (machine, epoch) = (protection.machine, standing.epoch.number());
        return is_near.then_some(Ownership { machine, epoch, ours: false, starts_alone: false });
    };
    // A side that is not to know yet that it is its own still keeps the machine
    // down, as it did before.
    let not_yet = Known { epoch: Epoch::new(standing.epoch.number() - 1), ours: false };
    let known = standing.told(side).unwrap_or(not_yet);
    Some(Ownership {
        machine: protection.machine,
        epoch: known.epoch.number(),
        ours: known.ours,
        starts_alone: known.ours && protection.policy.alone == Alone::StartIfLastActive,
    })
}

fn shipping(protection: &Protection, target: Option<&Peer>) -> Shipping {
    Shipping {
        protection: protection.id,
        machine: protection.machine,
        name: protection.machine_name.clone(),
        target: protection.target,
        target_name: target.map(|target| target.name.clone()).unwrap_or_default(),
        target_address: target.and_then(|target| target.address.clone()),
        generation: protection.generation,
        excluded_disks: protection.excluded.clone(),
        policy: shipping_policy(&protection.policy),
        paused: protection.paused || !protection.failover.ships(),
        not_before: protection.not_before,
        resynchronise: protection.resynchronise,
        verify: protection.verify,
        offline: protection.offline.clone(),
    }
}

fn keeping(protection: &Protection) -> Keeping {
    let retention = &protection.policy.retention;
    let tiers = retention.tiers.iter();
    Keeping {
        protection: protection.id,
        machine: protection.machine,
        name: protection.machine_name.clone(),
        source: protection.source,
        generation: protection.generation,
        retention: Retention {
            all_hours: retention.all.0,
            tiers: tiers
                .map(|tier| RetentionTier { slot_hours: tier.slot.0, hours: tier.age.0 })
                .collect(),
            app_extra_hours: retention.app_extra.0,
        },
        compression: compression(protection.policy.compression),
        import: protection.import.clone(),
    }
}

fn shipping_policy(policy: &Policy) -> ShippingPolicy {
    ShippingPolicy {
        every_seconds: policy.every.0,
        app_consistent_seconds: policy.app_consistent.map(|every| every.0),
        freeze_seconds: policy.freeze_limit.0,
        compression: compression(policy.compression),
        bytes_per_second: policy.bandwidth.map(ByteCount::bytes),
        calendar: policy
            .calendar
            .iter()
            .map(|rule| BandwidthRule {
                window: rule.window.into(),
                bytes_per_second: rule.limit.map(ByteCount::bytes),
            })
            .collect(),
        resynchronise_in: policy.resynchronise_in.iter().map(|window| (*window).into()).collect(),
    }
}

const fn compression(compression: policy::Compression) -> Compression {
    match compression {
        policy::Compression::None => Compression::None,
        policy::Compression::Fast => Compression::Fast,
        policy::Compression::Strong => Compression::Strong,
    }
}

/// Where an agent takes data, from what it told and from where it called:
/// `:PORT` is at the address that it comes from. None if it makes no sense.
#[must_use]
pub fn peer_address(told: &str, from: IpAddr) -> Option<String> {
    let (host, port) = told.rsplit_once(':')?;
    let port: u16 = port.parse().ok().filter(|port| *port != 0)?;
    if host.is_empty() {
        return Some(std::net::SocketAddr::new(from.to_canonical(), port).to_string());
    }
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let sound = match bare {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            host.len() <= 253
                && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
        }
    };
    sound.then(|| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::failover::Failover;
    use domain::id::{MachineUuid, PolicyId, ProtectionId};
    use domain::units::Seconds;
    use time::OffsetDateTime;
    use uuid::Uuid;

    fn host(number: u128) -> HostId {
        HostId::new(Uuid::from_u128(number))
    }

    fn protection() -> Protection {
        Protection {
            id: ProtectionId::new(Uuid::from_u128(10)),
            machine: MachineUuid::new(Uuid::from_u128(2)),
            machine_name: "web".into(),
            source: host(1),
            target: host(3),
            policy_id: PolicyId::new(Uuid::from_u128(5)),
            policy_name: "default".into(),
            policy: Policy { app_consistent: Some(Seconds(3600)), ..Policy::default() },
            excluded: vec!["vdb".into()],
            generation: 7,
            paused: false,
            not_before: None,
            resynchronise: None,
            verify: Some(Uuid::from_u128(6)),
            offline: None,
            import: None,
            failover: Failover {
                epoch: Epoch::FIRST,
                reversed: false,
                state: None,
                recovery: None,
                held: false,
                unsent: false,
            },
            compute: None,
            former_hosts: vec![],
            created: OffsetDateTime::UNIX_EPOCH,
            disabling: None,
            shipping: None,
            keeping: None,
            newest_kept: None,
            verified: None,
        }
    }

    fn left_at_4(protection: &Protection) -> Failover {
        Failover { epoch: Epoch::new(4), ..protection.failover }
    }

    #[test]
    fn each_side_is_told_its_part_and_nobody_else_anything() {
        let (name, site) = ("kvm2".to_owned(), "west".to_owned());
        let peer = Peer { name, site, address: Some("192.0.2.2:7444".into()) };
        let peers = HashMap::from([(host(3), peer)]);
        let told = |number| {
            let mut duties = duties_of(host(number), &[protection()], &peers);
            let left = duties.heritage.drain(..).map(|left| left.target.site);
            assert_eq!(left.eq(["west"]), [1, 3].contains(&number), "{number}");
            serde_json::to_value(duties).unwrap()
        };
        let id = |number| Uuid::from_u128(number).to_string();
        assert_eq!(
            told(1),
            serde_json::json!({ "keeping": [], "shipping": [{
                "protection": id(10), "machine": id(2), "name": "web",
                "target": id(3), "target_name": "kvm2", "target_address": "192.0.2.2:7444",
                "generation": 7, "excluded_disks": ["vdb"],
                "policy": {
                    "every_seconds": 30, "app_consistent_seconds": 3600, "freeze_seconds": 10,
                    "compression": "fast", "bytes_per_second": null
                },
                "paused": false, "not_before": null, "resynchronise": null, "verify": id(6)
            }]})
        );
        assert_eq!(
            told(3),
            serde_json::json!({ "shipping": [], "keeping": [{
                "protection": id(10), "machine": id(2), "name": "web", "source": id(1),
                "generation": 7, "compression": "fast",
                "retention": {
                    "all_hours": 24, "app_extra_hours": 24,
                    "tiers": [{ "slot_hours": 1, "hours": 48 }, { "slot_hours": 24, "hours": 720 }]
                }
            }]})
        );
        assert_eq!(told(4), serde_json::json!({ "shipping": [], "keeping": [] }));
        // Where the machine was once, it stays fenced.
        let failover = left_at_4(&protection());
        let left = Protection { former_hosts: vec![host(4)], failover, ..protection() };
        let told = duties_of(host(4), &[left], &peers);
        let (machine, epoch) = (protection().machine, 4);
        assert_eq!(
            told.ownership,
            [Ownership { machine, epoch, ours: false, starts_alone: false }]
        );
        assert_eq!((told.shipping.len(), told.keeping.len(), told.heritage.len()), (0, 0, 1));
        // Made elsewhere than its points are: there alone it may run.
        let from = domain::failover::Origin::Protected;
        let (kind, change) = (domain::failover::Kind::Planned, domain::failover::Change::None);
        let state = Some(domain::failover::State::CommitPending { kind, change, from });
        let failover = Failover { state, ..left_at_4(&protection()) };
        let away = Protection { compute: Some(host(9)), failover, ..protection() };
        let owned = |number| duties_of(host(number), std::slice::from_ref(&away), &peers).ownership;
        for (number, ours) in [(1, false), (3, false), (9, true)] {
            assert_eq!(
                owned(number),
                [Ownership { machine, epoch, ours, starts_alone: false }],
                "{number}"
            );
        }
        let ending = Protection { disabling: Some(OffsetDateTime::UNIX_EPOCH), ..protection() };
        assert_eq!(duties_of(host(1), &[ending], &peers), Duties::default());
    }

    #[test]
    fn both_sides_are_told_whose_the_machine_is_at_every_step() {
        use domain::failover::{Kind, Origin, Phase, State};
        let from = Origin::Protected;
        let at = |phase, epoch| {
            let state = Some(State::FailingOver { kind: Kind::Planned, phase, from });
            let failover = Failover { epoch: Epoch::new(epoch), state, ..protection().failover };
            let moved = Protection { failover, ..protection() };
            [1, 3].map(|number| {
                let told = duties_of(host(number), std::slice::from_ref(&moved), &HashMap::new())
                    .ownership;
                told.iter().map(|told| (told.epoch, told.ours)).collect::<Vec<_>>()
            })
        };
        assert_eq!(at(Phase::BeforeFence, 4), [[(4, true)], [(4, false)]]);
        assert_eq!(at(Phase::Fencing, 5), [[(5, false)], [(4, false)]], "not yet");
        assert_eq!(at(Phase::Starting, 5), [[(5, false)], [(5, true)]]);
    }

    #[test]
    fn a_port_alone_is_at_the_address_that_the_agent_comes_from() {
        let from = |told: &str, from: &str| peer_address(told, from.parse().unwrap());
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(from(":7444", "192.0.2.7"), some("192.0.2.7:7444"));
        assert_eq!(from(":7444", "::ffff:192.0.2.7"), some("192.0.2.7:7444"));
        assert_eq!(from(":7444", "2001:db8::7"), some("[2001:db8::7]:7444"));
        assert_eq!(from("kvm2.example:7444", "192.0.2.7"), some("kvm2.example:7444"));
        assert_eq!(from("[2001:db8::8]:7444", "192.0.2.7"), some("[2001:db8::8]:7444"));
        for nonsense in ["", ":", ":0", "kvm2", "kvm2:x", "a b:7444", "[x]:7444", "2001:db8::8:1"] {
            assert_eq!(from(nonsense, "192.0.2.7"), None, "{nonsense}");
        }
    }
}
