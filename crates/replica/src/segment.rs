//! Segments on the medium: one is written from front to back, any is read.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    behind::{Behind, Written},
    cache::Cache,
    error::{StoreError, StoreResult},
    format::{
        Malformed,
        entry::{self, Content, Entry, Place},
        manifest::SegmentFacts,
        record::{self, HEADER, Header, Kind, padded},
        segment::{self, MAX_SEGMENT, START, TRAILER},
    },
    geometry::Cycle,
    medium::{File, Medium},
};

/// Bytes that are handed to the medium at once.
const WRITE: usize = 1 << 20;

/// The name of a segment's file.
pub(crate) fn file_name(id: u32, generation: u64) -> String {
    format!("seg/{id:08x}-{generation:08x}.seg")
}

/// Number and generation, from a file's name.
pub(crate) fn parse_name(name: &str, folder: &str, ending: &str) -> Option<(u32, u64)> {
    let stem = name.strip_prefix(folder)?.strip_prefix('/')?.strip_suffix(ending)?;
    let (id, generation) = stem.split_once('-')?;
    Some((u32::from_str_radix(id, 16).ok()?, u64::from_str_radix(generation, 16).ok()?))
}

/// The segment that is being written. After any error it is *poisoned*: what
/// was durable counts, nothing more is written to it, nothing is retried.
#[derive(Debug)]
pub(crate) struct SegmentWriter {
    pub(crate) id: u32,
    pub(crate) generation: u64,
    salt: u32,
    name: String,
    file: Arc<dyn File>,
    behind: Option<Arc<Behind>>,
    buffer: Vec<u8>,
    /// Bytes so far, with those in the buffer.
    written: u32,
    durable: u32,
    max_bytes: u32,
    records: Vec<Entry>,
    oldest: Cycle,
    newest: Cycle,
    footer: bool,
}

impl SegmentWriter {
    /// Begins a segment in a file that was just created; `behind` writes it if
    /// there is one.
    pub(crate) fn begin(
        file: Arc<dyn File>,
        header: &segment::Header,
        max_bytes: u32,
        behind: Option<Arc<Behind>>,
    ) -> Self {
        let name = file_name(header.id, header.generation);
        Self {
            id: header.id,
            generation: header.generation,
            salt: header.salt,
            name,
            file,
            behind,
            buffer: header.encode(),
            written: START,
            durable: 0,
            max_bytes: max_bytes.min(MAX_SEGMENT),
            records: Vec::new(),
            oldest: Cycle(u32::MAX),
            newest: Cycle(0),
            footer: false,
        }
    }

    /// Whether a record of so many payload bytes fits, and the footer too.
    pub(crate) fn has_room_for(&self, payload: usize) -> bool {
        let footer = (self.records.len() + 1) * entry::SIZE + HEADER + TRAILER + 1024;
        let needed = self.written as usize + HEADER + payload + 16 + footer;
        self.records.is_empty() || needed <= self.max_bytes as usize
    }

    /// Appends a record and gives its index entry (none for commits).
    pub(crate) fn push(&mut self, header: Header, payload: &[u8]) -> StoreResult<Option<Entry>> {
        let offset = self.written;
        let header = Header { durable: self.durable, ..header };
        self.buffer.extend_from_slice(&header.encode(self.salt));
        self.buffer.extend_from_slice(payload);
        let padding = header.record_bytes() as usize - HEADER - payload.len();
        self.buffer.extend_from_slice([0; 16].get(..padding).unwrap_or_default());
        self.written += header.record_bytes();
        self.oldest = self.oldest.min(header.cycle);
        self.newest = self.newest.max(header.cycle);
        if self.buffer.len() >= WRITE {
            self.flush()?;
        }
        let entry = entry_of(&header, self.id, offset);
        self.records.extend(entry);
        Ok(entry)
    }

    /// Hands everything to whoever writes.
    fn flush(&mut self) -> StoreResult<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let bytes = std::mem::take(&mut self.buffer);
        let result = match &self.behind {
            Some(behind) => behind.append(&self.file, bytes),
            None => {
                let result = self.file.append(&bytes);
                self.buffer = bytes;
                self.buffer.clear();
                result.map(|()| std::mem::take(&mut self.buffer))
            }
        };
        self.buffer = result.map_err(StoreError::io(format!("append to {}", self.name)))?;
        Ok(())
    }

    /// Hands everything to the medium, so that it can be read.
    pub(crate) fn write_out(&mut self) -> StoreResult<()> {
        self.flush()?;
        let written = self.behind.as_ref().map_or(Ok(()), |behind| behind.mark().wait());
        written.map_err(StoreError::io(format!("append to {}", self.name)))
    }

    /// How full it is: from 0 to 1, about.
    pub(crate) fn fullness(&self) -> f32 {
        let footer = self.records.len() * entry::SIZE;
        (self.written as usize + footer) as f32 / self.max_bytes as f32
    }

    /// Makes everything durable.
    pub(crate) fn sync(&mut self) -> StoreResult<()> {
        if self.durable == self.written {
            return Ok(());
        }
        self.write_out()?;
        self.file.sync().map_err(StoreError::io(format!("sync {}", self.name)))?;
        self.durable = self.written;
        Ok(())
    }

    /// Writes the footer. Not durable before somebody syncs what is given.
    pub(crate) fn close(&mut self) -> StoreResult<Closed> {
        let mut plain = Vec::with_capacity(self.records.len() * entry::SIZE);
        self.records.iter().for_each(|record| record.encode(&mut plain));
        let (header, payload) = record::seal_payload(Kind::Footer, self.newest, &plain);
        let offset = self.written;
        // The footer is about all cycles of the segment; it adds none.
        let (oldest, newest) = (self.oldest, self.newest);
        self.push(header, &payload)?;
        (self.oldest, self.newest) = (oldest, newest);
        self.buffer.extend_from_slice(&segment::encode_trailer(offset, self.salt));
        self.written += TRAILER as u32;
        self.footer = true;
        self.flush()?;
        let written = self.behind.as_ref().map(|behind| behind.mark());
        Ok(Closed { name: self.name.clone(), file: Arc::clone(&self.file), written })
    }

    /// Where the next record will begin.
    pub(crate) fn end(&self) -> u32 {
        self.written
    }

    /// How much of it is durable.
    pub(crate) fn durable(&self) -> u32 {
        self.durable
    }

    /// What the manifest says of it; nothing counts as dead yet.
    pub(crate) fn facts(&self) -> SegmentFacts {
        SegmentFacts {
            id: self.id,
            generation: self.generation,
            end: self.written,
            dead: 0,
            oldest: self.oldest,
            newest: self.newest,
            footer: self.footer,
            punched: false,
        }
    }
}

/// A segment that is written but not durable.
#[derive(Debug)]
pub(crate) struct Closed {
    name: String,
    file: Arc<dyn File>,
    /// Whether all of it has reached the file.
    written: Option<Written>,
}

impl Closed {
    pub(crate) fn sync(&self) -> StoreResult<()> {
        let written = self.written.as_ref().map_or(Ok(()), Written::wait);
        written.map_err(StoreError::io(format!("append to {}", self.name)))?;
        self.file.sync().map_err(StoreError::io(format!("sync {}", self.name)))
    }
}

/// The index entry of a record at `offset`.
pub(crate) fn entry_of(header: &Header, segment: u32, offset: u32) -> Option<Entry> {
    let content = match header.kind {
        Kind::Data => Content::Data {
            place: Place { segment, offset, stored: padded(header.stored) },
            digest: header.digest,
        },
        Kind::Zero => Content::Zero { span: header.span },
        Kind::Discard => Content::Discard { span: header.span },
        Kind::Adopted { file, page } => Content::Adopted { file, page, digest: header.digest },
        Kind::Commit | Kind::Footer => return None,
    };
    let mask = header.pages.mask();
    Some(Entry { key: header.key, cycle: header.cycle, pages: header.pages, mask, content })
}

/// A segment that can be read.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    pub(crate) name: String,
    file: Arc<dyn File>,
    pub(crate) header: segment::Header,
}

impl SegmentFile {
    pub(crate) fn open(medium: &dyn Medium, id: u32, generation: u64) -> StoreResult<Self> {
        let name = file_name(id, generation);
        let file = medium.open(&name).map_err(StoreError::io(format!("open {name}")))?;
        let mut bytes = [0; 36];
        file.read_at(&mut bytes, 0).map_err(StoreError::io(format!("read {name}")))?;
        let header = segment::Header::decode(&bytes).map_err(StoreError::file(&name))?;
        if (header.id, header.generation) != (id, generation) {
            return Err(StoreError::file(&name)(Malformed("another segment's header")));
        }
        Ok(Self { name, file, header })
    }

    pub(crate) fn read(&self, offset: u32, length: usize) -> StoreResult<Vec<u8>> {
        let mut bytes = vec![0; length];
        let read = self.file.read_at(&mut bytes, u64::from(offset));
        read.map_err(|error| {
            let doing = format!("read {length} bytes of {} at {offset}", self.name);
            StoreError::io(doing)(error)
        })?;
        Ok(bytes)
    }

    pub(crate) fn punch(&self, offset: u32, length: u32) -> StoreResult<()> {
        self.file
            .punch(offset.into(), length.into())
            .map_err(StoreError::io(format!("punch a hole into {}", self.name)))
    }

    /// The bytes of the record that `entry` is about, proved.
    pub(crate) fn payload(&self, entry: &Entry, place: Place) -> StoreResult<Bytes> {
        let (header, record) = self.raw(entry, place)?;
        header.open_record(record).map_err(|error| StoreError::file(&self.name)(error))
    }

    /// The record that `entry` is about, as it is stored, header and all.
    pub(crate) fn raw(&self, entry: &Entry, place: Place) -> StoreResult<(Header, Vec<u8>)> {
        let bytes = self.read(place.offset, HEADER + place.stored as usize)?;
        let header = Header::decode(self.header.salt, &bytes)
            .map_err(|error| StoreError::file(&self.name)(error))?;
        let Content::Data { digest, .. } = entry.content else {
            return Err(StoreError::file(&self.name)(Malformed("an entry without bytes")));
        };
        let same = header.key == entry.key
            && header.cycle == entry.cycle
            && header.pages == entry.pages
            && header.digest == digest
            && header.stored <= place.stored;
        if !same {
            return Err(StoreError::file(&self.name)(Malformed("another record lies here")));
        }
        Ok((header, bytes))
    }

    /// Entries of all records, in order of arrival.
    pub(crate) fn records(&self, facts: &SegmentFacts) -> StoreResult<Vec<Entry>> {
        if facts.footer {
            return self.footer(facts);
        }
        let bytes = self.read(0, facts.end as usize)?;
        let mut records = Vec::new();
        // Headers prove themselves; whose payload is damaged is found when it is read.
        let mut walk =
            Walk { payloads: Payloads::Unread, ..Walk::new(&bytes, START, self.header.salt) };
        while let Some((offset, header, _)) = walk.next() {
            records.extend(entry_of(&header, facts.id, offset));
        }
        // A punched segment has no records where the dead ones were; its
        // index holds those that live.
        match walk.stopped {
            Some(why) if walk.at < facts.end => Err(StoreError::file(&self.name)(why)),
            _ => Ok(records),
        }
    }

    fn footer(&self, facts: &SegmentFacts) -> StoreResult<Vec<Entry>> {
        let wrong = || StoreError::file(&self.name);
        let end = facts.end.checked_sub(TRAILER as u32).ok_or(Malformed("cut short"));
        let end = end.map_err(wrong())?;
        let trailer = self.read(end, TRAILER)?;
        let start = segment::decode_trailer(&trailer, self.header.salt).map_err(wrong())?;
        let length = end.checked_sub(start).filter(|length| *length as usize >= HEADER);
        let length = length.ok_or(Malformed("a footer of impossible size")).map_err(wrong())?;
        let bytes = self.read(start, length as usize)?;
        let header = Header::decode(self.header.salt, &bytes).map_err(wrong())?;
        let payload = bytes.get(HEADER..).unwrap_or_default();
        let plain = header.open_payload(payload).map_err(wrong())?;
        plain.chunks(entry::SIZE).map(|bytes| Entry::decode(bytes).map_err(wrong())).collect()
    }
}

/// Whether a walk ends where a payload is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Payloads {
    Proved,
    Unread,
}

/// A walk over the records of a segment that lies in memory.
#[derive(Debug)]
pub(crate) struct Walk<'a> {
    bytes: &'a [u8],
    /// Where the next record begins.
    pub(crate) at: u32,
    salt: u32,
    payloads: Payloads,
    /// Why it went no further, if not for the end.
    pub(crate) stopped: Option<Malformed>,
    /// How many bytes the records say were durable.
    pub(crate) durable: u32,
}

impl<'a> Walk<'a> {
    /// From `at` on, in a segment whose first bytes are `bytes`.
    pub(crate) fn new(bytes: &'a [u8], at: u32, salt: u32) -> Self {
        Self { bytes, at, salt, payloads: Payloads::Proved, stopped: None, durable: 0 }
    }

    /// The next whole record with its payload as stored. Ends at a footer, at
    /// the end, and at the first byte that is no record.
    pub(crate) fn next(&mut self) -> Option<(u32, Header, &'a [u8])> {
        let offset = self.at;
        let rest = self.bytes.get(offset as usize..)?;
        if rest.is_empty() {
            return None;
        }
        let header = match Header::decode(self.salt, rest) {
            Ok(header) => header,
            Err(why) => {
                self.stopped = Some(why);
                return None;
            }
        };
        let payload = rest.get(HEADER..HEADER + header.stored as usize);
        let Some(payload) = payload.filter(|_| rest.len() >= header.record_bytes() as usize) else {
            self.stopped = Some(Malformed("cut short"));
            return None;
        };
        let prove = self.payloads == Payloads::Proved;
        if prove && crc32c::crc32c(payload) != header.payload_crc {
            self.stopped = Some(Malformed("the payload's checksum is wrong"));
            return None;
        }
        self.at += header.record_bytes();
        self.durable = self.durable.max(header.durable);
        if header.kind == Kind::Footer {
            self.at += TRAILER as u32;
            return None;
        }
        Some((offset, header, payload))
    }

    /// Looks beyond the place where it stopped for a record that says how much
    /// was durable before it was written: a torn tail has none that says that
    /// the tear was.
    pub(crate) fn durable_beyond(&self) -> u32 {
        let mut durable = self.durable;
        let mut at = self.at as usize;
        while let Some(rest) = self.bytes.get(at..).filter(|rest| rest.len() >= HEADER) {
            if rest.starts_with(&record::MAGIC)
                && let Ok(header) = Header::decode(self.salt, rest)
            {
                durable = durable.max(header.durable);
            }
            at += 16;
        }
        durable
    }
}

/// Open segments, a bounded number of them.
#[derive(Debug)]
pub(crate) struct SegmentFiles {
    open: Cache<u32, Arc<SegmentFile>>,
}

impl SegmentFiles {
    pub(crate) fn new(limit: usize) -> Self {
        Self { open: Cache::new(limit) }
    }

    pub(crate) fn get(
        &self,
        medium: &dyn Medium,
        id: u32,
        generation: u64,
    ) -> StoreResult<Arc<SegmentFile>> {
        if let Some(file) = self.open.get(&id).filter(|file| file.header.generation == generation) {
            return Ok(file);
        }
        let file = Arc::new(SegmentFile::open(medium, id, generation)?);
        self.open.put(id, Arc::clone(&file), 1);
        Ok(file)
    }

    pub(crate) fn forget(&self, id: u32) {
        self.open.forget(&id);
    }
}
