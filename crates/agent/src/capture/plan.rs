//! Which disks are captured, and what each is told from. Pure decisions.

use std::collections::{BTreeMap, BTreeSet};

use domain::machine::{Disk, DiskFormat};
use serde::{Deserialize, Serialize};

use crate::hypervisor::libvirt::xml::checkpoint::Checkpoint;

use super::cut::{Base, CheckpointName, Way, WholeReason};

/// Version of the note in a checkpoint's description.
const NOTE_FORMAT: u16 = 1;

/// A disk as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenDisk {
    /// What the hypervisor says of it.
    pub disk: Disk,
    /// Its size in bytes.
    pub size: u64,
}

/// A checkpoint as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenCheckpoint {
    /// Its name.
    pub name: CheckpointName,
    /// Targets of the disks that it tracks.
    pub tracked: BTreeSet<String>,
    /// What was noted of the disks when it was made.
    pub note: Note,
}

impl SeenCheckpoint {
    /// Of what libvirt has under the name.
    #[must_use]
    pub fn of(name: CheckpointName, found: Checkpoint) -> Self {
        let Checkpoint { description, tracked, .. } = found;
        Self { name, tracked, note: Note::read(&description) }
    }
}

/// What later cuts may be since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Since {
    /// Nothing was named.
    Nothing,
    /// Something that is not there.
    Gone(CheckpointName),
    /// This.
    Known(SeenCheckpoint),
}

/// A disk to be cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedDisk {
    /// Such as `vda`.
    pub target: String,
    /// Its size in bytes.
    pub size: u64,
    /// How its changes are found.
    pub way: Way,
    /// What they are told from.
    pub base: Base,
}

/// The disks that are captured: all that hold data, but for the excluded.
#[must_use]
pub fn chosen(disks: Vec<Disk>, excluded: &BTreeSet<String>) -> Vec<Disk> {
    disks.into_iter().filter(|disk| !excluded.contains(&disk.target)).collect()
}

/// Decides how each disk of a running machine is captured. Bitmaps of the disks
/// in `broken` were found to be of no use.
#[must_use]
pub fn plan(disks: &[SeenDisk], since: &Since, broken: &BTreeSet<String>) -> Vec<PlannedDisk> {
    let planned = |seen: &SeenDisk| {
        let (way, base) = match untrackable(&seen.disk) {
            Some(reason) => (Way::Whole, Base::Whole(reason)),
            None => (Way::Bitmap, base(seen, since, broken)),
        };
        PlannedDisk { target: seen.disk.target.clone(), size: seen.size, way, base }
    };
    disks.iter().map(planned).collect()
}

/// Why changes of a disk cannot be noted; none when they can.
fn untrackable(disk: &Disk) -> Option<WholeReason> {
    match &disk.format {
        DiskFormat::Qcow2 if disk.read_only || disk.shareable => {
            Some(WholeReason::ReadOnlyOrShared)
        }
        DiskFormat::Qcow2 => None,
        other => Some(WholeReason::Format(other.clone())),
    }
}

fn base(seen: &SeenDisk, since: &Since, broken: &BTreeSet<String>) -> Base {
    let checkpoint = match since {
        Since::Nothing => return Base::Whole(WholeReason::First),
        Since::Gone(name) => return Base::Whole(WholeReason::CheckpointGone(name.clone())),
        Since::Known(checkpoint) => checkpoint,
    };
    let name = || checkpoint.name.clone();
    let target = &seen.disk.target;
    let noted = checkpoint.note.disks.get(target);
    Base::Whole(match noted.filter(|_| checkpoint.tracked.contains(target)) {
        None => WholeReason::NotTracked(name()),
        Some(noted) if noted.size != seen.size => {
            WholeReason::Resized { was: noted.size, is: seen.size }
        }
        Some(noted) if noted.source != seen.disk.source.to_string() => {
            WholeReason::Replaced { was: noted.source.clone(), is: seen.disk.source.to_string() }
        }
        Some(_) if broken.contains(target) => WholeReason::BitmapBroken(name()),
        Some(_) => return Base::Since(name()),
    })
}

/// Files of disks that the machine had at the checkpoint and has no more: its
/// bitmap in them is of no use to anybody.
#[must_use]
pub fn left_behind(disks: &[SeenDisk], since: &Since) -> Vec<String> {
    let Since::Known(SeenCheckpoint { note, .. }) = since else { return Vec::new() };
    let sources = note.disks.values().map(|noted| &noted.source);
    let has = |source: &String| disks.iter().any(|seen| seen.disk.source.to_string() == *source);
    sources.filter(|source| source.starts_with('/') && !has(source)).cloned().collect()
}

/// The disks whose bitmaps are to be given up after libvirt called a checkpoint
/// broken: the one that it names, else all that were to be told from it.
#[must_use]
pub fn broken_by(message: &str, planned: &[PlannedDisk]) -> BTreeSet<String> {
    let relative = planned.iter().filter(|disk| matches!(disk.base, Base::Since(_)));
    let all: BTreeSet<String> = relative.map(|disk| disk.target.clone()).collect();
    let named = message.split(['\'', '"']).find(|word| all.contains(*word));
    named.map_or(all.clone(), |target| BTreeSet::from([target.to_owned()]))
}

/// What is noted of the disks in a checkpoint's description. It lives with
/// libvirt's own record, so it is there exactly as long as the checkpoint is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Note {
    format: u16,
    disks: BTreeMap<String, DiskNote>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct DiskNote {
    size: u64,
    source: String,
}

impl Note {
    /// The note for a checkpoint that is made now.
    #[must_use]
    pub fn of(disks: &[SeenDisk]) -> Self {
        let note = |seen: &SeenDisk| {
            let source = seen.disk.source.to_string();
            (seen.disk.target.clone(), DiskNote { size: seen.size, source })
        };
        Self { format: NOTE_FORMAT, disks: disks.iter().map(note).collect() }
    }

    /// Reads a checkpoint's description. What is no note of ours notes nothing,
    /// so that each disk is told whole.
    #[must_use]
    pub fn read(description: &str) -> Self {
        let note: Option<Self> = serde_json::from_str(description).ok();
        note.filter(|note| note.format == NOTE_FORMAT).unwrap_or_default()
    }

    /// The checkpoint's description.
    #[must_use]
    pub fn write(&self) -> String {
        serde_json::to_string(self).expect("numbers and strings can be written")
    }
}

#[cfg(test)]
mod tests {
    use domain::machine::DiskSource;

    use super::*;

    fn disk(target: &str, format: DiskFormat, size: u64) -> SeenDisk {
        let disk = Disk {
            target: target.into(),
            bus: "virtio".into(),
            serial: None,
            source: DiskSource::File(format!("/i/{target}")),
            format,
            capacity: None,
            allocation: None,
            read_only: false,
            shareable: false,
            raw_device: false,
        };
        SeenDisk { disk, size }
    }

    fn checkpoint(disks: &[SeenDisk]) -> Since {
        Since::Known(SeenCheckpoint {
            name: "lifeboat-1".parse().unwrap(),
            tracked: disks.iter().map(|seen| seen.disk.target.clone()).collect(),
            note: Note::read(&Note::of(disks).write()),
        })
    }

    fn render(planned: &[PlannedDisk]) -> Vec<String> {
        planned
            .iter()
            .map(|disk| match &disk.base {
                Base::Since(name) => format!("{} {:?} since {name}", disk.target, disk.way),
                Base::Whole(reason) => format!("{} {:?}: {reason}", disk.target, disk.way),
            })
            .collect()
    }

    #[test]
    fn each_disk_is_told_from_the_base_that_it_has() {
        let (qcow2, raw) = (DiskFormat::Qcow2, DiskFormat::Raw);
        let then = ["vda", "vdb", "vdc", "vdd"].map(|target| disk(target, qcow2.clone(), 100));
        let mut now = then.to_vec();
        now[1].size = 200;
        now[2].disk.source = DiskSource::File("/i/new".into());
        now.push(disk("vde", qcow2.clone(), 1));
        now.push(disk("vdf", raw, 1));
        now.push(disk("vdg", qcow2, 1));
        now[6].disk.read_only = true;
        let broken = BTreeSet::from(["vdd".to_owned()]);
        assert_eq!(
            render(&plan(&now, &checkpoint(&then), &broken)),
            [
                "vda Bitmap since lifeboat-1",
                "vdb Bitmap: the disk had 100 bytes and has 200",
                "vdc Bitmap: the disk was /i/vdc and is /i/new",
                "vdd Bitmap: the dirty bitmap of lifeboat-1 is missing or broken",
                "vde Bitmap: the disk was not tracked at lifeboat-1",
                "vdf Whole: disks of the format raw hold no dirty bitmaps",
                "vdg Whole: no changes are noted on a disk that is read-only or shared",
            ]
        );
    }

    #[test]
    fn a_disk_that_was_taken_away_is_known_by_its_file() {
        let then = ["vda", "vdb"].map(|target| disk(target, DiskFormat::Qcow2, 1));
        assert_eq!(left_behind(&then, &checkpoint(&then)), [""; 0]);
        assert_eq!(left_behind(&then[..1], &checkpoint(&then)), ["/i/vdb"]);
        assert_eq!(left_behind(&then[..1], &Since::Nothing), [""; 0]);
    }

    #[test]
    fn without_a_checkpoint_everything_is_told() {
        let disks = [disk("vda", DiskFormat::Qcow2, 1)];
        let none = BTreeSet::new();
        assert_eq!(
            render(&plan(&disks, &Since::Nothing, &none)),
            ["vda Bitmap: it is the first cut"]
        );
        let gone = Since::Gone("lifeboat-1".parse().unwrap());
        assert_eq!(
            render(&plan(&disks, &gone, &none)),
            ["vda Bitmap: the checkpoint lifeboat-1 is gone"]
        );
        let Since::Known(mut foreign) = checkpoint(&disks) else { unreachable!("known above") };
        foreign.note = Note::read(r#"{"format":2,"disks":{}}"#);
        assert_eq!(
            render(&plan(&disks, &Since::Known(foreign), &none)),
            ["vda Bitmap: the disk was not tracked at lifeboat-1"]
        );
    }

    #[test]
    fn only_the_disk_that_libvirt_names_loses_its_bitmap() {
        let disks = ["vda", "vdb"].map(|target| disk(target, DiskFormat::Qcow2, 1));
        let planned = plan(&disks, &checkpoint(&disks), &BTreeSet::new());
        let broken = |message: &str| broken_by(message, &planned).into_iter().collect::<Vec<_>>();
        assert_eq!(broken("missing or broken bitmap 'lifeboat-1' for disk 'vdb'"), ["vdb"]);
        assert_eq!(broken("checkpoint inconsistent"), ["vda", "vdb"]);
    }

    #[test]
    fn the_excluded_are_left_out() {
        let disks = ["vda", "vdb"].map(|target| disk(target, DiskFormat::Raw, 1).disk);
        let chosen = chosen(disks.to_vec(), &BTreeSet::from(["vda".into()]));
        assert_eq!(chosen.iter().map(|disk| disk.target.as_str()).collect::<Vec<_>>(), ["vdb"]);
    }
}
