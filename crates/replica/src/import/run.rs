//! From images to a point.

use super::{
    disk::Disk,
    fault::ImportError,
    image::{self, Image},
    wish::{DiskSource, Wish},
};
use crate::{
    format::manifest::Point,
    geometry::DiskNumber,
    offline_copy::Progress,
    store::Store,
    writer::{SealFacts, Writer},
};

/// What a format may add to a disk's end.
const ROUNDING: u64 = 2 << 20;

/// Makes a point of images; durable on return. `progress` is told of `(done,
/// total)` in bytes of the disks. Blocks; not to be called from async code,
/// except by `spawn_blocking`. An attempt that was open is given up.
///
/// # Errors
/// See [`ImportError`]; there is no new point then.
pub fn import(
    writer: &mut Writer,
    wish: &Wish,
    progress: &mut Progress<'_>,
) -> Result<Point, ImportError> {
    // All images are open before anything is written.
    let mut images = Vec::new();
    for (number, source) in (0..).zip(&wish.disks) {
        images.push(open(DiskNumber(number), source)?);
    }
    let sizes: Vec<u64> = images.iter().map(|(_, size)| *size).collect();
    writer.begin(&sizes)?;
    let copied = copy(writer, wish, &mut images, progress);
    if copied.is_err() {
        writer.give_up()?;
    }
    copied?;
    Ok(writer.seal(wish.facts.clone())?)
}

/// Makes a point of one in another store, which stays the same instant; durable
/// on return. Blocks, and tells `progress`, as [`import`] does. Each record that
/// is read is verified.
///
/// # Errors
/// See [`ImportError`]; there is no new point then.
pub fn import_point(
    writer: &mut Writer,
    store: &Store,
    point: &Point,
    progress: &mut Progress<'_>,
) -> Result<Point, ImportError> {
    let total = point.disks.iter().sum();
    writer.begin(&point.disks)?;
    let mut copy_all = || {
        let mut before = 0;
        for (number, size) in (0..).zip(point.disks.iter()) {
            let disk = DiskNumber(number);
            let mut view = store.view(point.cycle, disk)?;
            let mut copy = Disk::begin(writer, disk, *size)?;
            copy.fill(&mut view, &mut |done| progress(before + done, total))?;
            before += *size;
        }
        Ok(())
    };
    let copied: Result<(), ImportError> = copy_all();
    if copied.is_err() {
        writer.give_up()?;
    }
    copied?;
    let facts = SealFacts {
        instant: point.instant,
        consistency: point.consistency,
        origin: format!("carried: {}", point.origin).chars().take(1000).collect(),
        configuration: point.configuration.to_vec(),
    };
    Ok(writer.seal(facts)?)
}

type Opened = (Box<dyn Image>, u64);

fn open(disk: DiskNumber, source: &DiskSource) -> Result<Opened, ImportError> {
    let image = image::open(&source.path, source.kind)?;
    let found = image.size();
    let Some((expected, _)) = source.proof else { return Ok((image, found)) };
    if found < expected || found - expected > ROUNDING {
        return Err(ImportError::Size { disk, path: source.path.clone(), found, expected });
    }
    Ok((image, expected))
}

fn copy(
    writer: &mut Writer,
    wish: &Wish,
    images: &mut [Opened],
    progress: &mut Progress<'_>,
) -> Result<(), ImportError> {
    let total = images.iter().map(|(_, size)| size).sum();
    let mut before = 0;
    for (number, (source, (image, size))) in (0..).zip(wish.disks.iter().zip(images)) {
        let disk = DiskNumber(number);
        let mut copy = Disk::begin(writer, disk, *size)?;
        let found = copy.fill(&mut **image, &mut |done| progress(before + done, total))?;
        if let Some((_, expected)) = source.proof
            && expected != found
        {
            return Err(ImportError::Differs { disk, path: source.path.clone(), found, expected });
        }
        before += *size;
    }
    Ok(())
}
