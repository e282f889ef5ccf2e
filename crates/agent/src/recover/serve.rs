//! Serving a point's disks to QEMU: read-only, over a unix socket that QEMU alone
//! can reach.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};

use domain::fault::{Code, Fault, chain};
use nbd::server::{Exports, Listener, Server, ServerOptions};
use replica::catalogue::MachineFolder;
use replica::error::StoreError;
use replica::geometry::{Cycle, DiskNumber};
use replica::state::Limits;
use replica::store::Store;
use tokio::task::spawn_blocking;
use uuid::Uuid;

use super::Recoveries;
use super::folder::Folder;
use super::record::Record;
use crate::keep::fault::of_store;

/// Bytes of decoded blocks that a recovery's views keep at least: many may stand on
/// views at once, on a host that has no memory to spare.
const LEAST_BLOCK_CACHE: usize = 32 << 20;
/// And at most: what a machine reads time and again after its start, not its disks.
const MOST_BLOCK_CACHE: usize = 2 << 30;
/// A recovery gets one of so many parts of what the host has to spare. A local image
/// would be read through the host's page cache, which takes whatever is free and gives
/// it back; ours gives nothing back before the machine has disks of its own, so most is
/// left to machines that grow or are started next, and to the page cache, out of which
/// we read ourselves.
const PARTS: usize = 8;
/// Of looking at points, and of views with the least.
const LIMITS: Limits =
    Limits { index_cache: 16 << 20, block_cache: LEAST_BLOCK_CACHE, open_segments: 256 };

/// The server of a recovery; its views go with it.
pub(super) struct Served {
    server: Server,
    _memory: Promise,
}

/// Bytes that caches of this process may grow to, all recoveries together.
static PROMISED: AtomicUsize = AtomicUsize::new(0);

/// Memory that a recovery's views may take, until this is dropped.
struct Promise {
    bytes: usize,
}

impl Promise {
    /// As much as suits the host now.
    fn of_host() -> Self {
        // Where nobody tells, nothing is to spare.
        let facts = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let mut bytes = 0;
        let promise = |promised| {
            bytes = block_cache(&facts, promised);
            Some(promised + bytes)
        };
        // Many may be served at the same instant: each counts on what is left.
        let _ = PROMISED.fetch_update(Ordering::Relaxed, Ordering::Relaxed, promise);
        Self { bytes }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        PROMISED.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Bytes of decoded blocks for one recovery more, on a host with this `/proc/meminfo`
/// that promised so many to others.
///
/// What is to spare is what is available, but no more than what nobody has reserved: a
/// machine that was just started has touched little of its memory, and will.
fn block_cache(facts: &str, promised: usize) -> usize {
    let bytes = |name: &str| {
        let told = facts.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib = told?.trim().strip_suffix(" kB")?.parse::<usize>().ok()?;
        kib.checked_mul(1024)
    };
    let to_spare = || {
        let unreserved = bytes("MemTotal")?.saturating_sub(bytes("Committed_AS")?);
        Some(bytes("MemAvailable")?.min(unreserved).saturating_sub(promised))
    };
    (to_spare().unwrap_or(0) / PARTS).clamp(LEAST_BLOCK_CACHE, MOST_BLOCK_CACHE)
}

impl Recoveries {
    /// Serves the disks of a recovery's point, unless that is done already.
    pub(super) async fn serve(&self, record: &Record) -> Result<(), Fault> {
        if self.served().contains_key(&record.id) {
            return Ok(());
        }
        let folder = Folder::of(record);
        let memory = Promise::of_host();
        let exports = offer(record, memory.bytes).await?;
        // Whoever can reach it may use it: the folder lets in QEMU's user alone.
        let listener = Listener::unix(folder.socket(), 0o666).await.map_err(|error| {
            Fault::new(
                Code::AddressUnusable,
                format!("serve the disks of {}", record.name),
                chain(&error),
                "See who has the socket (ss -lxp), and that the agent's user may write to the folder.",
            )
        })?;
        let server = Server::start(listener, exports, ServerOptions::default());
        self.served().insert(record.id, Served { server, _memory: memory });
        Ok(())
    }

    /// Serves them no longer.
    pub(super) async fn serve_no_more(&self, id: Uuid) {
        let served = self.served().remove(&id);
        if let Some(served) = served {
            served.server.cut().await;
        }
    }

    fn served(&self) -> std::sync::MutexGuard<'_, std::collections::HashMap<Uuid, Served>> {
        // Changes are insertions and removals; none stops half-way.
        self.0.served.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens the store of a recovery's machine, to look at its points.
pub(super) async fn open(name: &str, folder: &Path) -> Result<Store, Fault> {
    open_within(LIMITS, name, folder).await
}

async fn open_within(limits: Limits, name: &str, folder: &Path) -> Result<Store, Fault> {
    let (name, path) = (name.to_owned(), folder.to_owned());
    let opening = spawn_blocking(move || {
        let folder = MachineFolder { name: name.clone(), path };
        folder.open(limits).map_err(|error| of_store(&name, &folder.path, &error))
    });
    opening.await.map_err(|error| Fault::internal("open a store", &error))?
}

/// Views of a recovery's disks, which keep so many bytes of decoded blocks.
async fn offer(record: &Record, block_cache: usize) -> Result<Exports, Fault> {
    let limits = Limits { block_cache, ..LIMITS };
    let store = open_within(limits, &record.name, &record.store).await?;
    let exports = Exports::new();
    for (number, disk) in (0_u16..).zip(&record.disks) {
        let view = store
            .view(Cycle(record.point), DiskNumber(number))
            .map_err(|error| of_point(record, &error))?;
        exports
            .insert(disk.target.clone(), Arc::new(view))
            .map_err(|error| Fault::internal("serve a disk", &error))?;
    }
    Ok(exports)
}

fn of_point(record: &Record, error: &StoreError) -> Fault {
    match error {
        StoreError::NoSuchPoint(_) | StoreError::NoSuchDisk { .. } => {
            unknown_point(&record.name, record.point, &error.chain())
        }
        error => of_store(&record.name, &record.store, error),
    }
}

pub(super) fn unknown_point(name: &str, point: u32, cause: &str) -> Fault {
    Fault::new(
        Code::PointUnknown,
        format!("use point {point} of machine {name}"),
        cause,
        "Choose another point: lifeboat point list, or on the host that keeps them lifeboat store points.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: usize = 1 << 30;

    /// As the kernel writes it, in GiB.
    fn host(total: usize, available: usize, committed: usize) -> String {
        let line = |name, gib: usize| format!("{name}: {:>12} kB\n", gib << 20);
        ["MemTotal", "MemFree", "MemAvailable", "CommitLimit", "Committed_AS"]
            .into_iter()
            .zip([total, 1, available, total / 2, committed])
            .map(|(name, gib)| line(name, gib))
            .collect()
    }

    #[test]
    fn a_cache_takes_an_eighth_of_what_is_to_spare() {
        assert_eq!(block_cache(&host(64, 8, 40), 0), GIB);
        assert_eq!(block_cache(&host(64, 60, 56), 0), GIB, "machines will touch what they have");
        assert_eq!(block_cache(&host(64, 16, 40), 8 * GIB), GIB, "others will fill theirs");
        assert_eq!(block_cache(&host(512, 400, 50), 0), MOST_BLOCK_CACHE);
        assert_eq!(block_cache(&host(64, 30, 90), 0), LEAST_BLOCK_CACHE);
        assert_eq!(block_cache(&host(64, 16, 40), 20 * GIB), LEAST_BLOCK_CACHE);
        assert_eq!(block_cache("", 0), LEAST_BLOCK_CACHE, "nobody tells");
    }

    #[test]
    fn what_was_promised_is_given_back() {
        let before = PROMISED.load(Ordering::Relaxed);
        let (first, second) = (Promise::of_host(), Promise::of_host());
        let promised = PROMISED.load(Ordering::Relaxed);
        assert_eq!(promised - before, first.bytes + second.bytes);
        drop((first, second));
        assert_eq!(PROMISED.load(Ordering::Relaxed), before);
    }
}
