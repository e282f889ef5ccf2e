//! A medium in memory that fails on command, the same way for the same seed.
//!
//! Every call that changes something is an *operation* with a number. A fault
//! is planned for a number; [`Fault::Crash`] turns the medium off in the
//! middle of it. [`SimulatedMedium::restart`] gives what a machine finds
//! afterwards: synced bytes, and of the others whatever the seed says, sector
//! by sector.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{File, Identity, Medium, Space};
use crate::geometry::Cycle;

/// Bytes that reach the disk together or not at all.
const SECTOR: usize = 512;

/// What goes wrong in one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Power fails while it runs.
    Crash,
    /// No room: nothing is written.
    NoSpace,
    /// An input/output error. A sync that fails so has synced nothing, and
    /// later syncs do not help these bytes.
    Io,
    /// A part is written, then an error.
    ShortWrite,
    /// A sync says that it succeeded and did nothing.
    LostSync,
}

/// A medium in memory. Clones share it.
#[derive(Debug, Clone)]
pub struct SimulatedMedium {
    world: Arc<Mutex<World>>,
}

#[derive(Debug, Default)]
struct World {
    files: BTreeMap<String, Node>,
    /// Deleted, but the deletion is not durable.
    deleted: BTreeMap<String, Node>,
    faults: BTreeMap<u64, Fault>,
    operations: u64,
    random: Random,
    down: bool,
    /// Bytes; `None` for as many as wanted.
    capacity: Option<u64>,
    writer: bool,
    pins: BTreeMap<u64, Cycle>,
    /// Files outside of the store, by path, and how often each was changed.
    outside: BTreeMap<String, (Vec<u8>, i64)>,
}

#[derive(Debug, Clone, Default)]
struct Node {
    bytes: Vec<u8>,
    /// How many of them are on the disk for sure.
    durable: usize,
    /// Ranges whose sync failed: the system has forgotten to write them.
    lost: Vec<std::ops::Range<usize>>,
}

/// SplitMix64.
#[derive(Debug, Clone, Copy, Default)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % (limit as u64 + 1)) as usize
    }
}

impl SimulatedMedium {
    /// An empty medium without faults.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let world = World { random: Random(seed), ..World::default() };
        Self { world: Arc::new(Mutex::new(world)) }
    }

    /// Plans a fault for operation `number`, counted from 0.
    pub fn plan(&self, number: u64, fault: Fault) {
        self.world().faults.insert(number, fault);
    }

    /// Plans a fault for the next operation.
    pub fn plan_next(&self, fault: Fault) {
        let mut world = self.world();
        let number = world.operations;
        world.faults.insert(number, fault);
    }

    /// Operations so far.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.world().operations
    }

    /// Limits the room to `bytes`.
    pub fn limit(&self, bytes: Option<u64>) {
        self.world().capacity = bytes;
    }

    /// Turns one bit of a file around, for good.
    ///
    /// # Panics
    /// There is no such byte: the test is wrong.
    pub fn flip_bit(&self, name: &str, offset: usize) {
        let mut world = self.world();
        let byte = world.files.get_mut(name).and_then(|node| node.bytes.get_mut(offset));
        match byte {
            Some(byte) => *byte ^= 0x10,
            None => panic!("{name} has no byte {offset}"),
        }
    }

    /// Puts a file outside of the store, or changes it.
    pub fn put_outside(&self, path: &str, bytes: &[u8]) {
        let mut world = self.world();
        let changes = world.outside.get(path).map_or(0, |(_, changes)| changes + 1);
        world.outside.insert(path.to_owned(), (bytes.to_owned(), changes));
    }

    /// Whether a planned crash has happened.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.world().down
    }

    /// What is found after the power failed now, by the luck of `seed`. This
    /// medium is down from now on.
    #[must_use]
    pub fn restart(&self, seed: u64) -> Self {
        let mut world = self.world();
        world.down = true;
        let mut random = Random(seed);
        let mut files = BTreeMap::new();
        for (name, node) in &world.files {
            files.insert(name.clone(), node.after_crash(&mut random));
        }
        for (name, node) in &world.deleted {
            if random.coin() {
                files.entry(name.clone()).or_insert_with(|| node.after_crash(&mut random));
            }
        }
        let after = World {
            files,
            random,
            capacity: world.capacity,
            outside: world.outside.clone(),
            ..World::default()
        };
        Self { world: Arc::new(Mutex::new(after)) }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Node {
    fn after_crash(&self, random: &mut Random) -> Self {
        let keep = self.durable + random.below(self.bytes.len() - self.durable);
        let mut bytes = self.bytes.get(..keep).unwrap_or_default().to_vec();
        // Sectors are written in any order; what is missing reads as zeroes.
        // Every second time all of them made it, to see tails that end cleanly.
        if random.coin() {
            let volatile = bytes.get_mut(self.durable..).unwrap_or_default();
            for sector in volatile.chunks_mut(SECTOR) {
                if random.coin() {
                    sector.fill(0);
                }
            }
        }
        for range in &self.lost {
            let end = range.end.min(bytes.len());
            bytes.get_mut(range.start..end).unwrap_or_default().fill(0);
        }
        Self { durable: bytes.len(), bytes, lost: Vec::new() }
    }
}

impl World {
    /// Counts an operation: the fault that strikes it, if any.
    fn begin(&mut self) -> io::Result<Option<Fault>> {
        if self.down {
            return Err(power_lost());
        }
        let fault = self.faults.remove(&self.operations);
        self.operations += 1;
        if fault == Some(Fault::Crash) {
            self.down = true;
        }
        Ok(fault)
    }

    fn used(&self) -> u64 {
        self.files.values().map(|node| node.bytes.len() as u64).sum()
    }
}

fn power_lost() -> io::Error {
    io::Error::other("the power failed")
}

fn input_output() -> io::Error {
    io::Error::other("simulated input/output error")
}

fn no_space() -> io::Error {
    io::ErrorKind::StorageFull.into()
}

impl Medium for SimulatedMedium {
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut world = self.world();
        let fault = world.begin()?;
        if world.files.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        match fault {
            Some(Fault::NoSpace) => return Err(no_space()),
            Some(Fault::Io) => return Err(input_output()),
            Some(Fault::Crash) => {
                if world.random.coin() {
                    world.files.insert(name.to_owned(), Node::default());
                }
                return Err(power_lost());
            }
            _ => {}
        }
        world.files.insert(name.to_owned(), Node::default());
        Ok(Arc::new(SimulatedFile { medium: self.clone(), name: name.to_owned() }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let world = self.world();
        if world.down {
            return Err(power_lost());
        }
        if !world.files.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Arc::new(SimulatedFile { medium: self.clone(), name: name.to_owned() }))
    }

    fn list(&self, folder: &str) -> io::Result<Vec<(String, u64)>> {
        let world = self.world();
        if world.down {
            return Err(power_lost());
        }
        let prefix = format!("{folder}/");
        let files = world.files.iter().filter(|(name, _)| name.starts_with(&prefix));
        Ok(files.map(|(name, node)| (name.clone(), node.bytes.len() as u64)).collect())
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        let mut world = self.world();
        match world.begin()? {
            Some(Fault::Io) => return Err(input_output()),
            Some(Fault::Crash) if world.random.coin() => return Err(power_lost()),
            _ => {}
        }
        if let Some(node) = world.files.remove(name) {
            world.deleted.insert(name.to_owned(), node);
        }
        if world.down { Err(power_lost()) } else { Ok(()) }
    }

    fn space(&self) -> io::Result<Space> {
        let world = self.world();
        let total = world.capacity.unwrap_or(1 << 50);
        Ok(Space { total, free: total.saturating_sub(world.used()) })
    }

    fn adopted(&self, path: &str) -> io::Result<Arc<dyn File>> {
        self.identity(path)?;
        Ok(Arc::new(OutsideFile { medium: self.clone(), path: path.to_owned() }))
    }

    fn identity(&self, path: &str) -> io::Result<Identity> {
        let world = self.world();
        let (bytes, changes) = world.outside.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Identity { size: bytes.len() as u64, modified: *changes, inode: 1 })
    }

    fn pin(&self, point: Cycle) -> io::Result<Box<dyn Send + Sync>> {
        let mut world = self.world();
        let number = world.pins.last_key_value().map_or(0, |(number, _)| number + 1);
        world.pins.insert(number, point);
        Ok(Box::new(Pin(self.clone(), number)))
    }

    fn pinned(&self) -> io::Result<(Vec<Cycle>, Box<dyn Send + Sync>)> {
        Ok((self.world().pins.values().copied().collect(), Box::new(())))
    }

    fn lock(&self) -> io::Result<Box<dyn Send + Sync>> {
        let mut world = self.world();
        if world.writer {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        world.writer = true;
        Ok(Box::new(Lock(self.clone())))
    }
}

struct Pin(SimulatedMedium, u64);

impl Drop for Pin {
    fn drop(&mut self) {
        self.0.world().pins.remove(&self.1);
    }
}

/// A file outside of the store.
#[derive(Debug)]
struct OutsideFile {
    medium: SimulatedMedium,
    path: String,
}

impl File for OutsideFile {
    fn append(&self, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let world = self.medium.world();
        let (bytes, _) = world.outside.get(&self.path).ok_or(io::ErrorKind::NotFound)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let found = bytes.get(start..).and_then(|rest| rest.get(..buffer.len()));
        buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.medium.identity(&self.path)?.size)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn settle(&self) -> io::Result<()> {
        Ok(())
    }

    fn punch(&self, _: u64, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

struct Lock(SimulatedMedium);

impl Drop for Lock {
    fn drop(&mut self) {
        self.0.world().writer = false;
    }
}

#[derive(Debug)]
struct SimulatedFile {
    medium: SimulatedMedium,
    name: String,
}

impl SimulatedFile {
    fn node<'a>(&self, world: &'a mut World) -> io::Result<&'a mut Node> {
        // Stricter than unix, where an open file outlives its name: readers
        // must cope with a medium that does not do so.
        world.files.get_mut(&self.name).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl File for SimulatedFile {
    fn append(&self, data: &[u8]) -> io::Result<()> {
        let mut world = self.medium.world();
        let fault = world.begin()?;
        let full = world.capacity.is_some_and(|limit| world.used() + data.len() as u64 > limit);
        let part = world.random.below(data.len());
        let node = self.node(&mut world)?;
        let (written, result) = match fault {
            Some(Fault::Crash) => (part, Err(power_lost())),
            Some(Fault::ShortWrite) => (part, Err(input_output())),
            Some(Fault::NoSpace) => (0, Err(no_space())),
            Some(Fault::Io) => (0, Err(input_output())),
            _ if full => (part, Err(no_space())),
            _ => (data.len(), Ok(())),
        };
        node.bytes.extend_from_slice(data.get(..written).unwrap_or_default());
        result
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut world = self.medium.world();
        if world.down {
            return Err(power_lost());
        }
        let node = self.node(&mut world)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let found = node.bytes.get(start..).and_then(|rest| rest.get(..buffer.len()));
        match found {
            Some(found) => buffer.copy_from_slice(found),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        let mut world = self.medium.world();
        Ok(self.node(&mut world)?.bytes.len() as u64)
    }

    fn sync(&self) -> io::Result<()> {
        let mut world = self.medium.world();
        let fault = world.begin()?;
        let luck = world.random.coin();
        let node = self.node(&mut world)?;
        match fault {
            Some(Fault::Crash) => {
                if luck {
                    node.durable = node.bytes.len();
                }
                Err(power_lost())
            }
            Some(Fault::Io | Fault::NoSpace | Fault::ShortWrite) => {
                let range = node.durable..node.bytes.len();
                node.lost.push(range);
                Err(input_output())
            }
            Some(Fault::LostSync) => Ok(()),
            None => {
                node.durable = node.bytes.len();
                Ok(())
            }
        }
    }

    fn settle(&self) -> io::Result<()> {
        let mut world = self.medium.world();
        let fault = world.begin()?;
        let node = self.node(&mut world)?;
        match fault {
            Some(Fault::Crash) => return Err(power_lost()),
            Some(Fault::LostSync) | None => {}
            Some(_) => return Err(input_output()),
        }
        for range in std::mem::take(&mut node.lost) {
            node.bytes.get_mut(range).unwrap_or_default().fill(0);
        }
        if fault.is_none() {
            node.durable = node.bytes.len();
        }
        Ok(())
    }

    fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        let mut world = self.medium.world();
        let fault = world.begin()?;
        let node = self.node(&mut world)?;
        if matches!(fault, Some(Fault::Io)) {
            return Err(input_output());
        }
        let end = node.bytes.len().min((offset + length) as usize);
        if let Some(range) = node.bytes.get_mut(offset as usize..end) {
            range.fill(0);
        }
        if fault == Some(Fault::Crash) { Err(power_lost()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn synced_bytes_survive_and_others_may_not() {
        let mut lengths = std::collections::BTreeSet::new();
        for seed in 0..20 {
            let medium = SimulatedMedium::new(seed);
            let file = medium.create("seg/1").unwrap();
            file.append(&[1; 1000]).unwrap();
            file.sync().unwrap();
            file.append(&[2; 5000]).unwrap();
            let after = medium.restart(seed);
            assert!(file.append(&[3]).is_err(), "the old world is gone");
            let file = after.open("seg/1").unwrap();
            let mut synced = [0; 1000];
            file.read_at(&mut synced, 0).unwrap();
            assert_eq!(synced, [1; 1000]);
            lengths.insert(file.length().unwrap());
        }
        assert!(lengths.len() > 10, "tails are torn in many places: {lengths:?}");
    }

    #[test]
    fn faults_strike_once_and_where_they_were_planned() {
        let medium = SimulatedMedium::new(1);
        medium.plan(2, Fault::NoSpace);
        medium.plan(4, Fault::LostSync);
        let file = medium.create("seg/1").unwrap();
        file.append(&[1; 10]).unwrap();
        let full = file.append(&[2; 10]).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        file.append(&[3; 10]).unwrap();
        file.sync().unwrap();
        assert_eq!(file.length().unwrap(), 20);
        let shortest = (0..50).map(|seed| medium.restart(seed).list("seg").unwrap()[0].1).min();
        assert!(shortest < Some(20), "the sync was lost");
    }
}
