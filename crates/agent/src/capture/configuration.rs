//! What goes with each point beside libvirt's description of the machine: whether
//! it starts with its host, and the variables of its UEFI firmware, which are in a
//! file of their own beside its disks. Firmware writes them seldom, and nothing of
//! them belongs to the instant of a cut.

use std::io;
use std::path::Path;

use tokio::fs::File;
use tokio::io::AsyncReadExt as _;
use tracing::debug;

use crate::hypervisor::libvirt::xml::behind;
use crate::hypervisor::libvirt::xml::variables::{self, MAX};

/// A machine's configuration as a point has it: with its variables, if it has any,
/// or with the reason why they could not be read.
pub async fn complete(xml: String, starts_with_host: bool) -> String {
    let configuration = if starts_with_host { behind::with_start(&xml) } else { xml };
    let Ok(Some(file)) = variables::file_of(&configuration) else { return configuration };
    match read(&file).await {
        Ok(bytes) => variables::with(&configuration, Ok(&bytes)),
        Err(error) => {
            debug!(%error, file = %file.display(), "the variables of a firmware cannot be read");
            let why = format!("{}: {error}", file.display());
            variables::with(&configuration, Err(&why))
        }
    }
}

/// One byte more than may be tells that there are too many.
async fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file).await?.take(MAX as u64 + 1).read_to_end(&mut bytes).await?;
    Ok(bytes)
}
