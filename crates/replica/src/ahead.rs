//! Blocks that are to be read, decoded and proved before anybody asks for them: a
//! short queue that a few threads work off.
//!
//! Whatever goes wrong here stays here: the read that needs the block meets it again,
//! and tells it.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError, Weak},
    thread,
};

use crate::streams::{Place, Streams};

/// Blocks that wait, at most: 32 MiB. What does not fit is read when it is needed.
const WAITING: usize = 512;

/// What a store reads ahead. `V` is what blocks are read from.
#[derive(Debug)]
pub(crate) struct Ahead<V> {
    streams: Mutex<Streams>,
    queue: Mutex<Queue<V>>,
    /// Threads at a time.
    threads: usize,
}

#[derive(Debug)]
struct Queue<V> {
    /// Whose view is gone needs no blocks.
    waiting: VecDeque<(Weak<V>, u32)>,
    /// Threads that work it off.
    working: usize,
}

impl<V> Ahead<V> {
    /// With so many bytes of cache for what is read.
    pub(crate) fn new(cache: usize) -> Self {
        // Half of the cores: the machines that read need the others. Two at least, as
        // one of them often waits for the medium.
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let queue = Queue { waiting: VecDeque::new(), working: 0 };
        Self {
            streams: Mutex::new(Streams::new(cache)),
            queue: Mutex::new(queue),
            threads: (cores / 2).clamp(2, 8),
        }
    }

    /// Takes note of a read; the blocks to read ahead now.
    pub(crate) fn read(&self, of: Place, offset: u64, length: u64, size: u64) -> Range<u32> {
        // Whatever it remembers, it cannot do harm.
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.read(of, offset, length, size)
    }

    /// Has blocks wait; how many threads must begin to [`work`](Self::work).
    #[must_use]
    pub(crate) fn push(&self, view: &Weak<V>, blocks: impl Iterator<Item = u32>) -> usize {
        let mut queue = self.queue();
        let room = WAITING.saturating_sub(queue.waiting.len());
        queue.waiting.extend(blocks.take(room).map(|block| (view.clone(), block)));
        let idle = self.threads.saturating_sub(queue.working);
        let more = idle.min(queue.waiting.len());
        queue.working += more;
        more
    }

    /// Does something with each block that waits, until none does.
    pub(crate) fn work(&self, mut act: impl FnMut(&V, u32)) {
        let mut working = Working(Some(self));
        while let Some((view, block)) = self.next(&mut working) {
            if let Some(view) = view.upgrade() {
                act(&view, block);
            }
        }
    }

    /// A block, or the end of this thread's work: who pushes sees one or the other.
    fn next(&self, working: &mut Working<'_, V>) -> Option<(Weak<V>, u32)> {
        let mut queue = self.queue();
        let found = queue.waiting.pop_front();
        if found.is_none() {
            queue.working -= 1;
            working.0 = None;
        }
        found
    }

    fn queue(&self) -> MutexGuard<'_, Queue<V>> {
        // Pushes, pops and counts; none stops half-way.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread that works the queue off. It counts no more even if it panics.
struct Working<'a, V>(Option<&'a Ahead<V>>);

impl<V> Drop for Working<'_, V> {
    fn drop(&mut self) {
        if let Some(ahead) = self.0 {
            ahead.queue().working -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn the_queue_has_an_end_and_so_has_the_number_of_threads() {
        let ahead = Ahead::new(1 << 30);
        let view = Arc::new(7);
        assert_eq!(ahead.push(&Arc::downgrade(&view), 0..1), 1);
        assert_eq!(ahead.push(&Arc::downgrade(&view), 1..10_000), ahead.threads - 1);
        assert_eq!(ahead.push(&Arc::downgrade(&view), 0..10_000), 0);
        let mut read = Vec::new();
        (0..ahead.threads).for_each(|_| ahead.work(|_, block| read.push(block)));
        assert_eq!(read, (0..WAITING as u32).collect::<Vec<_>>());
        assert_eq!(ahead.push(&Arc::downgrade(&view), 0..2), 2);
    }

    #[test]
    fn nothing_is_read_for_a_view_that_is_gone() {
        let ahead = Ahead::new(1 << 30);
        let view = Arc::new(7);
        assert_eq!(ahead.push(&Arc::downgrade(&view), 0..1), 1);
        drop(view);
        ahead.work(|_: &i32, block| panic!("{block} was read"));
    }
}
