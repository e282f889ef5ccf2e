//! One machine, as the subject of capture: the calls that hold its disks still,
//! say what changed, and undo all that.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use domain::id::MachineUuid;
use tokio::sync::Notify;

use super::error::LibvirtError;
use super::ffi;
use super::xml;

/// A connection of its own to the hypervisor of one machine. Its calls block,
/// and may do so for long.
///
/// The machine is looked up anew by each call: it may be redefined meanwhile.
pub struct Subject {
    connection: ffi::Connection,
    uuid: String,
}

impl Subject {
    /// Opens a connection. From now on `starts` counts the machine's starts,
    /// and `doorbell` rings when it starts, stops, or ends a job.
    ///
    /// # Errors
    /// Whatever libvirt said; [`LibvirtError::is_gone`] when there is no such
    /// machine.
    pub fn open(
        uri: &str,
        machine: MachineUuid,
        doorbell: &Arc<Notify>,
        starts: &Arc<AtomicU64>,
    ) -> Result<Self, LibvirtError> {
        let connection = ffi::Connection::open(uri)?;
        connection.ring_on_close(doorbell)?;
        let subject = Self { connection, uuid: machine.to_string() };
        subject.connection.watch_domain(&subject.domain()?, doorbell, starts)?;
        Ok(subject)
    }

    fn domain(&self) -> Result<ffi::Domain, LibvirtError> {
        self.connection.domain(&self.uuid)
    }

    /// Whether calls can reach the daemon, as far as is known without asking.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.connection.closed().is_none() && self.connection.is_alive()
    }

    /// Whether the machine has a QEMU process: it runs, or is paused.
    ///
    /// # Errors
    /// Whatever libvirt said.
    pub fn is_active(&self) -> Result<bool, LibvirtError> {
        self.domain()?.is_active()
    }

    /// Whether the machine is off because its guest shut down in order.
    ///
    /// # Errors
    /// Whatever libvirt said.
    pub fn shut_down_in_order(&self) -> Result<bool, LibvirtError> {
        self.domain()?.shut_down_in_order()
    }

    /// Whether QEMU holds the machine because a write or a read of its disks
    /// failed, which [`resume`](Self::resume) would try again.
    ///
    /// # Errors
    /// Whatever libvirt said.
    pub fn is_held_by_an_error(&self) -> Result<bool, LibvirtError> {
        self.domain()?.is_held_by_an_error()
    }

    /// Lets a machine that is held go on.
    ///
    /// # Errors
    /// Whatever libvirt said.
    pub fn resume(&self) -> Result<(), LibvirtError> {
        self.domain()?.resume()
    }

    /// Whether libvirt starts the machine with the host.
    ///
    /// # Errors
    /// Whatever libvirt said.
    pub fn autostart(&self) -> Result<bool, LibvirtError> {
        self.domain()?.autostart()
    }

    /// Its description as it is now.
    ///
    /// # Errors
    /// Whatever libvirt said.
    pub fn xml(&self) -> Result<String, LibvirtError> {
        self.domain()?.xml()
    }

    /// Its description as its next start would use it.
    ///
    /// # Errors
    /// Whatever libvirt said.
    pub fn inactive_xml(&self) -> Result<String, LibvirtError> {
        self.domain()?.inactive_xml()
    }

    /// The size that the guest sees of a disk, in bytes.
    ///
    /// # Errors
    /// Whatever libvirt said.
    pub fn disk_size(&self, target: &str) -> Result<u64, LibvirtError> {
        Ok(self.domain()?.block_size(target)?.capacity)
    }

    /// Holds all disks of the backup still at one instant, together with a new
    /// checkpoint.
    ///
    /// # Errors
    /// Whatever libvirt said; [`LibvirtError::is_broken_checkpoint`] when a
    /// bitmap that the backup names is of no use.
    pub fn begin_backup(
        &self,
        backup: &xml::backup::Backup,
        checkpoint: Option<&xml::checkpoint::NewCheckpoint>,
    ) -> Result<(), LibvirtError> {
        let checkpoint = checkpoint.map(ToString::to_string);
        self.domain()?.begin_backup(&backup.to_string(), checkpoint.as_deref())
    }

    /// The socket of the backup that runs: none when none does, empty when it
    /// has none.
    ///
    /// # Errors
    /// Whatever libvirt said.
    pub fn backup_socket(&self) -> Result<Option<String>, LibvirtError> {
        let xml = self.domain()?.backup_xml()?;
        Ok(xml.map(|xml| xml::backup::socket(&xml)).transpose()?.map(Option::unwrap_or_default))
    }

    /// What the job that runs is doing; none when none runs.
    ///
    /// # Errors
    /// [`LibvirtError::LostJob`], or whatever libvirt said.
    pub fn job(&self) -> Result<Option<&'static str>, LibvirtError> {
        let domain = self.domain()?;
        domain.job().or_else(|error| match domain.backup_xml()? {
            // It has a job of which it cannot say how far it is.
            None if error.is_internal() => Err(LibvirtError::LostJob),
            _ => Err(error),
        })
    }

    /// Asks the job that runs to end, whichever it is. It may go on for a while
    /// after this returns; the doorbell rings when it is over.
    ///
    /// # Errors
    /// Whatever libvirt said.
    pub fn abort_job(&self) -> Result<(), LibvirtError> {
        self.domain()?.abort_job()
    }

    /// What the block job of a disk is doing; none when it has none.
    ///
    /// # Errors
    /// Whatever libvirt said.
    pub fn block_job(&self, target: &str) -> Result<Option<&'static str>, LibvirtError> {
        self.domain()?.block_job(target)
    }

    /// Names of all its snapshots.
    ///
    /// # Errors
    /// Whatever libvirt said.
    pub fn snapshots(&self) -> Result<Vec<String>, LibvirtError> {
        self.domain()?.snapshots()
    }

    /// Its checkpoints whose name begins with `prefix`, oldest first.
    ///
    /// # Errors
    /// Whatever libvirt said.
    pub fn checkpoints(
        &self,
        prefix: &str,
    ) -> Result<Vec<xml::checkpoint::Checkpoint>, LibvirtError> {
        let all = self.domain()?.checkpoints()?;
        let ours = all.iter().filter(|checkpoint| checkpoint.name().starts_with(prefix));
        ours.map(|checkpoint| Ok(xml::checkpoint::parse(&checkpoint.xml()?)?)).collect()
    }

    /// Removes a checkpoint with its bitmaps; libvirt's record of it alone
    /// where the bitmaps are gone or, as in a machine that is off, out of
    /// reach. No mistake when there is no such checkpoint.
    ///
    /// # Errors
    /// Whatever libvirt said.
    pub fn delete_checkpoint(&self, name: &str) -> Result<(), LibvirtError> {
        let all = self.domain()?.checkpoints()?;
        match all.iter().find(|checkpoint| checkpoint.name() == name) {
            None => Ok(()),
            Some(checkpoint) => match checkpoint.delete() {
                // To forget a bitmap that is there would leave it there for good.
                Err(error) if error.may_pass() => Err(error),
                Err(_) => match checkpoint.delete_metadata() {
                    // Somebody else was faster.
                    Err(error) if error.is_gone_checkpoint() => Ok(()),
                    done => done,
                },
                Ok(()) => Ok(()),
            },
        }
    }

    /// Freezes the guest's file systems; returns how many.
    ///
    /// # Errors
    /// Whatever libvirt or the guest agent said.
    pub fn freeze(&self) -> Result<u32, LibvirtError> {
        self.domain()?.freeze()
    }

    /// Thaws the guest's file systems, whoever froze them; returns how many.
    ///
    /// # Errors
    /// Whatever libvirt or the guest agent said.
    pub fn thaw(&self) -> Result<u32, LibvirtError> {
        self.domain()?.thaw()
    }
}
