//! What a policy's word for compression means to a store.

use replica::pipeline::Compression;

/// How records are made.
pub(crate) fn of(wish: wire::replication::Compression) -> Compression {
    match wish {
        wire::replication::Compression::None => Compression::None,
        wire::replication::Compression::Fast => Compression::Zstd(-3),
        wire::replication::Compression::Strong => Compression::Zstd(3),
    }
}
