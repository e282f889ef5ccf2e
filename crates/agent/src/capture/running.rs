//! A cut of a machine that runs: a pull-mode backup of all its disks in one
//! transaction, together with a new checkpoint.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use domain::id::MachineUuid;
use domain::machine::{GuestAgent, PowerState};
use domain::units::milliseconds;
use nbd::client::Address;
use time::OffsetDateTime;
use tokio::fs;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::access::Access;
use super::calm::Silence;
use super::cut::{
    Base, CheckpointName, Consistency, CutDisk, CutRequest, Held, PREFIX, Wanted, Way,
};
use super::error::{CaptureError, Ended, Of};
use super::folder::{CutFiles, Folder, Owner, remove_if_there};
use super::freeze::{Freezer, Thawed};
use super::plan::{self, Note, PlannedDisk, SeenCheckpoint, SeenDisk, Since};
use super::reader::DiskReader;
use super::scratch;
use super::watch::Watch;
use crate::epochs::Epochs;
use crate::hypervisor::CallError;
use crate::hypervisor::libvirt::Subject;
use crate::hypervisor::libvirt::xml::backup::{self, Backup, BackupDisk};
use crate::hypervisor::libvirt::xml::checkpoint::NewCheckpoint;
use crate::hypervisor::libvirt::xml::machine as machine_xml;

/// How long a backup may take to end once it was asked to.
const END_LIMIT: Duration = Duration::from_secs(15);
/// How long libvirt may take to begin a backup.
const BEGIN_LIMIT: Duration = Duration::from_secs(30);
/// How often one looks for a backup's end without having heard of it.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How often one looks whether a guest has booted.
const BOOT_LOOK: Duration = Duration::from_millis(500);

/// What it takes to cut a machine that runs.
#[derive(Clone)]
pub(super) struct Running {
    pub(super) access: Access,
    pub(super) folder: Folder,
    pub(super) freezer: Freezer,
    /// Bytes that scratch files may take up.
    pub(super) scratch_limit: u64,
    /// What remembers whose machines are, and which start with the host.
    pub(super) epochs: Option<Epochs>,
    pub(super) silence: Arc<Mutex<Silence>>,
    /// Held while jobs or checkpoints are changed.
    pub(super) turn: Arc<Mutex<()>>,
}

/// Disks that are held still.
pub(super) struct Standing {
    pub(super) checkpoint: Option<CheckpointName>,
    pub(super) instant: u64,
    pub(super) consistency: Consistency,
    pub(super) disks: Vec<CutDisk>,
    /// Files that hold a bitmap with this name, and are the machine's no more.
    pub(super) left_behind: Option<(CheckpointName, Vec<String>)>,
    pub(super) keeper: JoinHandle<()>,
}

/// A machine that runs, as it is now.
struct Sight {
    owner: Option<Owner>,
    guest_agent: GuestAgent,
    /// Whether an error of its disks holds it already.
    is_held: bool,
    disks: Vec<SeenDisk>,
    since: Since,
}

/// A backup that was begun.
struct Begun {
    planned: Vec<PlannedDisk>,
    checkpoint: Option<CheckpointName>,
    files: CutFiles,
    instant: u64,
    consistency: Consistency,
}

impl Running {
    /// Holds the disks still and opens them, until `held` is settled or dropped.
    pub(super) async fn cut(
        &self,
        request: &CutRequest,
        held: Held,
    ) -> Result<Standing, CaptureError> {
        let sight = self.look_once_booted(request).await?;
        self.folder.make(sight.owner).await?;
        self.has_room().await?;
        self.note_danger(sight.is_held).await?;
        let begun = self.begin(request, &sight).await?;
        let ended = Arc::default();
        let disks = match open(self.access.machine(), &begun, &ended).await {
            Ok(disks) => disks,
            Err(error) => {
                self.undo(&begun).await;
                return Err(error);
            }
        };
        let watch = Watch {
            running: self.clone(),
            socket: begun.files.socket(),
            scratch: begun.planned.iter().map(|disk| begun.files.scratch(&disk.target)).collect(),
            ended,
        };
        Ok(Standing {
            checkpoint: begun.checkpoint,
            instant: begun.instant,
            consistency: begun.consistency,
            disks,
            left_behind: request
                .since
                .clone()
                .map(|name| (name, plan::left_behind(&sight.disks, &sight.since))),
            keeper: tokio::spawn(watch.keep(held)),
        })
    }

    /// Whether there is room for scratch files. Without it a guest is not put
    /// into danger at all.
    async fn has_room(&self) -> Result<(), CaptureError> {
        let path = self.folder.qemu();
        let failed = |source| CaptureError::File { doing: "measure", path: path.clone(), source };
        let usage = scratch::measure(path.clone(), Vec::new()).await.map_err(failed)?;
        let of = Of { machine: self.access.machine(), disk: None };
        scratch::judge(usage, self.scratch_limit)
            .map_or(Ok(()), |filled| Err(CaptureError::ScratchFull { of, filled }))
    }

    /// Looks at the machine once its guest agent is there, or is not to be expected
    /// any more.
    async fn look_once_booted(&self, request: &CutRequest) -> Result<Sight, CaptureError> {
        let mut silence = self.silence.lock().await;
        loop {
            let sight = self.look(request).await?;
            if !silence.may_end(sight.guest_agent, Instant::now()) {
                return Ok(sight);
            }
            self.access.something_happens(BOOT_LOOK).await;
        }
    }

    /// Looks at the machine, and whether anybody else works on it.
    async fn look(&self, request: &CutRequest) -> Result<Sight, CaptureError> {
        let machine = self.access.machine();
        let excluded = request.excluded.clone();
        let (xml, guest_agent, disks, blocked, is_held) = self
            .access
            .ask("look at the disks", move |subject| {
                let xml = subject.xml()?;
                let aspects = machine_xml::Aspects {
                    power: PowerState::Running,
                    persistent: true,
                    autostart: false,
                };
                let seen = machine_xml::parse(&xml, aspects)?;
                let guest_agent = seen.guest_agent;
                let mut disks = Vec::new();
                let mut blocked = subject.job()?.map(str::to_owned);
                if let (Some(job), Some(socket)) = (&mut blocked, subject.backup_socket()?) {
                    *job = format!("{job} by somebody else (socket {socket:?})");
                }
                for disk in plan::chosen(seen.disks, &excluded) {
                    // A backup has block jobs too, and says more of itself.
                    if blocked.is_none()
                        && let Some(job) = subject.block_job(&disk.target)?
                    {
                        blocked = Some(format!("{job} on disk {}", disk.target));
                    }
                    let size = subject.disk_size(&disk.target)?;
                    disks.push(SeenDisk { disk, size });
                }
                Ok((xml, guest_agent, disks, blocked, subject.is_held_by_an_error()?))
            })
            .await?;
        if let Some(what) = blocked {
            return Err(CaptureError::InTheWay { machine, what });
        }
        if disks.is_empty() {
            return Err(CaptureError::NoDisk { machine });
        }
        let label = machine_xml::qemu_user(&xml).ok().flatten();
        let owner = label.as_deref().and_then(Owner::parse);
        let since = self.since(request.since.clone()).await?;
        Ok(Sight { owner, guest_agent, is_held, disks, since })
    }

    /// Finds the checkpoint that was named, and removes all others of ours:
    /// they belong to cuts that no one will name any more.
    async fn since(&self, named: Option<CheckpointName>) -> Result<Since, CaptureError> {
        let all =
            self.access.ask("list the checkpoints", |subject| subject.checkpoints(PREFIX)).await?;
        let Some(name) = named else {
            self.drop_checkpoints_but(None).await?;
            return Ok(Since::Nothing);
        };
        self.drop_checkpoints_but(Some(&name)).await?;
        let found = all.into_iter().find(|checkpoint| checkpoint.name == name.as_str());
        Ok(match found {
            None => Since::Gone(name),
            Some(found) => Since::Known(SeenCheckpoint::of(name, found)),
        })
    }

    /// Removes all checkpoints of ours but one.
    pub(super) async fn drop_checkpoints_but(
        &self,
        kept: Option<&CheckpointName>,
    ) -> Result<(), CaptureError> {
        let kept = kept.cloned();
        let dropped = self
            .access
            .ask("remove checkpoints", move |subject| {
                let mut dropped = Vec::new();
                for checkpoint in subject.checkpoints(PREFIX)? {
                    if kept.as_ref().is_none_or(|kept| kept.as_str() != checkpoint.name) {
                        subject.delete_checkpoint(&checkpoint.name)?;
                        dropped.push(checkpoint.name);
                    }
                }
                Ok(dropped)
            })
            .await?;
        if !dropped.is_empty() {
            debug!(machine = %self.access.machine(), ?dropped, "checkpoints were removed");
        }
        Ok(())
    }

    /// Begins the backup, giving up bitmaps that turn out to be broken.
    async fn begin(&self, request: &CutRequest, sight: &Sight) -> Result<Begun, CaptureError> {
        let mut broken = BTreeSet::new();
        loop {
            let planned = plan::plan(&sight.disks, &sight.since, &broken);
            let error = match self.try_begin(request, sight, planned.clone()).await? {
                Ok(begun) => return Ok(begun),
                Err(error) => error,
            };
            let more = match &error {
                CallError::Libvirt(error) if error.is_broken_checkpoint() => {
                    plan::broken_by(&error.to_string(), &planned)
                }
                _ => BTreeSet::new(),
            };
            if more.is_empty() {
                return Err(self.refused(error, sight.owner).await);
            }
            // Each turn gives up one disk's bitmap at least, so there is an end.
            info!(machine = %self.access.machine(), disks = ?more, %error, "bitmaps are of no use");
            broken.extend(more);
        }
    }

    async fn try_begin(
        &self,
        request: &CutRequest,
        sight: &Sight,
        planned: Vec<PlannedDisk>,
    ) -> Result<Result<Begun, CallError>, CaptureError> {
        let id = CheckpointName::draw();
        let files = self.folder.of_cut(id.as_str());
        let (backup, checkpoint) = describe(&id, &files, sight, &planned);
        let tracks = checkpoint.is_some();
        let begin = async {
            let instant = OffsetDateTime::now_utc();
            let begin = move |subject: &Subject| subject.begin_backup(&backup, checkpoint.as_ref());
            (self.access.ask_within(BEGIN_LIMIT, begin).await, instant)
        };
        let ((result, instant), consistency) = self.consistently(request, sight, begin).await;
        if let Err(error) = result {
            if matches!(error, CallError::Hung(_)) {
                // It may yet begin; the next cut ends it then.
                warn!(machine = %self.access.machine(), "libvirt hangs at the begin of a backup");
            }
            return Ok(Err(error));
        }
        let instant = u64::try_from(milliseconds(instant)).unwrap_or_default();
        let checkpoint = tracks.then_some(id);
        Ok(Ok(Begun { planned, checkpoint, files, instant, consistency }))
    }

    /// Does `begin` as consistently as was asked for and can be had.
    async fn consistently<T>(
        &self,
        request: &CutRequest,
        sight: &Sight,
        begin: impl Future<Output = T>,
    ) -> (T, Consistency) {
        let crash = |why: String| Consistency::Crash { short_of_app: Some(why) };
        match (request.consistency, sight.guest_agent) {
            (Wanted::Crash, _) => (begin.await, Consistency::Crash { short_of_app: None }),
            (Wanted::App, GuestAgent::NoChannel) => {
                (begin.await, crash("the machine has no channel for a guest agent".into()))
            }
            (Wanted::App, GuestAgent::NotAnswering) => {
                (begin.await, crash("no guest agent answers".into()))
            }
            (Wanted::App, GuestAgent::Connected) => match self.freezer.freeze().await {
                Err(why) => (begin.await, crash(why)),
                Ok(frozen) => match frozen.during(begin).await {
                    (done, Thawed::Afterwards) => (done, Consistency::App),
                    (done, Thawed::TooEarly) => {
                        (done, crash("the freeze reached its limit before the disks stood".into()))
                    }
                },
            },
        }
    }

    /// Says why libvirt would not begin, with what may be the reason.
    async fn refused(&self, error: CallError, owner: Option<Owner>) -> CaptureError {
        let (machine, doing) = (self.access.machine(), "hold the disks still");
        let CallError::Libvirt(said) = &error else {
            return self.access.failed(doing, error);
        };
        if said.to_string().contains("snapshot")
            && let Ok(names) =
                self.access.ask("list the snapshots", |subject| subject.snapshots()).await
            && !names.is_empty()
        {
            let what = format!("snapshot {} ({said})", names.join(", "));
            return CaptureError::InTheWay { machine, what };
        }
        match owner {
            Some(owner) => match self.folder.barred_to(owner).await {
                Some(path) => CaptureError::Barred { machine, path, source: error },
                None => self.access.failed(doing, error),
            },
            None => self.access.failed(doing, error),
        }
    }

    async fn undo(&self, begun: &Begun) {
        let ended = self.end_backup(None).await;
        let removed = match &begun.checkpoint {
            Some(name) if ended.is_ok() => self.remove_checkpoint(name).await,
            _ => ended,
        };
        if let Err(error) = removed {
            warn!(machine = %self.access.machine(), %error, "the next cut has to tidy up");
        }
    }

    /// Removes one checkpoint.
    pub(super) async fn remove_checkpoint(
        &self,
        name: &CheckpointName,
    ) -> Result<(), CaptureError> {
        let name = name.to_string();
        let remove = move |subject: &Subject| subject.delete_checkpoint(&name);
        self.access.ask("remove a checkpoint", remove).await
    }

    /// Remembers, from before a backup begins until after it has ended, that QEMU
    /// may hold the machine because of us. One that is held already is none of ours.
    async fn note_danger(&self, is_held: bool) -> Result<(), CaptureError> {
        let path = self.folder.held();
        if is_held {
            return remove_if_there(&path).await;
        }
        let noted = fs::write(&path, b"").await;
        noted.map_err(|source| CaptureError::File { doing: "write", path, source })
    }

    /// Lets a machine go on that QEMU has held since our backup began, for want of
    /// room for what it overwrote: its write is tried again, and succeeds without
    /// the backup. Another side's machine stays as it is.
    async fn let_go_on(&self) -> Result<(), CaptureError> {
        let note = self.folder.held();
        if !note.exists() {
            return Ok(());
        }
        let machine = self.access.machine();
        let may_run = !self.epochs.as_ref().is_some_and(|epochs| epochs.is_anothers(machine));
        let resume = move |subject: &Subject| {
            let resumes = may_run && subject.is_held_by_an_error()?;
            if resumes {
                subject.resume()?;
            }
            Ok(resumes)
        };
        if self.access.ask("let the machine go on", resume).await? {
            warn!(%machine, "an error held the machine while its disks were read, and it goes on");
        }
        remove_if_there(&note).await
    }

    /// Ends a backup of ours, or only the one with this socket, and waits until
    /// it is gone. What somebody else began goes on. With none of ours left, a
    /// machine that QEMU held because of one goes on.
    pub(super) async fn end_backup(&self, only: Option<PathBuf>) -> Result<(), CaptureError> {
        let give_up = Instant::now() + END_LIMIT;
        let mut asked = false;
        loop {
            let folder = self.folder.clone();
            let only = only.clone();
            let ask_it = !asked;
            let (there, none_left) = self
                .access
                .ask("end the backup", move |subject| {
                    let ours = subject.backup_socket()?.filter(|socket| folder.has_socket(socket));
                    let is_meant = |socket: &String| {
                        only.as_ref().is_none_or(|only| only.as_os_str() == socket.as_str())
                    };
                    let there = ours.as_ref().is_some_and(is_meant);
                    if there && ask_it {
                        subject.abort_job()?;
                    }
                    Ok((there, ours.is_none()))
                })
                .await?;
            if none_left {
                return self.let_go_on().await;
            }
            if !there {
                return Ok(());
            }
            asked = true;
            if Instant::now() > give_up {
                let machine = self.access.machine();
                return Err(CaptureError::BackupStays { machine, limit: END_LIMIT });
            }
            self.access.something_happens(LOOK_INTERVAL).await;
        }
    }
}

/// The backup and, if any disk can be tracked, the checkpoint with the name `id`.
fn describe(
    id: &CheckpointName,
    files: &CutFiles,
    sight: &Sight,
    planned: &[PlannedDisk],
) -> (Backup, Option<NewCheckpoint>) {
    let disk = |disk: &PlannedDisk| BackupDisk {
        target: disk.target.clone(),
        scratch: files.scratch(&disk.target).to_string_lossy().into_owned(),
        since: match &disk.base {
            Base::Since(name) => Some(name.to_string()),
            Base::Whole(_) => None,
        },
    };
    let backup = Backup {
        socket: files.socket().to_string_lossy().into_owned(),
        disks: planned.iter().map(disk).collect(),
    };
    let tracked: Vec<String> = planned
        .iter()
        .filter(|disk| disk.way == Way::Bitmap)
        .map(|disk| disk.target.clone())
        .collect();
    let checkpoint = (!tracked.is_empty()).then(|| NewCheckpoint {
        name: id.to_string(),
        description: Note::of(&sight.disks).write(),
        tracked,
    });
    (backup, checkpoint)
}

async fn open(
    machine: MachineUuid,
    begun: &Begun,
    ended: &Arc<OnceLock<Ended>>,
) -> Result<Vec<CutDisk>, CaptureError> {
    let address = Address::unix(begun.files.socket());
    let mut disks = Vec::new();
    for PlannedDisk { target, size, way, base } in begun.planned.clone() {
        let of = Of { machine, disk: Some(target.clone()) };
        let bitmap = matches!(base, Base::Since(_)).then(|| backup::bitmap(&target));
        let reader = DiskReader::open_until(&address, of, bitmap.as_deref(), ended.clone()).await?;
        // It may have been resized between our look and the begin.
        if reader.size() != size {
            let why = format!("it has {} bytes, and {size} a moment ago", reader.size());
            return Err(CaptureError::Unsupported { machine, disk: target, why });
        }
        disks.push(CutDisk { target, size, way, base, reader });
    }
    Ok(disks)
}
