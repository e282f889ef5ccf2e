//! libvirt, wrapped in the few safe calls that the agent needs.
//!
//! Only this folder knows libvirt's functions ([`ffi`]) and its XML ([`xml`]).

use std::sync::Arc;

use domain::host::HostFacts;
use domain::inventory::Inventory;
use domain::machine::{Disk, Machine, PowerState};
use domain::storage::StoragePool;
use domain::units::ByteCount;
use tokio::sync::Notify;

mod error;
mod ffi;
mod local;
mod operator;
mod subject;
mod told;
pub mod xml;

pub use error::LibvirtError;
pub use operator::{Operator, Power};
pub use subject::Subject;
use told::DomainState;

/// A connection to a hypervisor. Its calls block.
pub struct Connection {
    connection: ffi::Connection,
    uri: String,
    facts: HostFacts,
}

impl Connection {
    /// Opens a connection whose events ring the doorbell, and asks what the
    /// host is. That is asked once: libvirt probes QEMU anew for it, for
    /// seconds on some hosts, and an upgrade ends the connection anyway.
    ///
    /// # Errors
    /// Whatever libvirt said.
    pub fn open(uri: &str, doorbell: &Arc<Notify>) -> Result<Self, LibvirtError> {
        let connection = ffi::Connection::open(uri)?;
        connection.ring_on_events(doorbell)?;
        let facts = local::facts(&connection)?;
        Ok(Self { connection, uri: uri.to_owned(), facts })
    }

    /// Why the connection is of no use any more, once it is.
    #[must_use]
    pub fn closed(&self) -> Option<&'static str> {
        self.connection.closed()
    }

    /// Reads everything that the host has.
    ///
    /// What vanishes while it is being read is left out.
    ///
    /// # Errors
    /// Whatever libvirt said; XML that makes no sense to us.
    pub fn look(&self) -> Result<Inventory, LibvirtError> {
        let mut machines = present(self.connection.domains()?.iter().map(|d| self.machine(d)))?;
        let mut networks = present(self.connection.networks()?.iter().map(|network| {
            let autostart = network.autostart()?;
            Ok(xml::network::parse(&network.xml()?, network.is_active()?, autostart)?)
        }))?;
        let mut pools = present(self.connection.pools()?.iter().map(pool))?;
        machines.sort_by(|a, b| a.name.cmp(&b.name));
        networks.sort_by(|a, b| a.name.cmp(&b.name));
        pools.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Inventory { facts: self.facts.clone(), machines, networks, pools })
    }

    fn machine(&self, domain: &ffi::Domain) -> Result<Machine, LibvirtError> {
        let power = match domain.state()? {
            DomainState::Running => PowerState::Running,
            DomainState::Paused => PowerState::Paused,
            DomainState::ShuttingDown => PowerState::ShuttingDown,
            DomainState::Off => PowerState::Off,
            DomainState::Crashed => PowerState::Crashed,
            DomainState::Suspended => PowerState::Suspended,
        };
        let mut machine = xml::machine::parse(
            &domain.xml()?,
            xml::machine::Aspects {
                power,
                persistent: domain.is_persistent()?,
                autostart: domain.autostart()?,
            },
        )?;
        for disk in &mut machine.disks {
            measure(domain, disk);
        }
        Ok(machine)
    }
}

/// Ends the process at once, with this exit code. A process that has used
/// libvirt ends in no other way: its threads cannot be ended, and the C
/// library's exit handlers would pull the ground from under them.
pub fn end_process(code: u8) -> ! {
    ffi::end_process(code.into())
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("uri", &self.uri).finish_non_exhaustive()
    }
}

/// Sizes are a courtesy: a disk whose file is missing has none, and is shown.
fn measure(domain: &ffi::Domain, disk: &mut Disk) {
    if let Ok(size) = domain.block_size(&disk.target) {
        disk.capacity = Some(ByteCount::new(size.capacity));
        disk.allocation = Some(ByteCount::new(size.allocation));
    }
}

fn pool(pool: &ffi::Pool) -> Result<StoragePool, LibvirtError> {
    let size = pool.size()?;
    Ok(xml::pool::parse(
        &pool.xml()?,
        xml::pool::Aspects {
            active: size.active,
            autostart: pool.autostart()?,
            capacity: ByteCount::new(size.capacity),
            available: ByteCount::new(size.available),
        },
    )?)
}

/// Collects what was read, without what was gone by then.
fn present<T>(read: impl Iterator<Item = Result<T, LibvirtError>>) -> Result<Vec<T>, LibvirtError> {
    read.filter(|item| !matches!(item, Err(error) if error.is_gone())).collect()
}
