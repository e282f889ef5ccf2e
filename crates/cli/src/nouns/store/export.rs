//! `lifeboat store export`.

use std::path::PathBuf;

use domain::units::ByteCount;
use replica::export::ImageFormat;
use replica::offline_copy::write::{CopyFormat, write};
use serde::Serialize;

use super::faults;
use super::long::{Bar, interruption};
use super::place::{Place, PointWish};
use super::views::count;
use crate::failure::Failure;
use crate::output;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The machine
    machine: String,
    /// The point
    point: PointWish,
    /// A new or empty folder for the images, the configuration and copy.json
    folder: PathBuf,
    /// What the images are to be
    #[arg(long, default_value = "qcow2")]
    format: Format,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Format {
    /// The disk's bytes in a sparse file
    Raw,
    /// QEMU's
    Qcow2,
    /// Hyper-V's
    Vhdx,
}

impl From<Format> for CopyFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Raw => Self::Raw,
            Format::Qcow2 => Self::Image(ImageFormat::Qcow2),
            Format::Vhdx => Self::Image(ImageFormat::Vhdx),
        }
    }
}

#[derive(Debug, Serialize)]
struct ExportView {
    machine: String,
    point: u32,
    folder: PathBuf,
    disks: Vec<DiskView>,
    configuration: Option<String>,
}

#[derive(Debug, Serialize)]
struct DiskView {
    file: String,
    size_bytes: u64,
    blake3: String,
}

pub(super) async fn run(place: &Place, arguments: &Arguments) -> Result<(), Failure> {
    let machine = place.open(Some(&arguments.machine))?;
    let point = machine.point(arguments.point)?;
    let doing =
        format!("export {} of {} to {}", point.cycle, machine.told(), arguments.folder.display());
    let name = &machine.folder.name;
    let bar = Bar::new(name, place.json);
    let format = arguments.format.into();
    let interrupted = interruption();
    let writing =
        write(&machine.store, point.cycle, name, format, &arguments.folder, |done, total| {
            bar.at(done, total);
        });
    // What is dropped half-way takes its files with it.
    let copy = tokio::select! {
        copy = writing => copy.map_err(|error| faults::export(&doing, &error))?,
        () = interrupted => return Err(faults::interrupted(doing).into()),
    };
    drop(bar);
    let disks = copy.disks.iter().map(|disk| DiskView {
        file: disk.file.clone(),
        size_bytes: disk.size,
        blake3: disk.blake3.to_hex().to_string(),
    });
    let view = ExportView {
        machine: name.clone(),
        point: point.cycle.0,
        folder: arguments.folder.clone(),
        disks: disks.collect(),
        configuration: copy.configuration.clone(),
    };
    let size = ByteCount::new(copy.disks.iter().map(|disk| disk.size).sum());
    let words = format!(
        "Point {} of {name} is in {}: {}, {size}.",
        view.point,
        view.folder.display(),
        count(view.disks.len(), "disk")
    );
    output::done(place.json, &view, &words);
    Ok(())
}
