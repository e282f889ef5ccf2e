//! From the chunks of a reply to its answer, sans I/O.

use bytes::{Bytes, BytesMut};

use super::ReadExtent;
use crate::protocol::{
    Violation,
    chunk::{Chunk, StatusExtent},
    errno::Errno,
    request::{Command, Request},
};

/// An answer, complete.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Done,
    /// In order, without gaps.
    Read(Vec<ReadExtent>),
    /// By the number of the metadata context.
    Status(Vec<(u32, Vec<StatusExtent>)>),
    Refused {
        errno: Errno,
        message: String,
        at: Option<u64>,
    },
}

/// Gathers the chunks of one reply. What it holds is bounded by the request:
/// chunks must lie inside it, and there cannot be more of them than pieces of
/// 512 bytes, the least that the spec recommends, and a few.
#[derive(Debug)]
pub(crate) struct Gather {
    request: Request,
    extents: Vec<ReadExtent>,
    covered: u64,
    statuses: Vec<(u32, Vec<StatusExtent>)>,
    refusal: Option<(Errno, String, Option<u64>)>,
}

const SPARE_CHUNKS: u64 = 64;

impl Gather {
    pub(crate) fn new(request: Request) -> Self {
        Self { request, extents: Vec::new(), covered: 0, statuses: Vec::new(), refusal: None }
    }

    pub(crate) fn request(&self) -> &Request {
        &self.request
    }

    /// Takes the next chunk.
    pub(crate) fn add(&mut self, chunk: Chunk) -> Result<(), Violation> {
        match (self.request.command, chunk) {
            (_, Chunk::None) => Ok(()),
            (_, Chunk::Error { error, message, offset }) => {
                // The first one counts: with several, it is what went wrong.
                self.refusal.get_or_insert((error, message, offset));
                Ok(())
            }
            (Command::Read, Chunk::Data { offset, data }) => {
                self.extent(ReadExtent::Data { offset, data })
            }
            (Command::Read, Chunk::Hole { offset, length }) => {
                self.extent(ReadExtent::Hole { offset, length: length.into() })
            }
            (Command::BlockStatus, Chunk::Status { context, extents }) => {
                if self.statuses.iter().any(|(known, _)| *known == context) {
                    return Err(violation("a metadata context is answered twice"));
                }
                self.statuses.push((context, extents));
                Ok(())
            }
            _ => Err(violation("the chunk does not fit the request")),
        }
    }

    /// Takes the data of a simple reply to a READ.
    pub(crate) fn add_simple(&mut self, data: Bytes) -> Result<(), Violation> {
        let offset = self.request.offset;
        self.extent(ReadExtent::Data { offset, data })
    }

    fn extent(&mut self, extent: ReadExtent) -> Result<(), Violation> {
        let start = extent.offset().checked_sub(self.request.offset);
        let end = start.and_then(|start| start.checked_add(extent.len()));
        if end.is_none_or(|end| end > self.request.length) {
            return Err(violation("a chunk reaches beyond the request"));
        }
        self.covered += extent.len();
        let most = self.request.length / 512 + SPARE_CHUNKS;
        if self.covered > self.request.length || self.extents.len() as u64 >= most {
            return Err(violation("chunks overlap, or are too many"));
        }
        self.extents.push(extent);
        Ok(())
    }

    /// The answer, after the last chunk.
    pub(crate) fn finish(mut self) -> Result<Answer, Violation> {
        if let Some((errno, message, at)) = self.refusal {
            return Ok(Answer::Refused { errno, message, at });
        }
        match self.request.command {
            Command::Read => {
                // Chunks may come in any order.
                if !self.extents.is_sorted_by_key(ReadExtent::offset) {
                    self.extents.sort_by_key(ReadExtent::offset);
                }
                let mut next = self.request.offset;
                for extent in &self.extents {
                    if extent.offset() != next {
                        return Err(violation("chunks overlap, or leave a gap"));
                    }
                    next += extent.len();
                }
                if self.covered != self.request.length {
                    return Err(violation("chunks leave a gap at the end"));
                }
                Ok(Answer::Read(self.extents))
            }
            Command::BlockStatus => {
                if self.statuses.is_empty() {
                    return Err(violation("a block status is answered with nothing"));
                }
                Ok(Answer::Status(self.statuses))
            }
            _ => Ok(Answer::Done),
        }
    }
}

fn violation(why: &'static str) -> Violation {
    Violation::Value { what: "reply", why }
}

/// The extents as plain bytes; without copying if there is but one with data.
pub(crate) fn flatten(extents: Vec<ReadExtent>, length: u64) -> Bytes {
    let mut flat = match <[ReadExtent; 1]>::try_from(extents) {
        Ok([ReadExtent::Data { data, .. }]) => return data,
        Ok([ReadExtent::Hole { length, .. }]) => return BytesMut::zeroed(length as usize).freeze(),
        Err(extents) => {
            let mut flat = BytesMut::with_capacity(length as usize);
            for extent in extents {
                match extent {
                    ReadExtent::Data { data, .. } => flat.extend_from_slice(&data),
                    ReadExtent::Hole { length, .. } => {
                        flat.resize(flat.len() + length as usize, 0);
                    }
                }
            }
            flat
        }
    };
    flat.split().freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::constants::CommandFlags;

    fn read(offset: u64, length: u64) -> Gather {
        Gather::new(Request {
            command: Command::Read,
            flags: CommandFlags::empty(),
            cookie: 1,
            offset,
            length,
        })
    }

    fn data(offset: u64, data: &'static [u8]) -> Chunk {
        let data = Bytes::from_static(data);
        Chunk::Data { offset, data }
    }

    #[test]
    fn chunks_in_any_order_make_the_bytes() {
        let mut gather = read(10, 8);
        gather.add(data(16, b"cd")).unwrap();
        gather.add(Chunk::Hole { offset: 12, length: 4 }).unwrap();
        gather.add(data(10, b"ab")).unwrap();
        gather.add(Chunk::None).unwrap();
        let Answer::Read(extents) = gather.finish().unwrap() else {
            panic!("no data");
        };
        assert_eq!(flatten(extents, 8).as_ref(), b"ab\0\0\0\0cd");
    }

    #[test]
    fn chunks_that_lie_are_violations() {
        for chunks in [
            vec![],
            vec![data(10, b"abcdefg")],
            vec![data(9, b"abcdefgh")],
            vec![data(11, b"abcdefgh")],
            vec![data(u64::MAX, b"abcdefgh")],
            vec![data(10, b"abcd"), data(12, b"cdef")],
            vec![data(10, b"abcd"), data(10, b"abcdefgh")],
            vec![Chunk::Status { context: 1, extents: vec![] }],
        ] {
            let mut gather = read(10, 8);
            let shown = format!("{chunks:?}");
            let added: Result<(), _> = chunks.into_iter().try_for_each(|c| gather.add(c));
            assert!(added.and_then(|()| gather.finish()).is_err(), "{shown}");
        }
    }

    #[test]
    fn an_error_beats_data() {
        let mut gather = read(10, 8);
        gather.add(data(10, b"abcdefgh")).unwrap();
        gather
            .add(Chunk::Error { error: Errno::Io, message: "bad".into(), offset: Some(12) })
            .unwrap();
        assert_eq!(
            gather.finish(),
            Ok(Answer::Refused { errno: Errno::Io, message: "bad".into(), at: Some(12) })
        );
    }

    #[test]
    fn crumbs_do_not_fill_memory() {
        let mut gather = read(0, 1 << 20);
        let added = (0..1 << 20).try_for_each(|at| gather.add(data(at, b"x")));
        assert!(added.is_err());
    }
}
