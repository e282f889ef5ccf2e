//! The machines of the hypervisor, as somebody operates them: the calls that
//! define, start, stop and remove them.

use std::sync::Arc;

use domain::id::MachineUuid;
use tokio::sync::Notify;

use super::error::LibvirtError;
use super::ffi;
use super::xml;

/// A connection of its own for work on any machine. Its calls block.
pub struct Operator {
    connection: ffi::Connection,
}

/// Whether a machine has power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// The hypervisor does not know it.
    Unknown,
    /// It has no QEMU process.
    Off,
    /// It has one, whatever that is doing.
    On,
}

impl Operator {
    /// Opens a connection.
    ///
    /// # Errors
    /// Whatever libvirt said.
    pub fn open(uri: &str) -> Result<Self, LibvirtError> {
        let connection = ffi::Connection::open(uri)?;
        connection.ring_on_close(&Arc::new(Notify::new()))?;
        Ok(Self { connection })
    }

    /// Whether calls can reach the daemon, as far as is known without asking.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.connection.closed().is_none() && self.connection.is_alive()
    }

    fn domain(&self, machine: MachineUuid) -> Result<ffi::Domain, LibvirtError> {
        self.connection.domain(&machine.to_string())
    }

    /// Whether a machine has power.
    ///
    /// # Errors
    /// Whatever libvirt said.
    pub fn power(&self, machine: MachineUuid) -> Result<Power, LibvirtError> {
        match self.domain(machine).and_then(|domain| domain.is_active()) {
            Ok(true) => Ok(Power::On),
            Ok(false) => Ok(Power::Off),
            Err(error) if error.is_gone() => Ok(Power::Unknown),
            Err(error) => Err(error),
        }
    }

    /// The UUID of the machine with this name, if there is one.
    ///
    /// # Errors
    /// Whatever libvirt said.
    pub fn uuid_of(&self, name: &str) -> Result<Option<String>, LibvirtError> {
        match self.connection.domain_named(name).and_then(|domain| domain.uuid()) {
            Ok(uuid) => Ok(Some(uuid)),
            Err(error) if error.is_gone() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Its description as it is now.
    ///
    /// # Errors
    /// Whatever libvirt said.
    pub fn xml(&self, machine: MachineUuid) -> Result<String, LibvirtError> {
        self.domain(machine)?.xml()
    }

    /// Its description as its next start would use it; none when there is no such
    /// machine.
    ///
    /// # Errors
    /// Whatever libvirt said.
    pub fn inactive_xml(&self, machine: MachineUuid) -> Result<Option<String>, LibvirtError> {
        match self.domain(machine).and_then(|domain| domain.inactive_xml()) {
            Ok(xml) => Ok(Some(xml)),
            Err(error) if error.is_gone() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What the host and its hypervisor offer.
    ///
    /// # Errors
    /// Whatever libvirt said; XML that makes no sense to us.
    pub fn capabilities(&self) -> Result<xml::capabilities::Capabilities, LibvirtError> {
        Ok(xml::capabilities::parse(&self.connection.capabilities()?)?)
    }

    /// Whether a network is there and active; none when there is none of that
    /// name.
    ///
    /// # Errors
    /// Whatever libvirt said.
    pub fn network_is_active(&self, name: &str) -> Result<Option<bool>, LibvirtError> {
        match self.connection.network_named(name).and_then(|network| network.is_active()) {
            Ok(active) => Ok(Some(active)),
            Err(error) if error.is_gone() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a machine known, or changes what is known of it, from its next start
    /// on.
    ///
    /// # Errors
    /// Whatever libvirt said.
    pub fn define(&self, xml: &str) -> Result<(), LibvirtError> {
        self.connection.define(xml).map(drop)
    }

    /// Makes libvirt forget a machine, with all that libvirt keeps of it. No
    /// mistake when there is no such machine.
    ///
    /// # Errors
    /// Whatever libvirt said.
    pub fn undefine(&self, machine: MachineUuid) -> Result<(), LibvirtError> {
        match self.domain(machine).and_then(|domain| domain.undefine()) {
            Err(error) if error.is_gone() => Ok(()),
            other => other,
        }
    }

    /// Starts a machine. No mistake when it runs.
    ///
    /// # Errors
    /// Whatever libvirt said; [`LibvirtError::is_gone`] when there is no such
    /// machine.
    pub fn start(&self, machine: MachineUuid) -> Result<(), LibvirtError> {
        let domain = self.domain(machine)?;
        match domain.start() {
            Err(error) if error.is_about_the_state() && domain.is_active()? => Ok(()),
            other => other,
        }
    }

    /// Takes a machine's power away; whether it had any.
    ///
    /// # Errors
    /// Whatever libvirt said.
    pub fn destroy(&self, machine: MachineUuid) -> Result<bool, LibvirtError> {
        match self.domain(machine).and_then(|domain| domain.destroy()) {
            Ok(()) => Ok(true),
            Err(error) if error.is_gone() || error.is_about_the_state() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Asks a guest to shut down, by its agent or by its power button. It may do
    /// so, or not.
    ///
    /// # Errors
    /// Whatever libvirt said.
    pub fn ask_to_shut_down(
        &self,
        machine: MachineUuid,
        by_agent: bool,
    ) -> Result<(), LibvirtError> {
        self.domain(machine)?.shut_down(by_agent)
    }

    /// Keeps libvirt from starting a machine by itself; whether it would have.
    ///
    /// # Errors
    /// Whatever libvirt said.
    pub fn drop_autostart(&self, machine: MachineUuid) -> Result<bool, LibvirtError> {
        let domain = match self.domain(machine) {
            Ok(domain) => domain,
            Err(error) if error.is_gone() => return Ok(false),
            Err(error) => return Err(error),
        };
        let was = domain.autostart()?;
        if was {
            domain.set_autostart(false)?;
        }
        Ok(was)
    }

    /// Has libvirt start a machine by itself.
    ///
    /// # Errors
    /// Whatever libvirt said.
    pub fn restore_autostart(&self, machine: MachineUuid) -> Result<(), LibvirtError> {
        self.domain(machine)?.set_autostart(true)
    }

    /// Whether a machine's guest agent answers.
    ///
    /// # Errors
    /// Whatever libvirt said, but for the silence of the agent.
    pub fn guest_answers(&self, machine: MachineUuid) -> Result<bool, LibvirtError> {
        match self.domain(machine)?.ask_time() {
            Ok(()) => Ok(true),
            // An answer, though no friendly one.
            Err(error) if error.is_refusal_by_the_guest_agent() && !error.is_about_the_state() => {
                Ok(true)
            }
            Err(error) if error.is_silence_of_the_guest_agent() || error.is_about_the_state() => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// How many requests these disks of a machine have had since its start.
    ///
    /// # Errors
    /// Whatever libvirt said.
    pub fn disk_requests(
        &self,
        machine: MachineUuid,
        targets: &[String],
    ) -> Result<u64, LibvirtError> {
        let domain = self.domain(machine)?;
        targets.iter().map(|target| domain.disk_requests(target)).sum()
    }

    /// How many bytes the guest has written to these disks of a machine since its
    /// start. The machine must run.
    ///
    /// # Errors
    /// Whatever libvirt said.
    pub fn disk_bytes_written(
        &self,
        machine: MachineUuid,
        targets: &[String],
    ) -> Result<u64, LibvirtError> {
        let domain = self.domain(machine)?;
        targets.iter().map(|target| domain.disk_bytes_written(target)).sum()
    }

    /// How many bytes the guest sees of these disks of a machine together, and how
    /// many they take.
    ///
    /// # Errors
    /// Whatever libvirt said.
    pub fn disk_sizes(
        &self,
        machine: MachineUuid,
        targets: &[String],
    ) -> Result<(u64, u64), LibvirtError> {
        let domain = self.domain(machine)?;
        let sizes = targets.iter().map(|target| domain.block_size(target));
        sizes
            .map(|size| size.map(|size| (size.capacity, size.allocation)))
            .try_fold((0, 0), |(bytes, taken), size| {
                size.map(|(more, of)| (bytes + more, taken + of))
            })
    }

    /// Begins to bring all that a disk's image stands on into the image itself,
    /// at most so many bytes a second. The machine must run.
    ///
    /// # Errors
    /// Whatever libvirt said.
    pub fn pull(
        &self,
        machine: MachineUuid,
        target: &str,
        bytes_per_second: Option<u64>,
    ) -> Result<(), LibvirtError> {
        self.domain(machine)?.pull(target, bytes_per_second.unwrap_or(0))
    }

    /// How far the block job of a disk is, of how much; none when it has none.
    ///
    /// # Errors
    /// Whatever libvirt said.
    pub fn pull_progress(
        &self,
        machine: MachineUuid,
        target: &str,
    ) -> Result<Option<(u64, u64)>, LibvirtError> {
        self.domain(machine)?.block_progress(target)
    }
}
