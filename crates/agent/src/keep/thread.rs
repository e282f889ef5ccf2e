//! One machine's store: a thread owns its writer and applies orders, one after
//! the other.
//!
//! ```text
//!   closed ──an order comes──▶ open ──the store fails──▶ closed, trouble told
//! ```
//! Data is not answered order by order: the first failure is kept and told to
//! whoever next asks for something durable.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use domain::fault::{Code, Fault};
use domain::units::milliseconds;
use replica::error::{StoreError, StoreResult};
use replica::format::Digest;
use replica::format::manifest::{self, Point};
use replica::format::record::{Codec, Consistency};
use replica::geometry::{Cycle, DiskNumber};
use replica::import::Wish;
use replica::medium::folder::Folder;
use replica::offline_copy::Stopped;
use replica::pipeline::Encoded;
use replica::state::{Limits, Received};
use replica::store::Store;
use replica::writer::{SealFacts, Writer, WriterOptions};
use time::OffsetDateTime;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{interval, timeout};
use tracing::{info, warn};
use wire::data::{Open, Pages, Range, Seal, Sealed};
use wire::replication::{
    Hold, ImportReport, ImportStage, Keeping, KeepingReport, OfflineCopy, PointMark, Progress,
    Trouble, points_told,
};

use super::fault::of_store;
use super::import::{adopt, take_in};
use super::pins::Pins;
use super::tending::{self, Tender};
use crate::compression;

/// Orders that wait; data orders are at most 64 KiB each.
const ORDERS: usize = 128;

type Answer<T> = oneshot::Sender<Result<T, Fault>>;

/// What a keeper is told to do.
#[derive(Debug)]
pub(super) enum Order {
    /// Make sure that the store is open.
    Open(Answer<Option<Open>>),
    /// Answered in turn, and leaves what a session does as it is.
    Settle(Answer<()>),
    Begin(Vec<u64>, Answer<Open>),
    Resume(Vec<u64>, Answer<Option<Open>>),
    Pages(Pages),
    Zero(Range),
    Discard(Range),
    Sync(Answer<Open>),
    Seal(Seal, Answer<Sealed>),
    /// Take in a first copy that was carried here.
    Import(OfflineCopy),
    /// Make a point of images of this host, without a copy where that can be; and
    /// hold it, if so.
    Adopt(Box<Wish>, Option<Hold>, Answer<PointMark>),
    /// Drop all points but the newest and those that something holds or needs: how
    /// many went, how many stay.
    DropAll(Answer<(u64, u64)>),
    /// Change what holds a point.
    Hold(Cycle, Option<Hold>, Answer<PointMark>),
    Tend,
}

/// Who gives an order: the session that was opened last is heard, so that what
/// an older one still has in its pipes changes nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Voice {
    /// The keeper itself.
    Own,
    /// A session.
    Session(u64),
}

/// The handle of a machine's keeper. The thread ends when the last is dropped.
#[derive(Debug, Clone)]
pub struct Keeper {
    orders: mpsc::Sender<(Voice, Order)>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    duty: RwLock<Keeping>,
    store: Mutex<Option<Store>>,
    report: Mutex<KeepingReport>,
    changed: watch::Sender<()>,
    /// The session that is heard.
    session: AtomicU64,
    pins: Pins,
    /// How far the adoption of disks is.
    adopting: Mutex<Option<Progress>>,
}

impl Keeper {
    /// Starts the thread; the store is opened at the first order.
    pub(super) fn start(
        duty: Keeping,
        folder: PathBuf,
        changed: watch::Sender<()>,
        pins: Pins,
    ) -> Self {
        let report = KeepingReport {
            protection: duty.protection,
            folder: folder.display().to_string(),
            points: Vec::new(),
            count: 0,
            used_bytes: 0,
            free_bytes: free_at(&folder),
            trouble: None,
            import: None,
        };
        let shared = Arc::new(Shared {
            folder,
            duty: RwLock::new(duty),
            store: Mutex::default(),
            report: Mutex::new(report),
            changed,
            session: AtomicU64::new(0),
            pins,
            adopting: Mutex::default(),
        });
        let (orders, queue) = mpsc::channel(ORDERS);
        let worker = Worker {
            shared: Arc::clone(&shared),
            writer: None,
            failed: None,
            generation: 0,
            tender: Tender::default(),
        };
        std::thread::spawn(move || worker.run(queue));
        let weak = orders.downgrade();
        tokio::spawn(async move {
            let mut due = interval(tending::INTERVAL);
            loop {
                due.tick().await;
                let Some(orders) = weak.upgrade() else { return };
                // Full means that it is busy: the next time, then.
                let _ = orders.try_send((Voice::Own, Order::Tend));
            }
        });
        Self { orders, shared }
    }

    /// Whether it takes orders; it does not if its thread has panicked.
    pub(super) fn is_alive(&self) -> bool {
        !self.orders.is_closed()
    }

    /// Whether the two are one.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// What it is to do.
    #[must_use]
    pub fn duty(&self) -> Keeping {
        self.shared.duty()
    }

    /// Takes a changed duty.
    pub(super) fn change(&self, duty: Keeping) {
        *self.shared.duty.write().unwrap_or_else(PoisonError::into_inner) = duty;
    }

    /// Begins to take in a first copy that was carried here, if its duty says so
    /// and that was not begun yet.
    pub(super) fn import(&self) {
        let Some(copy) = self.duty().import else { return };
        let mut report = self.shared.report();
        if report.import.as_ref().is_some_and(|import| import.wish == copy.wish) {
            return;
        }
        let wish = copy.wish;
        // Full means that it is busy: the next time, then.
        if self.orders.try_send((Voice::Own, Order::Import(copy))).is_ok() {
            let stage = ImportStage::Reading(Progress { done: 0, total: 0, seconds_left: None });
            report.import = Some(ImportReport { wish, stage });
        }
    }

    /// Whether it takes in a first copy, and nothing else meanwhile.
    pub(super) fn is_importing(&self) -> bool {
        let stage = self.shared.report().import.as_ref().map(|import| import.stage.clone());
        matches!(stage, Some(ImportStage::Reading(_)))
    }

    /// Where its points lie.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.shared.folder
    }

    /// Waits until all that it was told before is done, and its store can be opened
    /// at once: a point that was pinned before is dropped no more.
    ///
    /// # Errors
    /// The store cannot be opened, or does not answer.
    pub async fn settle(&self) -> Result<(), Fault> {
        let asked = timeout(PATIENCE, self.ask(Voice::Own, Order::Settle)).await;
        asked.unwrap_or_else(|_| Err(slow(&self.duty().name)))
    }

    /// Makes a point of images of this host that nobody writes to any more:
    /// without a copy, where that can be. Done once for the same images. Held if
    /// `hold` says so; durable on return.
    ///
    /// # Errors
    /// When they cannot be read, or the store fails.
    pub async fn adopt(&self, wish: Wish, hold: Option<Hold>) -> Result<PointMark, Fault> {
        self.ask(Voice::Own, |answer| Order::Adopt(Box::new(wish), hold, answer)).await
    }

    /// Drops all points but the newest and those that something holds or needs, and
    /// gives their room back: how many went, how many stay. Durable on return.
    ///
    /// # Errors
    /// The store fails.
    pub async fn drop_all(&self) -> Result<(u64, u64), Fault> {
        self.ask(Voice::Own, Order::DropAll).await
    }

    /// Holds a point whatever the policy says, or lets it go. Durable on return.
    ///
    /// # Errors
    /// [`Code::PointUnknown`]; or the store fails.
    pub async fn hold(&self, point: u32, hold: Option<Hold>) -> Result<PointMark, Fault> {
        let asked = self.ask(Voice::Own, |answer| Order::Hold(Cycle(point), hold, answer));
        let asked = timeout(PATIENCE, asked).await;
        asked.unwrap_or_else(|_| Err(slow(&self.duty().name)))
    }

    /// How far that is.
    #[must_use]
    pub fn adopting(&self) -> Option<Progress> {
        *self.shared.adopting()
    }

    /// How it is.
    #[must_use]
    pub fn report(&self) -> KeepingReport {
        self.shared.report().clone()
    }

    /// The store, once it was opened.
    #[must_use]
    pub fn store(&self) -> Option<Store> {
        self.shared.store.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Opens a session: from now on it alone is heard.
    pub(super) fn enter(&self) -> Voice {
        Voice::Session(self.shared.session.fetch_add(1, Ordering::SeqCst) + 1)
    }

    /// Hands over data; waits while the store is behind.
    pub(super) async fn give(&self, voice: Voice, order: Order) -> Result<(), Fault> {
        self.orders.send((voice, order)).await.map_err(|_| self.gone())
    }

    /// Gives an order that is answered.
    pub(super) async fn ask<T>(
        &self,
        voice: Voice,
        order: impl FnOnce(Answer<T>) -> Order,
    ) -> Result<T, Fault> {
        let (answer, answered) = oneshot::channel();
        self.give(voice, order(answer)).await?;
        // A session that is heard no longer gets no answer.
        answered.await.map_err(|_| self.superseded())?
    }

    fn superseded(&self) -> Fault {
        Fault::new(
            Code::PeerRefused,
            format!("take changes of machine {}", self.duty().name),
            "a later connection of the same machine has taken the place of this one",
            "Nothing: shipping goes on over the later connection.",
        )
    }

    fn gone(&self) -> Fault {
        Fault::internal(format!("keep points of machine {}", self.duty().name), &"its thread ended")
    }
}

impl Shared {
    fn report(&self) -> MutexGuard<'_, KeepingReport> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn adopting(&self) -> MutexGuard<'_, Option<Progress>> {
        self.adopting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn duty(&self) -> Keeping {
        self.duty.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The thread's own.
struct Worker {
    shared: Arc<Shared>,
    writer: Option<Writer>,
    /// The first failure since the attempt began.
    failed: Option<Fault>,
    /// That the writer has.
    generation: u64,
    tender: Tender,
}

impl Worker {
    fn run(mut self, mut orders: mpsc::Receiver<(Voice, Order)>) {
        while let Some((voice, order)) = orders.blocking_recv() {
            let heard = match voice {
                Voice::Own => true,
                Voice::Session(session) => session == self.shared.session.load(Ordering::SeqCst),
            };
            if heard {
                self.apply(order);
            }
        }
    }

    fn apply(&mut self, order: Order) {
        match order {
            Order::Open(answer) => {
                let opened =
                    self.with_writer(|writer| Ok(open_of(writer.store().positions().received)));
                self.tell(answer, opened);
            }
            Order::Settle(answer) => {
                let settled = match &mut self.writer {
                    Some(writer) => {
                        // Whoever opens the store next has nothing to read again. Where
                        // there is no room for that they have, which is no reason to refuse.
                        if let Err(error) = writer.checkpoint() {
                            self.fail(&error);
                        }
                        Ok(())
                    }
                    None => self.open().map_err(|error| self.fail(&error)),
                };
                self.tell(answer, settled);
            }
            Order::Begin(disks, answer) => {
                self.failed = None;
                let begun = self.with_writer(|writer| {
                    writer.begin(&disks).map(|cycle| Open { cycle: cycle.0, changes: 0 })
                });
                self.tell(answer, begun);
            }
            Order::Resume(disks, answer) => {
                self.failed = None;
                let resumed = self.with_writer(|writer| {
                    writer.resume(&disks).map(|received| received.and_then(open_of))
                });
                self.tell(answer, resumed);
            }
            Order::Pages(pages) => self.data(|writer| {
                let codec = Codec::from_byte(pages.codec)
                    .map_err(|source| StoreError::File { name: "a frame".into(), source })?;
                let digest = Digest(pages.digest);
                let encoded = Encoded { codec, digest, stored: pages.stored };
                let disk = DiskNumber(pages.disk);
                writer.write_encoded(disk, pages.offset, pages.length.into(), encoded)
            }),
            Order::Zero(Range { disk, offset, length }) => {
                self.data(|writer| writer.zero(DiskNumber(disk), offset, length));
            }
            Order::Discard(Range { disk, offset, length }) => {
                self.data(|writer| writer.discard(DiskNumber(disk), offset, length));
            }
            Order::Sync(answer) => {
                let synced =
                    self.with_writer(|writer| open_of(writer.sync()?).ok_or(StoreError::NoAttempt));
                self.tell(answer, synced);
            }
            Order::Seal(wish, answer) => {
                let sealed = self.with_writer(|writer| {
                    let consistency =
                        if wish.app_consistent { Consistency::App } else { Consistency::Crash };
                    writer.seal(SealFacts {
                        instant: wish.instant,
                        consistency,
                        origin: wish.origin,
                        configuration: wish.configuration.into_bytes(),
                    })
                });
                self.tell(answer, sealed.map(|point| sealed_of(&point)));
                self.look();
            }
            Order::Import(copy) => self.import(&copy),
            Order::Adopt(wish, hold, answer) => {
                let adopted = self.adopt(&wish).and_then(|point| match hold {
                    Some(_) => self.hold(point.cycle, hold),
                    None => Ok(mark_of(&point)),
                });
                self.tell(answer, adopted);
            }
            Order::DropAll(answer) => {
                let duty = self.shared.duty();
                let pinned = self.shared.pins.of(duty.protection);
                let now = milliseconds(OffsetDateTime::now_utc());
                let dropped = self.with_writer(|writer| tending::drop_all(writer, &pinned, now));
                self.tell(answer, dropped);
                self.look();
            }
            Order::Hold(point, hold, answer) => {
                let held = self.hold(point, hold);
                self.tell(answer, held);
            }
            Order::Tend => self.tend(),
        }
    }

    /// Does something with the writer, opening it if need be. A failure closes
    /// it: the next order finds what is durable.
    fn with_writer<T>(
        &mut self,
        act: impl FnOnce(&mut Writer) -> StoreResult<T>,
    ) -> Result<T, Fault> {
        if let Some(failed) = self.failed.take() {
            return Err(failed);
        }
        if self.generation != self.shared.duty().generation {
            // Opened anew, the store refuses whoever has an older one.
            self.writer = None;
        }
        let result = match &mut self.writer {
            Some(writer) => act(writer),
            None => self.open().and_then(|()| match &mut self.writer {
                Some(writer) => act(writer),
                None => Err(StoreError::WriterFailed),
            }),
        };
        match result {
            Ok(value) => {
                self.trouble(None);
                Ok(value)
            }
            Err(error) => Err(self.fail(&error)),
        }
    }

    fn data(&mut self, act: impl FnOnce(&mut Writer) -> StoreResult<u64>) {
        if self.failed.is_some() {
            return;
        }
        let result = match &mut self.writer {
            Some(writer) => act(writer),
            None => Err(StoreError::NoAttempt),
        };
        if let Err(error) = result {
            self.failed = Some(self.fail(&error));
        }
    }

    fn fail(&mut self, error: &StoreError) -> Fault {
        let fault = of_store(&self.shared.duty().name, &self.shared.folder, error);
        warn!(code = %fault.code, cause = %fault.cause, advice = %fault.advice, "cannot {}", fault.doing);
        self.trouble(Some(fault.clone()));
        // What is durable is found again when it is opened again.
        self.writer = None;
        *self.shared.store.lock().unwrap_or_else(PoisonError::into_inner) = None;
        fault
    }

    fn open(&mut self) -> StoreResult<()> {
        let duty = self.shared.duty();
        let folder = Folder::create(&self.shared.folder)
            .map_err(|source| StoreError::Io { doing: "make the folder".into(), source })?;
        // Data comes encoded, and many machines may be kept.
        let limits = Limits { index_cache: 8 << 20, block_cache: 8 << 20, ..Limits::default() };
        let options = WriterOptions {
            compression: compression::of(duty.compression),
            threads: 2,
            limits,
            ..WriterOptions::new(duty.generation)
        };
        let writer = Writer::open(Arc::new(folder), options)?;
        if writer.cut() > 0 {
            info!(bytes = writer.cut(), machine = %duty.name, "what was not acknowledged was cut off");
        }
        *self.shared.store.lock().unwrap_or_else(PoisonError::into_inner) = Some(writer.store());
        self.writer = Some(writer);
        self.generation = duty.generation;
        self.look();
        Ok(())
    }

    fn import(&mut self, copy: &OfflineCopy) {
        let duty = self.shared.duty();
        let shared = Arc::clone(&self.shared);
        let mut progress = |done, total| {
            let import = ImportReport {
                wish: copy.wish,
                stage: ImportStage::Reading(Progress { done, total, seconds_left: None }),
            };
            shared.report().import = Some(import);
            shared.changed.send_replace(());
            // This thread has two of them; whoever wants the copy has another.
            if Arc::strong_count(&shared) > 2 { Ok(()) } else { Err(Stopped) }
        };
        let taken = self.with_writer(|_| Ok(())).and_then(|()| match &mut self.writer {
            Some(writer) => take_in(writer, &duty, Path::new(&copy.folder), &mut progress),
            None => Err(Fault::internal("take in a first copy", &"the store is closed")),
        });
        let stage = match taken {
            Ok(()) => {
                info!(machine = %duty.name, folder = copy.folder, "the first copy is taken in");
                ImportStage::Taken
            }
            Err(fault) => {
                warn!(code = %fault.code, cause = %fault.cause, advice = %fault.advice, "cannot {}", fault.doing);
                // What was begun is given up, and what is durable found again.
                self.writer = None;
                ImportStage::Failed(Trouble::of(fault.into(), None, OffsetDateTime::now_utc()))
            }
        };
        self.look();
        self.shared.report().import = Some(ImportReport { wish: copy.wish, stage });
        self.shared.changed.send_replace(());
    }

    fn hold(&mut self, point: Cycle, hold: Option<Hold>) -> Result<PointMark, Fault> {
        let store_hold = match hold {
            None => manifest::Hold::None,
            Some(Hold::Operator) => manifest::Hold::Operator,
            Some(Hold::Lost) => manifest::Hold::Lost,
        };
        let held = self.with_writer(|writer| {
            let found = match writer.store().point(point) {
                // What is not there is no failure of the store.
                Err(StoreError::NoSuchPoint(_)) => return Ok(None),
                found => found?,
            };
            if found.hold != store_hold {
                writer.hold(point, store_hold)?;
            }
            writer.store().point(point).map(Some)
        })?;
        self.look();
        held.map(|point| mark_of(&point)).ok_or_else(|| {
            let machine = self.shared.duty().name;
            Fault::new(
                Code::PointUnknown,
                format!("change what holds point {} of machine {machine}", point.0),
                "there is no such point",
                format!("Choose one of: lifeboat point list {machine}."),
            )
        })
    }

    fn adopt(&mut self, wish: &Wish) -> Result<Point, Fault> {
        self.with_writer(|_| Ok(()))?;
        let name = self.shared.duty().name;
        let shared = Arc::clone(&self.shared);
        let mut progress = |done, total| {
            *shared.adopting() = Some(Progress { done, total, seconds_left: None });
            Ok(())
        };
        let adopted = match &mut self.writer {
            Some(writer) => adopt(writer, &name, &self.shared.folder, wish, &mut progress),
            None => Err(Fault::internal("adopt disks", &"the store is closed")),
        };
        *self.shared.adopting() = None;
        if adopted.is_err() {
            // What was begun is given up, and what is durable found again.
            self.writer = None;
        }
        self.look();
        adopted
    }

    fn tend(&mut self) {
        let duty = self.shared.duty();
        let (retention, pinned) = (duty.retention, self.shared.pins.of(duty.protection));
        let now = milliseconds(OffsetDateTime::now_utc());
        let tender = &mut self.tender;
        let Some(writer) = &mut self.writer else {
            // Opened only to see how it is: points are there to be told.
            let opened = self.with_writer(|_| Ok(()));
            if let Err(fault) = opened {
                tracing::debug!(%fault, "the store stays closed");
            }
            return;
        };
        if let Err(error) = tender.tend(writer, &retention, &pinned, now) {
            self.fail(&error);
        }
        self.look();
    }

    fn tell<T>(&self, answer: Answer<T>, result: Result<T, Fault>) {
        // Who asked may be gone; what was done is done.
        let _ = answer.send(result);
    }

    fn trouble(&self, fault: Option<Fault>) {
        let mut report = self.shared.report();
        let before = report.trouble.take();
        let now = OffsetDateTime::now_utc();
        report.trouble = fault.map(|fault| Trouble::of(fault.into(), before.as_ref(), now));
        if report.trouble != before {
            self.shared.changed.send_replace(());
        }
    }

    /// Renews what is told of points and room.
    fn look(&self) {
        let Some(writer) = &self.writer else { return };
        let store = writer.store();
        let points = store.points();
        let usage = store.usage();
        let mut report = self.shared.report();
        report.count = points.len() as u64;
        report.points = points_told(points.iter().map(mark_of).collect());
        report.used_bytes = usage.data + usage.index;
        report.free_bytes = free_at(&self.shared.folder);
        self.shared.changed.send_replace(());
    }
}

/// Bytes that may still be written where a folder is, or will be.
fn free_at(folder: &Path) -> u64 {
    let mut places = folder.ancestors();
    let facts = places.find_map(|place| nix::sys::statvfs::statvfs(place).ok());
    facts.map_or(0, |facts| facts.blocks_available().saturating_mul(facts.fragment_size()))
}

fn open_of(received: Received) -> Option<Open> {
    received.cycle.map(|cycle| Open { cycle: cycle.0, changes: received.changes })
}

pub(super) fn sealed_of(point: &Point) -> Sealed {
    Sealed {
        point: point.cycle.0,
        instant: point.instant,
        app_consistent: point.consistency == Consistency::App,
        stored_bytes: point.stored,
    }
}

/// A point as it is told of.
pub(super) fn mark_of(point: &Point) -> PointMark {
    let hold = match point.hold {
        // A promise to keep it until an instant is no operator's to take back.
        manifest::Hold::None | manifest::Hold::Until(_) => None,
        manifest::Hold::Operator => Some(Hold::Operator),
        manifest::Hold::Lost => Some(Hold::Lost),
    };
    PointMark { hold, ..PointMark::of(&sealed_of(point)) }
}

/// How long anybody waits for a store.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// A fault of a keeper that does not answer.
pub(super) fn slow(machine: &str) -> Fault {
    Fault::new(
        Code::StoreFailed,
        format!("keep points of machine {machine}"),
        format!("the store did not answer for {} s", PATIENCE.as_secs()),
        "Look at the load and at the disk of this host; it is tried again by itself.",
    )
}
