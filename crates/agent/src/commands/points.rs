//! Points by command: telling all of them, making one now, making one of disks
//! that are there, and holding one.

use std::path::PathBuf;
use std::time::Duration;

use domain::fault::{Code, Fault};
use domain::id::{MachineUuid, ProtectionId};
use domain::machine::{DiskFormat, DiskSource};
use replica::import::Wish;
use replica::offline_copy::ImageKind;
use tokio::task::spawn_blocking;
use tokio::time::interval;
use wire::command::Answer;
use wire::replication::{Hold, Progress};

use super::work::Means;
use crate::capture::configuration;
use crate::capture::{Capture as _, machine};
use crate::hypervisor::libvirt::xml::machine::{Aspects, parse};
use crate::hypervisor::libvirt::{Operator, Power};
use crate::ship::fault::of_capture;

/// The newest points that are told, at about 120 bytes each.
const LISTED: usize = 100_000;
/// How often is told how far it is.
const LOOK: Duration = Duration::from_secs(1);

/// All points of a protection, the oldest first.
pub(super) async fn list(means: &Means, protection: ProtectionId) -> Result<Answer, Fault> {
    let points = means.keepers.points(protection).await?;
    let mut points = points.ok_or_else(|| not_kept("list the points", protection))?;
    // They go in one message.
    points.drain(..points.len().saturating_sub(LISTED));
    Ok(Answer::Points { points })
}

/// A point of what the disks are from now on.
pub(super) async fn synchronise(
    means: &Means,
    protection: ProtectionId,
    compare: bool,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Answer, Fault> {
    let made = means.wishes.synchronise(protection, compare);
    let point = while_telling(made, || means.wishes.progress(protection), progress).await?;
    Ok(Answer::Point { point })
}

/// Waits for some work, and tells meanwhile how far it is seen to be.
async fn while_telling<T>(
    work: impl Future<Output = T>,
    look: impl Fn() -> Option<Progress>,
    progress: &(dyn Fn(Progress) + Sync),
) -> T {
    let mut work = std::pin::pin!(work);
    let mut looks = interval(LOOK);
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = looks.tick() => {
                if let Some(far) = look() {
                    progress(far);
                }
            }
        }
    }
}

/// What the policy says of a point counts no more, or again.
pub(super) async fn hold(
    means: &Means,
    protection: ProtectionId,
    point: u32,
    hold: Option<Hold>,
) -> Result<Answer, Fault> {
    let doing = match hold {
        Some(_) => format!("hold point {point}"),
        None => format!("let point {point} go"),
    };
    let keeper = means.keepers.get(protection).ok_or_else(|| not_kept(&doing, protection))?;
    Ok(Answer::Point { point: keeper.hold(point, hold).await? })
}

/// The disks that a machine has here become a point, which is held if `hold` says
/// so.
pub(super) async fn adopt(
    means: &Means,
    protection: ProtectionId,
    machine: MachineUuid,
    hold: Option<Hold>,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Answer, Fault> {
    let doing = format!("make a point of the disks of machine {machine}");
    let keeper = means.keepers.get(protection).ok_or_else(|| not_kept(&doing, protection))?;
    let look =
        move |operator: &Operator| Ok((operator.power(machine)?, operator.inactive_xml(machine)?));
    let (power, xml) = means.operating.ask(&doing, look).await?;
    let xml = match (power, xml) {
        (Power::Off, Some(xml)) => xml,
        (Power::On, _) => {
            return Err(Fault::new(
                Code::MachineRuns,
                doing,
                "it runs, and what it writes would spoil the point",
                "Shut it down, or fence it, and run it again.",
            ));
        }
        _ => {
            return Err(Fault::new(
                Code::MachineGone,
                doing,
                "the hypervisor has no such machine",
                "Its disks are gone with it, or elsewhere: let everything be copied instead.",
            ));
        }
    };
    let images = images(&doing, &xml)?;
    // Files that a point stands on must not change: what we left in them goes
    // before.
    let settings = means.capture.clone();
    let mut capture =
        machine::open(&means.hypervisor, machine, settings).await.map_err(of_capture)?;
    capture.forget().await.map_err(of_capture)?;
    drop(capture);
    let starts = means.epochs.starts_by_itself(machine);
    let configuration = configuration::complete(xml, starts).await;
    let wish = spawn_blocking(move || wish(images, configuration)).await;
    let wish = wish.map_err(|error| Fault::internal(&doing, &error))?;
    let wish = wish.map_err(|cause| image_unreadable(&doing, cause))?;
    let adopted = keeper.adopt(wish, hold);
    let point = while_telling(adopted, || keeper.adopting(), progress).await?;
    Ok(Answer::Point { point })
}

/// The images of the machine's disks, in order.
pub(super) fn images(doing: &str, xml: &str) -> Result<Vec<(PathBuf, ImageKind)>, Fault> {
    let machine = parse(xml, Aspects::OFF).map_err(|error| Fault::internal(doing, &error))?;
    let image = |disk: domain::machine::Disk| match (&disk.source, &disk.format) {
        (DiskSource::File(path), DiskFormat::Raw) => Ok((PathBuf::from(path), ImageKind::Raw)),
        (DiskSource::File(path), DiskFormat::Qcow2) => Ok((PathBuf::from(path), ImageKind::Qcow2)),
        (source, format) => Err(image_unreadable(
            doing,
            format!(
                "disk {} is {source} of the format {format}; files of raw and qcow2 can be",
                disk.target
            ),
        )),
    };
    machine.disks.into_iter().map(image).collect()
}

/// Blocks while it looks at files.
fn wish(images: Vec<(PathBuf, ImageKind)>, configuration: String) -> Result<Wish, String> {
    let paths: Vec<PathBuf> = images.iter().map(|(path, _)| path.clone()).collect();
    let mut wish = Wish::of_images(&paths, Some(ImageKind::Raw), None)
        .map_err(|error| domain::fault::chain(&error))?;
    for (disk, (_, kind)) in wish.disks.iter_mut().zip(images) {
        disk.kind = kind;
    }
    wish.facts.configuration = configuration.into_bytes();
    Ok(wish)
}

fn image_unreadable(doing: &str, cause: String) -> Fault {
    Fault::new(
        Code::ImageUnreadable,
        doing,
        cause,
        "Let everything be copied instead, or convert the disk with qemu-img.",
    )
}

fn not_kept(doing: &str, protection: ProtectionId) -> Fault {
    Fault::new(
        Code::NotKeptHere,
        doing,
        format!("this host keeps no points of protection {protection}"),
        "Look at where the protection stands, and on which host its points are; if it was set up just now, run it again in a moment.",
    )
}
