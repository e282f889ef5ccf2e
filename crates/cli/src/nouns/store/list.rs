//! `lifeboat store list`.

use std::path::PathBuf;

use api::List;
use domain::units::{ByteCount, instant, utc};
use replica::catalogue::MachineFolder;
use replica::error::StoreError;
use replica::state::Limits;
use serde::Serialize;
use time::OffsetDateTime;

use super::configuration::Identity;
use super::place::Place;
use super::views::StateView;
use crate::failure::Failure;
use crate::output::{self, ago, or_dash};

#[derive(Debug, Serialize)]
struct MachineView {
    name: String,
    path: PathBuf,
    /// The name in the newest configuration.
    machine_name: Option<String>,
    points: usize,
    newest: Option<NewestView>,
    /// Segments and index.
    used_bytes: u64,
    state: StateView,
}

#[derive(Debug, Serialize)]
struct NewestView {
    point: u32,
    #[serde(with = "time::serde::rfc3339")]
    instant: OffsetDateTime,
    disks: usize,
    disks_bytes: u64,
}

pub(super) fn run(place: &Place) -> Result<(), Failure> {
    let machines = List { items: place.machines()?.into_iter().map(view).collect() };
    output::list(
        place.json,
        &machines,
        &format!("{} holds no machines.", place.folder.display()),
        &["MACHINE", "NAME", "POINTS", "NEWEST", "AGE", "DISKS", "SIZE", "USED", "STATE"],
        |machine: &MachineView| {
            let newest = machine.newest.as_ref();
            vec![
                machine.name.clone(),
                or_dash(machine.machine_name.as_ref()),
                machine.points.to_string(),
                or_dash(newest.map(|newest| utc(newest.instant))),
                or_dash(newest.map(|newest| ago(OffsetDateTime::now_utc() - newest.instant))),
                or_dash(newest.map(|newest| newest.disks)),
                or_dash(newest.map(|newest| ByteCount::new(newest.disks_bytes))),
                ByteCount::new(machine.used_bytes).to_string(),
                machine.state.words(),
            ]
        },
    );
    Ok(())
}

fn view(folder: MachineFolder) -> MachineView {
    let store = match folder.open(Limits::default()) {
        Ok(store) => store,
        Err(error) => return unreadable(folder, &error),
    };
    let newest = store.newest();
    let usage = store.usage();
    let identity = newest.as_ref().map(|newest| Identity::of(&newest.configuration));
    MachineView {
        name: folder.name,
        path: folder.path,
        machine_name: identity.and_then(|identity| identity.name),
        points: store.points().len(),
        newest: newest.map(|newest| NewestView {
            point: newest.cycle.0,
            instant: instant(newest.instant),
            disks: newest.disks.len(),
            disks_bytes: newest.disks.iter().sum(),
        }),
        used_bytes: usage.data + usage.index,
        state: StateView::of(&store),
    }
}

fn unreadable(folder: MachineFolder, error: &StoreError) -> MachineView {
    MachineView {
        name: folder.name,
        path: folder.path,
        machine_name: None,
        points: 0,
        newest: None,
        used_bytes: 0,
        state: StateView::Unreadable { reason: error.chain() },
    }
}
