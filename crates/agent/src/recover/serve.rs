//! Serving a point's disks to QEMU: read-only, over a unix socket that QEMU alone
//! can reach.

use std::path::Path;
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
use super::borrow::{Borrowed, Relay};
use super::folder::Folder;
use super::memory::{LEAST_BLOCK_CACHE, Promise};
use super::record::{Origin, Record};
use crate::keep::fault::of_store;

/// Of looking at points, and of views with the least.
const LIMITS: Limits =
    Limits { index_cache: 16 << 20, block_cache: LEAST_BLOCK_CACHE, open_segments: 256 };

/// The disks of a point, with the memory that their views may take.
pub(super) struct Offer {
    pub(super) exports: Exports,
    _memory: Promise,
}

/// What serves a recovery; its views go with it.
pub(super) enum Served {
    /// A point of this host.
    Here(Server, Offer),
    /// One that another host has lent.
    Lent(Relay),
}

impl Recoveries {
    /// Serves the disks of a recovery's point, unless that is done already.
    pub(super) async fn serve(&self, record: &Record) -> Result<(), Fault> {
        if self.served().contains_key(&record.id) {
            return Ok(());
        }
        let socket = Folder::of(record).socket();
        let unusable = |error: &dyn std::error::Error| {
            Fault::new(
                Code::AddressUnusable,
                format!("serve the disks of {}", record.name),
                chain(error),
                "See who has the socket (ss -lxp), and that the agent's user may write to the folder.",
            )
        };
        let served = match record.origin()? {
            Origin::Here(store) => {
                let offer = offer(&record.name, &store, record.point, &record.targets()).await?;
                // Whoever can reach it may use it: the folder lets in QEMU's user alone.
                let listener = Listener::unix(socket, 0o666).await;
                let listener = listener.map_err(|error| unusable(&error))?;
                let exports = offer.exports.clone();
                let server = Server::start(listener, exports, ServerOptions::default());
                Served::Here(server, offer)
            }
            Origin::Lent(keeper) => {
                let borrowed = Borrowed { keeper, recovery: record.id };
                let relay = Relay::start(socket, borrowed, self.0.passport.clone()).await;
                Served::Lent(relay.map_err(|error| unusable(&error))?)
            }
        };
        self.served().insert(record.id, served);
        Ok(())
    }

    /// Serves them no longer.
    pub(super) async fn serve_no_more(&self, id: Uuid) {
        let served = self.served().remove(&id);
        match served {
            Some(Served::Here(server, _offer)) => server.cut().await,
            Some(Served::Lent(relay)) => relay.cut().await,
            None => {}
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

/// The disks of a point, by the hypervisor's names for them.
pub(super) async fn offer(
    name: &str,
    folder: &Path,
    point: u32,
    targets: &[String],
) -> Result<Offer, Fault> {
    let memory = Promise::of_host();
    let limits = Limits { block_cache: memory.bytes, ..LIMITS };
    let store = open_within(limits, name, folder).await?;
    let exports = Exports::new();
    for (number, target) in (0_u16..).zip(targets) {
        let view = store.view(Cycle(point), DiskNumber(number)).map_err(|error| match error {
            StoreError::NoSuchPoint(_) | StoreError::NoSuchDisk { .. } => {
                unknown_point(name, point, &error.chain())
            }
            error => of_store(name, folder, &error),
        })?;
        exports
            .insert(target.clone(), Arc::new(view))
            .map_err(|error| Fault::internal("serve a disk", &error))?;
    }
    Ok(Offer { exports, _memory: memory })
}

pub(super) fn unknown_point(name: &str, point: u32, cause: &str) -> Fault {
    Fault::new(
        Code::PointUnknown,
        format!("use point {point} of machine {name}"),
        cause,
        "Choose another point: lifeboat point list, or on the host that keeps them lifeboat store points.",
    )
}
