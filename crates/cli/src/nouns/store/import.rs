//! `lifeboat store import`.

use std::fs;
use std::path::{Path, PathBuf};

use domain::fault::{Code, Fault};
use domain::units::ByteCount;
use replica::catalogue::MachineFolder;
use replica::format::manifest::Point;
use replica::import::{self, Wish};
use replica::medium::folder::Folder;
use replica::offline_copy::ImageKind;
use serde::Serialize;

use super::faults;
use super::long::{self, Bar, Stop};
use super::place::{self, Place, is_path};
use super::views::{PointView, count};
use crate::failure::Failure;
use crate::output;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The machine, which is made if the store has none of that name
    machine: String,
    /// An offline copy, as `export` writes it
    #[arg(long, value_name = "FOLDER", required_unless_present = "disk", conflicts_with_all = ["disk", "configuration"])]
    from: Option<PathBuf>,
    /// A disk image; once for each disk, in their order
    #[arg(long, value_name = "FILE")]
    disk: Vec<PathBuf>,
    /// The images' format, where what they seem to be is wrong: raw, qcow2, vhdx, vpc, vmdk, vdi
    #[arg(long, value_name = "FORMAT", requires = "disk", value_parser = kind)]
    disk_format: Option<ImageKind>,
    /// The machine's configuration
    #[arg(long, value_name = "FILE")]
    configuration: Option<PathBuf>,
    /// Leave the images (raw or qcow2) where they are and read them there; nothing may change them from now on
    #[arg(long, requires = "disk")]
    in_place: bool,
}

fn kind(name: &str) -> Result<ImageKind, String> {
    let names = ImageKind::ALL.map(ImageKind::name).join(", ");
    ImageKind::named(name).ok_or_else(|| format!("the formats are {names}"))
}

#[derive(Debug, Serialize)]
struct ImportView {
    machine: String,
    path: PathBuf,
    #[serde(flatten)]
    point: PointView,
}

pub(super) async fn run(place: &Place, arguments: Arguments) -> Result<(), Failure> {
    let doing = format!("import into machine {}", arguments.machine);
    let wish = match &arguments.from {
        Some(folder) => Wish::of_copy(folder),
        None => Wish::of_images(
            &arguments.disk,
            arguments.disk_format,
            arguments.configuration.as_deref(),
        ),
    };
    let wish = wish.map_err(|error| faults::import(&doing, &error))?;
    let target = target(place, &arguments.machine)?;
    let folder = target.folder().clone();
    let bar = Bar::new(&folder.name, place.json);
    let (told, in_place) = (doing.clone(), arguments.in_place);
    let view =
        long::writing(&doing, move |stop| bring_in(&told, target, &wish, in_place, &bar, stop))
            .await?;
    let words = format!(
        "Point {} of {} is there: {}, {}, of which {} are new.",
        view.point.point,
        view.machine,
        count(view.point.disks_bytes.len(), "disk"),
        ByteCount::new(view.point.disks_bytes.iter().sum()),
        ByteCount::new(view.point.arrived_bytes)
    );
    output::done(place.json, &view, &words);
    Ok(())
}

fn bring_in(
    doing: &str,
    target: Target,
    wish: &Wish,
    in_place: bool,
    bar: &Bar,
    stop: &Stop,
) -> Result<ImportView, Fault> {
    let folder = target.folder();
    if let Target::New(folder) = &target {
        let made = Folder::create(&folder.path);
        made.map_err(|error| faults::folder(doing, format!("{}: {error}", folder.path.display())))?;
    }
    let imported = fill(doing, folder, wish, in_place, bar, stop);
    if imported.is_err()
        && let Target::New(folder) = &target
    {
        // It is ours, and has nothing in it that counts.
        let _ = fs::remove_dir_all(&folder.path);
    }
    let (point, view) = imported?;
    debug_assert_eq!(point.cycle.0, view.point);
    Ok(ImportView { machine: folder.name.clone(), path: folder.path.clone(), point: view })
}

fn fill(
    doing: &str,
    folder: &MachineFolder,
    wish: &Wish,
    in_place: bool,
    bar: &Bar,
    stop: &Stop,
) -> Result<(Point, PointView), Fault> {
    let mut writer = place::write(folder)?;
    let mut progress = |done, total| {
        bar.at(done, total);
        stop.check()
    };
    let point = match in_place {
        true => import::adopt_in_place(&mut writer, wish, &mut progress),
        false => import::import(&mut writer, wish, &mut progress),
    };
    let point = point.map_err(|error| faults::import(doing, &error))?;
    let view = PointView::of(&writer.store(), &point);
    Ok((point, view))
}

/// Where the point goes.
enum Target {
    There(MachineFolder),
    New(MachineFolder),
}

impl Target {
    fn folder(&self) -> &MachineFolder {
        match self {
            Self::There(folder) | Self::New(folder) => folder,
        }
    }
}

fn target(place: &Place, reference: &str) -> Result<Target, Fault> {
    match place.find(Some(reference)) {
        Ok(found) => return Ok(Target::There(found)),
        Err(fault) if fault.code == Code::StoredMachineUnknown => {}
        // A path that does not exist yet.
        Err(fault) if is_path(reference) && !Path::new(reference).exists() => drop(fault),
        Err(fault) => return Err(fault),
    }
    let path = match is_path(reference) {
        true => PathBuf::from(reference),
        false => place.folder.join(reference),
    };
    let doing = format!("make machine {reference}");
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = name.filter(|name| !name.starts_with('.') && !name.contains(char::is_control));
    let Some(name) = name else {
        return Err(Fault::new(
            Code::RequestInvalid,
            doing,
            "a machine's folder cannot have that name",
            "Name it with letters, digits and the like, not beginning with a dot.",
        ));
    };
    if fs::read_dir(&path).is_ok_and(|mut inside| inside.next().is_some()) {
        return Err(Fault::new(
            Code::TargetTaken,
            doing,
            format!("{} is no machine's folder and not empty", path.display()),
            "Choose another name.",
        ));
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    if !parent.is_dir() {
        return Err(faults::folder(doing, format!("{} is no folder", parent.display())));
    }
    place::owned(parent, &format!("machine {reference}"))?;
    Ok(Target::New(MachineFolder { name, path }))
}
