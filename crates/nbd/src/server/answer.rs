//! From what an export yields to the bytes of a reply.

use bytes::Bytes;

use super::{
    check::Terms,
    export::{ExportError, ExportResult, Extent},
    shared_export::Answer,
};
use crate::{
    outbox::Outbox,
    protocol::{
        chunk::{Chunk, DATA_PREFIX, StatusExtent},
        constants::{ChunkFlags, CommandFlags, HeaderStyle, MAX_STATUS_EXTENTS},
        errno::Errno,
        reply::{ChunkHeader, SimpleReply, kind},
        request::{Command, Request},
    },
};

/// Shorter holes are sent as zeroes: the spec asks for chunks of at least
/// 512 bytes where possible.
const SMALLEST_HOLE: u64 = 512;

/// Appends the whole reply to `request`.
pub(crate) fn reply(
    out: &mut Outbox,
    terms: &Terms,
    request: &Request,
    result: ExportResult<Answer>,
) {
    let mut reply = Reply { out, style: terms.style, request };
    match result {
        Ok(Answer::Done) => reply.done(),
        Ok(Answer::Read(extents)) => reply.read(extents),
        Ok(Answer::Status(answers)) => reply.status(answers, terms.size),
        Err(error) => reply.refuse(error),
    }
}

struct Reply<'a> {
    out: &'a mut Outbox,
    style: HeaderStyle,
    request: &'a Request,
}

enum Last {
    Yes,
    No,
}

impl Reply<'_> {
    fn done(&mut self) {
        match self.style {
            HeaderStyle::Simple => self.simple(None),
            _ => self.chunk(&Chunk::None, Last::Yes),
        }
    }

    fn refuse(&mut self, error: ExportError) {
        if self.style == HeaderStyle::Simple {
            self.simple(Some(error.errno));
            return;
        }
        let ExportError { errno, message, offset } = error;
        // An offset may be told with these commands only, and only inside
        // the request.
        let tells = matches!(
            self.request.command,
            Command::Read | Command::Write | Command::Trim | Command::BlockStatus
        );
        let offset = offset.filter(|offset| {
            let inside = offset.checked_sub(self.request.offset);
            tells && inside.is_some_and(|inside| inside < self.request.length)
        });
        let chunk = Chunk::Error { error: errno, message, offset };
        self.chunk(&chunk, Last::Yes);
    }

    fn read(&mut self, extents: Vec<Extent>) {
        let told: u64 = extents.iter().map(Extent::len).sum();
        if told != self.request.length {
            // Our own fault; the client must not take it for data.
            let asked = self.request.length;
            tracing::error!(asked, told, "an export answered a read with the wrong length");
            self.refuse(ExportError::new(Errno::Io, "the export answered with the wrong length"));
            return;
        }
        if self.style == HeaderStyle::Simple {
            self.simple(None);
            extents.into_iter().for_each(|extent| self.push(extent));
            return;
        }
        let whole = self.request.flags.contains(CommandFlags::DF)
            && !extents.iter().all(|extent| matches!(extent, Extent::Hole(_)));
        let is_hole = |extent: &Extent| {
            !whole && matches!(extent, Extent::Hole(length) if *length >= SMALLEST_HOLE)
        };
        let mut offset = self.request.offset;
        let mut left = told;
        let mut extents = extents.into_iter().peekable();
        while let Some(first) = extents.next() {
            let hole = is_hole(&first);
            let mut length = first.len();
            let mut run = Run::One(first);
            while let Some(next) = extents.next_if(|next| is_hole(next) == hole) {
                length += next.len();
                run.push(next);
            }
            if length == 0 {
                continue;
            }
            left -= length;
            let last = if left == 0 { Last::Yes } else { Last::No };
            if hole {
                let length = length as u32;
                self.chunk(&Chunk::Hole { offset, length }, last);
            } else {
                self.head(kind::OFFSET_DATA, length + DATA_PREFIX, last);
                self.out.tail().extend_from_slice(&offset.to_be_bytes());
                match run {
                    Run::One(extent) => self.push(extent),
                    Run::Many(extents) => extents.into_iter().for_each(|extent| self.push(extent)),
                }
            }
            offset += length;
        }
    }

    fn status(&mut self, answers: Vec<(u32, Vec<StatusExtent>)>, size: u64) {
        let mut chunks = Vec::with_capacity(answers.len());
        for (context, extents) in answers {
            let extents = self.tidy(extents, size);
            if extents.is_empty() {
                tracing::error!(context, "an export answered a block status with nothing");
                self.refuse(ExportError::new(Errno::Io, "the export answered with no extents"));
                return;
            }
            chunks.push(Chunk::Status { context, extents });
        }
        let count = chunks.len();
        for (number, chunk) in (1..).zip(&chunks) {
            let last = if number == count { Last::Yes } else { Last::No };
            self.chunk(chunk, last);
        }
    }

    /// Joins neighbours that say the same, and cuts to what the style, the
    /// export's end and REQ_ONE allow.
    fn tidy(&self, extents: Vec<StatusExtent>, size: u64) -> Vec<StatusExtent> {
        let (mut room, limit) = if self.request.flags.contains(CommandFlags::REQ_ONE) {
            (self.request.length, 1)
        } else {
            let to_end = size.saturating_sub(self.request.offset);
            (to_end, MAX_STATUS_EXTENTS)
        };
        let widest = match self.style {
            HeaderStyle::Extended => u64::MAX,
            // The greatest 32-bit length that keeps any alignment.
            _ => 0xffff_0000,
        };
        let mut tidy: Vec<StatusExtent> = Vec::new();
        for extent in extents {
            let length = extent.length.min(room);
            if length == 0 {
                continue;
            }
            room -= length;
            let full = tidy.len() == limit;
            match tidy.last_mut() {
                Some(last) if last.flags == extent.flags => last.length += length,
                _ if full => break,
                _ => tidy.push(StatusExtent { length, flags: extent.flags }),
            }
            if let Some(last) = tidy.last_mut()
                && last.length > widest
            {
                // What follows would no longer be consecutive.
                last.length = widest;
                break;
            }
        }
        tidy
    }

    fn simple(&mut self, error: Option<Errno>) {
        let cookie = self.request.cookie;
        SimpleReply { cookie, error }.encode(self.out.tail());
    }

    fn chunk(&mut self, chunk: &Chunk, last: Last) {
        let mut body = bytes::BytesMut::new();
        chunk.encode(self.style, &mut body);
        self.head(chunk.kind(self.style), body.len() as u64, last);
        self.out.push(body.freeze());
    }

    fn head(&mut self, kind: u16, length: u64, last: Last) {
        ChunkHeader {
            flags: match last {
                Last::Yes => ChunkFlags::DONE,
                Last::No => ChunkFlags::empty(),
            },
            kind,
            cookie: self.request.cookie,
            offset: self.request.offset,
            length,
        }
        .encode(self.style, self.out.tail());
    }

    fn push(&mut self, extent: Extent) {
        match extent {
            Extent::Data(data) => self.out.push(data),
            Extent::Hole(length) => self.out.push_zeroes(length),
        }
    }
}

/// Extents that make one chunk; nearly always a single one.
enum Run {
    One(Extent),
    Many(Vec<Extent>),
}

impl Run {
    fn push(&mut self, extent: Extent) {
        match self {
            Self::One(first) => {
                let first = std::mem::replace(first, Extent::Data(Bytes::new()));
                *self = Self::Many(vec![first, extent]);
            }
            Self::Many(extents) => extents.push(extent),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{
        constants::{BASE_ALLOCATION, TransmissionFlags},
        facts::BlockSizes,
        reply::ReplyHeader,
    };

    /// What a client gets, in words; `!` ends the reply.
    async fn told(
        style: HeaderStyle,
        command: Command,
        flags: CommandFlags,
        result: ExportResult<Answer>,
    ) -> String {
        let terms = Terms {
            size: 1 << 40,
            flags: TransmissionFlags::HAS_FLAGS,
            block_sizes: BlockSizes::DEFAULT,
            style,
            contexts: [(1, BASE_ALLOCATION.to_owned())].into(),
        };
        let request = Request { command, flags, cookie: 7, offset: 1000, length: 4096 };
        let mut outbox = Outbox::default();
        reply(&mut outbox, &terms, &request, result);
        let mut wire = Vec::new();
        outbox.write_all(&mut wire).await.unwrap();
        let mut wire = Bytes::from(wire);
        let mut words = Vec::new();
        while let Some((header, size)) = ReplyHeader::decode(style, &wire).unwrap() {
            let _ = wire.split_to(size);
            let ReplyHeader::Chunk(header) = header else {
                return format!("simple, {} bytes", wire.len());
            };
            let body = wire.split_to(header.length as usize);
            let end = if header.is_last() { "!" } else { "" };
            words.push(match Chunk::decode(header.kind, body).unwrap() {
                Chunk::Data { offset, data } => format!("{} data at {offset}{end}", data.len()),
                Chunk::Hole { offset, length } => format!("{length} hole at {offset}{end}"),
                Chunk::Status { extents, .. } => {
                    let extents: Vec<_> =
                        extents.iter().map(|e| format!("{}:{}", e.length, e.flags)).collect();
                    extents.join(" ") + end
                }
                Chunk::Error { error, offset, .. } => format!("{error} at {offset:?}{end}"),
                Chunk::None => format!("none{end}"),
            });
        }
        words.join(", ")
    }

    fn data(length: usize) -> Extent {
        Extent::Data(vec![1; length].into())
    }

    #[tokio::test]
    async fn extents_become_as_few_chunks_as_the_client_allows() {
        let none = CommandFlags::empty();
        let patchy =
            || vec![data(96), data(1000), Extent::Hole(1000), Extent::Hole(1000), data(1000)];
        let small = || vec![data(3000), Extent::Hole(511), data(585)];
        let hole = || vec![Extent::Hole(4096)];
        for (style, flags, extents, expected) in [
            (HeaderStyle::Simple, none, patchy(), "simple, 4096 bytes"),
            (
                HeaderStyle::Structured,
                none,
                patchy(),
                "1096 data at 1000, 2000 hole at 2096, 1000 data at 4096!",
            ),
            (HeaderStyle::Extended, CommandFlags::DF, patchy(), "4096 data at 1000!"),
            (HeaderStyle::Extended, CommandFlags::DF, hole(), "4096 hole at 1000!"),
            (HeaderStyle::Structured, none, small(), "4096 data at 1000!"),
            (HeaderStyle::Structured, none, vec![data(4096), data(0)], "4096 data at 1000!"),
            (HeaderStyle::Structured, none, vec![data(4095)], "EIO at None!"),
        ] {
            let shown = format!("{style:?} {flags:?} {}", extents.len());
            let told = told(style, Command::Read, flags, Ok(Answer::Read(extents))).await;
            assert_eq!(told, expected, "{shown}");
        }
    }

    #[tokio::test]
    async fn states_are_joined_and_cut_to_what_the_client_allows() {
        let none = CommandFlags::empty();
        let two = [(1000, 0), (1000, 0), (5000, 3)];
        let wide = [(1 << 39, 0), (1000, 3)];
        for (style, flags, extents, expected) in [
            (HeaderStyle::Structured, none, two.as_slice(), "2000:0 5000:3!"),
            (HeaderStyle::Structured, CommandFlags::REQ_ONE, &two, "2000:0!"),
            (HeaderStyle::Structured, CommandFlags::REQ_ONE, &wide, "4096:0!"),
            (HeaderStyle::Structured, none, &wide, "4294901760:0!"),
            (HeaderStyle::Extended, none, &wide, "549755813888:0 1000:3!"),
            (HeaderStyle::Extended, none, &[], "EIO at None!"),
        ] {
            let list =
                extents.iter().map(|&(length, flags)| StatusExtent { length, flags }).collect();
            let answer = Ok(Answer::Status(vec![(1, list)]));
            let told = told(style, Command::BlockStatus, flags, answer).await;
            assert_eq!(told, expected, "{style:?} {flags:?} {extents:?}");
        }
    }

    #[tokio::test]
    async fn places_of_errors_are_told_only_where_they_may_be() {
        for (command, at, expected) in [
            (Command::Read, 1500, "EIO at Some(1500)!"),
            (Command::Read, 999, "EIO at None!"),
            (Command::Read, 5096, "EIO at None!"),
            (Command::WriteZeroes, 1500, "EIO at None!"),
        ] {
            let error = Err(ExportError::new(Errno::Io, "bad").at(at));
            let told = told(HeaderStyle::Structured, command, CommandFlags::empty(), error).await;
            assert_eq!(told, expected, "{command} {at}");
        }
    }
}
