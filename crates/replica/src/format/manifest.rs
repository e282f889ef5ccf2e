//! The manifest: which points, index runs and segments there are.
//!
//! Each is a file of its own, numbered, and created only if absent. The newest
//! one that proves itself counts, together with the commit records after its
//! [`Replay`] position.

use std::{collections::HashMap, sync::Arc};

use super::{Cursor, Digest, Malformed, put_blob, record::Consistency};
use crate::geometry::Cycle;

const MAGIC: [u8; 8] = *b"LBMANIF1";
/// What is written where no point has a hold that version 1 does not know, so that
/// older programs read what they can.
const VERSION: u16 = 1;
/// Knows [`Hold::Lost`].
const VERSION_LOST: u16 = 2;
/// The newest version that is understood here.
pub const NEWEST_VERSION: u16 = VERSION_LOST;
/// The most bytes that a manifest unpacks to.
const MAX: usize = 1 << 30;

/// A recovery point: all disks of a machine at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// Its number; greater is newer.
    pub cycle: Cycle,
    /// The generation of the writer that sealed it.
    pub generation: u64,
    /// Milliseconds since 1970 by the source's clock: a label.
    pub instant: i64,
    /// How still the machine was.
    pub consistency: Consistency,
    /// Where it came from.
    pub origin: Arc<str>,
    /// Sizes of its disks in bytes, in order.
    pub disks: Arc<[u64]>,
    /// The machine's configuration.
    pub configuration: Arc<[u8]>,
    /// Bytes that its cycle's records took when they arrived.
    pub stored: u64,
    /// What keeps it.
    pub hold: Hold,
}

/// What keeps a point, whatever the policy says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Hold {
    /// Nothing.
    #[default]
    None,
    /// An operator, until taken back.
    Operator,
    /// That a site had it when it was lost, and may never have sent it: until an
    /// operator takes it back.
    Lost,
    /// Write once: nobody may delete it before this instant (ms since 1970).
    Until(i64),
}

/// An index run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunFacts {
    /// Its number.
    pub id: u32,
    /// Its writer's generation.
    pub generation: u64,
    /// 0 for a fresh one; merging makes one of the next level.
    pub level: u8,
    /// The cycle that it belongs to, while that is not sealed.
    pub staged: Option<Cycle>,
    /// The oldest cycle in it.
    pub oldest: Cycle,
    /// The newest cycle in it.
    pub newest: Cycle,
    /// Entries.
    pub entries: u64,
}

/// A segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentFacts {
    /// Its number.
    pub id: u32,
    /// Its writer's generation.
    pub generation: u64,
    /// Bytes of it that count; what follows is not ours to read.
    pub end: u32,
    /// Bytes of its records that no point needs.
    pub dead: u32,
    /// The oldest cycle in it.
    pub oldest: Cycle,
    /// The newest cycle in it.
    pub newest: Cycle,
    /// Whether it ends in a footer.
    pub footer: bool,
    /// Whether its dead records were punched out.
    pub punched: bool,
}

/// A file that was there before us and serves as a disk's base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdoptedFacts {
    /// Its number in entries.
    pub id: u32,
    /// Where it lies, as given when it was adopted.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// Modification time in nanoseconds since 1970.
    pub modified: i64,
    /// Inode number.
    pub inode: u64,
}

/// From where on commit records count beyond what the manifest lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Replay {
    /// The segment.
    pub segment: u32,
    /// The byte in it.
    pub offset: u32,
}

/// An attempt that was not sealed when the manifest was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenAttempt {
    /// Its cycle.
    pub cycle: Cycle,
    /// Changes whose entries are in runs already.
    pub changes: u64,
    /// Bytes of their records.
    pub stored: u64,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Its number, as in its name.
    pub sequence: u64,
    /// Of the writer that made it.
    pub generation: u64,
    /// The next free numbers.
    pub next: Next,
    /// Where to read on.
    pub replay: Replay,
    /// The attempt that was open.
    pub open: Option<OpenAttempt>,
    /// By cycle.
    pub points: Vec<Point>,
    /// The oldest first: of one cycle, later runs win.
    pub runs: Vec<RunFacts>,
    /// By number.
    pub segments: Vec<SegmentFacts>,
    /// By number.
    pub adopted: Vec<AdoptedFacts>,
}

/// The next free numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Next {
    /// Of segments.
    pub segment: u32,
    /// Of runs.
    pub run: u32,
    /// Of cycles.
    pub cycle: u32,
}

/// Values that many points share are stored once.
struct Interned<T> {
    numbers: HashMap<T, u32>,
    values: Vec<T>,
}

impl<T: Clone + Eq + std::hash::Hash> Interned<T> {
    fn new() -> Self {
        Self { numbers: HashMap::new(), values: Vec::new() }
    }

    fn number(&mut self, value: &T) -> u32 {
        if let Some(&number) = self.numbers.get(value) {
            return number;
        }
        let number = self.values.len() as u32;
        self.numbers.insert(value.clone(), number);
        self.values.push(value.clone());
        number
    }
}

impl Manifest {
    /// The file's contents.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let body = self.body();
        let packed = zstd::bulk::compress(&body, 1).unwrap_or_default();
        let mut out = MAGIC.to_vec();
        let has_lost = self.points.iter().any(|point| point.hold == Hold::Lost);
        let version = if has_lost { VERSION_LOST } else { VERSION };
        out.extend_from_slice(&version.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&(body.len() as u32).to_le_bytes());
        put_blob(&mut out, &packed);
        let digest = Digest::of(&out);
        out.extend_from_slice(&digest.0);
        out
    }

    fn body(&self) -> Vec<u8> {
        let mut origins = Interned::new();
        let mut geometries = Interned::new();
        let mut configurations = Interned::new();
        let mut points = Vec::new();
        for point in &self.points {
            points.extend_from_slice(&point.cycle.0.to_le_bytes());
            points.extend_from_slice(&point.generation.to_le_bytes());
            points.extend_from_slice(&point.instant.to_le_bytes());
            points.extend_from_slice(&point.stored.to_le_bytes());
            points.extend_from_slice(&origins.number(&point.origin).to_le_bytes());
            points.extend_from_slice(&geometries.number(&point.disks).to_le_bytes());
            points.extend_from_slice(&configurations.number(&point.configuration).to_le_bytes());
            let (hold, until) = match point.hold {
                Hold::None => (0, 0),
                Hold::Operator => (1, 0),
                Hold::Until(instant) => (2, instant),
                Hold::Lost => (3, 0),
            };
            points.extend_from_slice(&[point.consistency.to_byte(), hold]);
            points.extend_from_slice(&until.to_le_bytes());
        }
        let mut out = Vec::with_capacity(points.len() + self.segments.len() * 32 + 1024);
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out.extend_from_slice(&self.generation.to_le_bytes());
        for number in [self.next.segment, self.next.run, self.next.cycle] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.replay.segment.to_le_bytes());
        out.extend_from_slice(&self.replay.offset.to_le_bytes());
        match self.open {
            None => out.push(0),
            Some(open) => {
                out.push(1);
                out.extend_from_slice(&open.cycle.0.to_le_bytes());
                out.extend_from_slice(&open.changes.to_le_bytes());
                out.extend_from_slice(&open.stored.to_le_bytes());
            }
        }
        put_count(&mut out, origins.values.len());
        origins.values.iter().for_each(|origin| put_blob(&mut out, origin.as_bytes()));
        put_count(&mut out, geometries.values.len());
        for disks in &geometries.values {
            put_count(&mut out, disks.len());
            disks.iter().for_each(|size| out.extend_from_slice(&size.to_le_bytes()));
        }
        put_count(&mut out, configurations.values.len());
        configurations.values.iter().for_each(|bytes| put_blob(&mut out, bytes));
        put_count(&mut out, self.points.len());
        out.extend_from_slice(&points);
        put_count(&mut out, self.runs.len());
        for run in &self.runs {
            out.extend_from_slice(&run.id.to_le_bytes());
            out.extend_from_slice(&run.generation.to_le_bytes());
            out.extend_from_slice(&[run.level, u8::from(run.staged.is_some())]);
            out.extend_from_slice(&run.staged.map_or(0, |cycle| cycle.0).to_le_bytes());
            out.extend_from_slice(&run.oldest.0.to_le_bytes());
            out.extend_from_slice(&run.newest.0.to_le_bytes());
            out.extend_from_slice(&run.entries.to_le_bytes());
        }
        put_count(&mut out, self.segments.len());
        for segment in &self.segments {
            out.extend_from_slice(&segment.id.to_le_bytes());
            out.extend_from_slice(&segment.generation.to_le_bytes());
            out.extend_from_slice(&segment.end.to_le_bytes());
            out.extend_from_slice(&segment.dead.to_le_bytes());
            out.extend_from_slice(&segment.oldest.0.to_le_bytes());
            out.extend_from_slice(&segment.newest.0.to_le_bytes());
            out.push(u8::from(segment.footer) | u8::from(segment.punched) << 1);
        }
        put_count(&mut out, self.adopted.len());
        for file in &self.adopted {
            out.extend_from_slice(&file.id.to_le_bytes());
            put_blob(&mut out, file.path.as_bytes());
            out.extend_from_slice(&file.size.to_le_bytes());
            out.extend_from_slice(&file.modified.to_le_bytes());
            out.extend_from_slice(&file.inode.to_le_bytes());
        }
        out
    }

    /// The version of a file's contents, which proved themselves: of one that is
    /// greater than [`NEWEST_VERSION`] nothing more is understood.
    ///
    /// # Errors
    /// It is damaged or only half there.
    pub fn version(bytes: &[u8]) -> Result<u16, Malformed> {
        proved(bytes).map(|(version, _)| version)
    }

    /// Reads a file's contents.
    ///
    /// # Errors
    /// It is damaged, only half there, or of a newer version.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let (version, mut cursor) = proved(bytes)?;
        match version {
            VERSION..=NEWEST_VERSION => {}
            ..VERSION => return Err(Malformed("a manifest of a version that never was")),
            _ => return Err(Malformed("a manifest of a newer version")),
        }
        cursor.u16()?;
        let length = cursor.u32()? as usize;
        let packed = cursor.blob()?;
        cursor.end()?;
        if length > MAX {
            return Err(Malformed("a manifest of impossible size"));
        }
        let body = zstd::bulk::decompress(packed, length)
            .map_err(|_| Malformed("the manifest cannot be decompressed"))?;
        Self::decode_body(&body)
    }

    fn decode_body(body: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor(body);
        let sequence = cursor.u64()?;
        let generation = cursor.u64()?;
        let next = Next { segment: cursor.u32()?, run: cursor.u32()?, cycle: cursor.u32()? };
        let replay = Replay { segment: cursor.u32()?, offset: cursor.u32()? };
        let open = match cursor.u8()? {
            0 => None,
            _ => Some(OpenAttempt {
                cycle: Cycle(cursor.u32()?),
                changes: cursor.u64()?,
                stored: cursor.u64()?,
            }),
        };
        let mut origins: Vec<Arc<str>> = Vec::new();
        for _ in 0..cursor.count(4)? {
            origins.push(String::from_utf8_lossy(cursor.blob()?).into());
        }
        let mut geometries: Vec<Arc<[u64]>> = Vec::new();
        for _ in 0..cursor.count(4)? {
            let mut disks = Vec::new();
            for _ in 0..cursor.count(8)? {
                disks.push(cursor.u64()?);
            }
            geometries.push(disks.into());
        }
        let mut configurations: Vec<Arc<[u8]>> = Vec::new();
        for _ in 0..cursor.count(4)? {
            configurations.push(cursor.blob()?.into());
        }
        let mut points = Vec::new();
        for _ in 0..cursor.count(50)? {
            let (cycle, generation) = (Cycle(cursor.u32()?), cursor.u64()?);
            let (instant, stored) = (cursor.i64()?, cursor.u64()?);
            let origin = pick(&origins, cursor.u32()?)?;
            let disks = pick(&geometries, cursor.u32()?)?;
            let configuration = pick(&configurations, cursor.u32()?)?;
            let consistency = Consistency::from_byte(cursor.u8()?)?;
            let (hold, until) = (cursor.u8()?, cursor.i64()?);
            let hold = match hold {
                0 => Hold::None,
                1 => Hold::Operator,
                2 => Hold::Until(until),
                3 => Hold::Lost,
                _ => return Err(Malformed("an unknown hold")),
            };
            points.push(Point {
                cycle,
                generation,
                instant,
                consistency,
                origin,
                disks,
                configuration,
                stored,
                hold,
            });
        }
        let mut runs = Vec::new();
        for _ in 0..cursor.count(34)? {
            let (id, generation) = (cursor.u32()?, cursor.u64()?);
            let (level, staged) = (cursor.u8()?, cursor.u8()? != 0);
            let cycle = Cycle(cursor.u32()?);
            runs.push(RunFacts {
                id,
                generation,
                level,
                staged: staged.then_some(cycle),
                oldest: Cycle(cursor.u32()?),
                newest: Cycle(cursor.u32()?),
                entries: cursor.u64()?,
            });
        }
        let mut segments = Vec::new();
        for _ in 0..cursor.count(29)? {
            let (id, generation) = (cursor.u32()?, cursor.u64()?);
            let (end, dead) = (cursor.u32()?, cursor.u32()?);
            let (oldest, newest) = (Cycle(cursor.u32()?), Cycle(cursor.u32()?));
            let flags = cursor.u8()?;
            let (footer, punched) = (flags & 1 != 0, flags & 2 != 0);
            segments.push(SegmentFacts {
                id,
                generation,
                end,
                dead,
                oldest,
                newest,
                footer,
                punched,
            });
        }
        let mut adopted = Vec::new();
        for _ in 0..cursor.count(32)? {
            adopted.push(AdoptedFacts {
                id: cursor.u32()?,
                path: String::from_utf8_lossy(cursor.blob()?).into_owned(),
                size: cursor.u64()?,
                modified: cursor.i64()?,
                inode: cursor.u64()?,
            });
        }
        cursor.end()?;
        if !points.is_sorted_by(|a, b| a.cycle < b.cycle) {
            return Err(Malformed("points out of order"));
        }
        Ok(Self { sequence, generation, next, replay, open, points, runs, segments, adopted })
    }
}

/// The version, and what follows it up to the digest. All versions begin and end
/// like this, so that a newer one is told from a damaged one.
fn proved(bytes: &[u8]) -> Result<(u16, Cursor<'_>), Malformed> {
    let end = bytes.len().checked_sub(16).ok_or(Malformed("cut short"))?;
    let (sealed, digest) = bytes.split_at_checked(end).ok_or(Malformed("cut short"))?;
    if Digest::of(sealed).0 != digest {
        return Err(Malformed("the manifest's hash is wrong"));
    }
    let mut cursor = Cursor(sealed);
    if cursor.array()? != MAGIC {
        return Err(Malformed("this is no manifest"));
    }
    Ok((cursor.u16()?, cursor))
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(&(count as u32).to_le_bytes());
}

fn pick<T: Clone>(values: &[T], number: u32) -> Result<T, Malformed> {
    values.get(number as usize).cloned().ok_or(Malformed("a number beyond its table"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Manifest {
        let point = |cycle, hold| Point {
            cycle: Cycle(cycle),
            generation: 4,
            instant: 1_700_000_000_000,
            consistency: Consistency::App,
            origin: "east".into(),
            disks: vec![1 << 30, 512].into(),
            configuration: b"<domain/>".as_slice().into(),
            stored: 12345,
            hold,
        };
        Manifest {
            sequence: 12,
            generation: 5,
            next: Next { segment: 3, run: 8, cycle: 100 },
            replay: Replay { segment: 2, offset: 4096 },
            open: Some(OpenAttempt { cycle: Cycle(99), changes: 7, stored: 8 }),
            points: vec![point(1, Hold::None), point(2, Hold::Operator), point(9, Hold::Until(-1))],
            runs: vec![RunFacts {
                id: 7,
                generation: 5,
                level: 2,
                staged: Some(Cycle(99)),
                oldest: Cycle(1),
                newest: Cycle(99),
                entries: 1000,
            }],
            segments: vec![SegmentFacts {
                id: 1,
                generation: 4,
                end: 1 << 20,
                dead: 17,
                oldest: Cycle(1),
                newest: Cycle(9),
                footer: true,
                punched: true,
            }],
            adopted: vec![AdoptedFacts {
                id: 0,
                path: "/images/base.raw".into(),
                size: 1 << 30,
                modified: 1,
                inode: 2,
            }],
        }
    }

    #[test]
    fn manifests_come_back_and_damage_is_seen() {
        let bytes = sample().encode();
        assert_eq!(Manifest::decode(&bytes), Ok(sample()));
        for at in 0..bytes.len() {
            let mut spoilt = bytes.clone();
            spoilt[at] ^= 4;
            assert!(Manifest::decode(&spoilt).is_err(), "byte {at}");
            assert!(Manifest::decode(&bytes[..at]).is_err(), "cut at {at}");
        }
    }

    fn with_lost() -> Manifest {
        let mut manifest = sample();
        manifest.points[1].hold = Hold::Lost;
        manifest
    }

    /// Changing these breaks every store in the field.
    #[test]
    fn golden_manifests() {
        let versions = [
            (VERSION, sample(), include_str!("golden/manifest.hex")),
            (VERSION_LOST, with_lost(), include_str!("golden/manifest-2.hex")),
        ];
        for (version, manifest, golden) in versions {
            let golden: Vec<u8> = golden
                .trim()
                .as_bytes()
                .chunks(2)
                .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
                .collect();
            assert_eq!(Manifest::decode_body(&golden).unwrap(), manifest);
            assert!(manifest.body() == golden, "a new version is needed");
            assert_eq!(manifest.encode()[8..10], version.to_le_bytes());
            assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
        }
    }
}
