//! A stand-in for an agent: it speaks the control protocol over TLS as agents
//! do, does nothing, and tells what the test has it tell.

use std::time::{Duration, Instant};

use agent::connection::dial::{self, Channel};
use agent::connection::request;
use domain::token::TokenText;
use serde_json::json;
use time::OffsetDateTime;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;
use wire::inventory::{HostFacts, Inventory, Machine};
use wire::message::{AgentMessage, ControllerMessage, Enrol, Hello, ProtocolRange, SecretText};
use wire::replication::{Duties, Replication};
use wire::tls::Credentials;

/// Until what is waited for must have happened.
const SOON: Duration = Duration::from_secs(30);

/// Who a stand-in is: it can connect again and again.
pub struct Identity {
    address: String,
    authority: String,
    credentials: Credentials,
    machines: Vec<Machine>,
    peer_address: Option<String>,
}

/// A stand-in that is connected; hangs up when dropped.
pub struct StandIn {
    tell: Option<mpsc::UnboundedSender<AgentMessage>>,
    duties: watch::Receiver<Option<Duties>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

fn facts() -> HostFacts {
    serde_json::from_value(json!({
        "hostname": "stand-in", "hypervisor_uuid": null, "operating_system": "none",
        "kernel": "none", "architecture": "x86_64", "cpu_model": "none", "cpus": 1,
        "memory_bytes": 1, "kvm": false, "libvirt": [9, 0, 0], "qemu": [7, 2, 0]
    }))
    .unwrap()
}

/// A machine with these disks, each a name and a format.
pub fn machine(number: u128, name: &str, disks: &[(&str, &str)]) -> Machine {
    let disk = |(target, format): &(&str, &str)| {
        json!({
            "target": target, "bus": "virtio", "serial": null, "format": format,
            "source": { "kind": "file", "path": format!("/disks/{target}") },
            "capacity_bytes": 1_u64 << 30, "allocation_bytes": 1_u64 << 20,
            "read_only": false, "shareable": false, "raw_device": false
        })
    };
    serde_json::from_value(json!({
        "uuid": Uuid::from_u128(number), "name": name, "power": "running", "persistent": true,
        "autostart": false, "firmware": "bios", "has_tpm": false, "passed_through": [],
        "vcpus": 1, "memory_bytes": 1, "nics": [], "guest_agent": "connected",
        "disks": disks.iter().map(disk).collect::<Vec<_>>()
    }))
    .unwrap()
}

/// Enrols a host at a controller's port for agents.
pub fn enrol(
    address: &str,
    token: &str,
    name: &str,
    machines: Vec<Machine>,
    peer_address: Option<&str>,
) -> Identity {
    let parsed: TokenText = token.parse().unwrap();
    let TokenText::Enrolment { authority, .. } = &parsed else { panic!("not for enrolment") };
    let tls = wire::tls::enrolling_agent(*authority).unwrap();
    let (key, request) = request::new_key().unwrap();
    let wish = AgentMessage::Enrol(Box::new(Enrol {
        protocol: ProtocolRange::OURS,
        token: SecretText(token.to_owned()),
        name: Some(name.to_owned()),
        request,
        facts: facts(),
        former_host: None,
    }));
    let answer = runtime().block_on(dial::ask_once(address, tls, wish)).unwrap();
    let ControllerMessage::Enrolled(enrolled) = answer else { panic!("{answer:?}") };
    Identity {
        address: address.to_owned(),
        authority: enrolled.authority,
        credentials: Credentials { certificate: enrolled.certificate, key },
        machines,
        peer_address: peer_address.map(str::to_owned),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

impl Identity {
    /// Connects, and tells what machines it has.
    pub fn connect(&self) -> StandIn {
        let hello = AgentMessage::Hello(Hello {
            protocol: ProtocolRange::OURS,
            agent_version: "stand-in".into(),
            instance: Uuid::new_v4(),
            peer_address: self.peer_address.clone(),
        });
        let inventory = AgentMessage::Inventory(Box::new(Inventory {
            seen: OffsetDateTime::now_utc(),
            facts: facts(),
            machines: self.machines.clone(),
            networks: vec![],
            pools: vec![],
        }));
        let tls = wire::tls::enrolled_agent(&self.credentials, &self.authority).unwrap();
        let (tell, told) = mpsc::unbounded_channel();
        let (seen, duties) = watch::channel(None);
        let address = self.address.clone();
        let thread = std::thread::spawn(move || {
            runtime().block_on(async {
                let mut channel = dial::dial(&address, tls).await.unwrap();
                dial::send(&mut channel, &hello).await.unwrap();
                let welcome = dial::receive(&mut channel).await.unwrap();
                assert!(matches!(welcome, ControllerMessage::Welcome(_)), "{welcome:?}");
                dial::send(&mut channel, &inventory).await.unwrap();
                serve(&mut channel, told, seen).await;
            });
        });
        StandIn { tell: Some(tell), duties, thread: Some(thread) }
    }
}

async fn serve(
    channel: &mut Channel,
    mut told: mpsc::UnboundedReceiver<AgentMessage>,
    seen: watch::Sender<Option<Duties>>,
) {
    use futures::StreamExt as _;
    let mut heartbeat = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            message = channel.next() => match message {
                Some(Ok(ControllerMessage::Duties(duties))) => { seen.send_replace(Some(*duties)); }
                Some(Ok(ControllerMessage::Heartbeat)) => {}
                // The controller ended.
                _ => return,
            },
            message = told.recv() => match message {
                Some(message) => dial::send(channel, &message).await.unwrap(),
                None => return,
            },
            _ = heartbeat.tick() => {
                if dial::send(channel, &AgentMessage::Heartbeat { now: None }).await.is_err() {
                    return;
                }
            }
        }
    }
}

impl StandIn {
    /// Tells of replication.
    pub fn tell(&self, report: Replication) {
        let message = AgentMessage::Replication(Box::new(report));
        self.tell.as_ref().unwrap().send(message).unwrap();
    }

    /// The duties, once they are as they must become.
    pub fn duties_until(&self, what: &str, wanted: impl Fn(&Duties) -> bool) -> Duties {
        until(what, || self.duties.borrow().clone().filter(&wanted))
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.tell = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Waits for something, but not for ever.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < SOON, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
