//! The target's host as a shipper sees it.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use agent::{
    capture::Capture,
    ship::{folder::Courses, rounds::Rounds},
};
use anyhow::{Context as _, Result};
use domain::id::{MachineUuid, ProtectionId};
use tokio::{sync::Mutex, task::JoinHandle, time::interval};
use tokio_rustls::TlsConnector;
use uuid::Uuid;
use wire::{
    data::Sealed,
    replication::{Compression, CycleFigures, Keeping, Retention, Shipping, ShippingPolicy},
    tls::{peer_agent, peer_name},
};

use super::{
    hosts::Hosts,
    probe::Orders,
    traffic::{Counted, Traffic},
};
use crate::{
    process::{Server, probe},
    workplace::Workplace,
};

/// As often as an agent says that it is still there.
const IDLE: Duration = Duration::from_secs(10);

/// A keeper of `machines` machines, with new stores.
pub(crate) struct Target {
    server: Server,
    hosts: Hosts,
    address: String,
    folder: PathBuf,
    courses: Courses,
}

impl Target {
    /// Starts it, and waits until it listens.
    pub(crate) fn start(place: &Workplace, machines: u64) -> Result<Self> {
        let folder = place.path("target");
        place.clear(&folder)?;
        fs::create_dir(&folder)?;
        let hosts = Hosts::make()?;
        // Somebody else may take the port before the keeper does; it would say so.
        let free = TcpListener::bind("127.0.0.1:0").context("find a free port")?;
        let address = free.local_addr()?.to_string();
        drop(free);
        let orders = Orders {
            host: hosts.target.host.uuid(),
            authority: hosts.target.authority.clone(),
            certificate: hosts.target.credentials.certificate.clone(),
            key: hosts.target.credentials.key.clone(),
            address: address.clone(),
            folder: folder.join("points"),
            keeping: (0..machines).map(|number| keeping(number, &hosts)).collect(),
        };
        let file = folder.join("orders.json");
        fs::write(&file, serde_json::to_vec(&orders)?)?;
        let server = Server::start_until(probe("keep")?.arg(&file), || {
            TcpStream::connect(&address).is_ok()
        })?;
        let courses = Courses::in_folder(folder.join("courses"))?;
        Ok(Self { server, hosts, address, folder, courses })
    }

    /// Connects as the agent of the source's host does, for the machine of this
    /// number.
    pub(crate) async fn meet<C: Capture + 'static>(
        &self,
        number: u64,
        machine: C,
    ) -> Result<Shipper<C>> {
        let traffic = Arc::new(Traffic::default());
        let stream = tokio::net::TcpStream::connect(&self.address).await.context("connect")?;
        stream.set_nodelay(true)?;
        let source = &self.hosts.source;
        let tls = peer_agent(&source.credentials, &source.authority, self.hosts.target.host)?;
        let stream = Counted { stream, traffic: Arc::clone(&traffic) };
        let stream = TlsConnector::from(Arc::new(tls)).connect(peer_name(), stream).await;
        let stream = Box::new(stream.context("shake hands")?);
        let duty = shipping(number, &self.hosts);
        let rounds = Rounds::meet(duty, machine, self.courses.clone(), stream).await?;
        Ok(Shipper::new(rounds, traffic))
    }

    /// Ends it and removes its points.
    pub(crate) fn stop(self, place: &Workplace) -> Result<()> {
        self.server.stop()?;
        place.clear(&self.folder)
    }
}

/// Ships a machine whenever it is told to, and keeps the connection alive
/// meanwhile.
pub(crate) struct Shipper<C> {
    rounds: Arc<Mutex<Rounds<C>>>,
    traffic: Arc<Traffic>,
    idle: JoinHandle<()>,
}

impl<C: Capture + 'static> Shipper<C> {
    fn new(rounds: Rounds<C>, traffic: Arc<Traffic>) -> Self {
        let rounds = Arc::new(Mutex::new(rounds));
        let others = Arc::clone(&rounds);
        let idle = tokio::spawn(async move {
            let mut due = interval(IDLE);
            // A keeper that is gone is told by the next round.
            while others.lock().await.idle().await.is_ok() {
                due.tick().await;
            }
        });
        Self { rounds, traffic, idle }
    }

    /// Rounds until there is a point.
    pub(crate) async fn point(&self) -> Result<(Sealed, CycleFigures)> {
        let mut rounds = self.rounds.lock().await;
        loop {
            if let Some(point) = rounds.round().await? {
                return Ok(point);
            }
        }
    }

    /// The next point comes of comparing everything.
    pub(crate) async fn resynchronise(&self) {
        self.rounds.lock().await.resynchronise();
    }

    /// Bytes on the wire so far: sent, received.
    pub(crate) fn traffic(&self) -> (u64, u64) {
        (self.traffic.sent(), self.traffic.received())
    }
}

impl<C> Drop for Shipper<C> {
    fn drop(&mut self) {
        self.idle.abort();
    }
}

fn protection(number: u64) -> ProtectionId {
    // Folders of stores are told apart by the first digits.
    ProtectionId::new(Uuid::from_u128(u128::from(number + 1) << 96))
}

/// The hypervisor's UUID of the machine of this number.
pub(crate) fn machine(number: u64) -> MachineUuid {
    MachineUuid::new(Uuid::from_u128(u128::from(number + 1)))
}

fn shipping(number: u64, hosts: &Hosts) -> Shipping {
    Shipping {
        protection: protection(number),
        machine: machine(number),
        name: format!("machine-{number}"),
        target: hosts.target.host,
        target_name: "target".to_owned(),
        target_address: None,
        generation: 1,
        excluded_disks: Vec::new(),
        policy: ShippingPolicy {
            every_seconds: 30,
            app_consistent_seconds: None,
            freeze_seconds: 10,
            compression: Compression::Fast,
            bytes_per_second: None,
            calendar: Vec::new(),
            resynchronise_in: Vec::new(),
        },
        paused: false,
        not_before: None,
        resynchronise: None,
        verify: None,
        offline: None,
    }
}

fn keeping(number: u64, hosts: &Hosts) -> Keeping {
    Keeping {
        protection: protection(number),
        machine: machine(number),
        name: format!("machine-{number}"),
        source: hosts.source.host,
        generation: 1,
        retention: Retention { all_hours: 24, tiers: Vec::new(), app_extra_hours: 0 },
        compression: Compression::Fast,
        import: None,
    }
}
