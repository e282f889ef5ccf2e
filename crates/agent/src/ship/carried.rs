//! A first copy that is carried: it goes into a store in a folder of this host,
//! through the same frames as it would go to another.

use std::path::Path;

use domain::fault::{Code, Fault};
use domain::id::HostId;
use tokio::task::JoinHandle;
use wire::replication::{Keeping, OfflineCopy, Retention, Shipping};

use super::sender::Stream;
use crate::keep::{Keepers, session};

/// What may be under way to the folder at once, in bytes.
const PIPE: usize = 1 << 20;

/// The keeper of the folder; it is gone with this.
pub(super) struct Folder {
    serving: JoinHandle<()>,
}

impl Drop for Folder {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Opens the folder for the copy of a machine.
pub(super) fn open(
    duty: &Shipping,
    copy: &OfflineCopy,
    host: HostId,
) -> Result<(Box<dyn Stream>, Folder), Fault> {
    let folder = Path::new(&copy.folder);
    if !folder.is_dir() {
        return Err(Fault::new(
            Code::CopyUnusable,
            format!("write the first copy of machine {} into {}", duty.name, copy.folder),
            "there is no such folder on this host",
            "Make the folder, or mount what will be carried there, writable for the agent's user; it is tried again by itself.",
        ));
    }
    let keepers = Keepers::new(folder);
    keepers.reconcile(&[Keeping {
        protection: duty.protection,
        machine: duty.machine,
        name: duty.name.clone(),
        source: host,
        generation: duty.generation,
        // It has one point and is gone before anything is past its time.
        retention: Retention { all_hours: u32::MAX, tiers: Vec::new(), app_extra_hours: 0 },
        compression: duty.policy.compression,
        import: None,
    }]);
    let (ours, theirs) = tokio::io::duplex(PIPE);
    let serving =
        tokio::spawn(async move { drop(session::serve(&keepers, host, host, theirs).await) });
    Ok((Box::new(ours), Folder { serving }))
}
