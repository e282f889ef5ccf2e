//! `lifeboat store show`.

use std::io::Write as _;
use std::path::PathBuf;

use domain::units::{ByteCount, utc};
use replica::adopt::{Adopted, Condition};
use replica::format::manifest::Point;
use replica::geometry::Cycle;
use serde::Serialize;

use super::configuration::Identity;
use super::place::{Opened, Place, PointWish};
use super::views::{PointView, StateView};
use crate::failure::Failure;
use crate::output::{self, inner_table, or_dash};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The machine
    machine: Option<String>,
    /// One of its points
    point: Option<PointWish>,
    /// Print the point's configuration (the newest point's, if none is named), and nothing else
    #[arg(long)]
    configuration: bool,
}

#[derive(Debug, Serialize)]
struct MachineView {
    name: String,
    path: PathBuf,
    machine_name: Option<String>,
    uuid: Option<String>,
    state: StateView,
    generation: u64,
    points: usize,
    newest: Option<PointView>,
    /// The attempt that is open and its durable changes.
    received: Option<ReceivedView>,
    /// The newest point whose index is written down.
    indexed: Option<u32>,
    /// The newest point.
    sealed: Option<u32>,
    used: UsageView,
    /// Images outside of the store that points need.
    adopted: Vec<AdoptedView>,
}

#[derive(Debug, Serialize)]
struct AdoptedView {
    path: String,
    size_bytes: u64,
    condition: &'static str,
    cause: Option<String>,
}

impl From<Adopted> for AdoptedView {
    fn from(Adopted { facts, condition }: Adopted) -> Self {
        let (condition, cause) = match condition {
            Condition::Unchanged => ("unchanged", None),
            Condition::Changed => ("changed since it was adopted", None),
            Condition::Unreadable(cause) => ("unreadable", Some(cause)),
        };
        Self { path: facts.path, size_bytes: facts.size, condition, cause }
    }
}

#[derive(Debug, Serialize)]
struct ReceivedView {
    cycle: u32,
    changes: u64,
}

#[derive(Debug, Serialize)]
struct UsageView {
    data_bytes: u64,
    dead_bytes: u64,
    index_bytes: u64,
}

#[derive(Debug, Serialize)]
struct ConfigurationView {
    machine: String,
    point: u32,
    configuration: String,
}

pub(super) fn run(place: &Place, arguments: &Arguments) -> Result<(), Failure> {
    let machine = place.open(arguments.machine.as_deref())?;
    if arguments.configuration {
        let point = machine.point(arguments.point.unwrap_or(PointWish::Latest))?;
        print_configuration(place, &machine, &point);
        return Ok(());
    }
    match arguments.point {
        Some(wish) => {
            let point = machine.point(wish)?;
            let view = PointView::of(&machine.store, &point);
            let fields = point_fields(&view);
            let mut shown = vec![("Machine", machine.folder.name)];
            shown.extend(fields);
            output::item(place.json, &view, &shown);
        }
        None => show_machine(place, &machine),
    }
    Ok(())
}

fn print_configuration(place: &Place, machine: &Opened, point: &Point) {
    if place.json {
        return output::json(&ConfigurationView {
            machine: machine.folder.name.clone(),
            point: point.cycle.0,
            configuration: String::from_utf8_lossy(&point.configuration).into_owned(),
        });
    }
    // A reader that closes the pipe has seen enough.
    let _ = std::io::stdout().write_all(&point.configuration);
}

fn show_machine(place: &Place, machine: &Opened) {
    let store = &machine.store;
    let newest = store.newest();
    let identity = newest.as_ref().map(|newest| Identity::of(&newest.configuration));
    let identity = identity.unwrap_or_default();
    let (positions, usage) = (store.positions(), store.usage());
    let number = |cycle: Option<Cycle>| cycle.map(|cycle| cycle.0);
    let view = MachineView {
        name: machine.folder.name.clone(),
        path: machine.folder.path.clone(),
        machine_name: identity.name,
        uuid: identity.uuid,
        state: StateView::of(store),
        generation: store.generation(),
        points: store.points().len(),
        newest: newest.map(|newest| PointView::of(store, &newest)),
        received: positions
            .received
            .cycle
            .map(|cycle| ReceivedView { cycle: cycle.0, changes: positions.received.changes }),
        indexed: number(positions.indexed),
        sealed: number(positions.sealed),
        used: UsageView {
            data_bytes: usage.data,
            dead_bytes: usage.dead,
            index_bytes: usage.index,
        },
        adopted: store.adopted().into_iter().map(AdoptedView::from).collect(),
    };
    let received = view.received.as_ref();
    let received = received.map(|received| {
        format!(
            "{} changes of an attempt ({}) that is no point yet",
            received.changes, received.cycle
        )
    });
    let mut fields = vec![
        ("Machine", view.name.clone()),
        ("Folder", view.path.display().to_string()),
        ("Name", or_dash(view.machine_name.as_ref())),
        ("UUID", or_dash(view.uuid.as_ref())),
        ("State", view.state.words()),
        ("Generation", view.generation.to_string()),
        ("Points", view.points.to_string()),
        ("Received", or_dash(received)),
        ("Indexed", or_dash(view.indexed.map(|point| format!("up to point {point}")))),
        ("Sealed", or_dash(view.sealed.map(|point| format!("up to point {point}")))),
        (
            "Used",
            format!(
                "{} data, of which no point needs {}; {} index",
                ByteCount::new(usage.data),
                ByteCount::new(usage.dead),
                ByteCount::new(usage.index)
            ),
        ),
    ];
    for image in &view.adopted {
        let cause = image.cause.as_ref().map(|cause| format!(": {cause}")).unwrap_or_default();
        fields.push(("Adopted", format!("{} ({}{cause})", image.path, image.condition)));
    }
    if let Some(newest) = &view.newest {
        fields.extend(point_fields(newest));
    }
    output::item(place.json, &view, &fields);
}

fn point_fields(point: &PointView) -> Vec<(&'static str, String)> {
    let disks = (0_u16..).zip(&point.disks_bytes);
    let disks = disks.map(|(number, bytes)| {
        vec![number.to_string(), ByteCount::new(*bytes).to_string(), bytes.to_string()]
    });
    vec![
        ("Point", point.point.to_string()),
        ("Time", utc(point.instant)),
        ("Consistency", point.consistency.word().into()),
        ("Origin", point.origin.clone()),
        ("Hold", point.hold.words()),
        ("Arrived", ByteCount::new(point.arrived_bytes).to_string()),
        ("Frees", or_dash(point.freed_bytes.map(ByteCount::new))),
        ("Configuration", format!("{} bytes, shown by --configuration", point.configuration_bytes)),
        ("Disks", inner_table(&["DISK", "SIZE", "BYTES"], disks.collect())),
    ]
}
