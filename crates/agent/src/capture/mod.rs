//! Capture: from a machine to *cuts*, consistent images of all its disks at one
//! instant together with what changed since an earlier cut.
//!
//! ```text
//!              cut(since)              accept ─▶ the next cut may be since this one
//!   quiet ───────────────────▶ a Cut ──┤
//!     ▲    (disks held still,          discard ▶ as if it had not been
//!     │     changes readable)          dropped ▶ ended by itself, logged
//!     └────────────────────────────────┘
//! ```
//!
//! Capture remembers no cut by itself: whoever asks for a cut says which
//! checkpoint the far side holds. So nothing is lost when the agent dies at any
//! point; what no cut names any more is removed before the next one is taken.
//!
//! It ships nothing, and it decides neither when to cut nor what to do after a
//! failure.
//!
//! | looking for | module |
//! | --- | --- |
//! | what a cut is | [`cut`] |
//! | reading it | [`reader`] |
//! | which disks are read whole, and why | [`plan`] |
//! | a libvirt machine's cuts | [`machine`] |
//! | what goes with a point beside the machine's XML | [`configuration`] |
//! | when a machine is left alone | [`calm`] |
//! | keeping the guest safe from a full scratch file | [`scratch`] |
//! | what can go wrong | [`error`] |

mod access;
pub mod calm;
pub mod configuration;
pub mod cut;
pub mod error;
mod folder;
mod freeze;
pub mod machine;
mod off;
pub mod plan;
pub mod reader;
mod running;
pub mod scratch;
mod watch;

pub use cut::{
    Base, CheckpointName, Consistency, Cut, CutDisk, CutRequest, Wanted, Way, WholeReason,
};
pub use error::CaptureError;
pub(crate) use folder::Owner;
pub use machine::{CaptureSettings, LibvirtCapture};
pub use reader::{Changes, DiskReader, Stretch, StretchKind};

/// A machine whose changes can be captured. At most one cut is open at a time:
/// taking another one ends it.
///
/// Dropping a future of a method does not stop what it began: that goes on to
/// its end, bounded in time, and a cut that nobody receives is ended as if it
/// had been dropped.
pub trait Capture: Send {
    /// Holds all disks still at one instant, and says what changed since the
    /// checkpoint that is named, or everything where that is not possible.
    ///
    /// # Errors
    /// When there is no cut; the guest goes on as before.
    fn cut(
        &mut self,
        request: CutRequest,
    ) -> impl Future<Output = Result<Cut, CaptureError>> + Send;

    /// Whether all that was read from the cut is of its one instant. Asked
    /// after the last read and before what was read is committed anywhere.
    ///
    /// # Errors
    /// When it is not, or nobody can tell.
    fn confirm(&mut self, cut: &Cut) -> impl Future<Output = Result<(), CaptureError>> + Send;

    /// Ends a cut whose data is durable elsewhere: the next cut may be since
    /// its checkpoint, and older checkpoints are dropped.
    ///
    /// # Errors
    /// When tidying up failed. That takes nothing away from what is durable:
    /// the next cut may name the checkpoint all the same, and tidies up first.
    fn accept(&mut self, cut: Cut) -> impl Future<Output = Result<(), CaptureError>> + Send;

    /// Ends a cut as if it had not been: the next one may be since the same
    /// checkpoint as this one.
    ///
    /// # Errors
    /// When tidying up failed; the next cut tidies up first.
    fn discard(&mut self, cut: Cut) -> impl Future<Output = Result<(), CaptureError>> + Send;

    /// Removes from the machine and the host all that capture has left there:
    /// jobs, checkpoints, files.
    ///
    /// # Errors
    /// When something is left; may be repeated.
    fn forget(&mut self) -> impl Future<Output = Result<(), CaptureError>> + Send;
}
