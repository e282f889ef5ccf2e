//! What capture says, as an operator reads it.

use domain::fault::{Code, Fault, chain};

use crate::capture::CaptureError;

/// An error of a machine's capture.
#[must_use]
pub fn of_capture(error: CaptureError) -> Fault {
    let (code, advice) = match &error {
        CaptureError::NoSuchMachine { .. } => (
            Code::MachineGone,
            "If it was moved to another host, protect it there; if it was removed, disable its protection. Its points stay.",
        ),
        CaptureError::InTheWay { .. } => {
            (Code::CaptureBlocked, "Let it finish or end it; replication goes on by itself then.")
        }
        CaptureError::LostJob { .. } => (
            Code::CaptureJobLost,
            "libvirt must forget it: shut the machine down and start it again; or, without that, follow the page of this error. Replication goes on by itself then.",
        ),
        CaptureError::ScratchFull { .. } => (
            Code::ScratchFull,
            "Give capture more room (`scratch_limit_mib` in the agent's configuration, and the disk that its folder lies on). The guest itself goes on.",
        ),
        CaptureError::NoDisk { .. } | CaptureError::Unsupported { .. } => (
            Code::CaptureFailed,
            "Exclude the disk from protection, or change it so that it can be protected.",
        ),
        _ => (
            Code::CaptureFailed,
            "It is tried again by itself; if it stays so, look at libvirt's log of this host.",
        ),
    };
    Fault::new(code, "hold the machine's disks still and read them", chain(&error), advice)
}
