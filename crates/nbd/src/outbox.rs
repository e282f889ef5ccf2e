//! What is yet to be sent, in order, without copying large payloads.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// Payloads up to this many bytes are copied behind their head: cheaper than
/// a buffer of their own.
const COPY_BELOW: usize = 1024;

/// Buffers handed to the kernel at once.
const SLICES: usize = 64;

static ZEROES: [u8; 64 * 1024] = [0; 64 * 1024];

/// A queue of bytes. How much it holds is bounded by who fills it.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: VecDeque<Bytes>,
    /// Small things, not yet in the queue.
    tail: BytesMut,
    queued: usize,
    /// Written, but perhaps held back by the stream (TLS does that).
    unflushed: bool,
}

impl Outbox {
    /// Where heads and other small things are encoded to.
    pub(crate) fn tail(&mut self) -> &mut BytesMut {
        &mut self.tail
    }

    pub(crate) fn push(&mut self, payload: Bytes) {
        if payload.len() <= COPY_BELOW {
            self.tail.extend_from_slice(&payload);
            return;
        }
        self.seal();
        self.queued += payload.len();
        self.queue.push_back(payload);
    }

    pub(crate) fn push_zeroes(&mut self, mut length: u64) {
        while length > 0 {
            let part = length.min(ZEROES.len() as u64) as usize;
            let zeroes = Bytes::from_static(&ZEROES);
            self.push(zeroes.slice(..part));
            length -= part as u64;
        }
    }

    /// Bytes that wait to be written.
    pub(crate) fn len(&self) -> usize {
        self.queued + self.tail.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Nothing waits, neither here nor inside the stream.
    pub(crate) fn is_idle(&self) -> bool {
        self.is_empty() && !self.unflushed
    }

    /// Writes once, as much as the stream takes, or flushes when nothing is
    /// left to write. Cancel safe: dropped while waiting, nothing is lost or
    /// sent twice.
    ///
    /// # Errors
    /// The stream's; a stream that takes nothing is `WriteZero`.
    pub(crate) async fn write_some<W: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut W,
    ) -> io::Result<()> {
        if self.is_empty() {
            stream.flush().await?;
            self.unflushed = false;
            return Ok(());
        }
        self.seal();
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut count = 0;
        for (slice, bytes) in slices.iter_mut().zip(&self.queue) {
            *slice = IoSlice::new(bytes);
            count += 1;
        }
        let slices = slices.get(..count).unwrap_or_default();
        let written = stream.write_vectored(slices).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.unflushed = true;
        self.advance(written);
        Ok(())
    }

    /// Writes and flushes all.
    pub(crate) async fn write_all<W: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut W,
    ) -> io::Result<()> {
        while !self.is_idle() {
            self.write_some(stream).await?;
        }
        Ok(())
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.queued += self.tail.len();
            self.queue.push_back(self.tail.split().freeze());
        }
    }

    fn advance(&mut self, mut written: usize) {
        self.queued = self.queued.saturating_sub(written);
        while let Some(front) = self.queue.front_mut() {
            if written < front.len() {
                front.advance(written);
                return;
            }
            written -= front.len();
            self.queue.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn bytes_leave_in_the_order_in_which_they_came() {
        let (mut near, mut far) = tokio::io::duplex(100);
        let mut outbox = Outbox::default();
        let mut expected = Vec::new();
        for round in 0..200u8 {
            let head = [round; 3];
            let payload = vec![round; usize::from(round) * 20];
            outbox.tail().extend_from_slice(&head);
            outbox.push(Bytes::from(payload.clone()));
            outbox.push_zeroes(70_000);
            expected.extend(head);
            expected.extend(payload);
            expected.extend(vec![0; 70_000]);
        }
        assert_eq!(outbox.len(), expected.len());
        let reader = tokio::spawn(async move {
            let mut got = Vec::new();
            far.read_to_end(&mut got).await.unwrap();
            got
        });
        outbox.write_all(&mut near).await.unwrap();
        assert!(outbox.is_idle());
        drop(near);
        assert!(reader.await.unwrap() == expected, "bytes differ");
    }
}
