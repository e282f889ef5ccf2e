//! `lifeboat store diff`.

use std::ops::Range;
use std::path::{Path, PathBuf};

use domain::fault::Fault;
use domain::units::ByteCount;
use replica::diff::Exactness;
use replica::digest;
use replica::error::StoreError;
use replica::format::manifest::Point;
use replica::geometry::DiskNumber;
use serde::Serialize;

use super::faults;
use super::long;
use super::place::{Opened, Place, PointWish};
use crate::failure::Failure;
use crate::output::{self, inner_table};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The machine
    machine: String,
    /// A point of it
    from: PointWish,
    /// Another point; with --with, of the other store, whose newest it is if left out
    #[arg(required_unless_present = "with")]
    to: Option<PointWish>,
    /// Only this disk
    #[arg(long, value_name = "N")]
    disk: Option<u16>,
    /// Show all that was written in between, were it the same bytes again
    #[arg(long, conflicts_with = "with")]
    written: bool,
    /// Compare with a point of another store, which need not have anything to do with this one
    #[arg(long, value_name = "OTHERSTORE")]
    with: Option<PathBuf>,
    /// The machine in there, if it has another name
    #[arg(long, value_name = "MACHINE", requires = "with")]
    with_machine: Option<String>,
}

#[derive(Debug, Serialize)]
struct DiffView {
    machine: String,
    from: u32,
    to: u32,
    /// The folder of the machine that it was compared with, if it is another one.
    with: Option<PathBuf>,
    disks: Vec<DiskView>,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct DiskView {
    disk: u16,
    /// The disk's size; absent where there is no such disk.
    from_bytes: Option<u64>,
    to_bytes: Option<u64>,
    stretches: Vec<Stretch>,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct Stretch {
    start: u64,
    length: u64,
}

pub(super) async fn run(place: &Place, arguments: &Arguments) -> Result<(), Failure> {
    let machine = place.open(Some(&arguments.machine))?;
    let from = machine.point(arguments.from)?;
    let other = match &arguments.with {
        Some(folder) => Some(other(place, folder, arguments.with_machine.as_deref(), &machine)?),
        None => None,
    };
    let far = other.as_ref().unwrap_or(&machine);
    let to = far.point(arguments.to.unwrap_or(PointWish::Latest))?;
    let numbers = match arguments.disk {
        Some(disk) => {
            machine.disk(&from, DiskNumber(disk))?;
            disk..disk.saturating_add(1)
        }
        None => 0..u16::try_from(from.disks.len().max(to.disks.len())).unwrap_or(u16::MAX),
    };
    let exactness = if arguments.written { Exactness::Written } else { Exactness::Compared };
    let doing = format!("compare points of {}", machine.told());
    let told = doing.clone();
    let work = (machine.clone(), other.clone(), from.clone(), to.clone());
    let disks = long::reading(&doing, move || {
        let (machine, other, from, to) = work;
        let compare = |disk| {
            compare(&machine, other.as_ref(), &from, &to, DiskNumber(disk), exactness)
                .map_err(|error| faults::store(format!("{told}: disk {disk}"), &error))
        };
        numbers.map(compare).collect::<Result<Vec<DiskView>, Fault>>()
    })
    .await?;
    let view = DiffView {
        machine: machine.folder.name,
        from: from.cycle.0,
        to: to.cycle.0,
        with: other.map(|other| other.folder.path),
        bytes: disks.iter().map(|disk| disk.bytes).sum(),
        disks,
    };
    show(place, &view);
    Ok(())
}

/// The machine in another store that is this one, or the one that is named.
pub(super) fn other(
    place: &Place,
    folder: &Path,
    name: Option<&str>,
    machine: &Opened,
) -> Result<Opened, Failure> {
    let there = Place { folder: folder.to_owned(), json: place.json };
    let machines = there.machines()?;
    // A machine's own folder, or a store with nothing else, leaves no choice.
    let own_name = (machines.len() != 1).then_some(machine.folder.name.as_str());
    Ok(there.open(name.or(own_name))?)
}

fn compare(
    machine: &Opened,
    other: Option<&Opened>,
    from: &Point,
    to: &Point,
    disk: DiskNumber,
    exactness: Exactness,
) -> Result<DiskView, StoreError> {
    let size = |point: &Point| point.disks.get(usize::from(disk.0)).copied();
    let (from_bytes, to_bytes) = (size(from), size(to));
    let ranges: Vec<Range<u64>> = match (from_bytes.zip(to_bytes), other) {
        (None, _) => Vec::new(),
        (Some(_), None) => machine.store.diff(disk, from.cycle, to.cycle, exactness)?,
        (Some((ours, theirs)), Some(other)) => {
            let views = (machine.store.view(from.cycle, disk)?, other.store.view(to.cycle, disk)?);
            digest::compare(ours.max(theirs), &views.0, &views.1)?.ranges
        }
    };
    let stretches: Vec<Stretch> = ranges
        .into_iter()
        .map(|range| Stretch { start: range.start, length: range.end - range.start })
        .collect();
    let bytes = stretches.iter().map(|stretch| stretch.length).sum();
    Ok(DiskView { disk: disk.0, from_bytes, to_bytes, stretches, bytes })
}

fn show(place: &Place, view: &DiffView) {
    if place.json {
        return output::json(view);
    }
    let mut rows = Vec::new();
    for disk in &view.disks {
        if disk.from_bytes != disk.to_bytes {
            println!("{}", sizes(disk));
        }
        for stretch in &disk.stretches {
            let cells =
                [disk.disk.to_string(), stretch.start.to_string(), stretch.length.to_string()];
            rows.push(cells.to_vec());
        }
    }
    if rows.is_empty() {
        let only_sizes = view.disks.iter().any(|disk| disk.from_bytes != disk.to_bytes);
        println!("{}", if only_sizes { "Nothing else differs." } else { "Nothing differs." });
        return;
    }
    println!("{}", inner_table(&["DISK", "FROM BYTE", "LENGTH"], rows));
    println!("{} may differ.", ByteCount::new(view.bytes));
}

fn sizes(disk: &DiskView) -> String {
    let told = |bytes: Option<u64>| match bytes {
        Some(bytes) => format!("has {bytes} bytes"),
        None => "does not exist".into(),
    };
    format!(
        "Disk {} {} at the first point and {} at the second.",
        disk.disk,
        told(disk.from_bytes),
        told(disk.to_bytes)
    )
}
