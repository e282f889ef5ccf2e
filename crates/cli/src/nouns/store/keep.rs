//! `lifeboat store drop`, `hold`, `release` and `reclaim`: what stays.

use replica::format::manifest::Hold;
use replica::geometry::Cycle;
use replica::reclaim::Reclaimed;
use serde::Serialize;
use time::OffsetDateTime;

use domain::units::{ByteCount, milliseconds};

use super::faults;
use super::long::{self, Stop};
use super::place::{self, Place, PointWish};
use super::views::PointView;
use crate::confirm::confirm;
use crate::failure::Failure;
use crate::output;

/// Segments that are looked at before an interruption is.
const STEP: usize = 8;

#[derive(Debug, clap::Args)]
pub(super) struct Drop {
    /// The machine
    machine: String,
    /// Its points
    #[arg(required = true, value_name = "POINT")]
    points: Vec<PointWish>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Point {
    /// The machine
    machine: String,
    /// Its point
    point: PointWish,
}

#[derive(Debug, clap::Args)]
pub(super) struct Reclaim {
    /// The machine
    machine: Option<String>,
}

#[derive(Debug, Serialize)]
struct DropView {
    machine: String,
    dropped: Vec<u32>,
    /// What `reclaim` may give back now.
    dead_bytes: u64,
}

#[derive(Debug, Default, Serialize)]
struct ReclaimView {
    machine: String,
    freed_bytes: u64,
    punched_bytes: u64,
    deleted_segments: u64,
    rewritten_segments: u64,
}

pub(super) fn drop_points(place: &Place, arguments: &Drop) -> Result<(), Failure> {
    let machine = place.open(Some(&arguments.machine))?;
    let mut points: Vec<Cycle> = Vec::new();
    for wish in &arguments.points {
        points.push(machine.point(*wish)?.cycle);
    }
    points.sort_unstable();
    points.dedup();
    let numbers: Vec<u32> = points.iter().map(|point| point.0).collect();
    let told: Vec<String> = numbers.iter().map(u32::to_string).collect();
    let told = format!("point{} {}", if told.len() == 1 { "" } else { "s" }, told.join(", "));
    let doing = format!("drop {told} of {}", machine.told());
    confirm(&doing, &machine.folder.name, arguments.yes)?;
    let mut writer = place::write(&machine.folder)?;
    writer
        .drop_points(&points, milliseconds(OffsetDateTime::now_utc()))
        .map_err(|error| faults::store(doing, &error))?;
    let view = DropView {
        machine: machine.folder.name,
        dropped: numbers,
        dead_bytes: writer.store().usage().dead,
    };
    let words = format!(
        "Dropped {told} of {}. No point needs {} of the store now, which lifeboat store reclaim {} can give back.",
        view.machine,
        ByteCount::new(view.dead_bytes),
        view.machine
    );
    output::done(place.json, &view, &words);
    Ok(())
}

pub(super) fn hold(place: &Place, arguments: &Point) -> Result<(), Failure> {
    set(place, arguments, Hold::Operator, "hold", "stays until it is released")
}

pub(super) fn release(place: &Place, arguments: &Point) -> Result<(), Failure> {
    set(place, arguments, Hold::None, "release", "is kept as the policy says")
}

fn set(
    place: &Place,
    arguments: &Point,
    hold: Hold,
    verb: &str,
    outcome: &str,
) -> Result<(), Failure> {
    let machine = place.open(Some(&arguments.machine))?;
    let point = machine.point(arguments.point)?;
    let doing = format!("{verb} {} of {}", point.cycle, machine.told());
    let failed = |error| faults::store(&doing, &error);
    let mut writer = place::write(&machine.folder)?;
    writer.hold(point.cycle, hold).map_err(failed)?;
    let store = writer.store();
    let view = PointView::of(&store, &store.point(point.cycle).map_err(failed)?);
    let words = format!("Point {} of {} {outcome}.", view.point, machine.folder.name);
    output::done(place.json, &view, &words);
    Ok(())
}

pub(super) async fn reclaim(place: &Place, arguments: &Reclaim) -> Result<(), Failure> {
    let folder = place.find(arguments.machine.as_deref())?;
    let doing = format!("reclaim room of {}", place::told(&folder));
    let told = doing.clone();
    let view = long::writing(&doing, move |stop: &Stop| {
        let mut writer = place::write(&folder)?;
        let mut view = ReclaimView { machine: folder.name, ..ReclaimView::default() };
        loop {
            stop.check().map_err(|_| faults::interrupted(&told))?;
            let done = writer.reclaim(STEP).map_err(|error| faults::store(&told, &error))?;
            view.add(&done);
            if done.deleted == 0 && done.punched == 0 {
                return Ok(view);
            }
        }
    })
    .await?;
    let words = format!(
        "{} gave back {}, and {} in holes.",
        view.machine,
        ByteCount::new(view.freed_bytes),
        ByteCount::new(view.punched_bytes)
    );
    output::done(place.json, &view, &words);
    Ok(())
}

impl ReclaimView {
    fn add(&mut self, done: &Reclaimed) {
        self.freed_bytes += done.freed;
        self.punched_bytes += done.punched;
        self.deleted_segments += done.deleted;
        self.rewritten_segments += done.rewritten;
    }
}
