//! How far the shipping of a machine is: what the keeper holds, and from where
//! to go on. Plain decisions; [`super::folder`] keeps it on disk.
//!
//! ```text
//!            ┌────────────── rounds ──────────────┐
//!   first ───┤ part of the disks is copied        ├──sealed──▶ steady ─┐
//!   resync ──┘ (an attempt stays open)            ┘            ▲  │    │ changes
//!      ▲                                                       └──┴────┘
//!      └── the record of changes is lost, or the keeper has another point
//! ```
//! A disk's first `copied` bytes are at the keeper as they were at the base;
//! so a round sends what changed in there since, and goes on copying behind.

use serde::{Deserialize, Serialize};

use wire::replication::OfflineCopy;

use crate::capture::{Base, CheckpointName, WholeReason};

/// Version of the form on disk.
pub const FORMAT: u16 = 1;

/// How far shipping is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Course {
    /// Version of this form.
    pub format: u16,
    /// The hypervisor's UUID of the machine: what is left there is removed once
    /// the protection has ended.
    pub machine: Option<uuid::Uuid>,
    /// The newest point of ours that is known to be durable.
    pub sealed: Option<Mark>,
    /// The attempt that was begun last.
    pub begun: Option<u32>,
    /// The instant of the point that it was last asked to become: it may be one
    /// without our hearing of it.
    pub sealing: Option<i64>,
    /// Whether that attempt is open on purpose, with parts of disks in it.
    pub open: bool,
    /// Its changes that were durable when the last part ended.
    pub changes: u64,
    /// Whether it holds more than what is copied, of a round that failed.
    pub soiled: bool,
    /// The checkpoint of the last cut whose data is durable.
    pub base: Option<String>,
    /// The disks, in order.
    pub disks: Vec<DiskCourse>,
    /// Why everything is compared; none if it is the first copy or steady.
    pub resynchronising: Option<String>,
    /// The wish for a resynchronisation that was taken up last.
    pub resynchronised: Option<uuid::Uuid>,
    /// Whether everything is compared because an operator wants it: it waits for
    /// no hours.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub urgent: bool,
    /// The first copy that goes, or went, into a folder to be carried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carried: Option<Carried>,
}

/// A first copy in a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Carried {
    /// The wish for it.
    pub wish: uuid::Uuid,
    /// The folder at this host.
    pub folder: String,
    /// How far it is.
    pub stage: CarriedStage,
}

/// How far a first copy in a folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CarriedStage {
    /// It is being written; what is open is open in the folder.
    Writing,
    /// It is whole, of this instant in milliseconds since 1970, and not yet at
    /// the keeper.
    Written(i64),
    /// It is at the keeper, or of no use any more.
    Over,
}

/// A point by its number, which another store may use as well, and its instant
/// in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// Its number.
    pub point: u32,
    /// Its instant.
    pub instant: i64,
}

impl Mark {
    /// Of a point as the keeper tells of it.
    #[must_use]
    pub fn of(point: &wire::data::Sealed) -> Self {
        Self { point: point.point, instant: point.instant }
    }
}

/// How far a disk is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskCourse {
    /// The hypervisor's name for it.
    pub target: String,
    /// In bytes.
    pub size: u64,
    /// Bytes from its beginning that the keeper has.
    pub copied: u64,
    /// Whether what is copied is compared with the newest point first.
    pub compare: bool,
}

impl Default for Course {
    fn default() -> Self {
        Self {
            format: FORMAT,
            machine: None,
            sealed: None,
            begun: None,
            sealing: None,
            open: false,
            changes: 0,
            soiled: false,
            base: None,
            disks: Vec::new(),
            resynchronising: None,
            resynchronised: None,
            urgent: false,
            carried: None,
        }
    }
}

/// What the keeper says that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Its newest point.
    pub newest: Option<Mark>,
    /// The attempt that is open and durable.
    pub open: Option<u32>,
}

impl Kept {
    /// Out of the keeper's welcome.
    #[must_use]
    pub fn of(welcome: &wire::data::Welcome) -> Self {
        Self {
            newest: welcome.newest.as_ref().map(Mark::of),
            open: welcome.open.map(|open| open.cycle),
        }
    }
}

/// A disk as a cut has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The hypervisor's name for it.
    pub target: String,
    /// In bytes.
    pub size: u64,
    /// What its changes are told from.
    pub base: Base,
}

impl Course {
    /// The base as a checkpoint's name.
    #[must_use]
    pub fn since(&self) -> Option<CheckpointName> {
        self.base.as_ref().and_then(|name| name.parse().ok())
    }

    /// Whether changes alone are sent.
    #[must_use]
    pub fn is_steady(&self) -> bool {
        self.sealed.is_some() && !self.open && self.disks.iter().all(DiskCourse::is_copied)
    }

    /// Takes up that the first copy is carried, or goes over the network after
    /// all.
    pub fn carry(&mut self, copy: Option<&OfflineCopy>) {
        let copy = copy.filter(|_| self.sealed.is_none());
        match (copy, &mut self.carried) {
            (Some(copy), Some(carried)) if carried.wish == copy.wish => {}
            (Some(copy), carried) => {
                *carried = Some(Carried {
                    wish: copy.wish,
                    folder: copy.folder.clone(),
                    stage: CarriedStage::Writing,
                });
                // What is open is open elsewhere.
                self.restarted();
            }
            (None, Some(carried)) if carried.stage != CarriedStage::Over => {
                carried.stage = CarriedStage::Over;
                self.restarted();
            }
            (None, _) => {}
        }
    }

    /// How far a first copy in a folder is; over if there is none.
    #[must_use]
    pub fn carried_stage(&self) -> CarriedStage {
        self.carried.as_ref().map_or(CarriedStage::Over, |carried| carried.stage)
    }

    fn enter(&mut self, stage: CarriedStage) {
        if let Some(carried) = &mut self.carried {
            carried.stage = stage;
        }
    }

    /// Whether the keeper's word settles a first copy that is carried.
    fn meet_carried(&mut self, kept: Kept) -> bool {
        match (self.carried_stage(), kept.newest) {
            (CarriedStage::Writing, Some(newest)) => {
                // It was finished, and the answer was lost.
                self.enter(CarriedStage::Written(newest.instant));
                self.restarted();
                true
            }
            (CarriedStage::Written(_), None) => true,
            (CarriedStage::Written(instant), Some(newest)) if newest.instant == instant => {
                self.enter(CarriedStage::Over);
                self.sealed = Some(newest);
                self.disks.iter_mut().for_each(|disk| disk.compare = true);
                true
            }
            (CarriedStage::Written(_), Some(_)) => {
                self.enter(CarriedStage::Over);
                false
            }
            (CarriedStage::Writing, None) | (CarriedStage::Over, _) => false,
        }
    }

    /// Makes up its mind about what the keeper says.
    pub fn meet(&mut self, kept: Kept) {
        if self.meet_carried(kept) {
            return;
        }
        let asked = self.begun.zip(self.sealing);
        let asked = asked.map(|(point, instant)| Mark { point, instant });
        if asked.is_some() && kept.newest == asked && self.sealed != asked {
            // Sealed, and the answer was lost; the base is older, which only
            // means that some changes go again. What is not known to be copied
            // may be there, in whatever form.
            self.sealed = asked;
            self.open = false;
            self.disks.iter_mut().for_each(|disk| disk.compare = true);
        }
        if self.open && kept.open != self.begun {
            self.open = false;
            self.again("the keeper has lost what was copied", kept);
        }
        if self.sealed != kept.newest {
            let why = match (self.sealed, kept.newest) {
                (None, _) => "the keeper has points that we did not ship",
                (Some(_), None) => "the keeper has lost its points",
                (Some(_), Some(_)) => "the keeper's newest point is another than we shipped",
            };
            self.open = false;
            self.again(why, kept);
            self.sealed = kept.newest;
        }
    }

    /// Takes up an operator's wish, once.
    pub fn wish(&mut self, wish: Option<uuid::Uuid>) {
        if wish.is_some() && wish != self.resynchronised {
            self.resynchronised = wish;
            let kept = Kept { newest: self.sealed, open: None };
            (self.open, self.urgent) = (false, true);
            self.again("an operator asked for it", kept);
        }
    }

    /// Copies everything once more, comparing where there is something to
    /// compare with.
    fn again(&mut self, why: &str, kept: Kept) {
        let compare = kept.newest.is_some();
        for disk in &mut self.disks {
            (disk.copied, disk.compare) = (0, compare);
        }
        self.resynchronising = compare.then(|| why.to_owned());
    }

    /// Whether everything must be compared, and that waits.
    #[must_use]
    pub fn is_held(&self, may_compare: bool) -> bool {
        self.resynchronising.is_some() && !self.urgent && !may_compare
    }

    /// Makes up its mind about the disks of a cut. What the attempt holds stays
    /// only if it is of the same disks.
    pub fn take(&mut self, seen: &[Seen]) {
        let same_disks = self.disks.len() == seen.len()
            && self
                .disks
                .iter()
                .zip(seen)
                .all(|(disk, seen)| disk.target == seen.target && disk.size == seen.size);
        if !same_disks && self.open {
            self.open = false;
            self.disks.clear();
        }
        let has_points = self.sealed.is_some();
        let known = std::mem::take(&mut self.disks);
        let disks = seen.iter().enumerate().map(|(number, seen)| {
            let before = known.get(number).filter(|disk| disk.target == seen.target);
            let fresh = DiskCourse {
                target: seen.target.clone(),
                size: seen.size,
                copied: 0,
                compare: has_points,
            };
            match (&seen.base, before) {
                (Base::Since(_), Some(before)) if before.size == seen.size => before.clone(),
                // Nothing of it was copied yet, so nothing is lost.
                (Base::Whole(_), Some(before))
                    if before.copied == 0 && before.size == seen.size =>
                {
                    before.clone()
                }
                (Base::Whole(reason), _) => {
                    if has_points && !is_usual(reason) {
                        let why = || format!("disk {}: {reason}", seen.target);
                        self.resynchronising.get_or_insert_with(why);
                    }
                    fresh
                }
                _ => fresh,
            }
        });
        let disks: Vec<DiskCourse> = disks.collect();
        // What the attempt holds of a disk that is begun anew is of another
        // instant: it must be overwritten, holes too.
        let is_anew = |(before, now): (&DiskCourse, &DiskCourse)| now.copied < before.copied;
        self.soiled |= self.open && known.iter().zip(&disks).any(is_anew);
        self.disks = disks;
    }

    /// Bytes that are at the keeper, of all.
    #[must_use]
    pub fn progress(&self) -> (u64, u64) {
        let sum = |(done, total), disk: &DiskCourse| (done + disk.copied, total + disk.size);
        self.disks.iter().fold((0, 0), sum)
    }

    /// All disks are at the keeper as of the newest cut, and the attempt has
    /// become a point.
    pub fn sealed(&mut self, point: Mark, checkpoint: Option<&CheckpointName>) {
        match self.carried_stage() {
            CarriedStage::Writing => self.enter(CarriedStage::Written(point.instant)),
            CarriedStage::Written(_) | CarriedStage::Over => self.sealed = Some(point),
        }
        (self.open, self.soiled, self.urgent) = (false, false, false);
        self.resynchronising = None;
        for disk in &mut self.disks {
            (disk.copied, disk.compare) = (disk.size, true);
        }
        self.rebase(checkpoint);
    }

    /// An attempt is begun.
    pub fn began(&mut self, attempt: u32) {
        (self.begun, self.changes, self.soiled) = (Some(attempt), 0, false);
        self.sealing = None;
    }

    /// The keeper goes on with the attempt, with so many changes; whether it is
    /// the one that was meant, with all that was acknowledged.
    pub fn resumed(&mut self, attempt: u32, changes: u64) -> bool {
        if self.begun != Some(attempt) || changes < self.changes {
            return false;
        }
        self.soiled |= changes != self.changes;
        true
    }

    /// What was open cannot be gone on with: everything from the beginning.
    pub fn restarted(&mut self) {
        self.open = false;
        let compare = self.sealed.is_some();
        for disk in &mut self.disks {
            (disk.copied, disk.compare) = (0, compare);
        }
    }

    /// A part is durable in the attempt, with so many changes, as of the newest
    /// cut: so many bytes of each disk.
    pub fn parted(&mut self, changes: u64, reached: &[u64], checkpoint: Option<&CheckpointName>) {
        (self.open, self.changes) = (true, changes);
        for (disk, reached) in self.disks.iter_mut().zip(reached) {
            disk.copied = *reached;
        }
        self.rebase(checkpoint);
    }

    fn rebase(&mut self, checkpoint: Option<&CheckpointName>) {
        // A cut without a checkpoint leaves the older one good.
        if let Some(checkpoint) = checkpoint {
            self.base = Some(checkpoint.to_string());
        }
    }
}

impl DiskCourse {
    /// Whether all of it is at the keeper.
    #[must_use]
    pub fn is_copied(&self) -> bool {
        self.copied == self.size
    }
}

/// Whether a disk is always told whole, for this reason: nothing was lost then.
fn is_usual(reason: &WholeReason) -> bool {
    matches!(
        reason,
        WholeReason::First
            | WholeReason::Off
            | WholeReason::Format(_)
            | WholeReason::ReadOnlyOrShared
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> CheckpointName {
        "lifeboat-1".parse().unwrap()
    }

    fn at(point: u32) -> Mark {
        Mark { point, instant: i64::from(point) * 1000 }
    }

    fn seen(base: Base) -> Vec<Seen> {
        vec![Seen { target: "vda".into(), size: 100, base }]
    }

    fn shown(course: &Course) -> String {
        let disks: Vec<_> = course
            .disks
            .iter()
            .map(|d| format!("{}/{}{}", d.copied, d.size, if d.compare { " compared" } else { "" }))
            .collect();
        let why = course.resynchronising.as_deref().unwrap_or("-");
        format!("{} open={} ({why})", disks.join(", "), course.open)
    }

    fn steady() -> Course {
        let mut course = Course::default();
        course.meet(Kept { newest: None, open: None });
        course.take(&seen(Base::Whole(WholeReason::First)));
        course.began(1);
        course.sealed(at(1), Some(&name()));
        course
    }

    #[test]
    fn the_first_copy_goes_on_where_it_was() {
        let mut course = Course::default();
        course.meet(Kept { newest: None, open: None });
        course.take(&seen(Base::Whole(WholeReason::First)));
        assert_eq!(shown(&course), "0/100 open=false (-)");
        course.began(1);
        course.parted(5, &[60], Some(&name()));
        course.meet(Kept { newest: None, open: Some(1) });
        course.take(&seen(Base::Since(name())));
        assert_eq!(shown(&course), "60/100 open=true (-)");
        assert!(course.resumed(1, 5) && !course.soiled);
        assert!(!course.resumed(1, 4), "the keeper was restored from before");
        assert!(course.resumed(1, 9) && course.soiled && !course.resumed(2, 9));
        // The keeper was restored from before.
        course.meet(Kept { newest: None, open: None });
        assert_eq!(shown(&course), "0/100 open=false (-)");
        // The bitmap is lost in the middle.
        course.disks[0].copied = 60;
        (course.open, course.soiled) = (true, false);
        course.take(&seen(Base::Whole(WholeReason::BitmapBroken(name()))));
        assert_eq!(shown(&course), "0/100 open=true (-)");
        assert!(course.soiled, "what was copied is of another instant");
    }

    #[test]
    fn a_steady_course_stays_steady() {
        let mut course = steady();
        course.meet(Kept { newest: Some(at(1)), open: None });
        course.take(&seen(Base::Since(name())));
        assert!(course.is_steady());
        // A seal whose answer was lost.
        course.began(2);
        course.sealing = Some(at(2).instant);
        course.meet(Kept { newest: Some(at(2)), open: None });
        assert!(course.is_steady());
        assert_eq!(course.sealed, Some(at(2)));
    }

    fn offline(wish: u128) -> OfflineCopy {
        OfflineCopy { wish: uuid::Uuid::from_u128(wish), folder: "/mnt".into() }
    }

    /// A first copy that was written whole into a folder.
    fn written() -> Course {
        let mut course = Course::default();
        course.carry(Some(&offline(1)));
        course.meet(Kept { newest: None, open: None });
        course.take(&seen(Base::Whole(WholeReason::First)));
        course.began(1);
        course.sealing = Some(at(1).instant);
        course.sealed(at(1), Some(&name()));
        course
    }

    #[test]
    fn only_changes_follow_a_first_copy_that_was_carried() {
        let mut course = written();
        let instant = at(1).instant;
        assert_eq!((course.sealed, course.carried_stage()), (None, CarriedStage::Written(instant)));
        course.carry(Some(&offline(1)));
        course.meet(Kept { newest: None, open: None });
        assert_eq!(course.carried_stage(), CarriedStage::Written(instant), "it is on its way");
        // The keeper gave it a number of its own.
        let there = Mark { point: 9, instant };
        course.meet(Kept { newest: Some(there), open: None });
        course.take(&seen(Base::Since(name())));
        assert!(course.is_steady() && course.sealed == Some(there));
        assert_eq!(course.carried_stage(), CarriedStage::Over);
        // Should the keeper lose it, the wish is not taken up again.
        course.meet(Kept { newest: None, open: None });
        course.carry(Some(&offline(1)));
        assert_eq!(course.carried_stage(), CarriedStage::Over);
    }

    #[test]
    fn what_is_open_in_a_folder_is_not_what_is_open_elsewhere() {
        let mut course = Course::default();
        course.carry(Some(&offline(1)));
        course.take(&seen(Base::Whole(WholeReason::First)));
        course.began(1);
        course.parted(5, &[60], Some(&name()));
        course.meet(Kept { newest: None, open: Some(1) });
        assert_eq!(shown(&course), "60/100 open=true (-)");
        course.carry(None);
        assert_eq!(shown(&course), "0/100 open=false (-)", "over the network after all");
    }

    #[test]
    fn what_was_carried_is_compared_if_anything_about_it_is_doubtful() {
        // Another copy than ours was taken in.
        let mut course = written();
        course.meet(Kept { newest: Some(at(7)), open: None });
        assert!(shown(&course).starts_with("0/100 compared"), "{}", shown(&course));
        // The answer to the seal was lost: more may be in it than we know.
        let mut course = Course::default();
        course.carry(Some(&offline(1)));
        course.take(&seen(Base::Whole(WholeReason::First)));
        course.began(1);
        course.meet(Kept { newest: Some(at(1)), open: None });
        assert_eq!(course.carried_stage(), CarriedStage::Written(at(1).instant));
        course.meet(Kept { newest: Some(Mark { point: 3, ..at(1) }), open: None });
        assert_eq!(shown(&course), "0/100 compared open=false (-)");
    }

    #[test]
    fn doubt_leads_to_a_comparison_with_its_reason() {
        let mut course = steady();
        course.take(&seen(Base::Whole(WholeReason::BitmapBroken(name()))));
        assert_eq!(
            shown(&course),
            "0/100 compared open=false (disk vda: the dirty bitmap of lifeboat-1 is missing or broken)"
        );
        let mut course = steady();
        // The same number in another store.
        course.meet(Kept { newest: Some(Mark { instant: 77, ..at(1) }), open: None });
        assert_eq!(
            shown(&course),
            "0/100 compared open=false (the keeper's newest point is another than we shipped)"
        );
        let mut course = steady();
        course.meet(Kept { newest: None, open: None });
        course.take(&seen(Base::Since(name())));
        assert_eq!(shown(&course), "0/100 open=false (-)", "nothing to compare with");
        let mut course = steady();
        let wish = Some(uuid::Uuid::from_u128(1));
        course.wish(wish);
        assert_eq!(shown(&course), "0/100 compared open=false (an operator asked for it)");
        course.sealed(at(2), None);
        course.wish(wish);
        assert!(course.is_steady(), "a wish is taken up once");
    }

    #[test]
    fn a_disk_that_grew_or_came_is_copied_and_others_are_not() {
        let mut course = steady();
        let resized = Base::Whole(WholeReason::Resized { was: 100, is: 200 });
        course.take(&[
            Seen { target: "vda".into(), size: 200, base: resized },
            Seen { target: "vdb".into(), size: 50, base: Base::Since(name()) },
        ]);
        assert_eq!(
            shown(&course),
            "0/200 compared, 0/50 compared open=false (disk vda: the disk had 100 bytes and has 200)"
        );
    }

    #[test]
    fn a_disk_that_is_always_whole_is_compared_each_time_and_that_is_no_resynchronisation() {
        let mut course = steady();
        course.take(&seen(Base::Whole(WholeReason::Off)));
        assert_eq!(shown(&course), "0/100 compared open=false (-)");
    }

    /// The answer to the first seal was lost: what the point has beyond what is
    /// known to be copied is compared, holes too.
    #[test]
    fn a_lost_answer_makes_no_hole_count_as_copied() {
        let mut course = Course::default();
        course.meet(Kept { newest: None, open: None });
        course.take(&seen(Base::Whole(WholeReason::First)));
        course.began(1);
        course.sealing = Some(at(1).instant);
        course.meet(Kept { newest: Some(at(1)), open: None });
        course.take(&seen(Base::Whole(WholeReason::First)));
        assert_eq!(shown(&course), "0/100 compared open=false (-)");
    }
}
