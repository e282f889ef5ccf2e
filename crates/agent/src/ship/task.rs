//! Shipping one machine, for as long as it is a duty.
//!
//! ```text
//!   waiting ──due──▶ round ──point──▶ waiting
//!      ▲               │ └──part──▶ round
//!      └── pause, growing with failures ──┘ trouble told
//! ```

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::calendar::Opening;
use domain::fault::{Code, Fault};
use domain::id::{HostId, MachineUuid, ProtectionId};
use domain::units::{self, milliseconds};
use time::OffsetDateTime;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};
use wire::data::Hello;
use wire::replication::{
    OfflineCopy, Phase, PointMark, Progress, Shipping, ShippingReport, Totals, Trouble,
    VerifyReport,
};

use super::carried;
use super::course::{CarriedStage, Course, Kept};
use super::fault::of_capture;
use super::folder::Courses;
use super::proved::Proved;
use super::recovery::RpoHistory;
use super::round::{Outcome, Portions, Round};
use super::sender::{Sender, Stream};
use super::throttle::Line;
use super::verify;
use super::wishes::{Wish, Wishes, not_shipped};
use super::{hours, off};
use crate::backoff::Backoff;
use crate::capture::machine::{self, CaptureSettings, LibvirtCapture};
use crate::capture::{Capture as _, CaptureError, Wanted};
use crate::hypervisor::Observation;
use crate::peer::{self, Passport};

/// The keeper hears at least this often that we are there.
const IDLE: Duration = Duration::from_secs(10);
/// Pauses after failures: they pass, or an operator is told.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Rounds that may fail before those who wished for a point are told; the first
/// may but find a connection that has ended.
const FAILURES_MAX: u32 = 3;

/// What all machines of a host have in common.
#[derive(Clone)]
pub struct Surroundings {
    /// libvirt's URI.
    pub hypervisor: String,
    /// How machines are captured.
    pub capture: CaptureSettings,
    /// Where courses are kept.
    pub courses: Courses,
    /// Who we are.
    pub passport: watch::Receiver<Passport>,
    /// This host's name, for the points' origin.
    pub host: String,
    /// What the hypervisor has.
    pub observations: watch::Receiver<Observation>,
    /// Rings when a report changed.
    pub changed: watch::Sender<()>,
    /// What all machines may send together.
    pub line: Line,
    /// Where points are wished for.
    pub wishes: Wishes,
}

/// What others see of the task.
#[derive(Debug)]
pub(super) struct Board {
    report: Mutex<ShippingReport>,
    changed: watch::Sender<()>,
}

impl Board {
    pub(super) fn new(duty: &Shipping, changed: watch::Sender<()>) -> Arc<Self> {
        let report = ShippingReport {
            protection: duty.protection,
            phase: Phase::Waiting,
            trouble: None,
            remarks: Vec::new(),
            newest: None,
            progress: None,
            rpo_worst_ms: None,
            rpo_p99_ms: None,
            totals: Totals::default(),
            last_cycle: None,
            resynchronised: None,
            verified: None,
        };
        Arc::new(Self { report: Mutex::new(report), changed })
    }

    pub(super) fn report(&self) -> ShippingReport {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, act: impl FnOnce(&mut ShippingReport)) {
        act(&mut self.report.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.send_replace(());
    }

    /// The wish for a verification that was answered last.
    fn verified(&self) -> Option<uuid::Uuid> {
        let report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        report.verified.as_ref().map(|verified| verified.wish)
    }

    /// Tells what a course means.
    fn phase_of(&self, course: &Course, machine: &str) {
        let carried = course.carried.as_ref().map(|carried| (carried.stage, &carried.folder));
        let phase = match (&course.resynchronising, carried, course.sealed) {
            (Some(reason), ..) => {
                Phase::Resynchronising { reason: reason.clone(), held_until: None }
            }
            (None, Some((CarriedStage::Writing, folder)), _) => {
                Phase::Exporting { folder: folder.clone() }
            }
            (None, Some((CarriedStage::Written(instant), folder)), _) => {
                Phase::Carried { folder: folder.clone(), instant: units::instant(instant) }
            }
            (None, _, None) => Phase::Initial,
            (None, _, Some(_)) => Phase::Steady,
        };
        self.enter(phase, machine);
    }

    /// Tells that a comparison of everything waits for its hours.
    fn hold(&self, reason: &str, minutes: u16, machine: &str) {
        let now = OffsetDateTime::now_utc();
        let until = now + time::Duration::minutes(minutes.into());
        let until = until.replace_second(0).unwrap_or(until).replace_nanosecond(0).unwrap_or(until);
        let (reason, held_until) = (reason.to_owned(), Some(until));
        self.enter(Phase::Resynchronising { reason, held_until }, machine);
    }

    fn enter(&self, phase: Phase, machine: &str) {
        self.change(|report| {
            if report.phase != phase {
                match &phase {
                    Phase::Resynchronising { reason, held_until: Some(until) } => {
                        info!(machine, reason, %until, "waiting for the hours to resynchronise");
                    }
                    Phase::Resynchronising { reason, held_until: None } => {
                        info!(machine, reason, "resynchronising: only what differs goes");
                    }
                    other => info!(machine, phase = ?other, "replication"),
                }
            }
            report.phase = phase;
        });
    }
}

/// Times that a comparison of a machine that runs begins from nothing.
const BEGINNINGS: u32 = 3;

/// What was found when source and replica were looked at together.
#[derive(Default)]
struct Looked {
    /// For an operator.
    report: Option<VerifyReport>,
    /// For a command, as far as it came.
    proved: Option<Result<Proved, Fault>>,
    /// Whether that began from nothing.
    anew: bool,
}

fn writes_too_much(machine: &str) -> Fault {
    Fault::new(
        Code::NotVerified,
        format!("compare machine {machine} with its replica while it runs"),
        "it writes more than is remembered of what changed",
        "Compare it in a quieter hour, or while it is off.",
    )
}

/// The task of one machine.
pub(super) struct Task {
    around: Surroundings,
    duty: watch::Receiver<Shipping>,
    wishes: mpsc::Receiver<Wish>,
    /// Wishes that the next point answers.
    wished: Vec<Wish>,
    /// Rounds that failed since there are wishes.
    failures: u32,
    board: Arc<Board>,
    course: Course,
    /// With the longest time that it freezes the guest.
    capture: Option<(Duration, LibvirtCapture)>,
    sender: Option<Sender>,
    rpo: RpoHistory,
    /// When the newest durable data was what the disks held, by a clock that
    /// nobody sets; if there was any before we began, no earlier than that.
    newest: Option<Instant>,
    app_due: Option<Instant>,
    /// What told the machine and its disks from others when the newest point was
    /// made of them while it was off; none as soon as it was seen running.
    off: Option<String>,
    /// What was compared last, for as long as that is of use.
    proved: Option<Proved>,
    /// How often a comparison that is wished for had to begin from nothing.
    begun_anew: u32,
    /// What the connection was made to.
    dialled: Option<Destination>,
    /// The folder that the first copy goes into.
    folder: Option<carried::Folder>,
}

/// Where data goes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Destination {
    /// To a host's agent.
    Host { host: HostId, address: Option<String>, generation: u64 },
    /// Into a folder of this host, to be carried.
    Folder(OfflineCopy),
}

impl Task {
    pub(super) fn new(
        around: Surroundings,
        duty: watch::Receiver<Shipping>,
        wishes: mpsc::Receiver<Wish>,
        board: Arc<Board>,
    ) -> Self {
        let (protection, machine) = (duty.borrow().protection, duty.borrow().machine);
        let mut course = around.courses.read(protection);
        course.machine = Some(machine.uuid());
        let newest = course.sealed.map(|_| Instant::now());
        Self {
            around,
            duty,
            wishes,
            wished: Vec::new(),
            failures: 0,
            board,
            course,
            capture: None,
            sender: None,
            rpo: RpoHistory::default(),
            newest,
            app_due: None,
            off: None,
            proved: None,
            begun_anew: 0,
            dialled: None,
            folder: None,
        }
    }

    /// Ships until the task is dropped.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let mut due = Instant::now();
        loop {
            self.wait_until(due).await;
            let duty = self.duty.borrow_and_update().clone();
            if duty.paused {
                (self.sender, self.folder) = (None, None);
                self.board.change(|report| report.phase = Phase::Paused);
                self.refuse(&not_shipped(duty.protection, "its replication is paused"));
                tokio::select! {
                    changed = self.duty.changed() => if changed.is_err() {
                        return;
                    },
                    Some(wish) = self.wishes.recv() => self.wished.push(wish),
                }
                due = Instant::now();
                continue;
            }
            let begun = Instant::now();
            match self.round(&duty).await {
                Ok(Next::AtOnce) => {
                    backoff.reset();
                    self.trouble(None);
                }
                Ok(Next::WhenDue) => {
                    backoff.reset();
                    self.trouble(None);
                    due = begun + Duration::from_secs(duty.policy.every_seconds.into());
                }
                Err(fault) => {
                    (self.sender, self.folder) = (None, None);
                    self.failures += 1;
                    if self.failures >= FAILURES_MAX {
                        self.refuse(&fault);
                    }
                    self.trouble(Some(fault));
                    due = Instant::now() + backoff.next_pause();
                }
            }
        }
    }

    /// Waits, and keeps the connection alive; wakes early when the duty changes.
    async fn wait_until(&mut self, due: Instant) {
        while Instant::now() < due {
            let idle = due.min(Instant::now() + IDLE);
            tokio::select! {
                () = sleep_until(idle) => {}
                changed = self.duty.changed() => {
                    if changed.is_err() {
                        // The task is about to be dropped.
                        std::future::pending::<()>().await;
                    }
                    return;
                }
                Some(wish) = self.wishes.recv() => {
                    self.wished.push(wish);
                    return;
                }
            }
            self.note_age();
            if Instant::now() < due
                && let Some(sender) = &mut self.sender
                && sender.idle().await.is_err()
            {
                self.sender = None;
            }
        }
    }

    /// Tells all who wished for a point why there is none.
    fn refuse(&mut self, fault: &Fault) {
        self.wished.drain(..).for_each(|wish| wish.answer(Err(fault.clone())));
        self.failures = 0;
    }

    /// Answers all who wished for a point before its cut; but for those who wished for
    /// a comparison that has not come to its end.
    fn fulfil(&mut self, point: PointMark, proved: Option<Result<Proved, Fault>>) -> Next {
        self.failures = 0;
        let is_whole = matches!(&proved, Some(Ok(proved)) if proved.is_whole());
        for wish in std::mem::take(&mut self.wished) {
            match &proved {
                _ if !wish.compare => wish.answer(Ok(point)),
                Some(Ok(_)) if is_whole => wish.answer(Ok(point)),
                Some(Ok(_)) => self.wished.push(wish),
                Some(Err(fault)) => wish.answer(Err(fault.clone())),
                None => wish.answer(Err(Fault::internal("compare", &"nothing was compared"))),
            }
        }
        self.proved = proved.and_then(Result::ok);
        if self.wished.is_empty() {
            self.begun_anew = 0;
            return Next::WhenDue;
        }
        Next::AtOnce
    }

    async fn round(&mut self, duty: &Shipping) -> Result<Next, Fault> {
        let begun = Instant::now();
        while let Ok(wish) = self.wishes.try_recv() {
            self.wished.push(wish);
        }
        // Nobody waits for what a job wished that was cancelled.
        self.wished.retain(|wish| !wish.is_given_up());
        if self.wished.is_empty() {
            self.failures = 0;
        }
        if let Some(at) = duty.not_before
            && at > OffsetDateTime::now_utc()
            && self.course.sealed.is_none()
        {
            self.board.change(|report| report.phase = Phase::Waiting);
            self.refuse(&not_shipped(duty.protection, "its first copy is to begin later"));
            return Ok(Next::WhenDue);
        }
        self.course.carry(duty.offline.as_ref());
        self.connect(duty).await?;
        if let CarriedStage::Written(_) = self.course.carried_stage() {
            self.told_phase();
            self.refuse(&not_shipped(duty.protection, "its first copy is being carried"));
            return Ok(Next::WhenDue);
        }
        self.course.wish(duty.resynchronise);
        let opening = hours::resynchronisation(&duty.policy, hours::local());
        // A command does not wait for hours.
        let may_compare = opening == Opening::Now || !self.wished.is_empty();
        if self.course.is_held(may_compare) {
            self.hold(opening);
            return Ok(Next::WhenDue);
        }
        let verify_wish = duty.verify.filter(|wish| self.board.verified() != Some(*wish));
        let compare = self.wished.iter().any(|wish| wish.compare);
        let off = off::print(&self.around.observations.borrow(), duty.machine);
        if off.is_some()
            && self.off == off
            && self.course.is_steady()
            && verify_wish.is_none()
            && !compare
        {
            // Nobody has written to the disks of a machine that is off.
            if let Some(newest) = self.board.report().newest {
                let proved = self.proved.take().map(Ok);
                self.fulfil(newest, proved);
            }
            self.newest = Some(Instant::now());
            self.told_phase();
            return Ok(Next::WhenDue);
        }
        self.told_phase();
        let freeze_limit = Duration::from_secs(duty.policy.freeze_seconds.into());
        if self.capture.as_ref().is_none_or(|(limit, _)| *limit != freeze_limit) {
            let settings = CaptureSettings { freeze_limit, ..self.around.capture.clone() };
            let opened = machine::open(&self.around.hypervisor, duty.machine, settings).await;
            self.capture = Some((freeze_limit, opened.map_err(of_capture)?));
        }
        let wanted = self.wanted(duty);
        let was_steady = self.course.is_steady();
        let limit = match &self.folder {
            // The limit is the network's.
            Some(_) => None,
            None => hours::limit(&duty.policy, hours::local()),
        };
        let (Some((_, capture)), Some(sender)) = (&mut self.capture, &mut self.sender) else {
            return Err(Fault::internal("ship", &"nothing was opened"));
        };
        let board = Arc::clone(&self.board);
        let progress = move |progress: Progress| {
            board.change(|report| report.progress = Some(progress));
        };
        let told = Arc::clone(&self.board);
        let phase = move |course: &Course| told.phase_of(course, &duty.name);
        let round = Round {
            duty,
            capture,
            sender,
            course: &mut self.course,
            courses: &self.around.courses,
            wanted,
            host: &self.around.host,
            portions: Portions::default(),
            limit,
            may_compare,
            progress: &progress,
            phase: &phase,
        };
        // What changes meanwhile is told of by nobody.
        let known = self.proved.clone().filter(|_| was_steady);
        let window = Portions::default().window;
        let begun_anew = self.begun_anew;
        let result = round
            .run(async |cut, point, sender| {
                let report = match verify_wish {
                    Some(wish) => Some(verify::verify(wish, cut, point, sender, &progress).await),
                    None => None,
                };
                let known = match known {
                    Some(known) => known.up_to(cut).await.ok().flatten(),
                    None => None,
                };
                if !compare {
                    return Looked { report, proved: known.map(Ok), anew: false };
                }
                let anew = known.is_none();
                if anew && begun_anew >= BEGINNINGS {
                    let proved = Some(Err(writes_too_much(&duty.name)));
                    return Looked { report, proved, anew };
                }
                let known = known.unwrap_or_else(|| Proved::nothing(cut));
                // What the guest overwrites meanwhile takes up room; of one that is off
                // nothing does.
                let until = (!cut.of_a_machine_off).then(|| Instant::now() + window);
                let name = &duty.name;
                let proved = verify::prove(name, cut, known, until, sender, &progress).await;
                Looked { report, proved: Some(proved), anew }
            })
            .await;
        match result {
            Ok((Outcome::Held, _)) => {
                self.proved = None;
                self.hold(opening);
                Ok(Next::WhenDue)
            }
            Ok((Outcome::Parted { read, sent }, _)) => {
                self.proved = None;
                self.board.change(|report| {
                    report.totals.read += read;
                    report.totals.sent += sent;
                });
                Ok(Next::AtOnce)
            }
            Ok((Outcome::Sealed { point, remark, figures, read, of_a_machine_off }, verified)) => {
                // Looked at before the cut: what came later is seen as other.
                self.off = off.filter(|_| of_a_machine_off);
                if wanted == Wanted::App {
                    let every = duty.policy.app_consistent_seconds.unwrap_or(u32::MAX);
                    self.app_due = Some(Instant::now() + Duration::from_secs(every.into()));
                }
                if let CarriedStage::Written(_) = self.course.carried_stage() {
                    return Ok(self.written(read, figures.sent));
                }
                self.note_age();
                self.newest = Some(begun);
                self.note_age();
                debug!(machine = %duty.name, point = point.point, took_ms = figures.took_ms, changed = figures.changed, sent = figures.sent, "a point");
                let resynchronised = self.course.resynchronised;
                self.board.change(|report| {
                    report.newest = Some(PointMark::of(&point));
                    report.progress = None;
                    report.totals.read += read;
                    report.totals.sent += figures.sent;
                    report.totals.points += 1;
                    report.last_cycle = Some(figures);
                    report.resynchronised = resynchronised;
                    if wanted == Wanted::App {
                        report.remarks = remark.into_iter().collect();
                    }
                });
                let Looked { report: verified, proved, anew } = verified.unwrap_or_default();
                self.begun_anew += u32::from(anew);
                let next = self.fulfil(PointMark::of(&point), proved);
                if let Some(verified) = verified {
                    info!(machine = %duty.name, point = point.point, "source and replica were compared");
                    self.board.change(|report| report.verified = Some(verified));
                }
                self.told_phase();
                Ok(next)
            }
            Err(fault) => {
                if fault.code == Code::MachineGone
                    && let Some(wish) = verify_wish
                {
                    let report = verify::failed(wish, fault.clone());
                    self.board.change(|board| board.verified = Some(report));
                }
                if self.course.is_steady() {
                    self.board.change(|report| report.progress = None);
                }
                // A capture that failed is opened anew, which tidies up.
                self.capture = None;
                Err(fault)
            }
        }
    }

    /// The first copy is whole in its folder: that is let go.
    fn written(&mut self, read: u64, sent: u64) -> Next {
        (self.sender, self.folder, self.dialled) = (None, None, None);
        self.board.change(|report| {
            report.progress = None;
            report.totals.read += read;
            report.totals.sent += sent;
        });
        self.told_phase();
        Next::AtOnce
    }

    fn hold(&self, opening: Opening) {
        let (Some(reason), Opening::In(minutes)) = (&self.course.resynchronising, opening) else {
            return;
        };
        self.board.hold(reason, minutes, &self.duty.borrow().name);
    }

    fn destination(&self, duty: &Shipping) -> Destination {
        match (self.course.carried_stage(), &duty.offline) {
            (CarriedStage::Writing, Some(copy)) => Destination::Folder(copy.clone()),
            _ => Destination::Host {
                host: duty.target,
                address: duty.target_address.clone(),
                generation: duty.generation,
            },
        }
    }

    /// Makes sure that the keeper is there, and hears what it has.
    async fn connect(&mut self, duty: &Shipping) -> Result<(), Fault> {
        let destination = self.destination(duty);
        if self.sender.is_some() && self.dialled.as_ref() == Some(&destination) {
            // Whether what was carried has arrived, only a new welcome says.
            match self.course.carried_stage() {
                CarriedStage::Written(_) => {}
                CarriedStage::Writing | CarriedStage::Over => return Ok(()),
            }
        }
        (self.sender, self.folder) = (None, None);
        let passport = self.around.passport.borrow().clone();
        let (stream, to): (Box<dyn Stream>, String) = match &destination {
            Destination::Folder(copy) => {
                let (stream, folder) = carried::open(duty, copy, passport.host)?;
                self.folder = Some(folder);
                (stream, format!("{} of this host", copy.folder))
            }
            Destination::Host { address, .. } => {
                (self.dial(duty, address.as_deref(), &passport).await?, duty.target_name.clone())
            }
        };
        let hello = Hello { protection: duty.protection.uuid(), generation: duty.generation };
        let (mut sender, welcome) = Sender::greet(stream, to, hello).await?;
        if let Destination::Host { .. } = destination {
            sender.share(self.around.line.clone());
        }
        debug!(machine = %duty.name, ?destination, "connected to the keeper of its points");
        self.course.meet(Kept::of(&welcome));
        if let Some(newest) =
            welcome.newest.filter(|_| matches!(destination, Destination::Host { .. }))
        {
            self.board.change(|report| report.newest = Some(PointMark::of(&newest)));
        }
        self.sender = Some(sender);
        self.dialled = Some(destination);
        Ok(())
    }

    async fn dial(
        &self,
        duty: &Shipping,
        address: Option<&str>,
        passport: &Passport,
    ) -> Result<Box<dyn Stream>, Fault> {
        let Some(address) = address else {
            return Err(Fault::new(
                Code::PeerUnreachable,
                format!("reach the agent of host {}", duty.target_name),
                "nobody knows its address: it was never connected to the controller",
                "Start its agent.",
            ));
        };
        let stream = peer::dial(address, duty.target, &duty.target_name, passport).await?;
        Ok(Box::new(stream))
    }

    fn wanted(&self, duty: &Shipping) -> Wanted {
        let due = self.app_due.is_none_or(|due| Instant::now() >= due);
        match duty.policy.app_consistent_seconds {
            Some(_) if due => Wanted::App,
            _ => Wanted::Crash,
        }
    }

    fn told_phase(&self) {
        self.board.phase_of(&self.course, &self.duty.borrow().name);
    }

    fn note_age(&mut self) {
        let Some(newest) = self.newest else { return };
        let now = milliseconds(OffsetDateTime::now_utc());
        let age = u64::try_from(newest.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.rpo.note(now, age);
        let (worst, p99) = (self.rpo.worst(), self.rpo.p99());
        self.board.change(|report| (report.rpo_worst_ms, report.rpo_p99_ms) = (worst, p99));
    }

    fn trouble(&mut self, fault: Option<Fault>) {
        self.note_age();
        let name = self.duty.borrow().name.clone();
        self.board.change(|report| {
            let before = report.trouble.take();
            report.trouble = fault.map(|fault| {
                if before.as_ref().is_none_or(|before| before.fault.code != fault.code.as_str()) {
                    warn!(machine = %name, code = %fault.code, cause = %fault.cause, advice = %fault.advice, "cannot {}", fault.doing);
                }
                Trouble::of(fault.into(), before.as_ref(), OffsetDateTime::now_utc())
            });
            if report.trouble.is_none() && before.is_some() {
                info!(machine = %name, "shipping goes on");
            }
        });
    }

    /// Leaves nothing of ours on the machine of a protection that ended.
    pub(super) async fn forget(
        around: &Surroundings,
        protection: ProtectionId,
        machine: MachineUuid,
    ) -> Result<(), Fault> {
        let settings = around.capture.clone();
        match machine::open(&around.hypervisor, machine, settings).await {
            Ok(mut capture) => capture.forget().await.map_err(of_capture)?,
            // Then nothing of it is left either.
            Err(CaptureError::NoSuchMachine { .. }) => {}
            Err(error) => return Err(of_capture(error)),
        }
        around.courses.forget(protection);
        Ok(())
    }
}

enum Next {
    AtOnce,
    WhenDue,
}
