//! Whether a request may be served: from a head to work, or to a refusal.

use std::sync::Arc;

use bytes::Bytes;

use super::{export::ExportError, shared_export::Work};
use crate::protocol::{
    constants::{CommandFlags, HeaderStyle, MAX_PAYLOAD, MAX_STATUS_EXTENTS, TransmissionFlags},
    errno::Errno,
    facts::BlockSizes,
    request::{Command, Request},
    write_mode::{Durability, ZeroEffort, ZeroMode},
};

/// What was agreed upon with one client.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    pub(crate) size: u64,
    pub(crate) flags: TransmissionFlags,
    pub(crate) block_sizes: BlockSizes,
    pub(crate) style: HeaderStyle,
    pub(crate) contexts: Arc<[(u32, String)]>,
}

impl Terms {
    /// Decides what `request` amounts to. Error numbers are those of the
    /// spec's "Error values".
    pub(crate) fn check(&self, request: &Request, payload: Bytes) -> Result<Work, ExportError> {
        self.check_ability(request)?;
        self.check_flags(request)?;
        let Request { offset, length, .. } = *request;
        if request.command == Command::Flush {
            return Ok(Work::Flush);
        }
        self.check_range(request)?;
        if length == 0 {
            // The specification leaves this open; peers send it at times.
            return match request.command {
                Command::BlockStatus => Err(invalid("block status of nothing")),
                _ => Ok(Work::Nothing),
            };
        }
        let durability = if request.flags.contains(CommandFlags::FUA) {
            Durability::OnReturn
        } else {
            Durability::Cached
        };
        Ok(match request.command {
            Command::Read => Work::Read { offset, length: self.check_data_length(length)? },
            Command::Write => {
                self.check_data_length(length)?;
                Work::Write { offset, data: payload, durability }
            }
            Command::WriteZeroes => Work::WriteZeroes {
                offset,
                length,
                mode: if request.flags.contains(CommandFlags::NO_HOLE) {
                    ZeroMode::KeepAllocated
                } else {
                    ZeroMode::MayPunch
                },
                effort: if request.flags.contains(CommandFlags::FAST_ZERO) {
                    ZeroEffort::OnlyFast
                } else {
                    ZeroEffort::Any
                },
                durability,
            },
            Command::Trim => Work::Trim { offset, length, durability },
            Command::Cache => Work::Cache { offset, length },
            Command::BlockStatus => Work::Status {
                contexts: Arc::clone(&self.contexts),
                offset,
                length,
                limit: if request.flags.contains(CommandFlags::REQ_ONE) {
                    1
                } else {
                    MAX_STATUS_EXTENTS
                },
            },
            Command::Flush | Command::Disconnect | Command::Unknown(_) => Work::Nothing,
        })
    }

    fn check_ability(&self, request: &Request) -> Result<(), ExportError> {
        let needed = match request.command {
            Command::Read | Command::Disconnect => return Ok(()),
            Command::Write => TransmissionFlags::empty(),
            Command::WriteZeroes => TransmissionFlags::SEND_WRITE_ZEROES,
            Command::Trim => TransmissionFlags::SEND_TRIM,
            Command::Flush => TransmissionFlags::SEND_FLUSH,
            Command::Cache => TransmissionFlags::SEND_CACHE,
            Command::BlockStatus if self.contexts.is_empty() => {
                return Err(invalid("no metadata context was negotiated"));
            }
            Command::BlockStatus => return Ok(()),
            Command::Unknown(number) => {
                return Err(invalid(format!("command {number} is unknown")));
            }
        };
        let writes =
            matches!(request.command, Command::Write | Command::WriteZeroes | Command::Trim);
        if writes && self.flags.contains(TransmissionFlags::READ_ONLY) {
            return Err(ExportError::new(Errno::Perm, "the export is read-only"));
        }
        if !self.flags.contains(needed) {
            return Err(invalid(format!("{} was not announced", request.command)));
        }
        Ok(())
    }

    fn check_flags(&self, request: &Request) -> Result<(), ExportError> {
        let mut allowed = match request.command {
            Command::Read if self.flags.contains(TransmissionFlags::SEND_DF) => CommandFlags::DF,
            Command::Write if self.style == HeaderStyle::Extended => CommandFlags::PAYLOAD_LEN,
            Command::WriteZeroes => CommandFlags::NO_HOLE,
            Command::BlockStatus => CommandFlags::REQ_ONE,
            _ => CommandFlags::empty(),
        };
        // Valid with every command once announced, even where it means
        // nothing.
        allowed.set(CommandFlags::FUA, self.flags.contains(TransmissionFlags::SEND_FUA));
        allowed.set(
            CommandFlags::FAST_ZERO,
            request.command == Command::WriteZeroes
                && self.flags.contains(TransmissionFlags::SEND_FAST_ZERO),
        );
        if !allowed.contains(request.flags) {
            let odd = request.flags.difference(allowed).bits();
            return Err(invalid(format!("flag {odd:#x} is not allowed with {}", request.command)));
        }
        Ok(())
    }

    fn check_range(&self, request: &Request) -> Result<(), ExportError> {
        let Request { offset, length, .. } = *request;
        let end = offset.checked_add(length);
        if end.is_none_or(|end| end > self.size) {
            let errno = match request.command {
                Command::Write | Command::WriteZeroes => Errno::NoSpace,
                _ => Errno::Invalid,
            };
            return Err(ExportError::new(
                errno,
                format!("{length} bytes at {offset} reach beyond the end at {}", self.size),
            ));
        }
        let minimum = u64::from(self.block_sizes.minimum);
        if !offset.is_multiple_of(minimum) || !length.is_multiple_of(minimum) {
            return Err(invalid(format!(
                "{length} bytes at {offset} are not aligned to {minimum}"
            )));
        }
        Ok(())
    }

    fn check_data_length(&self, length: u64) -> Result<u32, ExportError> {
        let limit = self.block_sizes.maximum.min(MAX_PAYLOAD);
        match u32::try_from(length) {
            Ok(length) if length <= limit => Ok(length),
            _ => Err(invalid(format!("{length} bytes at once are more than {limit}"))),
        }
    }
}

fn invalid(message: impl Into<String>) -> ExportError {
    ExportError::new(Errno::Invalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{constants::BASE_ALLOCATION, facts::ExportFacts};

    fn terms(facts: ExportFacts) -> Terms {
        Terms {
            size: facts.size,
            flags: facts.flags | TransmissionFlags::SEND_DF,
            block_sizes: facts.block_sizes,
            style: HeaderStyle::Extended,
            contexts: [(1, BASE_ALLOCATION.to_owned())].into(),
        }
    }

    fn verdict(terms: &Terms, command: Command, flags: CommandFlags, range: (u64, u64)) -> String {
        let request = Request { command, flags, cookie: 0, offset: range.0, length: range.1 };
        match terms.check(&request, Bytes::new()) {
            Ok(_) => "ok".to_owned(),
            Err(error) => error.errno.to_string(),
        }
    }

    #[test]
    fn refusals_carry_the_numbers_that_the_specification_asks_for() {
        let none = CommandFlags::empty();
        let read_only = terms(ExportFacts::read_only(1 << 20));
        let writable = terms(ExportFacts::writable(1 << 30));
        let mut coarse = terms(ExportFacts::writable(1 << 20));
        coarse.block_sizes.minimum = 512;
        for (terms, command, flags, range, expected) in [
            (&read_only, Command::Read, none, (0, 512), "ok"),
            (&read_only, Command::Read, none, (1 << 20, 0), "ok"),
            (&read_only, Command::Read, none, (1 << 20, 1), "EINVAL"),
            (&read_only, Command::Read, none, (u64::MAX, 2), "EINVAL"),
            (&read_only, Command::Read, CommandFlags::DF, (0, 1), "ok"),
            (&read_only, Command::Read, CommandFlags::FUA, (0, 1), "EINVAL"),
            (&read_only, Command::Write, none, (0, 1), "EPERM"),
            (&read_only, Command::Trim, none, (0, 1), "EPERM"),
            (&read_only, Command::Flush, none, (0, 0), "EINVAL"),
            (&read_only, Command::Unknown(99), none, (0, 0), "EINVAL"),
            (&writable, Command::Read, CommandFlags::FUA, (0, 1), "ok"),
            (&writable, Command::Read, none, (0, 33 << 20), "EINVAL"),
            (&writable, Command::Write, none, (1 << 30, 1), "ENOSPC"),
            (&writable, Command::WriteZeroes, none, (0, 1 << 30), "ok"),
            (&writable, Command::WriteZeroes, CommandFlags::FAST_ZERO, (0, 1), "EINVAL"),
            (&writable, Command::Trim, CommandFlags::NO_HOLE, (0, 1), "EINVAL"),
            (&writable, Command::BlockStatus, none, (0, 0), "EINVAL"),
            (&writable, Command::BlockStatus, CommandFlags::REQ_ONE, (0, 1), "ok"),
            (&writable, Command::Cache, none, (0, 1), "EINVAL"),
            (&coarse, Command::Read, none, (512, 1024), "ok"),
            (&coarse, Command::Read, none, (512, 1000), "EINVAL"),
            (&coarse, Command::Write, none, (100, 512), "EINVAL"),
        ] {
            assert_eq!(
                verdict(terms, command, flags, range),
                expected,
                "{command} {flags:?} {range:?}"
            );
        }
    }
}
