//! A cut of a machine that is off: its disks as they lie there, read through
//! `qemu-nbd`, which keeps nobody from starting the machine. What changed is told by
//! the bitmaps in the images, where QEMU ended in order.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use domain::id::MachineUuid;
use domain::machine::{Disk, DiskFormat, DiskSource};
use domain::units::milliseconds;
use nbd::client::Address;
use time::OffsetDateTime;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::access::Access;
use super::cut::{
    Base, CheckpointName, Consistency, CutDisk, CutRequest, Held, Wanted, Way, WholeReason,
};
use super::error::{CaptureError, Ended, Of};
use super::folder::Folder;
use super::plan::{self, SeenCheckpoint, SeenDisk, Since};
use super::reader::DiskReader;
use crate::hypervisor::libvirt::xml::checkpoint::Checkpoint;
use crate::hypervisor::libvirt::xml::machine as machine_xml;

/// How long `qemu-nbd` may take until it listens.
const LISTEN_LIMIT: Duration = Duration::from_secs(10);
/// Between two looks whether it does.
const LISTEN_PAUSE: Duration = Duration::from_millis(10);
/// How often one looks whether the machine was started without having heard.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How long it may take to remove a bitmap from an image.
const REMOVE_LIMIT: Duration = Duration::from_secs(20);
/// Bytes of what `qemu-nbd` complains of that are shown.
const COMPLAINT_MAX: u64 = 2048;

/// What it takes to cut a machine that is off.
#[derive(Clone)]
pub(super) struct Off {
    pub(super) access: Access,
    pub(super) folder: Folder,
    /// The program, with arguments that go before ours.
    pub(super) qemu_nbd: Arc<[OsString]>,
    /// Likewise.
    pub(super) qemu_img: Arc<[OsString]>,
}

/// Disks that nobody writes to, as long as the machine was started this often.
pub(super) struct Lying {
    pub(super) starts: u64,
    pub(super) instant: u64,
    pub(super) consistency: Consistency,
    pub(super) disks: Vec<CutDisk>,
    pub(super) keeper: JoinHandle<()>,
}

impl Off {
    /// Opens the disks, until `held` is settled or dropped.
    pub(super) async fn cut(
        &self,
        request: &CutRequest,
        id: &str,
        held: Held,
    ) -> Result<Lying, CaptureError> {
        let machine = self.access.machine();
        let starts = self.access.starts();
        let instant = OffsetDateTime::now_utc();
        let (disks, in_order) = self
            .access
            .ask("look at the disks", |subject| {
                let seen = machine_xml::parse(&subject.inactive_xml()?, machine_xml::Aspects::OFF)?;
                Ok((seen.disks, subject.shut_down_in_order()?))
            })
            .await?;
        let disks = plan::chosen(disks, &request.excluded);
        if disks.is_empty() {
            return Err(CaptureError::NoDisk { machine });
        }
        self.folder.make(None).await?;
        let files = self.folder.of_cut(id);
        let ended: Arc<OnceLock<Ended>> = Arc::default();
        let (mut servers, mut opened) = (Vec::new(), Vec::new());
        let since = self.since(request.since.as_ref()).await?;
        for (disk, index) in disks.into_iter().zip(0..) {
            let (server, disk) = self.open(disk, &files.socket_of(index), &since, &ended).await?;
            servers.push(server);
            opened.push(disk);
        }
        self.is_off_since(starts).await?;
        let watch = Watch { access: self.access.clone(), servers, starts, ended };
        Ok(Lying {
            starts,
            instant: u64::try_from(milliseconds(instant)).unwrap_or_default(),
            consistency: match (in_order, request.consistency) {
                (true, _) => Consistency::App,
                (false, Wanted::Crash) => Consistency::Crash { short_of_app: None },
                (false, Wanted::App) => Consistency::Crash {
                    short_of_app: Some("nobody knows that the guest shut down in order".into()),
                },
            },
            disks: opened,
            keeper: tokio::spawn(watch.keep(held)),
        })
    }

    /// The checkpoint that was named, if its bitmaps alone tell what changed since.
    async fn since(&self, named: Option<&CheckpointName>) -> Result<Since, CaptureError> {
        let Some(name) = named else { return Ok(Since::Nothing) };
        let all =
            self.access.ask("list the checkpoints", |subject| subject.checkpoints("")).await?;
        Ok(match <[_; 1]>::try_from(all) {
            Ok([only]) if only.name == name.as_str() => {
                Since::Known(SeenCheckpoint::of(name.clone(), only))
            }
            // Of several nobody says which has noted what.
            _ => Since::Nothing,
        })
    }

    /// Serves a disk and opens it: with what changed since, where the image says that.
    async fn open(
        &self,
        disk: Disk,
        socket: &Path,
        since: &Since,
        ended: &Arc<OnceLock<Ended>>,
    ) -> Result<(Child, CutDisk), CaptureError> {
        let target = disk.target.clone();
        let of = Of { machine: self.access.machine(), disk: Some(target.clone()) };
        let bitmap = match since {
            Since::Known(known) if known.tracked.contains(&target) => Some(&known.name),
            _ => None,
        };
        if let Some(name) = bitmap {
            match self.told_since(&disk, socket, name, since, &of, ended).await {
                Ok(Some((server, base, reader))) => {
                    let size = reader.size();
                    let disk = CutDisk { target, size, way: Way::Whole, base, reader };
                    return Ok((server, disk));
                }
                Ok(None) => {}
                // QEMU ended without saving it.
                Err(error) => {
                    info!(machine = %of.machine, disk = %target, %error, "a bitmap is of no use");
                }
            }
        }
        let server = self.listening(&disk, socket, None, &of).await?;
        let (address, ended) = (Address::unix(socket), Arc::clone(ended));
        let reader = DiskReader::open_until(&address, of, None, ended).await?;
        let (size, base) = (reader.size(), Base::Whole(WholeReason::Off));
        Ok((server, CutDisk { target, size, way: Way::Whole, base, reader }))
    }

    /// Serves a disk with what its bitmap tells; none if that is not what changed since.
    /// The server may listen before it has found out that the bitmap is of no use.
    async fn told_since(
        &self,
        disk: &Disk,
        socket: &Path,
        name: &CheckpointName,
        since: &Since,
        of: &Of,
        ended: &Arc<OnceLock<Ended>>,
    ) -> Result<Option<(Child, Base, DiskReader)>, CaptureError> {
        // Of its own: a server that is given up may listen for another moment.
        let socket = &socket.with_extension("since");
        let server = self.listening(disk, socket, Some(name.as_str()), of).await?;
        let (address, bitmap) = (Address::unix(socket), Some(name.as_str()));
        let reader = DiskReader::open_until(&address, of.clone(), bitmap, ended.clone()).await?;
        let seen = SeenDisk { disk: disk.clone(), size: reader.size() };
        let planned = plan::plan(&[seen], since, &BTreeSet::new());
        let base = planned.into_iter().map(|planned| planned.base).next();
        Ok(base.filter(|base| matches!(base, Base::Since(_))).map(|base| (server, base, reader)))
    }

    /// A server that listens.
    async fn listening(
        &self,
        disk: &Disk,
        socket: &Path,
        bitmap: Option<&str>,
        of: &Of,
    ) -> Result<Child, CaptureError> {
        let mut server = self.serve(disk, socket, bitmap)?;
        listens(&mut server, socket, of).await?;
        Ok(server)
    }

    /// # Errors
    /// When the machine runs, or may have run in between.
    pub(super) async fn is_off_since(&self, starts: u64) -> Result<(), CaptureError> {
        let active = self.access.ask("look at the state", |subject| subject.is_active()).await?;
        if active || self.access.starts() != starts {
            let of = Of { machine: self.access.machine(), disk: None };
            return Err(CaptureError::Started { of });
        }
        Ok(())
    }

    /// Removes a checkpoint's bitmaps from the images of a machine that is off.
    /// One that stays takes a little space, and is told of in the log.
    pub(super) async fn remove_bitmaps(&self, xml: &str, checkpoint: &Checkpoint) {
        let disks = machine_xml::parse(xml, machine_xml::Aspects::OFF)
            .map(|seen| seen.disks)
            .unwrap_or_default();
        for disk in disks.iter().filter(|disk| checkpoint.tracked.contains(&disk.target)) {
            if let Err(why) = self.remove_bitmap(disk, &checkpoint.name).await {
                let machine = self.access.machine();
                warn!(%machine, disk = %disk.target, bitmap = %checkpoint.name, %why, "a bitmap stays");
            }
        }
    }

    async fn remove_bitmap(&self, disk: &Disk, name: &str) -> Result<(), String> {
        match &disk.source {
            DiskSource::File(path) | DiskSource::Block(path) => {
                self.remove_bitmap_from(path, name).await
            }
            other => Err(format!("{other} is no file")),
        }
    }

    /// Removes a bitmap from files that are the machine's no more. In one that
    /// others use it stays.
    pub(super) async fn tidy_left_behind(&self, files: &[String], name: &str) {
        for file in files {
            let machine = self.access.machine();
            match self.remove_bitmap_from(file, name).await {
                Ok(()) => debug!(%machine, file, "a disk was taken away; its bitmap is removed"),
                Err(why) => debug!(%machine, file, %why, "a disk was taken away; its bitmap stays"),
            }
        }
    }

    async fn remove_bitmap_from(&self, path: &str, name: &str) -> Result<(), String> {
        let (program, before) = self.qemu_img.split_first().expect("a program was named");
        let removing = Command::new(program)
            .args(before)
            .args(["bitmap", "--remove", "-f", "qcow2", path, name])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        match timeout(REMOVE_LIMIT, removing).await {
            Err(_) => Err(format!("qemu-img did not end within {} s", REMOVE_LIMIT.as_secs())),
            Ok(Err(error)) => Err(format!("run {}: {error}", program.display())),
            Ok(Ok(output)) if !output.status.success() => {
                Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
            }
            Ok(Ok(_)) => Ok(()),
        }
    }

    fn serve(
        &self,
        disk: &Disk,
        socket: &Path,
        bitmap: Option<&str>,
    ) -> Result<Child, CaptureError> {
        let machine = self.access.machine();
        let image = image_options(disk, machine)?;
        let (program, before) = self.qemu_nbd.split_first().expect("a program was named");
        Command::new(program)
            .args(before)
            .args(["--read-only", "--persistent", "--shared=16", "--export-name", &disk.target])
            .arg("--socket")
            .arg(socket)
            .args(bitmap.map(|name| format!("--bitmap={name}")))
            .args(["--image-opts", &image])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| {
                let path = PathBuf::from(program);
                CaptureError::File { doing: "run", path, source }
            })
    }
}

/// What QEMU shall open, in its own words.
fn image_options(disk: &Disk, machine: MachineUuid) -> Result<String, CaptureError> {
    let (driver, path) = match &disk.source {
        DiskSource::File(path) => ("file", path),
        DiskSource::Block(path) => ("host_device", path),
        other => {
            let why = format!("{other} cannot be read while the machine is off");
            let disk = disk.target.clone();
            return Err(CaptureError::Unsupported { machine, disk, why });
        }
    };
    let format = match &disk.format {
        DiskFormat::Qcow2 => "qcow2",
        DiskFormat::Raw => "raw",
        DiskFormat::Other(format) => format.as_str(),
    };
    // A comma is doubled in QEMU's options. Without "force-share" the image
    // would be locked, and the machine could not be started.
    let path = path.replace(',', ",,");
    Ok(format!(
        "driver={format},read-only=on,force-share=on,file.driver={driver},file.filename={path}"
    ))
}

/// Waits until a server listens.
async fn listens(server: &mut Child, socket: &Path, of: &Of) -> Result<(), CaptureError> {
    let failed = |why: String| CaptureError::Served { of: of.clone(), why };
    let give_up = Instant::now() + LISTEN_LIMIT;
    loop {
        if tokio::net::UnixStream::connect(socket).await.is_ok() {
            return Ok(());
        }
        if let Ok(Some(status)) = server.try_wait() {
            let mut said = String::new();
            if let Some(stderr) = server.stderr.take() {
                let mut stderr = stderr.take(COMPLAINT_MAX);
                // What it said helps; that it cannot be read is no news.
                let _ = timeout(LISTEN_PAUSE * 10, stderr.read_to_string(&mut said)).await;
            }
            return Err(failed(format!("qemu-nbd ended with {status}: {}", said.trim())));
        }
        if Instant::now() > give_up {
            let limit = LISTEN_LIMIT.as_secs();
            return Err(failed(format!("qemu-nbd did not listen within {limit} s")));
        }
        sleep(LISTEN_PAUSE).await;
    }
}

/// Watches over an open cut.
struct Watch {
    access: Access,
    servers: Vec<Child>,
    starts: u64,
    ended: Arc<OnceLock<Ended>>,
}

impl Watch {
    /// Until the cut is settled or dropped, or the machine was started.
    async fn keep(mut self, mut held: Held) {
        let machine = self.access.machine();
        let mut open = true;
        while open && self.access.starts() == self.starts {
            tokio::select! {
                settled = held.settled() => {
                    if !settled {
                        warn!(%machine, "a cut was neither accepted nor discarded, and is ended");
                    }
                    open = false;
                }
                () = self.access.something_happens(LOOK_INTERVAL) => {}
            }
        }
        if open {
            let _ = self.ended.set(Ended::Started);
        }
        for server in &mut self.servers {
            if let Err(error) = server.kill().await {
                warn!(%machine, %error, "a qemu-nbd does not end");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_opened_without_a_lock_whatever_its_name() {
        let mut disk = Disk {
            target: "vda".into(),
            bus: "virtio".into(),
            serial: None,
            source: DiskSource::File("/i/a,b.qcow2".into()),
            format: DiskFormat::Qcow2,
            capacity: None,
            allocation: None,
            read_only: false,
            shareable: false,
            raw_device: false,
        };
        let machine = MachineUuid::new(uuid::Uuid::nil());
        assert_eq!(
            image_options(&disk, machine).unwrap(),
            "driver=qcow2,read-only=on,force-share=on,file.driver=file,file.filename=/i/a,,b.qcow2"
        );
        disk.source = DiskSource::Volume { pool: "p".into(), volume: "v".into() };
        assert_eq!(
            image_options(&disk, machine).unwrap_err().to_string(),
            format!(
                "disk vda of machine {machine} cannot be captured: \
                 p/v cannot be read while the machine is off"
            )
        );
    }
}
