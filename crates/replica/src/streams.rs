//! Which reads go on where earlier ones ended, and how far ahead of them it is worth
//! to read. Plain state without input or output.
//!
//! A *stream* is a place where a next read is expected. Any read that is expected
//! nowhere begins one; most lead nowhere and give way to others. One that went on for
//! [`PROVEN`] bytes is read ahead of, at first as far as it went, later up to a limit.
//! Reads need not come in order, nor without gaps: clients have several in flight, and
//! an overlay keeps to itself what was written since. But each gap halves what a stream
//! has proved, so that reads of a few KiB here and there never prove anything.

use std::ops::Range;

use crate::geometry::{BLOCK, Cycle, DiskNumber, blocks_of};

/// The disk of a point.
pub(crate) type Place = (Cycle, DiskNumber);

/// Streams that are read ahead of, at a time.
const STREAMS: usize = 16;
/// Places where a next read is expected, in all: a stream must not be forgotten for
/// the many reads of others that come between two of its own.
const EXPECTED: usize = 64;
/// Bytes in order that make a stream.
const PROVEN: u64 = 256 << 10;
/// How many bytes beyond the expected place a read may begin.
const GAP: u64 = 512 << 10;
/// How many bytes before it: a read that others overtook.
const LATE: u64 = 1 << 20;
/// The most bytes to read ahead of one stream: several of the longest reads that
/// clients make (1 MiB), of which one is decoded in a millisecond or two.
const FURTHEST: u64 = 4 << 20;
/// Without a read during so many reads of others, a stream has ended.
const ENDED: u64 = 4096;

/// The streams of all views of a store.
#[derive(Debug)]
pub(crate) struct Streams {
    expected: Vec<Stream>,
    /// Reads so far.
    reads: u64,
    /// The most bytes to read ahead of one stream.
    furthest: u64,
}

#[derive(Debug)]
struct Stream {
    of: Place,
    /// Where the next read is expected, in bytes.
    next: u64,
    /// Bytes that were read in order, up to `furthest`.
    proved: u64,
    /// The first block that was not asked for ahead; 0 if none ever was.
    ahead: u32,
    /// The number of its last read.
    read: u64,
}

impl Streams {
    /// With so many bytes of cache for what is read: all streams together take a
    /// quarter of it, so that nothing is pushed out before it was used.
    pub(crate) fn new(cache: usize) -> Self {
        let share = cache as u64 / 4 / STREAMS as u64;
        Self { expected: Vec::new(), reads: 0, furthest: share.min(FURTHEST) }
    }

    /// Takes note of a read of a disk of `size` bytes; the blocks to read ahead now.
    pub(crate) fn read(&mut self, of: Place, offset: u64, length: u64, size: u64) -> Range<u32> {
        self.reads += 1;
        let (now, furthest) = (self.reads, self.furthest);
        let end = offset.saturating_add(length).min(size);
        let going = self.expected.iter().filter(|stream| stream.goes_on(now)).count();
        let candidates = self.expected.iter_mut().filter(|stream| stream.expects(of, offset));
        let Some(stream) = candidates.min_by_key(|stream| stream.next.abs_diff(offset)) else {
            let proved = length.min(furthest);
            self.expect(Stream { of, next: end, proved, ahead: 0, read: now });
            return 0..0;
        };
        let may_go_on = stream.goes_on(now) || going < STREAMS;
        stream.read = now;
        if end <= stream.next {
            return 0..0;
        }
        if offset > stream.next {
            stream.proved /= 2;
        }
        let progress = end - offset.max(stream.next);
        stream.proved = (stream.proved + progress).min(furthest);
        stream.next = end;
        if !may_go_on || stream.proved < PROVEN.min(furthest) {
            return 0..0;
        }
        let from = stream.ahead.max(blocks_of(end));
        let to = blocks_of(end.saturating_add(stream.proved).min(size));
        // A few at a time are asked for with less ado, unless the end is near.
        let few = u64::from(to.saturating_sub(from)) * BLOCK < stream.proved / 4;
        if from >= to || (few && to < blocks_of(size)) {
            return 0..0;
        }
        stream.ahead = to;
        from..to
    }

    /// Adds one, in place of that which promises least.
    fn expect(&mut self, stream: Stream) {
        if self.expected.len() < EXPECTED {
            self.expected.push(stream);
            return;
        }
        let now = self.reads;
        let promise = |stream: &&mut Stream| (stream.goes_on(now), stream.read);
        if let Some(least) = self.expected.iter_mut().min_by_key(promise) {
            *least = stream;
        }
    }
}

impl Stream {
    /// Whether it is read ahead of.
    fn goes_on(&self, now: u64) -> bool {
        self.ahead > 0 && now - self.read < ENDED
    }

    fn expects(&self, of: Place, offset: u64) -> bool {
        let within = self.next.saturating_sub(LATE)..=self.next.saturating_add(GAP);
        self.of == of && within.contains(&offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: Place = (Cycle(1), DiskNumber(0));
    const SIZE: u64 = 1 << 30;
    const MIB: u64 = 1 << 20;
    const CACHE: usize = 1 << 30;

    /// What is read ahead for reads of these MiB, in MiB.
    fn told(streams: &mut Streams, reads: &[u64]) -> String {
        let asked = reads.iter().map(|at| streams.read(DISK, at * MIB, MIB, SIZE));
        let told: Vec<_> = asked.map(|blocks| format!("{blocks:?}")).collect();
        told.join(" ")
    }

    /// Numbers that are anywhere, always the same.
    fn anywhere(count: u64) -> impl Iterator<Item = u64> {
        (1..=count).map(|number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20)
    }

    #[test]
    fn reads_in_order_are_read_ahead_of_as_far_as_they_went() {
        let mut streams = Streams::new(CACHE);
        assert_eq!(told(&mut streams, &[0, 1, 2, 3, 4]), "0..0 32..64 64..96 96..128 128..144");
        // The first read of the disk's end asks for no more than there is.
        assert_eq!(told(&mut streams, &[1021, 1022, 1023]), "0..0 16368..16384 0..0");
    }

    #[test]
    fn small_reads_in_order_prove_themselves_too() {
        let mut streams = Streams::new(CACHE);
        let asked = (0..1024).map(|page| streams.read(DISK, page * 4096, 4096, SIZE));
        let asked: Vec<_> = asked.filter(|blocks| !blocks.is_empty()).collect();
        assert_eq!(asked[0], 4..8);
        assert!(asked.windows(2).all(|pair| pair[0].end == pair[1].start), "{asked:?}");
        assert!(asked.last().unwrap().end > 100, "{asked:?}");
    }

    #[test]
    fn of_reads_anywhere_nothing_is_read_ahead() {
        for size in [SIZE, 16 * MIB] {
            let mut streams = Streams::new(CACHE);
            for place in anywhere(100_000) {
                let blocks = streams.read(DISK, place % (size / 4096) * 4096, 4096, size);
                assert_eq!(blocks, 0..0, "on {size} bytes");
            }
        }
        // Nor of long ones.
        let mut streams = Streams::new(CACHE);
        let asked = anywhere(1000).map(|place| {
            streams.read(DISK, place % (1 << 20) * (MIB + BLOCK), MIB, SIZE << 20).len()
        });
        assert_eq!(asked.sum::<usize>(), 0);
    }

    #[test]
    fn several_streams_go_on_among_many_other_reads() {
        let mut streams = Streams::new(CACHE);
        let mut others = anywhere(u64::MAX).map(|place| place % (SIZE / 4096) * 4096);
        let mut asked = [0; 2];
        for step in 0..32 {
            for (disk, asked) in asked.iter_mut().enumerate() {
                let of = (Cycle(1), DiskNumber(disk as u16));
                *asked += streams.read(of, (100 + step) * MIB, MIB, SIZE).len();
                for place in others.by_ref().take(20) {
                    streams.read((Cycle(1), DiskNumber(9)), place, 4096, SIZE);
                }
            }
        }
        // All of 30 MiB but the first, and 4 MiB more.
        assert_eq!(asked, [34 * 16, 34 * 16]);
    }

    #[test]
    fn reads_that_overtake_one_another_and_gaps_are_no_end() {
        let mut streams = Streams::new(CACHE);
        let order = [1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10];
        let mut asked = Vec::new();
        for part in order {
            asked.push(streams.read(DISK, part * 256 * 1024, 256 << 10, SIZE));
        }
        let total: usize = asked.iter().map(ExactSizeIterator::len).sum();
        assert!(total >= 32, "{asked:?}");
    }

    #[test]
    fn no_more_streams_than_there_is_room_for() {
        let mut streams = Streams::new(32 << 20);
        let mut asked = 0;
        for step in 0..8 {
            for disk in 0..40 {
                let of = (Cycle(1), DiskNumber(disk));
                asked += streams.read(of, step * MIB, MIB, SIZE).len();
            }
        }
        // 16 of them, 7 steps and 512 KiB each.
        assert!(asked > 0 && asked <= STREAMS * (7 * 16 + 8), "{asked}");
        assert!(streams.expected.len() <= EXPECTED);
    }
}
