//! From changes to records: cutting, finding zeroes, hashing, compressing, on
//! as many threads as wanted, in the order of arrival all the same.
//!
//! Bounded: so many batches of a megabyte are under way, and who brings more
//! waits. With no threads everything happens where it is called, so that a
//! simulation repeats itself.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, SyncSender},
    },
    thread::{self, JoinHandle},
};

use bytes::Bytes;

use crate::format::{
    Digest,
    record::{Codec, Header, Kind},
};

/// Bytes of plaintext that travel together.
const BATCH: usize = 1 << 20;
/// Empty batches that are kept for later.
const SPARES: usize = 8;
/// How many records that come compressed there are for one that is proved
/// before it is stored.
const PROVED_ONE_OF: u32 = 16;
/// After so many blocks in a row that did not shrink, only one of as many is
/// tried.
const PATIENCE: u32 = 8;

/// How data is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// With zstd at this level: -3 is fast, 1 is balanced, 3 is stronger.
    Zstd(i32),
}

/// What a record is made from.
pub(crate) enum Material {
    /// Its plaintext, which is shared with whoever gave it; all of its pages.
    Plain(Bytes),
    /// What another store of ours made of it: the header has its digest and
    /// says how it is stored.
    Stored(Bytes),
}

impl Material {
    fn len(&self) -> usize {
        match self {
            Self::Plain(bytes) | Self::Stored(bytes) => bytes.len(),
        }
    }
}

/// Records-to-be.
#[derive(Default)]
struct Plain {
    records: Vec<(Header, Material)>,
    bytes: usize,
}

impl Plain {
    fn push(&mut self, header: Header, bytes: Material) {
        self.bytes += bytes.len();
        self.records.push((header, bytes));
    }

    fn is_full(&self) -> bool {
        self.bytes >= BATCH || self.records.len() >= BATCH / 4096
    }
}

/// Records that only lack their place.
#[derive(Default)]
pub(crate) struct Batch {
    records: Vec<(Header, Payload)>,
    /// Room for what shrank, of which so much is used.
    room: Vec<u8>,
    used: usize,
}

/// What a record stores.
enum Payload {
    /// Nothing, or the plaintext.
    Plain(Bytes),
    /// A part of the batch's room.
    Smaller(Range<usize>),
    /// It is not what its header says.
    Wrong,
}

impl Batch {
    /// Headers and what is stored behind them, in order; nothing behind a
    /// header that lies.
    pub(crate) fn records(&self) -> impl Iterator<Item = (&Header, Option<&[u8]>)> {
        self.records.iter().map(|(header, payload)| {
            let stored = match payload {
                Payload::Plain(bytes) => Some(&bytes[..]),
                Payload::Smaller(range) => self.room.get(range.clone()),
                Payload::Wrong => None,
            };
            (header, stored)
        })
    }

    fn clear(&mut self) {
        self.records.clear();
        self.used = 0;
    }
}

/// Pages of a block as a store keeps them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// How they are stored.
    pub codec: Codec,
    /// Of the pages' bytes.
    pub digest: Digest,
    /// At most as many bytes as the pages have.
    pub stored: Bytes,
}

/// Turns plaintext into payloads.
pub struct Encoder {
    compressor: Option<zstd::bulk::Compressor<'static>>,
    misses: u32,
    skipped: u32,
    taken: u32,
}

impl Encoder {
    /// Encodes for [`write_encoded`](crate::writer::Writer::write_encoded),
    /// where the bytes come from. `None`: they are zeroes. `pages` are whole
    /// pages of at most one block.
    pub fn encode_pages(&mut self, pages: Bytes) -> Option<Encoded> {
        if is_zero(&pages) {
            return None;
        }
        let digest = Digest::of(&pages);
        let mut room = vec![0; pages.len() - pages.len() / 8];
        Some(match self.compress(&pages, &mut room) {
            Some(length) => {
                room.truncate(length);
                Encoded { codec: Codec::Zstd, digest, stored: room.into() }
            }
            None => Encoded { codec: Codec::Plain, digest, stored: pages },
        })
    }

    /// One for a thread.
    #[must_use]
    pub fn new(compression: Compression) -> Self {
        let compressor = match compression {
            Compression::None => None,
            // Without memory for a compressor, nothing is compressed.
            Compression::Zstd(level) => zstd::bulk::Compressor::new(level).ok(),
        };
        Self { compressor, misses: 0, skipped: 0, taken: 0 }
    }

    /// Takes the records from `plain` and adds them to `out`.
    fn encode(&mut self, plain: &mut Plain, out: &mut Batch) {
        plain.bytes = 0;
        for (mut header, material) in plain.records.drain(..) {
            let bytes = match material {
                Material::Plain(bytes) => bytes,
                Material::Stored(bytes) => {
                    out.records.push(self.stored(header, bytes));
                    continue;
                }
            };
            if header.kind == Kind::Data && is_zero(&bytes) {
                header.kind = Kind::Zero;
            }
            if header.kind != Kind::Data {
                out.records.push((header, Payload::Plain(Bytes::new())));
                continue;
            }
            header.digest = Digest::of(&bytes);
            let room = bytes.len() - bytes.len() / 8;
            if out.room.len() < out.used + room {
                out.room.resize((out.used + room).max(BATCH), 0);
            }
            let free = out.room.get_mut(out.used..out.used + room).unwrap_or_default();
            let payload = match self.compress(&bytes, free) {
                Some(length) => {
                    header.codec = Codec::Zstd;
                    header.stored = length as u32;
                    header.payload_crc = crc32c::crc32c(free.get(..length).unwrap_or_default());
                    let range = out.used..out.used + length;
                    out.used = range.end;
                    Payload::Smaller(range)
                }
                None => {
                    header.stored = bytes.len() as u32;
                    header.payload_crc = crc32c::crc32c(&bytes);
                    Payload::Plain(bytes)
                }
            };
            out.records.push((header, payload));
        }
    }

    /// Takes what comes compressed and hashed. One of a few is proved right
    /// away: a sender that errs is found out at once, and a whole stream costs
    /// little. All of them are proved whenever they are read.
    fn stored(&mut self, mut header: Header, bytes: Bytes) -> (Header, Payload) {
        self.taken = self.taken.wrapping_add(1);
        header.stored = bytes.len() as u32;
        header.payload_crc = crc32c::crc32c(&bytes);
        if self.taken % PROVED_ONE_OF == 1 && header.open_payload(&bytes).is_err() {
            return (header, Payload::Wrong);
        }
        (header, Payload::Plain(bytes))
    }

    /// Compresses into `room`, if the result fits: its length.
    fn compress(&mut self, bytes: &[u8], room: &mut [u8]) -> Option<usize> {
        let compressor = self.compressor.as_mut()?;
        if self.misses >= PATIENCE && self.skipped < PATIENCE {
            self.skipped += 1;
            return None;
        }
        self.skipped = 0;
        match compressor.compress_to_buffer(bytes, room) {
            Ok(length) => {
                self.misses = 0;
                Some(length)
            }
            Err(_) => {
                self.misses += 1;
                None
            }
        }
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    let (chunks, rest) = bytes.as_chunks::<32>();
    chunks.iter().all(|chunk| *chunk == [0; 32]) && rest.iter().all(|byte| *byte == 0)
}

struct Job {
    plain: Plain,
    out: Batch,
    reply: SyncSender<Done>,
}

/// A batch that was encoded, and the emptied one that it came from.
struct Done {
    out: Batch,
    spare: Plain,
}

/// The pipeline of one writer.
pub(crate) struct Pipeline {
    current: Plain,
    under_way: VecDeque<Receiver<Done>>,
    ready: VecDeque<Batch>,
    plains: Vec<Plain>,
    spares: Vec<Batch>,
    engine: Engine,
}

enum Engine {
    Inline(Box<Encoder>),
    Threads { jobs: Option<SyncSender<Job>>, threads: Vec<JoinHandle<()>> },
}

impl Pipeline {
    pub(crate) fn new(compression: Compression, threads: usize) -> Self {
        let engine = match threads {
            0 => Engine::Inline(Box::new(Encoder::new(compression))),
            count => {
                let (jobs, queue) = mpsc::sync_channel::<Job>(count);
                let queue = Arc::new(Mutex::new(queue));
                let threads = (0..count).map(|_| {
                    let queue = Arc::clone(&queue);
                    thread::spawn(move || work(&queue, compression))
                });
                Engine::Threads { threads: threads.collect(), jobs: Some(jobs) }
            }
        };
        Self {
            current: Plain::default(),
            under_way: VecDeque::new(),
            ready: VecDeque::new(),
            plains: Vec::new(),
            spares: Vec::new(),
            engine,
        }
    }

    /// Takes a record-to-be.
    pub(crate) fn push(&mut self, header: Header, material: Material) {
        self.current.push(header, material);
        if self.current.is_full() {
            self.submit();
        }
    }

    /// Sends off what was gathered.
    pub(crate) fn submit(&mut self) {
        if self.current.records.is_empty() {
            return;
        }
        let next = self.plains.pop().unwrap_or_default();
        let mut plain = std::mem::replace(&mut self.current, next);
        let mut out = self.spares.pop().unwrap_or_default();
        match &mut self.engine {
            Engine::Inline(encoder) => {
                encoder.encode(&mut plain, &mut out);
                self.ready.push_back(out);
                self.plains.push(plain);
            }
            Engine::Threads { jobs, .. } => {
                let (reply, done) = mpsc::sync_channel(1);
                self.under_way.push_back(done);
                if let Some(jobs) = jobs {
                    // Threads end only after this channel does.
                    let _ = jobs.send(Job { plain, out, reply });
                }
            }
        }
    }

    /// The next batch in order: one that is done, or, if more than `under_way`
    /// are not, one that is waited for.
    pub(crate) fn next(&mut self, under_way: usize) -> Option<Batch> {
        if let Some(batch) = self.ready.pop_front() {
            return Some(batch);
        }
        let first = self.under_way.front()?;
        let done = match first.try_recv() {
            Ok(done) => done,
            Err(_) if self.under_way.len() > under_way => match first.recv() {
                Ok(done) => done,
                Err(_) => panic!("a thread that compresses has panicked"),
            },
            Err(_) => return None,
        };
        self.under_way.pop_front();
        if self.plains.len() < SPARES {
            self.plains.push(done.spare);
        }
        Some(done.out)
    }

    /// Takes an empty batch for later.
    pub(crate) fn give_back(&mut self, mut batch: Batch) {
        batch.clear();
        if self.spares.len() < SPARES {
            self.spares.push(batch);
        }
    }

    /// Forgets everything that was not asked for yet.
    pub(crate) fn clear(&mut self) {
        self.current = Plain::default();
        self.under_way.clear();
        self.ready.clear();
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        if let Engine::Threads { jobs, threads } = &mut self.engine {
            jobs.take();
            for thread in threads.drain(..) {
                // Its panic was told to whoever waited for its result.
                let _ = thread.join();
            }
        }
    }
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").field("misses", &self.misses).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline").field("under_way", &self.under_way.len()).finish_non_exhaustive()
    }
}

fn work(queue: &Mutex<Receiver<Job>>, compression: Compression) {
    let mut encoder = Encoder::new(compression);
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { mut plain, mut out, reply }) = job else { return };
        encoder.encode(&mut plain, &mut out);
        // Nobody waits any more if the attempt was given up.
        let _ = reply.send(Done { out, spare: plain });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::{BlockKey, Cycle, DiskNumber, PageRun};

    fn header(change: u64) -> Header {
        Header {
            kind: Kind::Data,
            codec: Codec::Plain,
            key: BlockKey::new(DiskNumber(0), 0),
            span: 1,
            pages: PageRun::new(0, 1).unwrap(),
            cycle: Cycle(1),
            change,
            last: true,
            stored: 0,
            payload_crc: 0,
            durable: 0,
            digest: Digest::default(),
        }
    }

    #[test]
    fn order_survives_threads() {
        let mut pipeline = Pipeline::new(Compression::Zstd(1), 3);
        let mut next = 0;
        let mut check = |batch: &Batch| {
            for (header, payload) in batch.records() {
                next += 1;
                assert_eq!(header.change, next);
                let plain = header.open_payload(payload.unwrap()).unwrap();
                assert_eq!(plain[..8], next.to_le_bytes());
            }
        };
        for change in 1..=2000_u64 {
            pipeline.push(header(change), Material::Plain(change.to_le_bytes().repeat(512).into()));
            while let Some(batch) = pipeline.next(2) {
                check(&batch);
                pipeline.give_back(batch);
            }
        }
        pipeline.submit();
        while let Some(batch) = pipeline.next(0) {
            check(&batch);
        }
        assert_eq!(next, 2000);
    }

    #[test]
    fn zeroes_have_no_payload_and_noise_is_not_compressed() {
        let mut pipeline = Pipeline::new(Compression::Zstd(-3), 0);
        pipeline.push(header(1), Material::Plain(vec![0; 4096].into()));
        let mut noise = [0; 4096];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        pipeline.push(header(2), Material::Plain(noise.to_vec().into()));
        pipeline.push(header(3), Material::Plain(vec![1; 4096].into()));
        pipeline.submit();
        let batch = pipeline.next(0).unwrap();
        let told: Vec<_> = batch.records().map(|(h, _)| (h.kind, h.codec)).collect();
        assert_eq!(
            told,
            [(Kind::Zero, Codec::Plain), (Kind::Data, Codec::Plain), (Kind::Data, Codec::Zstd)]
        );
    }
}
