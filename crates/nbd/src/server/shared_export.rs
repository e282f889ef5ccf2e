//! [`Export`] behind a pointer, so that one server can have several kinds.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;

use super::export::{Export, ExportResult, Extent};
use crate::protocol::{
    chunk::StatusExtent,
    facts::ExportFacts,
    write_mode::{Durability, ZeroEffort, ZeroMode},
};

/// One command for an export, checked.
#[derive(Debug)]
pub(crate) enum Work {
    Read {
        offset: u64,
        length: u32,
    },
    Status {
        contexts: Arc<[(u32, String)]>,
        offset: u64,
        length: u64,
        limit: usize,
    },
    Write {
        offset: u64,
        data: Bytes,
        durability: Durability,
    },
    WriteZeroes {
        offset: u64,
        length: u64,
        mode: ZeroMode,
        effort: ZeroEffort,
        durability: Durability,
    },
    Trim {
        offset: u64,
        length: u64,
        durability: Durability,
    },
    Flush,
    Cache {
        offset: u64,
        length: u64,
    },
    /// A command that asks for nothing.
    Nothing,
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Answer {
    Done,
    Read(Vec<Extent>),
    Status(Vec<(u32, Vec<StatusExtent>)>),
}

pub(crate) type Working = BoxFuture<'static, ExportResult<Answer>>;

/// An export of any kind. One allocation per command pays for it.
pub(crate) trait SharedExport: Send + Sync {
    fn facts(&self) -> ExportFacts;
    fn work(self: Arc<Self>, work: Work) -> Working;
}

impl<E: Export> SharedExport for E {
    fn facts(&self) -> ExportFacts {
        Export::facts(self)
    }

    fn work(self: Arc<Self>, work: Work) -> Working {
        // Each kind has a box of its own size: a future of all kinds would be
        // as large as the largest.
        match work {
            Work::Read { offset, length } => Box::pin(async move {
                let extents = self.read(offset, length).await?;
                Ok(Answer::Read(extents))
            }),
            Work::Status { contexts, offset, length, limit } => Box::pin(async move {
                let mut answers = Vec::with_capacity(contexts.len());
                for (id, name) in contexts.iter() {
                    let extents = self.block_status(name, offset, length, limit).await?;
                    answers.push((*id, extents));
                }
                Ok(Answer::Status(answers))
            }),
            Work::Write { offset, data, durability } => Box::pin(async move {
                self.write(offset, data, durability).await?;
                Ok(Answer::Done)
            }),
            Work::WriteZeroes { offset, length, mode, effort, durability } => {
                Box::pin(async move {
                    self.write_zeroes(offset, length, mode, effort, durability).await?;
                    Ok(Answer::Done)
                })
            }
            Work::Trim { offset, length, durability } => Box::pin(async move {
                self.trim(offset, length, durability).await?;
                Ok(Answer::Done)
            }),
            Work::Flush => Box::pin(async move {
                self.flush().await?;
                Ok(Answer::Done)
            }),
            Work::Cache { offset, length } => Box::pin(async move {
                self.cache(offset, length).await?;
                Ok(Answer::Done)
            }),
            Work::Nothing => Box::pin(async { Ok(Answer::Done) }),
        }
    }
}
