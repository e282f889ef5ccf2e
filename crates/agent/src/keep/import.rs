//! Taking in a first copy that was carried here: a store that the source's
//! agent wrote, or an offline copy of images.

use std::io;
use std::path::{Path, PathBuf};

use domain::fault::{Code, Fault, chain};
use replica::catalogue::{MachineFolder, machines};
use replica::error::StoreError;
use replica::format::manifest::Point;
use replica::import::{ImportError, Wish, adopt_in_place, import, import_point};
use replica::offline_copy::{MANIFEST, Progress};
use replica::state::Limits;
use replica::store::Store;
use replica::writer::Writer;
use wire::replication::Keeping;

use super::fault::of_store;
use super::folder_of;

/// Makes the newest point of what is in a folder a point of the machine's; if it
/// is one already, nothing is done.
pub(super) fn take_in(
    writer: &mut Writer,
    duty: &Keeping,
    folder: &Path,
    progress: &mut Progress<'_>,
) -> Result<(), Fault> {
    let doing =
        format!("take in the first copy of machine {} from {}", duty.name, folder.display());
    let failed = |error: ImportError| of_import(&doing, duty, folder, &error);
    let instants: Vec<i64> = writer.store().points().iter().map(|point| point.instant).collect();
    let is_new = |instant| match instants.as_slice() {
        [] => Ok(true),
        known if known.contains(&instant) => Ok(false),
        _ => Err(unusable(&doing, "the machine has other recovery points already".into())),
    };
    if folder.join(MANIFEST).is_file() {
        let wish = Wish::of_copy(folder).map_err(failed)?;
        if is_new(wish.facts.instant)? {
            import(writer, &wish, progress).map_err(failed)?;
        }
        return Ok(());
    }
    let stored = find(duty, folder).map_err(|error| unusable(&doing, error.to_string()))?;
    let Some(stored) = stored else {
        return Err(unusable(&doing, "there is no first copy of this machine in it".into()));
    };
    let store: Store = stored.open(Limits::default()).map_err(|error| failed(error.into()))?;
    let Some(point) = store.newest() else {
        return Err(unusable(&doing, "the copy in it was not finished".into()));
    };
    if is_new(point.instant)? {
        import_point(writer, &store, &point, progress).map_err(failed)?;
    }
    Ok(())
}

/// Makes a point of images of this host, without a copy where that can be; the
/// newest point, if it is of them already.
pub(super) fn adopt(
    writer: &mut Writer,
    machine: &str,
    folder: &Path,
    wish: &Wish,
    progress: &mut Progress<'_>,
) -> Result<Point, Fault> {
    if let Some(newest) = writer.store().newest()
        && (newest.instant, &*newest.origin) == (wish.facts.instant, wish.facts.origin.as_str())
    {
        return Ok(newest);
    }
    let failed = |error: ImportError| {
        let doing = format!("make a point of the disks of machine {machine}");
        match error {
            ImportError::Store(error) => Fault { doing, ..of_store(machine, folder, &error) },
            error => Fault::new(
                Code::ImageUnreadable,
                doing,
                chain(&error),
                "Let everything be copied instead.",
            ),
        }
    };
    match adopt_in_place(writer, wish, progress) {
        Err(ImportError::Store(StoreError::NotAdoptable { why, .. })) => {
            tracing::info!(machine, why, "its disks cannot be used where they are, and are copied");
            import(writer, wish, progress).map_err(failed)
        }
        other => other.map_err(failed),
    }
}

/// The copy of this machine among those in the folder; the folder itself, if it
/// is one.
fn find(duty: &Keeping, folder: &Path) -> io::Result<Option<MachineFolder>> {
    let named: PathBuf = folder_of(folder, duty);
    if named.is_dir()
        && let Some(found) = MachineFolder::at(&named)?
    {
        return Ok(Some(found));
    }
    match machines(folder)?.as_slice() {
        // Several machines may be carried on one disk: only its own is taken.
        [only] if only.path == folder => Ok(Some(only.clone())),
        _ => Ok(None),
    }
}

fn unusable(doing: &str, cause: String) -> Fault {
    Fault::new(
        Code::CopyUnusable,
        doing,
        cause,
        "Name the folder that the source's agent wrote into, or an offline copy; see that it is mounted here and that the agent's user may read it. Then say so again: lifeboat protected import.",
    )
}

fn of_import(doing: &str, duty: &Keeping, folder: &Path, error: &ImportError) -> Fault {
    match error {
        ImportError::Store(error) => {
            let fault = of_store(&duty.name, folder, error);
            Fault { doing: doing.to_owned(), ..fault }
        }
        ImportError::Differs { .. } => Fault::new(
            Code::CopyMismatch,
            doing,
            chain(error),
            "Carry it again: what arrived is not what was written. No point was made.",
        ),
        error => unusable(doing, chain(error)),
    }
}
