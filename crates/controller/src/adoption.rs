//! Going on where another controller is lost: what becomes of each protection
//! that its hosts tell of.
//!
//! Both hosts of a protection tell what the controller left with them; the one
//! that heard of the later change is right. What only a job could have led on is
//! settled by [`domain::failover::orphan`].

use std::collections::{BTreeMap, HashMap, HashSet};

use domain::failover::{LooseEnd, Orphan, Standing, State, orphan};
use domain::id::{HostId, MachineUuid, ProtectionId};
use time::OffsetDateTime;
use wire::heritage::{Heritage, Place};

use crate::database::failover::standing_of;
use crate::database::heritage::Told;

/// What this controller knows.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Hosts, by id.
    pub hosts: HashMap<HostId, Place>,
    /// Machines that are protected.
    pub machines: HashSet<MachineUuid>,
    /// Policies as they are stored, by name.
    pub policies: HashMap<String, String>,
}

/// A protection that could be gone on with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What the side says that is right.
    pub heritage: Heritage,
    /// The hosts that told of it.
    pub told_by: Vec<HostId>,
    /// How it is gone on with, or why that cannot be.
    pub adoption: Result<Adoption, Obstacle>,
}

/// How a protection is gone on with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adoption {
    /// What was told of it.
    pub heritage: Heritage,
    /// Where its changes come from.
    pub source: Seat,
    /// Where its points are.
    pub target: Seat,
    /// Where it is made when it fails over, if not there.
    pub compute: Option<Seat>,
    /// What its policy is called here.
    pub policy_name: String,
    /// Where it stands.
    pub standing: Standing,
    /// What a job of the lost controller has left to be done.
    pub loose: LooseEnd,
}

/// The host of a side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seat {
    /// One of this controller's.
    Known(HostId),
    /// Not enrolled here yet.
    New(Place),
}

/// Why a protection cannot be gone on with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// Why.
    pub reason: String,
    /// What to do about it.
    pub advice: String,
}

impl Found {
    /// Sides that have not told of it, and may know of a later change; but for those
    /// that are said to be lost.
    #[must_use]
    pub fn silent(&self, lost: &[String]) -> Vec<&str> {
        let Ok(Adoption { source, target, compute, .. }) = &self.adoption else {
            return Vec::new();
        };
        let Heritage { source: from, target: to, compute: at, .. } = &self.heritage;
        let has_told = |seat: &Seat| match seat {
            Seat::Known(host) => self.told_by.contains(host),
            Seat::New(_) => false,
        };
        let elsewhere = compute.as_ref().zip(at.as_ref().map(|at| &at.name));
        let sides = [(source, &from.name), (target, &to.name)].into_iter().chain(elsewhere);
        let silent = sides.filter(|(seat, name)| !has_told(seat) && !lost.contains(name));
        silent.map(|(_, name)| name.as_str()).collect()
    }
}

/// What can be gone on with, by the machine's name.
#[must_use]
pub fn find(told: Vec<Told>, known: &Known) -> Vec<Found> {
    let mut by_protection: BTreeMap<ProtectionId, Vec<Told>> = BTreeMap::new();
    let mut latest: HashMap<MachineUuid, OffsetDateTime> = HashMap::new();
    for told in told {
        let Heritage { machine, created, .. } = told.heritage;
        let latest = latest.entry(machine).or_insert(created);
        *latest = created.max(*latest);
        by_protection.entry(told.heritage.protection).or_default().push(told);
    }
    let mut policies = known.policies.clone();
    let mut found: Vec<Found> = by_protection
        .into_values()
        .filter_map(|told| {
            let told_by = told.iter().map(|told| told.by).collect();
            let newest = told.into_iter().map(|told| told.heritage).max_by_key(age)?;
            let is_latest = latest.get(&newest.machine) == Some(&newest.created);
            let adoption = match is_latest {
                true => judge(&newest, known, &mut policies),
                false => Err(Obstacle {
                    reason: "the machine was protected anew later".into(),
                    advice: "Renounce this one, by its id.".into(),
                }),
            };
            Some(Found { heritage: newest, told_by, adoption })
        })
        .collect();
    found.sort_by(|a, b| a.heritage.name.cmp(&b.heritage.name));
    found
}

/// Grows with each change of which both sides are told: the epoch, then the
/// direction, then how far a failover is within its epoch.
fn age(heritage: &Heritage) -> (u64, u64, u8) {
    use domain::failover::{Phase, Return};
    let rank = match standing_of(heritage).map(|standing| standing.state) {
        Ok(State::FailingOver { phase: Phase::Fencing, .. }) => 1,
        Ok(State::FailingOver { phase: Phase::LastSync, .. }) => 2,
        Ok(State::FailingOver { phase: Phase::Starting, .. }) => 3,
        Ok(State::Returning { phase: Return::Fencing, .. }) => 1,
        Ok(State::Returning { phase: Return::Starting, .. }) => 2,
        Ok(State::CommitPending { .. }) => 4,
        Ok(State::Committed) => 5,
        Ok(State::ReverseReplicating) => 6,
        // Replicated, or on its way to its fence: the machine is its source's.
        Ok(_) => 7,
        Err(_) => 0,
    };
    (heritage.epoch, heritage.generation, rank)
}

fn judge(
    heritage: &Heritage,
    known: &Known,
    policies: &mut HashMap<String, String>,
) -> Result<Adoption, Obstacle> {
    if known.machines.contains(&heritage.machine) {
        return Err(Obstacle {
            reason: "the machine is protected here already".into(),
            advice: "Renounce the old protection, or disable the new one and adopt then.".into(),
        });
    }
    let made_no_sense = |cause: String| Obstacle {
        reason: format!("what was left of it makes no sense here: {cause}"),
        advice: "Run the version of Lifeboat that the lost controller was, or a newer one.".into(),
    };
    let standing = standing_of(heritage).map_err(|error| made_no_sense(error.to_string()))?;
    let Orphan { standing, loose } =
        orphan(standing).map_err(|refusal| made_no_sense(refusal.reason.to_owned()))?;
    let (source, target) = (seat(&heritage.source, known)?, seat(&heritage.target, known)?);
    // One that is its source's again is made nowhere.
    let compute = heritage.compute.as_ref().filter(|_| standing.state != State::Protected);
    let compute = compute.map(|place| seat(place, known)).transpose()?;
    Ok(Adoption {
        source,
        target,
        compute,
        policy_name: policy_name(heritage, policies),
        standing,
        loose,
        heritage: heritage.clone(),
    })
}

/// A host is known again by its id; one that had to be enrolled without its
/// former id, by its name.
fn seat(place: &Place, known: &Known) -> Result<Seat, Obstacle> {
    if known.hosts.contains_key(&place.host) {
        return Ok(Seat::Known(place.host));
    }
    let alike = |there: &&Place| (&there.site, &there.name) == (&place.site, &place.name);
    match known.hosts.values().find(alike) {
        Some(there) => Ok(Seat::Known(there.host)),
        None if place.name.is_empty() || place.site.is_empty() => Err(Obstacle {
            reason: format!("its host {} is not known by name", place.host),
            advice: "Enrol that host here with --take-over first.".into(),
        }),
        None => Ok(Seat::New(place.clone())),
    }
}

/// A policy that says something else here keeps its name.
fn policy_name(heritage: &Heritage, policies: &mut HashMap<String, String>) -> String {
    let said = &heritage.policy.document.document;
    let names = std::iter::once(heritage.policy.name.clone())
        .chain((1..).map(|number| format!("{}-adopted-{number}", heritage.policy.name)));
    for name in names {
        match policies.get(&name) {
            Some(there) if there == said => return name,
            Some(_) => {}
            None => {
                policies.insert(name.clone(), said.clone());
                return name;
            }
        }
    }
    unreachable!("there are more names than policies")
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::failover::{Phase, Return};
    use uuid::Uuid;
    use wire::heritage::{Document, NamedPolicy};

    fn host(number: u128) -> HostId {
        HostId::new(Uuid::from_u128(number))
    }

    fn place(number: u128, name: &str, site: &str) -> Place {
        Place { host: host(number), name: name.into(), site: site.into() }
    }

    fn heritage(epoch: u64, state: Option<&str>) -> Heritage {
        Heritage {
            protection: ProtectionId::new(Uuid::from_u128(10)),
            machine: MachineUuid::new(Uuid::from_u128(2)),
            name: "web".into(),
            source: place(1, "kvm1", "east"),
            target: place(3, "kvm2", "west"),
            compute: None,
            policy: NamedPolicy {
                name: "gold".into(),
                document: Document { format: 1, document: "{}".into() },
            },
            excluded_disks: vec![],
            generation: 7,
            paused: false,
            epoch,
            reversed: false,
            state: state.map(|state| Document { format: 1, document: state.into() }),
            recovery: None,
            unsent: false,
            former_hosts: vec![],
            created: OffsetDateTime::UNIX_EPOCH,
        }
    }

    fn only(told: Vec<Told>, known: &Known) -> Found {
        let mut found = find(told, known);
        assert_eq!(found.len(), 1);
        found.remove(0)
    }

    fn told(by: u128, heritage: Heritage) -> Told {
        Told { by: host(by), heritage }
    }

    #[test]
    fn the_side_that_heard_of_the_later_change_is_right() {
        let starting = r#"{"state":"failing_over","kind":"unplanned","phase":"starting"}"#;
        let fencing = r#"{"state":"failing_over","kind":"unplanned","phase":"fencing"}"#;
        let pending = r#"{"state":"commit_pending","kind":"unplanned","change":"none"}"#;
        let pairs = [
            ((1, None), (2, Some(fencing))),
            ((2, Some(fencing)), (2, Some(starting))),
            ((2, Some(starting)), (2, Some(pending))),
            ((2, Some(pending)), (2, Some(r#"{"state":"committed"}"#))),
            ((3, Some(r#"{"state":"returning","fenced":true}"#)), (3, None)),
        ];
        for (earlier, later) in pairs {
            let (earlier, later) = (heritage(earlier.0, earlier.1), heritage(later.0, later.1));
            for pair in [[&earlier, &later], [&later, &earlier]] {
                let both = vec![told(1, pair[0].clone()), told(3, pair[1].clone())];
                assert_eq!(only(both, &Known::default()).heritage, later);
            }
        }
    }

    #[test]
    fn what_only_a_lost_job_could_lead_on_is_taken_back() {
        let starting = r#"{"state":"failing_over","kind":"planned","phase":"starting"}"#;
        let found = only(vec![told(3, heritage(2, Some(starting)))], &Known::default());
        let adoption = found.adoption.unwrap();
        assert_eq!(adoption.loose, LooseEnd::TakeBack);
        assert_eq!(adoption.standing.epoch.number(), 3);
        let returning = |phase| matches!(adoption.standing.state, State::Returning { phase: at, .. } if at == phase);
        assert!(returning(Return::Fencing));
        let before = r#"{"state":"failing_over","kind":"planned","phase":"before_fence"}"#;
        let found = only(vec![told(3, heritage(1, Some(before)))], &Known::default());
        let adoption = found.adoption.unwrap();
        assert_eq!(adoption.standing.state, State::Protected);
        assert_eq!(adoption.loose, LooseEnd::MayBeOff);
        assert!(!matches!(
            adoption.standing.state,
            State::FailingOver { phase: Phase::BeforeFence, .. }
        ));
    }

    #[test]
    fn hosts_are_known_by_id_then_by_name_and_policies_keep_what_they_say() {
        let mut known = Known::default();
        known.hosts.insert(host(3), place(3, "renamed", "west"));
        known.hosts.insert(host(9), place(9, "kvm1", "east"));
        known.policies.insert("gold".into(), r#"{"other":1}"#.into());
        let found = only(vec![told(3, heritage(1, None))], &known);
        let adoption = found.adoption.unwrap();
        assert_eq!(adoption.source, Seat::Known(host(9)));
        assert_eq!(adoption.target, Seat::Known(host(3)));
        assert_eq!(adoption.policy_name, "gold-adopted-1");
        let nobody = only(vec![told(3, heritage(1, None))], &Known::default());
        assert_eq!(nobody.adoption.unwrap().source, Seat::New(place(1, "kvm1", "east")));
    }

    #[test]
    fn a_side_that_has_not_told_may_know_better() {
        let mut known = Known::default();
        known.hosts.insert(host(3), place(3, "kvm2", "west"));
        let found = only(vec![told(3, heritage(1, None))], &known);
        assert_eq!(found.silent(&[]), ["kvm1"]);
        assert!(found.silent(&["kvm1".to_owned()]).is_empty());
    }

    #[test]
    fn of_two_protections_of_a_machine_the_later_counts() {
        let mut later = heritage(1, None);
        later.protection = ProtectionId::new(Uuid::from_u128(11));
        later.created += time::Duration::HOUR;
        let both = vec![told(3, heritage(1, None)), told(3, later.clone())];
        let found = find(both, &Known::default());
        let good: Vec<_> = found.iter().filter(|found| found.adoption.is_ok()).collect();
        assert_eq!(good.len(), 1);
        assert_eq!(good[0].heritage, later);
    }

    #[test]
    fn a_machine_is_not_protected_twice_and_nonsense_is_refused() {
        let known = Known {
            machines: HashSet::from([MachineUuid::new(Uuid::from_u128(2))]),
            ..Known::default()
        };
        let found = only(vec![told(3, heritage(1, None))], &known);
        assert!(found.adoption.unwrap_err().reason.contains("already"));
        let odd = only(vec![told(3, heritage(1, Some("{}")))], &Known::default());
        assert!(odd.adoption.unwrap_err().reason.contains("no sense"));
    }
}
