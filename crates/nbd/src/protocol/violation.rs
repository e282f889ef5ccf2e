//! What a peer may do that the protocol forbids.

/// Bytes from the peer that the specification does not allow here.
///
/// During option haggling a server may still answer with an option error; in
/// the transmission phase the stream can no longer be trusted and is closed
/// (NBD spec, "Termination of the session").
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A message does not begin with the magic number that it must.
    #[error("{what} begins with magic {found:#x}")]
    Magic {
        /// The message that was expected.
        what: &'static str,
        /// The number found in its place.
        found: u64,
    },
    /// A claimed length in bytes (or a claimed count) is beyond our limit.
    #[error("{what} claims {length}, the limit is {limit}")]
    TooLong {
        /// The message or field.
        what: &'static str,
        /// What the peer claims.
        length: u64,
        /// What we accept.
        limit: u64,
    },
    /// A message's body is shorter or longer than its fields.
    #[error("{what} has the wrong length")]
    Length {
        /// The message or field.
        what: &'static str,
    },
    /// A field holds a value that it must not.
    #[error("{what}: {why}")]
    Value {
        /// The message or field.
        what: &'static str,
        /// The rule that is broken.
        why: &'static str,
    },
}
