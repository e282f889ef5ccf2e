//! A medium that lies or breaks: a clear error, never wrong bytes.

use std::sync::Arc;

use replica::{
    adopt::Condition,
    error::StoreError,
    format::{Digest, manifest::NEWEST_VERSION},
    geometry::{Cycle, DiskNumber},
    medium::{
        Medium,
        simulated::{Fault, SimulatedMedium},
    },
    pipeline::{Compression, Encoded, Encoder},
    state::Limits,
    store::Store,
    verify::Thoroughness,
    writer::{Writer, WriterOptions},
};

use crate::model::{self, Change, DISKS, Points};

const DISK: DiskNumber = DiskNumber(0);

/// Three points with noise in them.
fn sealed() -> (SimulatedMedium, Points) {
    let medium = SimulatedMedium::new(1);
    let mut writer = model::open(&medium);
    let mut points = Points::new();
    let mut image = model::blank();
    for round in 0..3_u8 {
        writer.begin(&DISKS).unwrap();
        for page in 0..4 {
            let seed = (round * 16 + page as u8) | 3;
            let change = Change::Write { disk: 0, page: page * 9 + 1, pages: 5, seed };
            change.apply(&mut writer).unwrap();
            change.apply_to(&mut image);
        }
        let point = writer.seal(model::facts(round.into())).unwrap();
        points.insert(point.cycle, image.clone());
    }
    writer.settle().unwrap();
    (medium, points)
}

/// Each point is whole or says what is wrong with it.
fn never_wrong(store: &Store, points: &Points) -> u32 {
    let mut errors = 0;
    for point in store.points() {
        match model::image_of(store, point.cycle) {
            Ok(image) => assert!(points.get(&point.cycle) == Some(&image), "wrong bytes"),
            Err(_) => errors += 1,
        }
    }
    errors
}

#[test]
fn a_flipped_bit_is_told_wherever_it_is() {
    let mut told = 0;
    for folder in ["seg", "idx", "man"] {
        let (sample, _) = sealed();
        for (name, length) in sample.list(folder).unwrap() {
            for offset in (0..length as usize).step_by(977) {
                let (medium, points) = sealed();
                medium.flip_bit(&name, offset);
                match Store::open(Arc::new(medium.clone()), Limits::default()) {
                    Ok(store) => told += never_wrong(&store, &points),
                    Err(error) => assert!(!error.chain().is_empty()),
                }
            }
        }
    }
    assert!(told > 10, "damage was met: {told}");
}

#[test]
fn damage_names_disk_range_and_points_and_is_repaired_from_good_bytes() {
    let (medium, points) = sealed();
    let mut writer = model::open(&medium);
    let store = writer.store();
    let whole = store.verify(Thoroughness::All, |_| {}).unwrap();
    assert!(whole.is_whole() && whole.records > 0);
    let (name, length) = medium.list("seg").unwrap().swap_remove(0);
    for offset in (5000..length as usize - 5000).step_by(30_000) {
        medium.flip_bit(&name, offset);
    }
    let store = model::open_beside(&medium);
    let report = store.verify(Thoroughness::All, |_| {}).unwrap();
    assert!(report.damaged > 0);
    for damage in &report.damages {
        assert_eq!(damage.disk, DISK);
        let (first, last) = damage.points.unwrap();
        for point in [first, last] {
            let view = store.view(point, DISK).unwrap();
            let read = view.read_to_vec(damage.range.start, damage.range.end - damage.range.start);
            let Err(StoreError::Damaged(met)) = read else { panic!("{damage} is not met") };
            assert_eq!((met.disk, &met.range), (damage.disk, &damage.range));
        }
    }
    let mut mended = 0;
    for damage in &report.damages {
        let (first, _) = damage.points.unwrap();
        let block = damage.range.start / 65536 * 65536;
        let good = &points[&first][0][block as usize..];
        let good = &good[..good.len().min(65536)];
        let wrong: Vec<u8> = good.iter().map(|byte| !byte).collect();
        match writer.repair(first, DISK, block, &wrong) {
            Err(StoreError::WrongBytes { .. }) => {}
            // Mended already, with another record of its block.
            other => assert_eq!(other.unwrap(), 0),
        }
        mended += writer.repair(first, DISK, block, good).unwrap();
    }
    assert_eq!(mended as u64, report.damaged);
    model::check(&writer.store(), &points);
    drop(writer);
    model::check(&model::open(&medium).store(), &points);
}

#[test]
fn syncs_that_lie_never_show_wrong_bytes() {
    for seed in 0..40 {
        let medium = SimulatedMedium::new(seed);
        let mut points = Points::new();
        let mut image = model::blank();
        let mut writer = model::open(&medium);
        for round in 0..6 {
            if round >= 2 {
                (0..40).for_each(|n| medium.plan(medium.operations() + n, Fault::LostSync));
            }
            let Ok(_) = writer.begin(&DISKS) else { break };
            let change = Change::Write { disk: 0, page: round * 5, pages: 7, seed: 7 };
            change.apply(&mut writer).unwrap();
            change.apply_to(&mut image);
            let point = writer.seal(model::facts(round as i64)).unwrap();
            points.insert(point.cycle, image.clone());
        }
        let after = medium.restart(seed);
        drop(writer);
        let store = Store::open(Arc::new(after), Limits::default());
        if let Ok(store) = store {
            never_wrong(&store, &points);
        }
    }
}

#[test]
fn a_full_medium_refuses_and_the_store_stays_readable() {
    let medium = SimulatedMedium::new(1);
    medium.limit(Some(600_000));
    let mut writer = model::open(&medium);
    let mut points = Points::new();
    let mut image = model::blank();
    let mut refused = None;
    for round in 0..50_u8 {
        let mut next = image.clone();
        let mut attempt = || {
            writer.begin(&DISKS)?;
            let change = Change::Write { disk: 0, page: 0, pages: 40, seed: round | 3 };
            change.apply_to(&mut next);
            change.apply(&mut writer)?;
            writer.seal(model::facts(round.into()))
        };
        match attempt() {
            Ok(point) => {
                image = next;
                points.insert(point.cycle, image.clone());
            }
            Err(error) => {
                refused = Some(error.chain());
                break;
            }
        }
    }
    assert!(refused.is_some(), "600 kB were enough?");
    model::check(&writer.store(), &points);
    drop(writer);
    let store = model::open_beside(&medium);
    model::check(&store, &points);
    // With room again, it goes on.
    medium.limit(None);
    let mut writer = model::open(&medium);
    writer.begin(&DISKS).unwrap();
    let point = writer.seal(model::facts(99)).unwrap();
    points.insert(point.cycle, image);
    model::check(&writer.store(), &points);
}

#[test]
fn one_writer_at_a_time_and_never_an_older_one() {
    let (medium, _) = sealed();
    let open = |generation| {
        let options = WriterOptions { generation, ..model::small() };
        Writer::open(Arc::new(medium.clone()), options)
    };
    let held = open(5).unwrap();
    assert!(matches!(open(6), Err(StoreError::InUse)));
    drop(held);
    assert!(matches!(open(4), Err(StoreError::Fenced { ours: 4, theirs: 5 })));
    open(5).unwrap();
}

/// Two media that do not see one another's locks, as object storage.
#[test]
fn of_two_writers_only_one_publishes() {
    let (medium, _) = sealed();
    let mut first = model::open(&medium);
    let sequence = medium.list("man").unwrap().pop().unwrap().0;
    let number = u64::from_str_radix(&sequence[4..20], 16).unwrap();
    medium.publish(&format!("man/{:016x}.man", number + 1), b"somebody else").unwrap();
    first.begin(&DISKS).unwrap();
    assert!(matches!(first.checkpoint(), Err(StoreError::Fenced { .. })));
}

/// Publishes the newest manifest once more, as the next one, with this done to what its
/// digest is of, and perhaps to the whole.
fn publish_next(medium: &SimulatedMedium, first: impl Fn(&mut [u8]), then: impl Fn(&mut [u8])) {
    let (name, length) = medium.list("man").unwrap().pop().unwrap();
    let mut bytes = vec![0; length as usize];
    medium.open(&name).unwrap().read_at(&mut bytes, 0).unwrap();
    let (sealed, digest) = bytes.split_at_mut(length as usize - 16);
    first(sealed);
    digest.copy_from_slice(&Digest::of(sealed).0);
    then(&mut bytes);
    let number = u64::from_str_radix(&name[4..20], 16).unwrap();
    medium.publish(&format!("man/{:016x}.man", number + 1), &bytes).unwrap();
}

#[test]
fn what_a_newer_program_wrote_is_refused_and_not_passed_over() {
    let (medium, _) = sealed();
    let newer = NEWEST_VERSION + 1;
    publish_next(&medium, |sealed| sealed[8..10].copy_from_slice(&newer.to_le_bytes()), |_| {});
    let reading = Store::open(Arc::new(medium.clone()), Limits::default()).unwrap_err();
    let writing = Writer::open(Arc::new(medium), WriterOptions::new(9)).map(|_| ()).unwrap_err();
    for error in [reading, writing] {
        let StoreError::TooNew { found, known, .. } = &error else { panic!("{error}") };
        assert_eq!((*found, *known), (newer, NEWEST_VERSION));
        let told = error.chain();
        assert!(told.contains(&format!("version {newer} ")), "{told}");
        assert!(told.contains(&format!("version {NEWEST_VERSION} ")), "{told}");
        assert!(told.contains("upgrade"), "{told}");
    }
}

#[test]
fn a_damaged_manifest_gives_way_to_the_one_before_whatever_version_it_claims() {
    let (medium, points) = sealed();
    let newer = (NEWEST_VERSION + 1).to_le_bytes();
    publish_next(&medium, |_| {}, |bytes| bytes[8..10].copy_from_slice(&newer));
    let store = Store::open(Arc::new(medium), Limits::default()).unwrap();
    model::check(&store, &points);
}

#[test]
fn a_view_keeps_its_point_and_reads_on_while_its_segments_move() {
    let (medium, mut points) = sealed();
    let mut writer = model::open(&medium);
    let store = writer.store();
    let view = store.view(Cycle(2), DISK).unwrap();
    let kept = writer.drop_points(&[Cycle(2)], 0);
    assert!(matches!(kept, Err(StoreError::Kept { why: "somebody reads it", .. })));
    let freed = store.bytes_freed_by(Cycle(1)).unwrap();
    let dead = store.usage().dead;
    writer.drop_points(&[Cycle(1)], 0).unwrap();
    assert!(freed > 0);
    assert_eq!(store.usage().dead, dead + freed);
    points.remove(&Cycle(1));
    let done = writer.reclaim(100).unwrap();
    assert!(done.deleted > 0, "{done:?}");
    // Files go with the manifest after the next.
    writer.checkpoint().unwrap();
    writer.checkpoint().unwrap();
    assert!(view.read_to_vec(0, view.size()).unwrap() == points[&Cycle(2)][0]);
    model::check(&store, &points);
    drop(view);
    writer.drop_points(&[Cycle(2)], 0).unwrap();
}

#[test]
fn an_adopted_image_is_read_where_it_lies_and_its_changes_are_noticed() {
    let medium = SimulatedMedium::new(1);
    let adoption = Change::Adopt { disk: 0, seed: 7 };
    model::put_images(&medium, &[adoption]);
    let mut image = model::blank();
    adoption.apply_to(&mut image);
    let mut writer = model::open(&medium);
    writer.begin(&DISKS).unwrap();
    adoption.apply(&mut writer).unwrap();
    let point = writer.seal(model::facts(1)).unwrap().cycle;
    let store = writer.store();
    assert!(store.usage().data < 10_000, "nothing was copied: {:?}", store.usage());
    let points = Points::from([(point, image.clone())]);
    model::check(&store, &points);
    assert_eq!(store.adopted()[0].condition, Condition::Unchanged);
    assert!(store.verify(Thoroughness::All, |_| {}).unwrap().is_whole());

    // Somebody writes to it.
    let path = store.adopted()[0].facts.path.clone();
    let mut bytes = vec![0; store.adopted()[0].facts.size as usize];
    medium.adopted(&path).unwrap().read_at(&mut bytes, 0).unwrap();
    let at = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[at] ^= 1;
    medium.put_outside(&path, &bytes);
    let store = model::open_beside(&medium);
    assert_eq!(store.adopted()[0].condition, Condition::Changed);
    assert_eq!(never_wrong(&store, &points), 1);
    let report = store.verify(Thoroughness::All, |_| {}).unwrap();
    assert_eq!(report.damaged, 1);
    let damage = &report.damages[0];
    assert!(damage.place.starts_with(&path), "{damage}");

    // The block is mended from a copy, into the store.
    let block = damage.range.start / 65536 * 65536;
    let good = &image[0][block as usize..image[0].len().min(block as usize + 65536)];
    assert_eq!(writer.repair(point, DISK, block, good).unwrap(), 1);
    drop(writer);
    let mut writer = model::open(&medium);
    model::check(&writer.store(), &points);

    // When no point reads it any more, it is let go.
    assert_eq!(writer.release_adopted().unwrap(), Vec::<String>::new());
    writer.begin(&DISKS).unwrap();
    writer.discard(DISK, 0, DISKS[0]).unwrap();
    writer.seal(model::facts(2)).unwrap();
    writer.drop_points(&[point], 0).unwrap();
    assert_eq!(writer.release_adopted().unwrap(), [path]);
    assert!(model::open_beside(&medium).adopted().is_empty());
}

/// The system forgets what it failed to write, but goes on showing it.
#[test]
fn what_an_earlier_process_failed_to_sync_is_not_believed() {
    for seed in 0..40 {
        let (medium, mut points) = sealed();
        let mut writer = model::open(&medium);
        let cycle = writer.begin(&DISKS).unwrap();
        let mut image = points[&Cycle(3)].clone();
        let change = Change::Write { disk: 0, page: seed % 20, pages: 9, seed: 7 };
        change.apply(&mut writer).unwrap();
        // The segment is created, written to, and then synced.
        medium.plan(medium.operations() + 2, Fault::Io);
        assert!(writer.sync().is_err());
        drop(writer);
        // Another process, the same running system.
        let mut writer = model::open(&medium);
        let received = writer.resume(&DISKS).unwrap();
        assert!(
            received.is_none_or(|received| received.cycle < Some(cycle) || received.changes == 0)
        );
        writer.begin(&DISKS).unwrap();
        change.apply_to(&mut image);
        change.apply(&mut writer).unwrap();
        let point = writer.seal(model::facts(9)).unwrap();
        points.insert(point.cycle, image);
        drop(writer);
        let writer = model::open(&medium.restart(seed));
        model::check(&writer.store(), &points);
    }
}

#[test]
fn a_view_of_another_process_keeps_its_point() {
    let (medium, _) = sealed();
    let mut writer = model::open(&medium);
    let beside = model::open_beside(&medium);
    let view = beside.view(Cycle(2), DISK).unwrap();
    let kept = writer.drop_points(&[Cycle(2)], 0);
    assert!(matches!(kept, Err(StoreError::Kept { why: "somebody reads it", .. })));
    drop(view);
    writer.drop_points(&[Cycle(2)], 0).unwrap();
    // A reader that has not looked since learns it when it asks for a view.
    assert!(beside.point(Cycle(2)).is_ok());
    assert!(matches!(beside.view(Cycle(2), DISK), Err(StoreError::NoSuchPoint(Cycle(2)))));
}

#[test]
fn a_sender_that_errs_is_found_out() {
    let medium = SimulatedMedium::new(1);
    let mut writer = model::open(&medium);
    writer.begin(&DISKS).unwrap();
    let mut encoder = Encoder::new(Compression::Zstd(-3));
    let right = encoder.encode_pages(vec![7; 4096].into()).unwrap();
    let wrong =
        Encoded { digest: encoder.encode_pages(vec![8; 4096].into()).unwrap().digest, ..right };
    for page in 0..40 {
        writer.write_encoded(DISK, page * 4096, 4096, wrong.clone()).unwrap();
    }
    assert!(matches!(writer.sync(), Err(StoreError::WrongBytes { .. })));
    assert!(writer.store().points().is_empty());
    writer.begin(&DISKS).unwrap();
    writer.seal(model::facts(1)).unwrap();
}
