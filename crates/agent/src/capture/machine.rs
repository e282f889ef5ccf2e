//! A libvirt machine, whose cuts are pull-mode backups while it runs and its
//! disks as they lie there while it is off.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use domain::id::MachineUuid;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::JoinHandle;
use tracing::warn;

use super::Capture;
use super::access::Access;
use super::calm::{Calm, Cutting, Silence};
use super::configuration;
use super::cut::{CheckpointName, Cut, CutRequest, Hold, PREFIX};
use super::error::CaptureError;
use super::folder::Folder;
use super::freeze::Freezer;
use super::off::Off;
use super::running::Running;
use crate::epochs::Epochs;
use crate::hypervisor::libvirt::Subject;

/// Room for scratch files where nothing else is said: 8 GiB.
const SCRATCH_LIMIT: u64 = 8 << 30;
/// How long a guest may be frozen where nothing else is said.
const FREEZE_LIMIT: Duration = Duration::from_secs(10);

/// How machines are captured on this host.
#[derive(Debug, Clone)]
pub struct CaptureSettings {
    /// Folder for sockets and scratch files of all machines; made when it is
    /// not there. QEMU's user must be able to get through the folders above,
    /// and SELinux or AppArmor must let QEMU write below. Best on a file
    /// system of its own: what fills it up ends cuts.
    pub folder: PathBuf,
    /// Bytes that the scratch files of one machine may take up. At 70 % of
    /// that, or of what there is room for, the cut is given up; and with less than
    /// [`RESERVE`](super::scratch::RESERVE) free.
    pub scratch_limit: u64,
    /// The longest time for which a guest's file systems are frozen.
    pub freeze_limit: Duration,
    /// The program `qemu-nbd`, with arguments that go before ours.
    pub qemu_nbd: Vec<OsString>,
    /// The program `qemu-img`, likewise.
    pub qemu_img: Vec<OsString>,
    /// Which machines are left alone now.
    pub calm: Calm,
    /// What remembers whose machines are, and which start with the host, if anything
    /// does.
    pub epochs: Option<Epochs>,
}

impl CaptureSettings {
    /// With scratch files in this folder, and all else as usual.
    #[must_use]
    pub fn in_folder(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            scratch_limit: SCRATCH_LIMIT,
            freeze_limit: FREEZE_LIMIT,
            qemu_nbd: vec!["qemu-nbd".into()],
            qemu_img: vec!["qemu-img".into()],
            calm: Calm::default(),
            epochs: None,
        }
    }
}

/// Opens a machine of the hypervisor at `uri` for capture. What an agent that
/// died has left behind is cleaned up: its backup is ended, its scratch files
/// are removed, and a guest that it left frozen is thawed. Its checkpoints
/// stay until the next cut says which of them is of use.
///
/// # Errors
/// When there is no such machine, the hypervisor does not answer, or the
/// folder cannot be used.
pub async fn open(
    uri: &str,
    machine: MachineUuid,
    settings: CaptureSettings,
) -> Result<LibvirtCapture, CaptureError> {
    let access = Access::new(uri, machine);
    let folder = Folder::new(&settings.folder, machine)?;
    let freezer = Freezer::new(access.clone(), folder.frozen(), settings.freeze_limit);
    let turn = Arc::default();
    let running = Running {
        access: access.clone(),
        folder: folder.clone(),
        freezer,
        scratch_limit: settings.scratch_limit,
        epochs: settings.epochs,
        silence: Arc::new(Mutex::new(Silence::default())),
        turn: Arc::clone(&turn),
    };
    let (qemu_nbd, qemu_img) = (settings.qemu_nbd.into(), settings.qemu_img.into());
    let off = Off { access, folder, qemu_nbd, qemu_img };
    let work = Work { running, off };
    work.running.freezer.thaw_leftover().await;
    work.clean().await?;
    Ok(LibvirtCapture { work, turn, calm: settings.calm, cuts: 0, current: None })
}

/// A libvirt machine that is captured.
pub struct LibvirtCapture {
    work: Work,
    /// Held by whatever changes the machine's jobs and checkpoints, which may
    /// outlive the call that began it.
    turn: Arc<Mutex<()>>,
    calm: Calm,
    /// How many cuts were begun.
    cuts: u64,
    current: Option<Current>,
}

/// The cut that is open.
struct Current {
    number: u64,
    kind: Kind,
    keeper: JoinHandle<()>,
    cutting: Cutting,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Running,
    /// Of a machine that was off, having been started this often by then.
    Off {
        starts: u64,
    },
}

/// What is done in tasks of its own, so that it ends even when nobody waits.
#[derive(Clone)]
struct Work {
    running: Running,
    off: Off,
}

impl Work {
    fn access(&self) -> &Access {
        &self.running.access
    }

    /// Ends backups of ours and removes their files.
    async fn clean(&self) -> Result<(), CaptureError> {
        self.running.end_backup(None).await?;
        self.running.folder.clear().await
    }

    async fn cut(
        &self,
        request: CutRequest,
        number: u64,
        cutting: Cutting,
    ) -> Result<(Cut, Current), CaptureError> {
        self.clean().await?;
        let (hold, held) = Hold::new(number);
        let look = |subject: &Subject| {
            Ok((subject.is_active()?, subject.inactive_xml()?, subject.autostart()?))
        };
        let (active, xml, autostart) = self.access().ask("look at the state", look).await?;
        let machine = self.access().machine();
        // libvirt knows nothing of it once the agent has taken it over.
        let epochs = self.running.epochs.as_ref();
        let taken_over = epochs.is_some_and(|epochs| epochs.starts_by_itself(machine));
        let configuration = configuration::complete(xml, autostart || taken_over).await;
        if active {
            let standing = self.running.cut(&request, held).await?;
            if let Some((checkpoint, files)) = &standing.left_behind {
                self.off.tidy_left_behind(files, checkpoint.as_str()).await;
            }
            let cut = Cut {
                checkpoint: standing.checkpoint,
                of_a_machine_off: false,
                instant: standing.instant,
                consistency: standing.consistency,
                configuration,
                disks: standing.disks,
                hold,
            };
            let (kind, keeper) = (Kind::Running, standing.keeper);
            return Ok((cut, Current { number, kind, keeper, cutting }));
        }
        self.running.silence.lock().await.is_over();
        let id = CheckpointName::draw();
        let lying = self.off.cut(&request, id.as_str(), held).await?;
        let cut = Cut {
            checkpoint: None,
            of_a_machine_off: true,
            instant: lying.instant,
            consistency: lying.consistency,
            configuration,
            disks: lying.disks,
            hold,
        };
        let kind = Kind::Off { starts: lying.starts };
        Ok((cut, Current { number, kind, keeper: lying.keeper, cutting }))
    }

    async fn forget(&self) -> Result<(), CaptureError> {
        let there = match self.clean().await {
            Ok(()) => self.forget_checkpoints().await,
            error => error,
        };
        match there {
            Ok(()) => self.running.freezer.thaw_leftover().await,
            // A machine that is gone has taken all with it but our files.
            Err(CaptureError::NoSuchMachine { .. }) => {}
            Err(error) => return Err(error),
        }
        self.running.folder.remove().await
    }

    async fn forget_checkpoints(&self) -> Result<(), CaptureError> {
        let look = |subject: &Subject| {
            Ok((subject.is_active()?, subject.inactive_xml()?, subject.checkpoints(PREFIX)?))
        };
        let (active, xml, checkpoints) = self.access().ask("list the checkpoints", look).await?;
        if !active {
            // libvirt reaches bitmaps through QEMU only, and would leave these.
            for checkpoint in &checkpoints {
                self.off.remove_bitmaps(&xml, checkpoint).await;
            }
        }
        self.running.drop_checkpoints_but(None).await
    }
}

impl LibvirtCapture {
    /// Does something in a task of its own, when it is its turn.
    async fn in_turn<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &self,
        work: impl FnOnce(Work) -> F,
    ) -> T {
        let turn: OwnedMutexGuard<()> = Arc::clone(&self.turn).lock_owned().await;
        let work = work(self.work.clone());
        let task = tokio::spawn(async move {
            let done = work.await;
            drop(turn);
            done
        });
        task.await.expect("capture does not panic")
    }

    /// Takes over a cut that is to end, and waits until nobody watches over it.
    async fn settle(
        &mut self,
        cut: Cut,
    ) -> Result<(Option<CheckpointName>, Cutting), CaptureError> {
        let machine = self.work.access().machine();
        let number = cut.hold.number();
        let current = self.current.take_if(|current| current.number == number);
        let Some(current) = current else {
            cut.hold.settle();
            return Err(CaptureError::Superseded { machine });
        };
        let Cut { checkpoint, hold, disks, .. } = cut;
        // Nobody reads any more: QEMU ends a server without waiting then.
        drop(disks);
        hold.settle();
        if let Err(error) = current.keeper.await {
            warn!(%machine, %error, "the watch over a cut ended early");
        }
        Ok((checkpoint, current.cutting))
    }
}

impl Capture for LibvirtCapture {
    async fn cut(&mut self, request: CutRequest) -> Result<Cut, CaptureError> {
        self.cuts += 1;
        let number = self.cuts;
        self.current = None;
        let cutting = self.calm.cutting(self.work.access().machine()).await;
        let begun = self.in_turn(|work| async move { work.cut(request, number, cutting).await });
        let (cut, current) = begun.await?;
        self.current = Some(current);
        Ok(cut)
    }

    async fn confirm(&mut self, cut: &Cut) -> Result<(), CaptureError> {
        let machine = self.work.access().machine();
        match &self.current {
            Some(current) if current.number == cut.hold.number() => match current.kind {
                // What was read through QEMU is of the instant, or was not read.
                Kind::Running => Ok(()),
                Kind::Off { starts } => self.work.off.is_off_since(starts).await,
            },
            _ => Err(CaptureError::Superseded { machine }),
        }
    }

    async fn accept(&mut self, cut: Cut) -> Result<(), CaptureError> {
        let (checkpoint, _cutting) = self.settle(cut).await?;
        self.in_turn(|work| async move {
            work.clean().await?;
            match checkpoint {
                Some(checkpoint) => work.running.drop_checkpoints_but(Some(&checkpoint)).await,
                None => Ok(()),
            }
        })
        .await
    }

    async fn discard(&mut self, cut: Cut) -> Result<(), CaptureError> {
        let (checkpoint, _cutting) = self.settle(cut).await?;
        self.in_turn(|work| async move {
            work.clean().await?;
            match checkpoint {
                Some(checkpoint) => work.running.remove_checkpoint(&checkpoint).await,
                None => Ok(()),
            }
        })
        .await
    }

    async fn forget(&mut self) -> Result<(), CaptureError> {
        self.current = None;
        self.in_turn(|work| async move { work.forget().await }).await
    }
}
