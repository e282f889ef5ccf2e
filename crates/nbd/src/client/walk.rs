//! Going through a block status map of any size, in bounded memory.

use std::collections::VecDeque;

use super::{Client, ClientError, Operation};
use crate::protocol::request::Command;

/// An extent of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalkExtent {
    /// First byte.
    pub offset: u64,
    /// Length in bytes; never zero.
    pub length: u64,
    /// Flags; what they mean depends on the metadata context.
    pub flags: u64,
}

/// A walk through a map; see [`Client::walk`].
#[derive(Debug)]
pub struct Walk {
    client: Client,
    context: String,
    /// What the server has not told yet.
    rest: (u64, u64),
    told: VecDeque<WalkExtent>,
}

impl Walk {
    pub(super) fn new(client: Client, context: &str, offset: u64, length: u64) -> Self {
        Self { client, context: context.to_owned(), rest: (offset, length), told: VecDeque::new() }
    }

    /// The next extent; `None` at the range's end. Extents are in order and
    /// leave no gap, and neighbours differ in their flags. Cancel safe.
    ///
    /// # Errors
    /// See [`ClientError`]; the walk may be resumed.
    pub async fn next(&mut self) -> Result<Option<WalkExtent>, ClientError> {
        // The last extent told may go on in the next answer.
        while self.told.len() < 2 && self.rest.1 > 0 {
            self.ask().await?;
        }
        Ok(self.told.pop_front())
    }

    async fn ask(&mut self) -> Result<(), ClientError> {
        let (offset, length) = self.rest;
        let statuses = self.client.block_status(offset, length).await?;
        let status = statuses.into_iter().find(|status| status.context == self.context).ok_or(
            ClientError::NotSent {
                operation: Operation { command: Command::BlockStatus, offset, length },
                why: "the server has no answer for this metadata context",
            },
        )?;
        for extent in status.extents {
            let offset = self.rest.0;
            self.rest = (offset + extent.length, self.rest.1 - extent.length);
            match self.told.back_mut() {
                Some(last) if last.flags == extent.flags => last.length += extent.length,
                _ => self.told.push_back(WalkExtent {
                    offset,
                    length: extent.length,
                    flags: extent.flags,
                }),
            }
        }
        Ok(())
    }
}
