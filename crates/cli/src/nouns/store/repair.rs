//! `lifeboat store repair`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use domain::fault::{Code, Fault};
use replica::error::{Damage, StoreError};
use replica::format::manifest::Point;
use replica::geometry::{BLOCK, DiskNumber};
use replica::store::Store;
use replica::verify::Thoroughness;
use replica::writer::Writer;
use serde::Serialize;

use super::long::{self, Bar, Stop};
use super::place::{self, Opened, Place};
use super::verify::{DamageView, look};
use super::views::count;
use super::{diff, faults};
use crate::failure::Failure;
use crate::output::{self, inner_table};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The machine
    machine: Option<String>,
    /// The store, or the machine's folder, that has the bytes
    #[arg(long, value_name = "OTHERSTORE")]
    from: PathBuf,
    /// The machine in there, if it has another name
    #[arg(long, value_name = "MACHINE")]
    from_machine: Option<String>,
}

#[derive(Debug, Serialize)]
struct RepairView {
    machine: String,
    /// Records that are whole again.
    mended: usize,
    /// Those for which nobody has the bytes.
    left: Vec<DamageView>,
    /// Files that cannot be read at all, which this does not mend.
    files: Vec<String>,
}

pub(super) async fn run(place: &Place, arguments: &Arguments) -> Result<(), Failure> {
    let machine = place.open(arguments.machine.as_deref())?;
    let other = diff::other(place, &arguments.from, arguments.from_machine.as_deref(), &machine)?;
    let doing = format!("repair {}", machine.told());
    let bar = Bar::new(&machine.folder.name, place.json);
    let told = doing.clone();
    let ours = machine.clone();
    let view =
        long::writing(&doing, move |stop| mend_all(&told, &ours, &other.store, &bar, stop)).await?;
    let mut fields = vec![
        ("Machine", view.machine.clone()),
        ("Mended", count(view.mended, "record")),
        ("Left", count(view.left.len(), "record")),
    ];
    if !view.left.is_empty() {
        let rows = view.left.iter().map(DamageView::row).collect();
        fields.push(("Where", inner_table(&DamageView::COLUMNS, rows)));
    }
    if !view.files.is_empty() {
        fields.push(("Files", view.files.join("\n")));
    }
    output::item(place.json, &view, &fields);
    if view.left.is_empty() && view.files.is_empty() {
        return Ok(());
    }
    Err(Fault::new(
        Code::StoreDamaged,
        doing,
        format!(
            "{} and {} are damaged still",
            count(view.left.len(), "record"),
            count(view.files.len(), "file")
        ),
        "Try another store that has these points. Points that do not need what is damaged can be exported.",
    )
    .into())
}

/// Verifies and mends, until that leads no further.
fn mend_all(
    doing: &str,
    machine: &Opened,
    other: &Store,
    bar: &Bar,
    stop: &Stop,
) -> Result<RepairView, Fault> {
    let mut writer = place::write(&machine.folder)?;
    let mut mended = 0;
    let mut before = u64::MAX;
    loop {
        let store = writer.store();
        let report = look(&store, doing, Thoroughness::All, None, bar)?;
        let mut progress = 0;
        // A medium that damages what was just mended would keep us for ever.
        let worth_trying = report.damaged < before;
        before = report.damaged;
        for damage in report.damages.iter().filter(|_| worth_trying) {
            stop.check().map_err(|_| faults::interrupted(doing))?;
            progress += mend(&mut writer, other, damage)
                .map_err(|error| faults::store(format!("{doing}: {}", damage.disk), &error))?;
        }
        mended += progress;
        // What was mended proves itself once more.
        if progress == 0 {
            return Ok(RepairView {
                machine: machine.folder.name.clone(),
                mended,
                left: report.damages.iter().map(DamageView::from).collect(),
                files: report.files,
            });
        }
    }
}

/// Looks for the bytes of a damaged record in all points of another store:
/// nobody knows which of them has them, and wrong ones do no harm.
fn mend(writer: &mut Writer, other: &Store, damage: &Damage) -> Result<usize, StoreError> {
    let offset = damage.range.start / BLOCK * BLOCK;
    let blocks = candidates(other, damage.disk, offset);
    let points: Vec<Point> = writer.store().points();
    // The oldest first: there, the fewest later writes lie over the record.
    let needs = |point: &&Point| {
        damage.points.is_some_and(|(first, last)| (first..=last).contains(&point.cycle))
    };
    for point in points.iter().filter(needs) {
        for block in &blocks {
            match writer.repair(point.cycle, damage.disk, offset, block) {
                Ok(0) => break,
                Ok(mended) => return Ok(mended),
                Err(StoreError::WrongBytes { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(0)
}

/// What a block is at the points of a store, each once; damaged ones are left
/// out.
fn candidates(store: &Store, disk: DiskNumber, offset: u64) -> BTreeSet<Vec<u8>> {
    let read = |point: &Point| {
        let view = store.view(point.cycle, disk).ok()?;
        let length = BLOCK.min(view.size().checked_sub(offset)?);
        view.read_to_vec(offset, length).ok()
    };
    store.points().iter().filter_map(read).collect()
}
