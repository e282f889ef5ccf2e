//! Shipping a machine that is simulated to a real store, over a connection that
//! breaks anywhere: whatever happens, each point is one instant of all disks.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use domain::id::{HostId, MachineUuid, ProtectionId};
use nbd::client::Address;
use nbd::memory::MemoryExport;
use nbd::protocol::chunk::StatusExtent;
use nbd::server::{Exports, Listener, Server, ServerOptions};
use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use replica::geometry::DiskNumber;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use uuid::Uuid;
use wire::data::Hello;
use wire::replication::{Compression, Keeping, Retention, Shipping, ShippingPolicy};

use super::course::{Course, Kept};
use super::folder::Courses;
use super::round::{Portions, Round};
use super::sender::Sender;
use crate::capture::cut::{Hold, Way};
use crate::capture::error::Of;
use crate::capture::{
    Base, Capture, CaptureError, CheckpointName, Consistency, Cut, CutDisk, CutRequest, DiskReader,
    Wanted, WholeReason,
};
use crate::keep::{Keepers, session};

const BLOCK: usize = 64 << 10;
const SIZES: [usize; 2] = [12 * BLOCK, 5 * BLOCK];
const BITMAP: &str = "changes";

/// Lives that are played.
const LIVES: u64 = 12;

type Image = Vec<Vec<u8>>;

/// A machine whose every write is seen.
struct Machine {
    folder: PathBuf,
    disks: Image,
    /// Blocks that were written since a checkpoint, by disk.
    checkpoints: BTreeMap<CheckpointName, Vec<BTreeSet<usize>>>,
    /// Images at the instants of cuts.
    past: BTreeMap<u64, Image>,
    server: Option<Server>,
    cuts: u64,
}

impl Machine {
    fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            disks: SIZES.iter().map(|size| vec![0; *size]).collect(),
            checkpoints: BTreeMap::new(),
            past: BTreeMap::new(),
            server: None,
            cuts: 0,
        }
    }

    /// Writes a block, or discards it.
    fn write(&mut self, random: &mut StdRng) {
        let disk = random.random_range(0..SIZES.len());
        let block = random.random_range(0..SIZES[disk] / BLOCK);
        let bytes = &mut self.disks[disk][block * BLOCK..(block + 1) * BLOCK];
        match random.random_range(0..5) {
            0 => bytes.fill(0),
            1 => random.fill_bytes(bytes),
            // A few contents come back again and again.
            n => bytes.fill(n + random.random_range(0..3)),
        }
        for dirty in self.checkpoints.values_mut() {
            dirty[disk].insert(block);
        }
    }
}

impl Capture for Machine {
    async fn cut(&mut self, request: CutRequest) -> Result<Cut, CaptureError> {
        self.cuts += 1;
        let known = request.since.filter(|since| self.checkpoints.contains_key(since));
        let dirty = known.as_ref().map(|since| self.checkpoints[since].clone());
        self.checkpoints.retain(|name, _| Some(name) == known.as_ref());
        let exports = Exports::new();
        for (number, image) in self.disks.iter().enumerate() {
            let flags = |block| match &dirty {
                Some(dirty) => u64::from(dirty[number].contains(&block)),
                None => 1,
            };
            let map = (0..image.len() / BLOCK)
                .map(|block| StatusExtent { length: BLOCK as u64, flags: flags(block) });
            let export = MemoryExport::new(image.len() as u64)
                .with_map(format!("qemu:dirty-bitmap:{BITMAP}"), map.collect());
            for (block, bytes) in image.chunks(BLOCK).enumerate() {
                if bytes.iter().any(|byte| *byte != 0) {
                    export.fill((block * BLOCK) as u64, bytes);
                }
            }
            exports.insert(format!("vd{number}"), Arc::new(export)).unwrap();
        }
        let socket = self.folder.join(format!("{}.s", self.cuts));
        let listener = Listener::unix(&socket, 0o600).await.unwrap();
        self.server = Some(Server::start(listener, exports, ServerOptions::default()));
        let mut disks = Vec::new();
        for (number, image) in self.disks.iter().enumerate() {
            let target = format!("vd{number}");
            let of = Of { machine: MachineUuid::new(Uuid::nil()), disk: Some(target.clone()) };
            let bitmap = known.as_ref().map(|_| BITMAP);
            let reader = DiskReader::open(&Address::unix(&socket), of, bitmap).await?;
            let base = known.clone().map_or(Base::Whole(WholeReason::First), Base::Since);
            disks.push(CutDisk {
                target,
                size: image.len() as u64,
                way: Way::Bitmap,
                base,
                reader,
            });
        }
        self.past.insert(self.cuts, self.disks.clone());
        let checkpoint = CheckpointName::draw();
        self.checkpoints.insert(checkpoint.clone(), vec![BTreeSet::new(); SIZES.len()]);
        Ok(Cut {
            of_a_machine_off: false,
            checkpoint: Some(checkpoint),
            instant: self.cuts,
            consistency: Consistency::Crash { short_of_app: None },
            configuration: "<domain/>".into(),
            disks,
            hold: Hold::new(self.cuts).0,
        })
    }

    async fn confirm(&mut self, _: &Cut) -> Result<(), CaptureError> {
        Ok(())
    }

    async fn accept(&mut self, cut: Cut) -> Result<(), CaptureError> {
        self.checkpoints.retain(|name, _| Some(name) == cut.checkpoint.as_ref());
        cut.hold.settle();
        Ok(())
    }

    async fn discard(&mut self, cut: Cut) -> Result<(), CaptureError> {
        self.checkpoints.retain(|name, _| Some(name) != cut.checkpoint.as_ref());
        cut.hold.settle();
        Ok(())
    }

    async fn forget(&mut self) -> Result<(), CaptureError> {
        self.checkpoints.clear();
        Ok(())
    }
}

/// A connection that breaks after so many bytes were written to it, or read.
struct Breaking {
    stream: DuplexStream,
    writes: usize,
    reads: usize,
}

impl AsyncRead for Breaking {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.reads == 0 {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.reads = self.reads.saturating_sub(buffer.filled().len() - before);
        polled
    }
}

impl AsyncWrite for Breaking {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.writes == 0 {
            // Nor does anything come back.
            self.reads = 0;
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let length = bytes.len().min(self.writes);
        let polled = Pin::new(&mut self.stream).poll_write(context, &bytes[..length]);
        if let Poll::Ready(Ok(written)) = &polled {
            self.writes -= written;
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

fn id() -> ProtectionId {
    ProtectionId::new(Uuid::from_u128(1))
}

fn host() -> HostId {
    HostId::new(Uuid::from_u128(2))
}

fn shipping() -> Shipping {
    Shipping {
        protection: id(),
        machine: MachineUuid::new(Uuid::nil()),
        name: "web".into(),
        target: host(),
        target_name: "west".into(),
        target_address: None,
        generation: 1,
        excluded_disks: Vec::new(),
        policy: ShippingPolicy {
            every_seconds: 5,
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

fn keepers(folder: &Path) -> Keepers {
    let keepers = Keepers::new(folder);
    keepers.reconcile(&[Keeping {
        protection: id(),
        machine: MachineUuid::new(Uuid::nil()),
        name: "web".into(),
        source: host(),
        generation: 1,
        retention: Retention { all_hours: 24, tiers: Vec::new(), app_extra_hours: 0 },
        compression: Compression::Fast,
        import: None,
    }]);
    keepers
}

/// Plays one life of a machine, by the luck of `seed`; how many points and how
/// many rounds that failed there were.
async fn life(seed: u64, rounds: u32) -> (usize, u32) {
    let mut random = StdRng::seed_from_u64(seed);
    let scratch = tempfile::tempdir().unwrap();
    let courses = Courses::in_folder(scratch.path().join("courses")).unwrap();
    let stores = scratch.path().join("store");
    let mut machine = Machine::new(scratch.path());
    let mut keeping = keepers(&stores);
    let (mut course, mut sender) = (Course::default(), None);
    let duty = shipping();
    let mut failures = 0;
    for _ in 0..rounds {
        (0..random.random_range(0..12)).for_each(|_| machine.write(&mut random));
        match random.random_range(0..12) {
            // The shipper's process dies.
            0 => (course, sender) = (courses.read(id()), None),
            // QEMU dies with its bitmaps.
            1 => machine.checkpoints.clear(),
            // The keeper's process dies.
            2 => {
                sender = None;
                keeping.reconcile(&[]);
                keeping = keepers(&stores);
            }
            // An operator is in doubt.
            3 => course.wish(Some(Uuid::from_u128(random.random()))),
            _ => {}
        }
        if sender.is_none() {
            let (ours, theirs) = tokio::io::duplex(1 << 20);
            let keepers = keeping.clone();
            tokio::spawn(async move { session::serve(&keepers, host(), host(), theirs).await });
            let breaks = |random: &mut StdRng, most: usize| match random.random_bool(0.5) {
                true => random.random_range(200..most),
                false => usize::MAX,
            };
            let writes = breaks(&mut random, 600_000);
            let reads = breaks(&mut random, 3000);
            let stream = Box::new(Breaking { stream: ours, writes, reads });
            let hello = Hello { protection: id().uuid(), generation: 1 };
            match Sender::greet(stream, "west".into(), hello).await {
                Ok((fresh, welcome)) => {
                    course.meet(Kept::of(&welcome));
                    sender = Some(fresh);
                }
                Err(_) => {
                    failures += 1;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    continue;
                }
            }
        }
        // The guest goes on while a cut is open, too.
        let portions =
            Portions { window: Duration::ZERO, batch: random.random_range(1..8) * BLOCK as u64 };
        let round = Round {
            duty: &duty,
            capture: &mut machine,
            sender: sender.as_mut().unwrap(),
            course: &mut course,
            courses: &courses,
            wanted: Wanted::Crash,
            host: "east",
            portions,
            limit: None,
            may_compare: true,
            progress: &|_| {},
            phase: &|_| {},
        };
        if round.run(async |_, _, _| {}).await.is_err() {
            failures += 1;
            sender = None;
        }
    }
    drop(sender);
    (check(&stores, &machine), failures)
}

/// Each point is what the machine was at its instant; how many there are.
fn check(stores: &Path, machine: &Machine) -> usize {
    let Ok(found) = replica::catalogue::machines(stores) else { return 0 };
    let Some(folder) = found.first() else { return 0 };
    let store = folder.open(replica::state::Limits::default()).unwrap();
    let points = store.points();
    for point in &points {
        let past = &machine.past[&(point.instant as u64)];
        for (number, image) in (0..).zip(past) {
            let view = store.view(point.cycle, DiskNumber(number)).unwrap();
            let bytes = view.read_to_vec(0, view.size()).unwrap();
            let wrong = bytes.chunks(BLOCK).zip(image.chunks(BLOCK)).position(|(a, b)| a != b);
            assert_eq!(wrong, None, "block of disk {number} at {}", point.cycle);
        }
    }
    points.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_point_lies() {
    let (mut points, mut failures) = (0, 0);
    for seed in 0..LIVES {
        let life = tokio::spawn(life(seed, 40)).await;
        let (sealed, failed) = life.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        points += sealed;
        failures += failed;
    }
    eprintln!("{points} points, {failures} rounds failed");
    assert!(
        points > 3 * LIVES as usize && failures > 2 * LIVES as u32,
        "{points} points, {failures} failures"
    );
}
