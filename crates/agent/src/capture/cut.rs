//! What a cut is, and what is asked of one.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use domain::machine::DiskFormat;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::reader::DiskReader;

/// What the names of all our checkpoints begin with. What has another name
/// belongs to somebody else and is never touched.
pub const PREFIX: &str = "lifeboat-";

/// The name of a checkpoint of ours: an instant since which changes are noted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CheckpointName(String);

impl CheckpointName {
    /// A name that no other checkpoint has, here or elsewhere. Later names sort
    /// behind earlier ones, as far as clocks allow.
    #[must_use]
    pub fn draw() -> Self {
        Self(format!("{PREFIX}{}", Uuid::now_v7().simple()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CheckpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name is not that of a checkpoint of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no name of a checkpoint of Lifeboat's")]
pub struct NotOurs(String);

impl FromStr for CheckpointName {
    type Err = NotOurs;

    fn from_str(text: &str) -> Result<Self, NotOurs> {
        let plain = |rest: &str| {
            !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        match text.strip_prefix(PREFIX) {
            Some(rest) if plain(rest) => Ok(Self(text.to_owned())),
            _ => Err(NotOurs(text.to_owned())),
        }
    }
}

/// What is asked of a cut.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CutRequest {
    /// The checkpoint of the newest cut that is durable elsewhere; none when
    /// none is. Every other checkpoint of ours is given up.
    pub since: Option<CheckpointName>,
    /// How consistent it should be.
    pub consistency: Wanted,
    /// Targets of disks to leave out, such as `vdb`.
    pub excluded: BTreeSet<String>,
}

/// How consistent a cut should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Wanted {
    /// As after a power cut.
    #[default]
    Crash,
    /// With the guest's file systems frozen, where that can be had.
    App,
}

/// How consistent a cut is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Consistency {
    /// As after a power cut.
    Crash {
        /// Why it is no better, where better was asked for.
        short_of_app: Option<String>,
    },
    /// The guest's file systems were frozen, or it had shut down in order.
    App,
}

/// How a disk's changes are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// By a dirty bitmap: the next cut may tell only what changed since this one.
    Bitmap,
    /// Not at all: each cut has the whole disk.
    Whole,
}

/// What a disk's changes are told from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// Nothing: every byte counts as changed.
    Whole(WholeReason),
    /// What was written since this checkpoint.
    Since(CheckpointName),
}

/// Why a disk is told whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WholeReason {
    /// No earlier cut was named.
    #[error("it is the first cut")]
    First,
    /// libvirt does not know the checkpoint.
    #[error("the checkpoint {0} is gone")]
    CheckpointGone(CheckpointName),
    /// QEMU ended without saving what it had noted.
    #[error("the dirty bitmap of {0} is missing or broken")]
    BitmapBroken(CheckpointName),
    /// The disk is new.
    #[error("the disk was not tracked at {0}")]
    NotTracked(CheckpointName),
    /// The disk has another size.
    #[error("the disk had {was} bytes and has {is}")]
    Resized {
        /// Its size at the checkpoint, in bytes.
        was: u64,
        /// Its size now.
        is: u64,
    },
    /// Another file stands behind the same target.
    #[error("the disk was {was} and is {is}")]
    Replaced {
        /// Where its bytes were at the checkpoint.
        was: String,
        /// Where they are now.
        is: String,
    },
    /// Only qcow2 holds bitmaps.
    #[error("disks of the format {0} hold no dirty bitmaps")]
    Format(DiskFormat),
    /// QEMU cannot note changes in what it may not write to, or where others
    /// may write as well.
    #[error("no changes are noted on a disk that is read-only or shared")]
    ReadOnlyOrShared,
    /// Without QEMU nobody tells changes.
    #[error("the machine is off")]
    Off,
}

/// Consistent images of all disks of a machine at one instant.
///
/// It must be [accepted](super::Capture::accept) or
/// [discarded](super::Capture::discard). As long as it is open, all that the
/// guest overwrites is kept in scratch files. One that is dropped is ended in
/// the background, and a warning is logged.
#[derive(Debug)]
#[must_use = "a cut is accepted or discarded"]
pub struct Cut {
    /// The checkpoint that a later cut may be since; none when the machine is
    /// off or no disk can be tracked. A cut without one leaves an older
    /// checkpoint usable: the changes since it include those since this cut.
    pub checkpoint: Option<CheckpointName>,
    /// Everything that the guest had written by then is in the cut:
    /// milliseconds since 1970 by the host's clock.
    pub instant: u64,
    /// Whether no disk can have been written to while it was made.
    pub of_a_machine_off: bool,
    /// How consistent it is.
    pub consistency: Consistency,
    /// The machine's description as its next start would use it, without
    /// secrets: libvirt's XML.
    pub configuration: String,
    /// The disks, in the machine's order.
    pub disks: Vec<CutDisk>,
    /// What keeps it open.
    pub hold: Hold,
}

/// A disk of a cut.
#[derive(Debug)]
pub struct CutDisk {
    /// The hypervisor's name for it, such as `vda`.
    pub target: String,
    /// Size in bytes.
    pub size: u64,
    /// How its changes are found, now and by later cuts.
    pub way: Way,
    /// What its changes are told from in this cut.
    pub base: Base,
    /// Its bytes at the cut's instant.
    pub reader: DiskReader,
}

impl Cut {
    /// What the cut as a whole is told from: an earlier checkpoint as soon as
    /// one of the disks is.
    #[must_use]
    pub fn base(&self) -> Base {
        let mut bases = self.disks.iter().map(|disk| &disk.base);
        let since = bases.clone().find(|base| matches!(base, Base::Since(_)));
        since.or_else(|| bases.next()).cloned().unwrap_or(Base::Whole(WholeReason::First))
    }
}

/// Held by a cut. Its other half, [`Held`], belongs to the source of the cut,
/// which so learns of the cut's end.
#[derive(Debug)]
pub struct Hold {
    number: u64,
    settled: oneshot::Sender<()>,
}

/// The other half of a [`Hold`].
#[derive(Debug)]
pub struct Held(oneshot::Receiver<()>);

impl Hold {
    /// Both halves, for a cut with a number of the source's own choice.
    #[must_use]
    pub fn new(number: u64) -> (Self, Held) {
        let (settled, hears) = oneshot::channel();
        (Self { number, settled }, Held(hears))
    }

    /// The number given by the source.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Tells the other half that the cut was accepted or discarded.
    pub fn settle(self) {
        // A source that is gone has nothing to be told.
        let _ = self.settled.send(());
    }
}

impl Held {
    /// Waits for the cut's end: true when it was settled, false when it was
    /// dropped. Cancel safe.
    pub async fn settled(&mut self) -> bool {
        (&mut self.0).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_ours_are_checkpoint_names() {
        let drawn = CheckpointName::draw();
        assert_eq!(drawn.to_string().parse(), Ok(drawn));
        for foreign in ["daily", "lifeboat-", "lifeboat-a b", "lifeboat-'/>"] {
            assert!(foreign.parse::<CheckpointName>().is_err(), "{foreign}");
        }
    }

    #[tokio::test]
    async fn a_source_hears_how_a_cut_ended() {
        let ((kept, mut of_kept), (dropped, mut of_dropped)) = (Hold::new(1), Hold::new(2));
        kept.settle();
        drop(dropped);
        assert!(of_kept.settled().await);
        assert!(!of_dropped.settled().await);
    }
}
