//! `lifeboat store points`.

use api::List;
use domain::units::{ByteCount, utc};

use super::place::Place;
use super::views::PointView;
use crate::failure::Failure;
use crate::output::{self, or_dash};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The machine
    machine: Option<String>,
}

pub(super) fn run(place: &Place, arguments: &Arguments) -> Result<(), Failure> {
    let machine = place.open(arguments.machine.as_deref())?;
    let points = machine.store.points();
    let points = points.iter().map(|point| PointView::of(&machine.store, point)).collect();
    output::list(
        place.json,
        &List { items: points },
        &format!("{} has no points.", machine.folder.name),
        &["POINT", "TIME", "CONSISTENCY", "SIZE", "ARRIVED", "FREES", "HOLD", "ORIGIN"],
        |point: &PointView| {
            vec![
                point.point.to_string(),
                utc(point.instant),
                point.consistency.word().into(),
                ByteCount::new(point.disks_bytes.iter().sum()).to_string(),
                ByteCount::new(point.arrived_bytes).to_string(),
                or_dash(point.freed_bytes.map(ByteCount::new)),
                point.hold.words(),
                point.origin.clone(),
            ]
        },
    );
    Ok(())
}
