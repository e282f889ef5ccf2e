//! Read buffers that are used again.
//!
//! A fresh buffer of 256 KiB per request costs as much in page faults as the
//! read itself: the allocator gives such memory back to the system each time.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;

/// Smallest buffer that is worth keeping, in bytes.
const SMALLEST: usize = 4096;

/// A pool of buffers. Clones share it. Its lock is held for moments only.
#[derive(Clone)]
pub struct BufferPool {
    shared: Arc<Shared>,
}

struct Shared {
    /// Buffers, the latest given back last.
    idle: Mutex<Vec<Vec<u8>>>,
    max_idle: usize,
}

impl BufferPool {
    /// Keeps at most `max_idle` buffers while nobody uses them. How many are
    /// in use is the users' affair.
    #[must_use]
    pub fn new(max_idle: usize) -> Self {
        let idle = Mutex::new(Vec::with_capacity(max_idle));
        Self { shared: Arc::new(Shared { idle, max_idle }) }
    }

    /// A buffer of `length` bytes. **It holds whatever it held before**, which
    /// may be another disk's data: fill all of it.
    #[must_use]
    pub fn take(&self, length: usize) -> PooledBuffer {
        let fitting = {
            let mut idle = self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let found = idle.iter().rposition(|bytes| bytes.len() >= length);
            found.map(|index| idle.swap_remove(index))
        };
        let bytes = fitting.unwrap_or_else(|| {
            vec![0; length.max(SMALLEST).checked_next_power_of_two().unwrap_or(length)]
        });
        PooledBuffer { bytes, length, home: Arc::clone(&self.shared) }
    }
}

impl fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferPool")
            .field("max_idle", &self.shared.max_idle)
            .finish_non_exhaustive()
    }
}

/// A buffer of a [`BufferPool`]; it goes back when it is dropped.
pub struct PooledBuffer {
    /// At least `length` bytes, all initialised.
    bytes: Vec<u8>,
    length: usize,
    home: Arc<Shared>,
}

impl PooledBuffer {
    /// The bytes, for sending. The buffer goes back to its pool with the last
    /// clone.
    #[must_use]
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl Deref for PooledBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl DerefMut for PooledBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(..self.length).unwrap_or_default()
    }
}

impl AsRef<[u8]> for PooledBuffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for PooledBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PooledBuffer").field("length", &self.length).finish_non_exhaustive()
    }
}

impl Drop for PooledBuffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let mut idle = self.home.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.home.max_idle {
            idle.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_with_its_last_reader() {
        let pool = BufferPool::new(1);
        let mut buffer = pool.take(5000);
        assert_eq!(buffer.len(), 5000);
        buffer.fill(7);
        let first = buffer.freeze();
        let second = first.slice(10..20);
        drop(first);
        assert_eq!(pool.take(5000)[0], 0, "still read from: another buffer");
        drop(second);
        assert_eq!(pool.shared.idle.lock().unwrap().len(), 1, "no more than asked for");
    }

    #[test]
    fn lengths_are_exact_whatever_the_buffer() {
        let pool = BufferPool::new(4);
        drop(pool.take(100_000));
        assert_eq!(pool.take(1).freeze().len(), 1);
        assert_eq!(pool.take(0).freeze().len(), 0);
        assert_eq!(pool.take(200_000).freeze().len(), 200_000);
    }
}
