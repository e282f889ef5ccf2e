//! One round: a cut of the machine, what of it must go, and a point at its end
//! if all of it went.
//!
//! ```text
//!   meet the keeper ─▶ cut ─▶ begin or resume ─▶ changes, then copying on ─▶ confirm
//!                                                    │                         │
//!                              time is up: sync ◀────┘        seal ◀───────────┘
//!                                  └────────── keep the course, accept the cut ─┘
//! ```
//! Whatever fails on the way, the cut is discarded and the next round starts
//! from the base of this one: what went twice does no harm.

use std::io;
use std::time::{Duration, Instant};

use domain::fault::{Code, Fault, chain};
use tokio::task::spawn_blocking;
use tracing::warn;
use wire::data::{Seal, Sealed};
use wire::replication::{CycleFigures, Progress, Shipping};

use super::backlog::Backlog;
use super::copy::{self, Before, Disk, Done, Encoders};
use super::course::{Course, Mark, Seen};
use super::fault::of_capture;
use super::folder::Courses;
use super::sender::Sender;
use crate::capture::{Base, Capture, CaptureError, Consistency, Cut, CutRequest, Wanted, Way};
use crate::hypervisor::libvirt::xml::behind;
use crate::hypervisor::libvirt::xml::recovered::without_disks;

/// In what portions a copy goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Portions {
    /// How long a cut stays open while a first copy goes on: what the guest
    /// overwrites meanwhile takes up room.
    pub(super) window: Duration,
    /// Bytes of data that are looked at before anything of them is sent.
    pub(super) batch: u64,
}

impl Default for Portions {
    fn default() -> Self {
        Self { window: Duration::from_secs(60), batch: 64 << 20 }
    }
}

/// What a round came to.
#[derive(Debug)]
pub(super) enum Outcome {
    /// A point.
    Sealed {
        point: Sealed,
        /// Why it is not app-consistent, where that was asked for.
        remark: Option<String>,
        figures: CycleFigures,
        read: u64,
        /// Whether no disk can have been written to while it was made.
        of_a_machine_off: bool,
    },
    /// A part of a copy is durable; there is more at once.
    Parted { read: u64, sent: u64 },
    /// Everything must be compared, which must not be done now.
    Held,
}

/// What became of a cut.
enum Shipped {
    Point(Sealed),
    Part,
    Held,
}

/// What a round needs.
pub(super) struct Round<'a, C> {
    pub(super) duty: &'a Shipping,
    pub(super) capture: &'a mut C,
    pub(super) sender: &'a mut Sender,
    pub(super) course: &'a mut Course,
    pub(super) courses: &'a Courses,
    pub(super) wanted: Wanted,
    pub(super) host: &'a str,
    pub(super) portions: Portions,
    /// Bytes a second that may be sent.
    pub(super) limit: Option<u64>,
    /// Whether everything may be compared now, if that must be.
    pub(super) may_compare: bool,
    /// Told how far the copy is, or a cycle that takes its time.
    pub(super) progress: &'a (dyn Fn(Progress) + Sync),
    /// Told what the course has become.
    pub(super) phase: &'a (dyn Fn(&Course) + Sync),
}

impl<C: Capture> Round<'_, C> {
    /// Runs it. With `after`, something is done with the cut once it is a point
    /// and before it is let go.
    pub(super) async fn run<V, F>(mut self, after: F) -> Result<(Outcome, Option<V>), Fault>
    where
        F: AsyncFnOnce(&Cut, &Sealed, &mut Sender) -> V,
    {
        let begun = Instant::now();
        let sent_before = self.sender.sent();
        self.sender.limit(self.limit);
        let request = CutRequest {
            since: self.course.since(),
            consistency: self.wanted,
            excluded: self.duty.excluded_disks.iter().cloned().collect(),
        };
        let cut = self.capture.cut(request).await.map_err(of_capture)?;
        let mut done = Done::default();
        match self.ship(&cut, &mut done).await {
            Err(fault) => {
                // What was sent into an attempt that stays open is of no
                // instant: it must be overwritten.
                self.course.soiled |= self.course.open;
                let discarded = self.capture.discard(cut).await;
                self.ended(discarded);
                Err(fault)
            }
            Ok(Shipped::Held) => {
                self.keep().await?;
                let discarded = self.capture.discard(cut).await;
                self.ended(discarded);
                Ok((Outcome::Held, None))
            }
            Ok(Shipped::Part) => {
                self.keep().await?;
                let accepted = self.capture.accept(cut).await;
                self.ended(accepted);
                let sent = self.sender.sent() - sent_before;
                Ok((Outcome::Parted { read: done.read, sent }, None))
            }
            Ok(Shipped::Point(point)) => {
                self.keep().await?;
                let figures = CycleFigures {
                    took_ms: begun.elapsed().as_millis() as u64,
                    changed: done.changed,
                    sent: self.sender.sent() - sent_before,
                };
                let value = after(&cut, &point, self.sender).await;
                let remark = match &cut.consistency {
                    Consistency::Crash { short_of_app } => short_of_app.clone(),
                    Consistency::App => None,
                };
                let of_a_machine_off = cut.of_a_machine_off;
                let accepted = self.capture.accept(cut).await;
                self.ended(accepted);
                let read = done.read;
                let sealed = Outcome::Sealed { point, remark, figures, read, of_a_machine_off };
                Ok((sealed, Some(value)))
            }
        }
    }

    /// What is durable stays so if tidying up fails; the next cut tidies up.
    fn ended(&self, ending: Result<(), CaptureError>) {
        if let Err(error) = ending {
            warn!(machine = %self.duty.name, error = %chain(&error), "a cut was not ended in order");
        }
    }

    /// Keeps the course, or says why not.
    async fn keep(&self) -> Result<(), Fault> {
        let protection = self.duty.protection;
        let (courses, course) = (self.courses.clone(), self.course.clone());
        let kept = spawn_blocking(move || courses.keep(protection, &course)).await;
        let kept = kept.map_err(io::Error::other).flatten();
        kept.map_err(|error| {
            Fault::new(
                Code::DataFolderUnusable,
                format!("keep how far protection {protection} is"),
                error.to_string(),
                "Make room in the agent's state folder and make it writable for the agent's user.",
            )
        })
    }

    /// Ships a cut.
    async fn ship(&mut self, cut: &Cut, done: &mut Done) -> Result<Shipped, Fault> {
        let seen: Vec<Seen> = cut
            .disks
            .iter()
            .map(|disk| Seen {
                target: disk.target.clone(),
                size: disk.size,
                base: disk.base.clone(),
            })
            .collect();
        self.course.take(&seen);
        (self.phase)(self.course);
        if self.course.is_held(self.may_compare) {
            return Ok(Shipped::Held);
        }
        self.attempt(seen.iter().map(|disk| disk.size).collect()).await?;
        let encoders = Encoders::new(self.duty.policy.compression);
        // A disk that is always whole must be gone through in one cut.
        let may_part = cut.disks.iter().all(|disk| disk.way == Way::Bitmap);
        let deadline = Instant::now() + self.portions.window;
        let is_steady = self.course.is_steady();
        let (copied, total) = match is_steady {
            true => (0, self.changed(cut).await?),
            false => self.course.progress(),
        };
        let backlog = Backlog::new(copied, total, self.progress);
        let (count, ignore) = (|bytes| backlog.pass(bytes), |_| {});
        let mut ended = true;
        // What is reached counts once it is durable, and not before.
        let mut reached: Vec<u64> = self.course.disks.iter().map(|disk| disk.copied).collect();
        for (number, disk) in cut.disks.iter().enumerate() {
            let mut place = Disk {
                number: number as u16,
                size: disk.size,
                reader: &disk.reader,
                encoders: &encoders,
                batch: self.portions.batch,
                passed: &count,
            };
            if !is_steady {
                // Of a copy it counts how much of the disks is there.
                place.passed = &ignore;
            }
            self.send_changes(&place, &disk.base, done).await?;
            place.passed = &count;
            if ended {
                let limit = may_part.then_some(deadline);
                let stopped = self.copy_on(&place, limit, done).await?;
                ended = stopped.is_none();
                if let Some(reached) = reached.get_mut(number) {
                    *reached = stopped.unwrap_or(disk.size);
                }
            }
        }
        self.capture.confirm(cut).await.map_err(of_capture)?;
        if !ended {
            let open = self.sender.sync().await?;
            self.is_ours(open.cycle)?;
            self.course.parted(open.changes, &reached, cut.checkpoint.as_ref());
            return Ok(Shipped::Part);
        }
        let wish = self.seal_of(cut);
        // Should the answer be lost, we know our point by its instant.
        self.course.sealing = Some(wish.instant);
        self.keep().await?;
        let point = self.sender.seal(wish).await?;
        self.is_ours(point.point)?;
        self.course.sealed(Mark::of(&point), cut.checkpoint.as_ref());
        Ok(Shipped::Point(point))
    }

    /// What the keeper answers about is the attempt that we began.
    fn is_ours(&self, attempt: u32) -> Result<(), Fault> {
        if self.course.begun == Some(attempt) {
            return Ok(());
        }
        Err(Fault::new(
            Code::ProtocolViolated,
            format!("ship machine {}", self.duty.name),
            format!("the keeper told of attempt {attempt}, and {:?} was begun", self.course.begun),
            "It is tried again by itself; if it stays so, please report it.",
        ))
    }

    /// Goes on with the attempt that is open on purpose, or begins one.
    async fn attempt(&mut self, sizes: Vec<u64>) -> Result<(), Fault> {
        if self.course.open {
            let resumed = self.sender.resume(sizes.clone()).await?;
            if resumed.is_some_and(|open| self.course.resumed(open.cycle, open.changes)) {
                // Until this round is durable, what it sends is of no instant.
                let soiled = std::mem::replace(&mut self.course.soiled, true);
                let kept = self.keep().await;
                self.course.soiled = soiled;
                return kept;
            }
            self.course.restarted();
        }
        let open = self.sender.begin(sizes).await?;
        self.course.began(open.cycle);
        self.keep().await
    }

    /// Bytes that changed on all disks.
    async fn changed(&self, cut: &Cut) -> Result<u64, Fault> {
        let mut total = 0;
        for disk in &cut.disks {
            let mut changes = disk.reader.changed(0..disk.size);
            while let Some(stretch) = changes.next().await.map_err(of_capture)? {
                total += stretch.length;
            }
        }
        Ok(total)
    }

    /// What changed in the part that the keeper has.
    async fn send_changes(
        &mut self,
        disk: &Disk<'_>,
        base: &Base,
        done: &mut Done,
    ) -> Result<(), Fault> {
        let Some(course) = self.course.disks.get(usize::from(disk.number)) else { return Ok(()) };
        if course.copied == 0 || !matches!(base, Base::Since(_)) {
            return Ok(());
        }
        // In an attempt of several rounds, the newest point is not what the
        // keeper has there now.
        let before = match self.course.is_steady() {
            true => Before::NewestPoint,
            false => Before::Something,
        };
        let changes = disk.reader.changed(0..course.copied);
        copy::send(disk, changes, before, self.sender, done, |_| true).await?;
        Ok(())
    }

    /// Copies on from where the last round ended; where it stopped before the
    /// disk's end.
    async fn copy_on(
        &mut self,
        disk: &Disk<'_>,
        deadline: Option<Instant>,
        done: &mut Done,
    ) -> Result<Option<u64>, Fault> {
        let number = usize::from(disk.number);
        let Some(course) = self.course.disks.get(number).filter(|disk| !disk.is_copied()) else {
            return Ok(None);
        };
        let before = match (self.course.soiled, course.compare, self.course.sealed) {
            (true, _, _) => Before::Something,
            (false, true, _) => Before::MostlyAlike,
            (false, false, Some(_)) => Before::Something,
            (false, false, None) => Before::Nothing,
        };
        let go_on = |_| deadline.is_none_or(|deadline| Instant::now() < deadline);
        let all = disk.reader.all(course.copied..disk.size);
        copy::send(disk, all, before, self.sender, done, go_on).await
    }

    fn seal_of(&self, cut: &Cut) -> Seal {
        // A machine that is made of the point has the point's disks alone.
        let excluded = self.duty.excluded_disks.iter().cloned().collect();
        let (xml, behind) = behind::split(&cut.configuration);
        let configuration = match without_disks(xml, &excluded) {
            Ok(fewer) if !self.duty.excluded_disks.is_empty() => format!("{fewer}{behind}"),
            _ => cut.configuration.clone(),
        };
        Seal {
            instant: cut.instant as i64,
            app_consistent: cut.consistency == Consistency::App,
            origin: format!("host {}", self.host),
            configuration,
        }
    }
}
