//! Magic numbers, flags and limits, named as in the specification.

use bitflags::bitflags;

/// `NBDMAGIC`: the server's first eight bytes.
pub const MAGIC_INIT: u64 = 0x4e42_444d_4147_4943;
/// `IHAVEOPT`: newstyle negotiation, and the head of each option.
pub const MAGIC_OPTION: u64 = 0x4948_4156_454f_5054;
/// Head of each reply to an option.
pub const MAGIC_OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
/// `NBD_REQUEST_MAGIC`.
pub const MAGIC_REQUEST: u32 = 0x2560_9513;
/// `NBD_EXTENDED_REQUEST_MAGIC`.
pub const MAGIC_EXTENDED_REQUEST: u32 = 0x21e4_1c71;
/// `NBD_SIMPLE_REPLY_MAGIC`.
pub const MAGIC_SIMPLE_REPLY: u32 = 0x6744_6698;
/// `NBD_STRUCTURED_REPLY_MAGIC`.
pub const MAGIC_STRUCTURED_REPLY: u32 = 0x668e_33ef;
/// `NBD_EXTENDED_REPLY_MAGIC`.
pub const MAGIC_EXTENDED_REPLY: u32 = 0x6e8a_278c;

/// Longest string in bytes (spec, "Conventions").
pub const MAX_STRING: usize = 4096;
/// Most option data in bytes that we accept, either way.
pub const MAX_OPTION_DATA: u32 = 64 * 1024;
/// Most data in bytes of one READ or WRITE (spec, "Block size constraints":
/// the default maximum payload that portable peers agree on).
pub const MAX_PAYLOAD: u32 = 32 * 1024 * 1024;
/// Most bytes of one block status chunk that a client accepts: a million
/// extended descriptors.
pub const MAX_STATUS_BODY: u32 = 16 * 1024 * 1024;
/// Most bytes of one error chunk that a client accepts.
pub const MAX_ERROR_BODY: u32 = 64 * 1024;
/// Most descriptors that our server puts into one block status chunk.
pub const MAX_STATUS_EXTENTS: usize = 64 * 1024;
/// Bytes of one byte pattern of zeroes after `NBD_OPT_EXPORT_NAME` unless
/// `NO_ZEROES` was negotiated.
pub const EXPORT_NAME_PADDING: usize = 124;

/// The metadata context that tells holes and zeroes.
pub const BASE_ALLOCATION: &str = "base:allocation";
/// `NBD_STATE_HOLE` of `base:allocation`: not allocated.
pub const STATE_HOLE: u64 = 1;
/// `NBD_STATE_ZERO` of `base:allocation`: reads as zeroes.
pub const STATE_ZERO: u64 = 2;
/// The flag of `qemu:dirty-bitmap:NAME`: changed since the bitmap began.
pub const STATE_DIRTY: u64 = 1;

bitflags! {
    /// Handshake flags from the server (spec, "Handshake flags").
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct HandshakeFlags: u16 {
        /// Fixed newstyle negotiation is spoken.
        const FIXED_NEWSTYLE = 1;
        /// The padding after `EXPORT_NAME` may be left out.
        const NO_ZEROES = 1 << 1;
    }

    /// Handshake flags from the client (spec, "Client flags").
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct ClientFlags: u32 {
        /// Fixed newstyle negotiation is spoken.
        const FIXED_NEWSTYLE = 1;
        /// The padding after `EXPORT_NAME` is left out.
        const NO_ZEROES = 1 << 1;
    }

    /// What an export can do (spec, "Transmission flags").
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct TransmissionFlags: u16 {
        /// Set whenever the field has a meaning.
        const HAS_FLAGS = 1;
        /// Writes are refused.
        const READ_ONLY = 1 << 1;
        /// FLUSH is understood.
        const SEND_FLUSH = 1 << 2;
        /// The FUA flag is understood.
        const SEND_FUA = 1 << 3;
        /// Seeks cost; schedule like a turning disk.
        const ROTATIONAL = 1 << 4;
        /// TRIM is understood.
        const SEND_TRIM = 1 << 5;
        /// WRITE_ZEROES is understood.
        const SEND_WRITE_ZEROES = 1 << 6;
        /// The DF flag of READ is understood.
        const SEND_DF = 1 << 7;
        /// Several connections see each other's writes, and a flush on one
        /// covers all.
        const CAN_MULTI_CONN = 1 << 8;
        /// RESIZE is understood (never offered by us).
        const SEND_RESIZE = 1 << 9;
        /// CACHE is understood.
        const SEND_CACHE = 1 << 10;
        /// The FAST_ZERO flag of WRITE_ZEROES is understood.
        const SEND_FAST_ZERO = 1 << 11;
        /// BLOCK_STATUS may carry a payload (never offered by us).
        const BLOCK_STATUS_PAYLOAD = 1 << 12;
    }

    /// Flags of a command (spec, "Command flags").
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct CommandFlags: u16 {
        /// What is written is durable before the reply.
        const FUA = 1;
        /// WRITE_ZEROES must leave the range allocated.
        const NO_HOLE = 1 << 1;
        /// READ is answered by at most one content chunk.
        const DF = 1 << 2;
        /// BLOCK_STATUS is answered by one descriptor per context.
        const REQ_ONE = 1 << 3;
        /// WRITE_ZEROES must fail rather than write zeroes slowly.
        const FAST_ZERO = 1 << 4;
        /// Extended headers: the length is that of the payload that follows.
        const PAYLOAD_LEN = 1 << 5;
    }

    /// Flags of a reply chunk (spec, "Structured reply flags").
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct ChunkFlags: u16 {
        /// The last chunk of this reply.
        const DONE = 1;
    }
}

/// Which headers the transmission phase uses. Each next one can say more, and
/// the order is meant: `Simple < Structured < Extended`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HeaderStyle {
    /// Simple replies only.
    Simple,
    /// `NBD_OPT_STRUCTURED_REPLY`: replies in chunks, block status.
    Structured,
    /// `NBD_OPT_EXTENDED_HEADERS`: 64-bit lengths, chunks only.
    Extended,
}
