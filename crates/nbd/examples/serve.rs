//! Serves a disk over a unix socket until interrupted, for trying out and for
//! measuring against `qemu-nbd`:
//!
//! ```text
//! cargo run --release -p nbd --example serve -- /tmp/nbd.sock memory 1073741824
//! cargo run --release -p nbd --example serve -- /tmp/nbd.sock file /dev/shm/disk.raw
//! ```

use std::{fs::File, os::unix::fs::FileExt, sync::Arc};

use nbd::{
    memory::MemoryExport,
    pool::BufferPool,
    protocol::facts::ExportFacts,
    server::{Export, ExportResult, Exports, Extent, Listener, Server, ServerOptions},
};

/// A file, read-only. It reads on the connection's own task, which suits only
/// files that are in memory.
struct FileExport {
    file: File,
    size: u64,
    buffers: BufferPool,
}

impl Export for FileExport {
    fn facts(&self) -> ExportFacts {
        ExportFacts::read_only(self.size)
    }

    async fn read(&self, offset: u64, length: u32) -> ExportResult<Vec<Extent>> {
        let mut data = self.buffers.take(length as usize);
        self.file.read_exact_at(&mut data, offset)?;
        Ok(vec![Extent::Data(data.freeze())])
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [socket, kind, subject] = arguments.as_slice() else {
        return Err("usage: serve SOCKET memory|file SIZE|PATH".into());
    };
    let exports = Exports::new();
    match kind.as_str() {
        "memory" => {
            let size = subject.parse()?;
            let disk = MemoryExport::new(size);
            let pattern: Vec<u8> = (0..1 << 20).map(|i: u32| (i % 251) as u8).collect();
            for offset in (0..size).step_by(pattern.len()) {
                disk.fill(offset, &pattern);
            }
            exports.insert("", Arc::new(disk))?;
        }
        "file" => {
            let file = File::open(subject)?;
            let size = file.metadata()?.len();
            exports
                .insert("", Arc::new(FileExport { file, size, buffers: BufferPool::new(64) }))?;
        }
        other => return Err(format!("what is {other}?").into()),
    }
    let listener = Listener::unix(socket, 0o600).await?;
    let server = Server::start(listener, exports, ServerOptions::default());
    tokio::signal::ctrl_c().await?;
    server.shut_down().await;
    Ok(())
}
