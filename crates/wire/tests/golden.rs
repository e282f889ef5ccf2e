//! The bytes of a protocol version do not change: each message is kept as it
//! was first sent, must still be understood, and must still be sent so.

use domain::id::{HostId, MachineUuid, ProtectionId};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;
use wire::command::{
    Answer, Answered, Command, Downed, Lender, LifeSign, Loan, NicWish, Outcome, Purpose, Recovery,
    Work,
};
use wire::heritage::{Document, Heritage, NamedPolicy, Place};
use wire::inventory::{
    Disk, DiskSource, Firmware, GuestAgent, HostFacts, Inventory, Isolation, Machine, Network, Nic,
    NicAttachment, Pool, PowerState, Reach, Subnet,
};
use wire::message::{
    AgentMessage, ControllerMessage, Enrol, Enrolled, Hello, HypervisorLost, ProtocolRange,
    Refused, SecretText, Welcome,
};
use wire::replication::{
    BandwidthRule, Compression, CycleFigures, Duties, Hold, ImportReport, ImportStage, Keeping,
    KeepingReport, OfflineCopy, Ownership, Phase, PointMark, Progress, Replication, Retention,
    RetentionTier, Shipping, ShippingPolicy, ShippingReport, Totals, Trouble, VerifiedDisk,
    VerifyReport, Window,
};

/// Set it to write the files of messages that are new; then read them.
const WRITE: &str = "LIFEBOAT_WRITE_GOLDEN";

fn keeps<T>(name: &str, message: &T)
where
    T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let path = format!("{}/tests/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os(WRITE).is_some() && !std::path::Path::new(&path).exists() {
        let text = serde_json::to_string_pretty(message).unwrap();
        std::fs::write(&path, text + "\n").unwrap();
    }
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let understood: T = serde_json::from_str(&text).unwrap();
    assert_eq!(&understood, message, "{name}");
    let kept: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_value(message).unwrap(), kept, "{name}");
}

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn at() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
}

fn facts() -> HostFacts {
    HostFacts {
        hostname: "kvm1".into(),
        hypervisor_uuid: Some(id(1)),
        operating_system: "Debian GNU/Linux 12 (bookworm)".into(),
        kernel: "6.1.0".into(),
        architecture: "x86_64".into(),
        cpu_model: "Skylake-Server".into(),
        cpus: 8,
        memory_bytes: 64 << 30,
        kvm: true,
        libvirt: [9, 0, 0],
        qemu: [7, 2, 0],
    }
}

fn disk(target: &str, source: DiskSource) -> Disk {
    Disk {
        target: target.into(),
        bus: "virtio".into(),
        serial: Some("A1".into()),
        source,
        format: "qcow2".into(),
        capacity_bytes: Some(1 << 30),
        allocation_bytes: None,
        read_only: false,
        shareable: true,
        raw_device: false,
    }
}

fn machine() -> Machine {
    let nic = |attachment| Nic {
        mac: "52:54:00:00:00:01".into(),
        attachment,
        model: Some("virtio".into()),
        link_up: true,
    };
    Machine {
        uuid: id(2),
        name: "web server".into(),
        power: PowerState::ShuttingDown,
        persistent: true,
        autostart: false,
        firmware: Firmware::Uefi { secure_boot: true },
        has_tpm: true,
        passed_through: vec!["pci device 0000:03:00.0".into()],
        vcpus: 2,
        memory_bytes: 1 << 31,
        disks: vec![
            disk("vda", DiskSource::File { path: "/images/a".into() }),
            disk("vdb", DiskSource::Block { path: "/dev/sdb".into() }),
            disk("vdc", DiskSource::Volume { pool: "default".into(), volume: "c".into() }),
            disk("vdd", DiskSource::Network { protocol: "rbd".into(), name: "p/d".into() }),
            disk("vde", DiskSource::Other { word: "vhostuser".into() }),
        ],
        nics: vec![
            nic(NicAttachment::Network("default".into())),
            nic(NicAttachment::Bridge("br0".into())),
            nic(NicAttachment::Other("direct".into())),
        ],
        guest_agent: GuestAgent::NotAnswering,
    }
}

fn network(name: &str, isolation: Isolation, reach: Reach) -> Network {
    Network {
        uuid: id(3),
        name: name.into(),
        active: true,
        autostart: true,
        isolation,
        reach,
        bridge: Some("virbr0".into()),
        subnets: vec![Subnet {
            gateway: [192, 0, 2, 1].into(),
            prefix_length: 24,
            dhcp: vec![[[192, 0, 2, 100].into(), [192, 0, 2, 200].into()]],
        }],
    }
}

fn inventory() -> Inventory {
    Inventory {
        seen: at(),
        facts: facts(),
        machines: vec![machine()],
        networks: vec![
            network("a", Isolation::None, Reach::Nat),
            network("b", Isolation::Vlan(vec![42]), Reach::Bridged),
            network(
                "c",
                Isolation::Virtualised { port: "midonet".into() },
                Reach::Other("vepa".into()),
            ),
        ],
        pools: vec![Pool {
            uuid: id(4),
            name: "default".into(),
            kind: "dir".into(),
            active: true,
            autostart: true,
            path: Some("/images".into()),
            capacity_bytes: 1 << 40,
            available_bytes: 1 << 39,
        }],
    }
}

fn heritage() -> Heritage {
    let place = |host, name: &str, site: &str| Place {
        host: HostId::new(id(host)),
        name: name.into(),
        site: site.into(),
    };
    Heritage {
        protection: ProtectionId::new(id(10)),
        machine: MachineUuid::new(id(2)),
        name: "web".into(),
        source: place(6, "kvm1", "east"),
        target: place(7, "kvm2", "west"),
        compute: None,
        policy: NamedPolicy {
            name: "gold".into(),
            document: Document { format: 1, document: r#"{"every_seconds":30}"#.into() },
        },
        excluded_disks: vec!["vdb".into()],
        generation: 8,
        paused: false,
        epoch: 3,
        reversed: true,
        state: Some(Document { format: 1, document: r#"{"state":"committed"}"#.into() }),
        recovery: Some(id(17)),
        unsent: true,
        former_hosts: vec![id(18)],
        created: at(),
    }
}

#[test]
fn what_agents_say_is_kept() {
    let enrol = Enrol {
        protocol: ProtocolRange { oldest: 1, newest: 1 },
        token: SecretText("lbe.a.b.c".into()),
        name: Some("kvm1".into()),
        request: "-----BEGIN CERTIFICATE REQUEST-----\n".into(),
        facts: facts(),
        former_host: None,
    };
    keeps("agent-enrol-1", &AgentMessage::Enrol(Box::new(enrol.clone())));
    let again = Enrol { former_host: Some(id(6)), ..enrol };
    keeps("agent-enrol-4", &AgentMessage::Enrol(Box::new(again)));
    keeps("agent-heritage-4", &AgentMessage::Heritage { heritage: vec![heritage()] });
    let hello = Hello {
        protocol: ProtocolRange { oldest: 1, newest: 1 },
        agent_version: "0.1.0".into(),
        instance: id(5),
        peer_address: None,
    };
    keeps("agent-hello-1", &AgentMessage::Hello(hello));
    keeps("agent-inventory-1", &AgentMessage::Inventory(Box::new(inventory())));
    let lost = HypervisorLost { since: at(), reason: "the daemon went away".into() };
    keeps("agent-hypervisor-lost-1", &AgentMessage::HypervisorLost(lost));
    keeps("agent-heartbeat-1", &AgentMessage::Heartbeat { now: None });
    keeps("agent-heartbeat-2", &AgentMessage::Heartbeat { now: Some(at()) });
    keeps("agent-renew-1", &AgentMessage::Renew { request: "-----BEGIN".into() });
}

#[test]
fn what_the_controller_says_is_kept() {
    let enrolled = Enrolled {
        host: id(6),
        name: "kvm1".into(),
        site: "east".into(),
        certificate: "-----BEGIN CERTIFICATE-----\n".into(),
        authority: "-----BEGIN CERTIFICATE-----\n".into(),
    };
    keeps("controller-enrolled-1", &ControllerMessage::Enrolled(enrolled));
    let welcome = Welcome { protocol: 1, name: "kvm1".into(), site: "east".into() };
    keeps("controller-welcome-1", &ControllerMessage::Welcome(welcome));
    keeps("controller-heartbeat-1", &ControllerMessage::Heartbeat);
    keeps("controller-renewed-1", &ControllerMessage::Renewed { certificate: "-----BEGIN".into() });
    let refused = Refused {
        code: "LB3007".into(),
        doing: "let host kvm1 connect".into(),
        cause: "the host was revoked".into(),
        advice: "Enrol it again.".into(),
    };
    keeps("controller-refused-1", &ControllerMessage::Refused(refused));
}

#[test]
fn an_inventory_survives_the_way_through_the_domain() {
    let domain = domain::inventory::Inventory::from(inventory());
    assert_eq!(Inventory::new(domain, at()), inventory());
}

#[test]
fn a_newer_side_may_say_more_and_a_secret_is_not_shown() {
    let hello = r#"{"type":"hello","protocol":{"oldest":1,"newest":2,"draft":3},
        "agent_version":"0.2.0","instance":"00000000-0000-0000-0000-000000000005","mood":"fine"}"#;
    assert!(matches!(serde_json::from_str(hello), Ok(AgentMessage::Hello(_))));
    assert!(!format!("{:?}", SecretText("lbe.secret".into())).contains("secret"));
}

fn point() -> PointMark {
    PointMark { point: 7, instant: at(), app_consistent: true, stored_bytes: 4096, hold: None }
}

#[test]
fn replication_is_wished_and_told_as_ever() {
    let point = point();
    let refused = Refused {
        code: "LB6001".into(),
        doing: "ship machine web".into(),
        cause: "it is full".into(),
        advice: "Make room.".into(),
    };
    let trouble = Trouble { fault: refused.clone(), since: at() };
    let duties = Duties {
        shipping: vec![Shipping {
            protection: ProtectionId::new(id(10)),
            machine: MachineUuid::new(id(2)),
            name: "web".into(),
            target: HostId::new(id(11)),
            target_name: "kvm2".into(),
            target_address: Some("192.0.2.2:7444".into()),
            generation: 3,
            excluded_disks: vec!["vdb".into()],
            policy: ShippingPolicy {
                every_seconds: 30,
                app_consistent_seconds: Some(3600),
                freeze_seconds: 10,
                compression: Compression::Fast,
                bytes_per_second: Some(1_000_000),
                calendar: vec![],
                resynchronise_in: vec![],
            },
            paused: false,
            not_before: Some(at()),
            resynchronise: Some(id(12)),
            verify: Some(id(13)),
            offline: None,
        }],
        keeping: vec![Keeping {
            protection: ProtectionId::new(id(10)),
            machine: MachineUuid::new(id(2)),
            name: "web".into(),
            source: HostId::new(id(14)),
            generation: 3,
            retention: Retention {
                all_hours: 24,
                tiers: vec![RetentionTier { slot_hours: 1, hours: 48 }],
                app_extra_hours: 24,
            },
            compression: Compression::None,
            import: None,
        }],
        ownership: vec![],
        heritage: vec![],
    };
    keeps("controller-duties-2", &ControllerMessage::Duties(Box::new(duties.clone())));
    let window = Window { days: 31, from_minute: 480, minutes: 600 };
    let mut more = duties;
    if let Some(shipping) = more.shipping.first_mut() {
        shipping.policy.calendar = vec![BandwidthRule { window, bytes_per_second: None }];
        shipping.policy.resynchronise_in = vec![window];
        shipping.offline = Some(OfflineCopy { wish: id(15), folder: "/mnt/usb".into() });
    }
    if let Some(keeping) = more.keeping.first_mut() {
        keeping.import = Some(OfflineCopy { wish: id(16), folder: "/mnt/disk".into() });
    }
    let machine = MachineUuid::new(id(2));
    more.ownership = vec![Ownership { machine, epoch: 3, ours: true, starts_alone: false }];
    keeps("controller-duties-2-carried", &ControllerMessage::Duties(Box::new(more.clone())));
    more.heritage = vec![heritage()];
    keeps("controller-duties-4", &ControllerMessage::Duties(Box::new(more)));
    let report = Replication {
        shipping: vec![ShippingReport {
            protection: ProtectionId::new(id(10)),
            phase: Phase::Resynchronising { reason: "the bitmap is lost".into(), held_until: None },
            trouble: Some(trouble.clone()),
            remarks: vec!["the guest agent does not answer".into()],
            newest: Some(point),
            progress: Some(Progress { done: 1, total: 2, seconds_left: None }),
            rpo_worst_ms: Some(60_000),
            rpo_p99_ms: Some(31_000),
            totals: Totals { read: 3, sent: 2, points: 1 },
            last_cycle: Some(CycleFigures { took_ms: 900, changed: 65_536, sent: 30_000 }),
            resynchronised: Some(id(12)),
            verified: Some(VerifyReport {
                wish: id(13),
                point: Some(point),
                finished: at(),
                disks: vec![VerifiedDisk {
                    disk: "vda".into(),
                    bytes: 1 << 30,
                    digest: "00ff".into(),
                    differing: vec![(65_536, 65_536)],
                }],
                trouble: Some(refused),
            }),
        }],
        keeping: vec![KeepingReport {
            protection: ProtectionId::new(id(10)),
            folder: "/var/lib/lifeboat/store/web".into(),
            points: vec![point],
            count: 1,
            used_bytes: 5,
            free_bytes: 6,
            trouble: Some(trouble.clone()),
            import: None,
        }],
    };
    keeps("agent-replication-2", &AgentMessage::Replication(Box::new(report.clone())));
    let phases = [
        Phase::Exporting { folder: "/mnt/usb".into() },
        Phase::Carried { folder: "/mnt/usb".into(), instant: at() },
        Phase::Resynchronising { reason: "a disk grew".into(), held_until: Some(at()) },
    ];
    let stages = [
        ImportStage::Reading(Progress { done: 1, total: 2, seconds_left: None }),
        ImportStage::Taken,
        ImportStage::Failed(trouble),
    ];
    let mut more = Replication::default();
    for (phase, stage) in phases.into_iter().zip(stages) {
        more.shipping.extend(report.shipping.iter().cloned().map(|shipping| ShippingReport {
            phase: phase.clone(),
            verified: None,
            ..shipping
        }));
        more.keeping.extend(report.keeping.iter().cloned().map(|keeping| KeepingReport {
            import: Some(ImportReport { wish: id(16), stage: stage.clone() }),
            ..keeping
        }));
    }
    keeps("agent-replication-2-carried", &AgentMessage::Replication(Box::new(more)));
}

#[test]
fn commands_are_given_and_answered_as_ever() {
    let (protection, machine) = (ProtectionId::new(id(10)), MachineUuid::new(id(2)));
    let recovery = id(20);
    let nics = vec![NicWish { mac: "52:54:00:12:34:56".into(), network: "default".into() }];
    let made = Recovery {
        id: recovery,
        protection,
        point: 7,
        purpose: Purpose::Production,
        nics,
        same_networks: false,
        keeper: None,
    };
    let test = Purpose::Test { name: "web-test".into(), uuid: id(21) };
    let host = HostId::new(id(1));
    let (name, address) = ("kvm2".to_owned(), "192.0.2.2:7444".to_owned());
    let borrowed = Recovery { keeper: Some(Lender { host, name, address }), ..made.clone() };
    let works = [
        Work::ListPoints { protection },
        Work::Synchronise { protection, compare: true },
        Work::ShutDown { machine, within_seconds: 300, force: false },
        Work::Fence { machine, epoch: 4 },
        Work::Start { machine, epoch: 5 },
        Work::Define(Box::new(made.clone())),
        Work::Define(Box::new(Recovery { purpose: test, nics: vec![], ..made })),
        Work::StartRecovered { recovery, epoch: Some(4) },
        Work::AwaitLife { recovery, within_seconds: 300 },
        Work::StopRecovered { recovery },
        Work::Discard { recovery },
        Work::Hydrate { recovery, bytes_per_second: None },
        Work::AdoptDisks { protection, machine, lost: false },
        Work::AdoptDisks { protection, machine, lost: true },
        Work::HoldPoint { protection, point: 7, hold: Some(Hold::Operator) },
        Work::HoldPoint { protection, point: 7, hold: None },
        Work::Weigh { machine, recovery: Some(recovery) },
        Work::DropPoints { recovery },
        Work::Lend(Loan { recovery, protection, point: 7, to: host }),
        Work::EndLoan { recovery, drop_points: true },
        Work::Define(Box::new(borrowed)),
    ];
    for (number, work) in works.into_iter().enumerate() {
        let command = Command { id: id(30), job: id(31), work };
        let name = format!("controller-command-3-{number}");
        keeps(&name, &ControllerMessage::Command(Box::new(command)));
    }
    let point = point();
    let done = |answer| Outcome::Done { answer };
    let outcomes = [
        Outcome::Working { progress: Some(Progress { done: 1, total: 2, seconds_left: None }) },
        done(Answer::Done),
        done(Answer::Down { how: Downed::InOrder }),
        done(Answer::Defined { remarks: vec!["its TPM is left out".into()] }),
        done(Answer::Alive { by: LifeSign::GuestAgent, after_ms: 4000 }),
        done(Answer::Point { point }),
        done(Answer::Points { points: vec![point] }),
        Outcome::Failed {
            fault: Refused {
                code: "LB7001".into(),
                doing: "start machine web".into(),
                cause: "its name is taken".into(),
                advice: "Rename the other.".into(),
            },
        },
        done(Answer::Point { point: PointMark { hold: Some(Hold::Lost), ..point } }),
        done(Answer::Weight {
            bytes: 1 << 30,
            taken_bytes: 1 << 29,
            written_bytes: Some(1 << 20),
            unusable: None,
        }),
        done(Answer::Dropped { dropped: 41, kept: 2 }),
    ];
    for (number, outcome) in outcomes.into_iter().enumerate() {
        let answered = Answered { id: id(30), outcome };
        keeps(&format!("agent-answered-3-{number}"), &AgentMessage::Answered(Box::new(answered)));
    }
}
