//! Serving a point's disks to QEMU: read-only, over a unix socket that QEMU alone
//! can reach.

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

/// Memory of one recovery's views: many may stand on views at once.
const LIMITS: Limits = Limits { index_cache: 16 << 20, block_cache: 32 << 20, open_segments: 256 };

/// The server of a recovery; its views go with it.
pub(super) struct Served {
    server: Server,
}

impl Recoveries {
    /// Serves the disks of a recovery's point, unless that is done already.
    pub(super) async fn serve(&self, record: &Record) -> Result<(), Fault> {
        if self.served().contains_key(&record.id) {
            return Ok(());
        }
        let folder = Folder::of(record);
        let exports = offer(record).await?;
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
        self.served().insert(record.id, Served { server });
        Ok(())
    }

    /// Serves them no longer.
    pub(super) async fn serve_no_more(&self, id: Uuid) {
        let served = self.served().remove(&id);
        if let Some(Served { server }) = served {
            server.cut().await;
        }
    }

    fn served(&self) -> std::sync::MutexGuard<'_, std::collections::HashMap<Uuid, Served>> {
        // Changes are insertions and removals; none stops half-way.
        self.0.served.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens the store of a recovery's machine, for reading.
pub(super) async fn open(name: &str, folder: &std::path::Path) -> Result<Store, Fault> {
    let (name, path) = (name.to_owned(), folder.to_owned());
    let opening = spawn_blocking(move || {
        let folder = MachineFolder { name: name.clone(), path };
        folder.open(LIMITS).map_err(|error| of_store(&name, &folder.path, &error))
    });
    opening.await.map_err(|error| Fault::internal("open a store", &error))?
}

async fn offer(record: &Record) -> Result<Exports, Fault> {
    let store = open(&record.name, &record.store).await?;
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
