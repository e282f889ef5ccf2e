//! Any sequence of operations agrees with the model.

use std::sync::Arc;

use proptest::{collection::vec, prelude::*};
use replica::{
    diff::Exactness,
    digest::compare,
    geometry::{Cycle, DiskNumber},
    medium::simulated::SimulatedMedium,
    state::Limits,
    store::Store,
    verify::Thoroughness,
    writer::Writer,
};

use crate::model::{self, Change, DISKS, Image, Points};

#[derive(Debug, Clone)]
enum Step {
    Change(Change),
    Sync,
    Seal,
    GiveUp,
    Reopen,
    Settle,
    Drop(usize),
    Reclaim,
    Repeat,
}

fn change() -> impl Strategy<Value = Change> {
    let range = || (0..2_u16, 0..50_u64, prop_oneof![4 => 1..4_u64, 1 => 1..50_u64]);
    prop_oneof![
        6 => (range(), any::<u8>()).prop_map(|((disk, page, pages), seed)| Change::Write {
            disk, page, pages, seed
        }),
        2 => (0..2_u16, 0..400_u64, 1..30_u64, any::<u8>()).prop_map(
            |(disk, sector, sectors, seed)| Change::Odd { disk, sector, sectors, seed }
        ),
        1 => (0..2_u16, 0..4_u8).prop_map(|(disk, seed)| Change::Adopt { disk, seed }),
        1 => range().prop_map(|(disk, page, pages)| Change::Zero { disk, page, pages }),
        1 => range().prop_map(|(disk, page, pages)| Change::Discard { disk, page, pages }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => change().prop_map(Step::Change),
        2 => Just(Step::Sync),
        6 => Just(Step::Seal),
        1 => Just(Step::GiveUp),
        1 => Just(Step::Reopen),
        1 => Just(Step::Settle),
        2 => any::<usize>().prop_map(Step::Drop),
        1 => Just(Step::Reclaim),
        1 => Just(Step::Repeat),
    ]
}

struct World {
    medium: SimulatedMedium,
    writer: Option<Writer>,
    points: Points,
    current: Image,
    /// Changes of the open attempt.
    changes: Vec<Change>,
    cycle: Option<Cycle>,
}

impl World {
    fn new() -> Self {
        let medium = SimulatedMedium::new(1);
        for disk in 0..2 {
            let images: Vec<_> = (0..4).map(|seed| Change::Adopt { disk, seed }).collect();
            model::put_images(&medium, &images);
        }
        let mut writer = model::open(&medium);
        let cycle = Some(writer.begin(&DISKS).unwrap());
        let (points, current) = (Points::new(), model::blank());
        Self { medium, writer: Some(writer), points, current, changes: Vec::new(), cycle }
    }

    fn writer(&mut self) -> &mut Writer {
        self.writer.as_mut().unwrap()
    }

    fn newest(&self) -> Image {
        self.points.values().next_back().cloned().unwrap_or_else(model::blank)
    }

    fn run(&mut self, number: usize, step: &Step) {
        match step {
            Step::Change(change) => {
                change.apply(self.writer()).unwrap();
                change.apply_to(&mut self.current);
                self.changes.push(*change);
            }
            Step::Sync => {
                let received = self.writer().sync().unwrap();
                assert_eq!(received.changes, self.changes.len() as u64);
            }
            Step::Seal => {
                let point = self.writer().seal(model::facts(number as i64)).unwrap();
                self.points.insert(point.cycle, self.current.clone());
                self.changes.clear();
                self.cycle = Some(self.writer().begin(&DISKS).unwrap());
            }
            Step::GiveUp => {
                self.cycle = Some(self.writer().begin(&DISKS).unwrap());
                self.current = self.newest();
                self.changes.clear();
            }
            Step::Settle => self.writer().settle().unwrap(),
            Step::Drop(which) => {
                let Some((point, _)) = self.points.iter().nth(which % (self.points.len() + 1))
                else {
                    return;
                };
                let point = *point;
                let newest = self.points.keys().next_back() == Some(&point);
                assert_eq!(self.writer().drop_points(&[point], 0).is_err(), newest);
                if !newest {
                    self.points.remove(&point);
                }
            }
            Step::Reclaim => {
                self.writer().reclaim(usize::MAX).unwrap();
            }
            Step::Repeat => {
                // The attempt so far, once more: idempotent.
                for change in self.changes.clone() {
                    change.apply(self.writer()).unwrap();
                    change.apply_to(&mut self.current);
                    self.changes.push(change);
                }
            }
            Step::Reopen => {
                self.writer = None;
                self.medium = self.medium.restart(number as u64);
                self.writer = Some(model::open(&self.medium));
                let received = self.writer().resume(&DISKS).unwrap();
                // An attempt before the last one may be what is durable.
                let same = received.filter(|received| received.cycle == self.cycle);
                let had = same.map_or(0, |received| received.changes) as usize;
                if same.is_none() {
                    self.cycle = Some(self.writer().begin(&DISKS).unwrap());
                }
                assert!(had <= self.changes.len());
                for change in self.changes.clone().get(had..).unwrap() {
                    change.apply(self.writer()).unwrap();
                }
            }
        }
    }

    fn check(&mut self) {
        model::check(&self.writer().store(), &self.points);
        let beside = Store::open(Arc::new(self.medium.clone()), Limits::default()).unwrap();
        assert_eq!(beside.damage(), None);
        model::check(&beside, &self.points);
        let report = beside.verify(Thoroughness::All, |_| {}).unwrap();
        assert!(report.is_whole(), "{report:?}");
        self.check_differences(&beside);
    }

    fn check_differences(&self, store: &Store) {
        let disk = DiskNumber(0);
        for ((older, before), (newer, after)) in self.points.iter().zip(self.points.iter().skip(1))
        {
            let written = store.diff(disk, *newer, *older, Exactness::Written).unwrap();
            let compared = store.diff(disk, *older, *newer, Exactness::Compared).unwrap();
            let (ours, theirs) =
                (store.view(*older, disk).unwrap(), store.view(*newer, disk).unwrap());
            let digests = compare(DISKS[0], &ours, &theirs).unwrap();
            for (page, (before, after)) in
                (0..).zip(before[0].chunks(4096).zip(after[0].chunks(4096)))
            {
                let told = |ranges: &[std::ops::Range<u64>]| {
                    ranges.iter().any(|range| range.contains(&(page * 4096)))
                };
                if before == after {
                    continue;
                }
                assert!(told(&written), "page {page} of {newer} in {written:?}");
                assert!(told(&compared), "page {page} of {newer} in {compared:?}");
                assert!(told(&digests.ranges), "page {page} of {newer} in {digests:?}");
            }
            for range in &digests.ranges {
                let range = range.start as usize..range.end as usize;
                assert_ne!(before[0][range.clone()], after[0][range], "digests agree");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24,
        max_shrink_iters: 400,
        // A failing sequence becomes a named test instead.
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_store_agrees_with_the_model(steps in vec(step(), 1..120)) {
        let mut world = World::new();
        for (number, step) in steps.iter().enumerate() {
            world.run(number, step);
        }
        world.run(steps.len(), &Step::Seal);
        world.check();
        world.run(0, &Step::Reopen);
        world.check();
        world.run(0, &Step::Settle);
        world.check();
    }
}

#[test]
fn a_given_up_cycle_leaves_no_trace() {
    let mut world = World::new();
    let write = |seed| Step::Change(Change::Write { disk: 0, page: 3, pages: 40, seed });
    for step in [write(3), Step::Seal, write(7), Step::Sync, Step::GiveUp, Step::Seal] {
        world.run(1, &step);
    }
    world.check();
    assert_eq!(world.points.keys().copied().collect::<Vec<_>>(), [Cycle(1), Cycle(3)]);
}
