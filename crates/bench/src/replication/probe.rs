//! The target's host, in a process of its own: the port for other agents and
//! the keepers behind it, as an agent runs them.

use std::{fs, path::PathBuf};

use agent::{
    keep::Keepers,
    peer::{self, Passport},
    recover::loans::Loans,
};
use anyhow::{Context as _, Result};
use clap::Subcommand;
use domain::id::HostId;
use serde::{Deserialize, Serialize};
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use uuid::Uuid;
use wire::{replication::Keeping, tls::Credentials};

/// A hidden command.
#[derive(Debug, Subcommand)]
pub(crate) enum Probe {
    /// Keeps points until it is told to end
    Keep {
        /// A file with what to keep, for whom, and where
        orders: PathBuf,
    },
}

/// What [`Probe::Keep`] is told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Orders {
    pub(crate) host: Uuid,
    pub(crate) authority: String,
    pub(crate) certificate: String,
    pub(crate) key: String,
    pub(crate) address: String,
    pub(crate) folder: PathBuf,
    pub(crate) keeping: Vec<Keeping>,
}

impl Probe {
    /// Does it.
    pub(crate) fn run(self) -> Result<()> {
        let Self::Keep { orders } = self;
        let text = fs::read(orders).context("read the orders")?;
        let orders: Orders = serde_json::from_slice(&text).context("understand the orders")?;
        let passport = Passport {
            host: HostId::new(orders.host),
            authority: orders.authority,
            credentials: Credentials { certificate: orders.certificate, key: orders.key },
        };
        Runtime::new()?.block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            let keepers = Keepers::new(&orders.folder);
            keepers.reconcile(&orders.keeping);
            let loans = Loans::open(orders.folder.join("loans"), keepers.clone())?;
            let (_renewed, passport) = watch::channel(passport);
            tokio::select! {
                () = peer::serve(&orders.address, passport, keepers, loans) => {}
                _ = terminate.recv() => {}
            }
            Ok(())
        })
    }
}
