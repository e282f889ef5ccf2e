//! What has arrived and is not yet understood.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes asked for when the next thing is a head of unknown company.
const READ_AHEAD: usize = 64 * 1024;

/// Bytes asked for when large payloads come one after the other: what is read
/// past a head belongs to a payload and would be copied once more.
const READ_AHEAD_OF_PAYLOAD: usize = 4 * 1024;

/// From this many bytes on a payload is read to its own end and no further.
const LARGE: usize = 32 * 1024;

/// A read buffer. It holds at most one incomplete message and what came
/// together with it.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    buffer: BytesMut,
    /// The whole message needs this many bytes from the buffer's start.
    wanted: usize,
    after_large: bool,
}

impl Inbox {
    pub(crate) fn new(buffer: BytesMut) -> Self {
        Self { buffer, ..Self::default() }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// Takes `length` bytes when they are all there; otherwise remembers to
    /// read so many. The caller has held `length` against a limit.
    pub(crate) fn take(&mut self, length: usize) -> Option<Bytes> {
        if self.buffer.len() < length {
            self.wanted = length;
            return None;
        }
        self.wanted = 0;
        self.after_large = length >= LARGE;
        Some(self.buffer.split_to(length).freeze())
    }

    /// Reads once. Returns false at the end of the stream. Cancel safe.
    pub(crate) async fn fill<R: AsyncRead + Unpin>(&mut self, stream: &mut R) -> io::Result<bool> {
        let missing = self.wanted.saturating_sub(self.buffer.len());
        let room = if missing >= LARGE {
            missing
        } else if self.after_large {
            missing.max(READ_AHEAD_OF_PAYLOAD)
        } else {
            missing.max(READ_AHEAD)
        };
        self.buffer.reserve(room);
        let read = stream.read_buf(&mut (&mut self.buffer).limit(room)).await?;
        Ok(read > 0)
    }
}
