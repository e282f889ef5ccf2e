//! Which machine and which point is meant.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use domain::fault::{Code, Fault};
use replica::catalogue::{self, MachineFolder};
use replica::format::manifest::Point;
use replica::format::record::Consistency;
use replica::geometry::{Cycle, DiskNumber};
use replica::state::Limits;
use replica::store::Store;
use replica::writer::{Writer, WriterOptions};

use super::configuration::Identity;
use super::faults;

/// Where to look, and how to answer.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) folder: PathBuf,
    pub(super) json: bool,
}

/// A machine that is open for reading.
#[derive(Debug, Clone)]
pub(super) struct Opened {
    pub(super) folder: MachineFolder,
    pub(super) store: Store,
}

impl Place {
    /// All machines of the store.
    pub(super) fn machines(&self) -> Result<Vec<MachineFolder>, Fault> {
        catalogue::machines(&self.folder).map_err(|error| {
            faults::folder(
                format!("list the machines of {}", self.folder.display()),
                error.to_string(),
            )
        })
    }

    /// The machine that is meant.
    pub(super) fn find(&self, reference: Option<&str>) -> Result<MachineFolder, Fault> {
        let Some(reference) = reference else { return self.only() };
        let doing = format!("find machine {reference}");
        if is_path(reference) {
            let found = MachineFolder::at(Path::new(reference))
                .map_err(|error| faults::folder(&doing, error.to_string()))?;
            return found.ok_or_else(|| unknown(doing, "that folder holds no machine".into()));
        }
        let machines = self.machines()?;
        if let Some(found) = machines.iter().find(|machine| machine.name == reference) {
            return Ok(found.clone());
        }
        let named = machines.iter().filter(|machine| {
            let newest = machine.open(Limits::default()).ok().and_then(|store| store.newest());
            newest.is_some_and(|newest| Identity::of(&newest.configuration).is(reference))
        });
        let named: Vec<&MachineFolder> = named.collect();
        match named.as_slice() {
            [one] => Ok((*one).clone()),
            [] => Err(unknown(
                doing,
                format!("{} holds {}", self.folder.display(), names(machines.iter())),
            )),
            several => Err(Fault::new(
                Code::Ambiguous,
                doing,
                format!("several machines have that name: {}", names(several.iter().copied())),
                "Name the folder of the one that you mean.",
            )),
        }
    }

    /// The store's only machine.
    fn only(&self) -> Result<MachineFolder, Fault> {
        let mut machines = self.machines()?;
        let doing = format!("find the machine of {}", self.folder.display());
        match (machines.pop(), machines.is_empty()) {
            (Some(only), true) => Ok(only),
            (Some(last), false) => Err(Fault::new(
                Code::Ambiguous,
                doing,
                format!("it holds {}", names(machines.iter().chain([&last]))),
                "Say which machine you mean.",
            )),
            (None, _) => Err(unknown(doing, "it holds no machines".into())),
        }
    }

    /// Opens the machine that is meant.
    pub(super) fn open(&self, reference: Option<&str>) -> Result<Opened, Fault> {
        open(self.find(reference)?)
    }
}

/// Opens a machine for reading.
pub(super) fn open(folder: MachineFolder) -> Result<Opened, Fault> {
    let store = folder.open(Limits::default());
    let store = store.map_err(|error| faults::store(format!("open {}", told(&folder)), &error))?;
    Ok(Opened { folder, store })
}

/// Opens a machine for writing, in the name of its newest writer: whoever runs
/// this works on the host that owns the store.
pub(super) fn write(folder: &MachineFolder) -> Result<Writer, Fault> {
    let opened = open(folder.clone())?;
    owned(&folder.path, &told(folder))?;
    let failed = |error| faults::store(format!("write to {}", told(folder)), &error);
    let options = WriterOptions::new(opened.store.generation());
    Writer::open(Arc::new(folder.medium().map_err(failed)?), options).map_err(failed)
}

/// Refuses to write into another user's folder: files of ours in there would
/// keep the agent out later on.
pub(super) fn owned(folder: &Path, told: &str) -> Result<(), Fault> {
    let ours = nix::unistd::geteuid().as_raw();
    let theirs = std::fs::metadata(folder).map_or(ours, |facts| facts.uid());
    if ours == theirs {
        return Ok(());
    }
    Err(Fault::new(
        Code::StoreFailed,
        format!("write to {told}"),
        format!("{} belongs to user {theirs}, and this is user {ours}", folder.display()),
        "Run the command as that user, such as: runuser -u lifeboat-agent -- lifeboat store …, or change the folder's owner for good.",
    ))
}

impl Opened {
    /// The machine, as errors name it.
    pub(super) fn told(&self) -> String {
        told(&self.folder)
    }

    /// The point that is meant.
    pub(super) fn point(&self, wish: PointWish) -> Result<Point, Fault> {
        let points = self.store.points();
        let found = match wish {
            PointWish::Number(cycle) => points.iter().find(|point| point.cycle == cycle),
            PointWish::Latest => points.last(),
            PointWish::LatestApp => {
                points.iter().rev().find(|point| point.consistency == Consistency::App)
            }
        };
        found.cloned().ok_or_else(|| {
            let there = match (points.first(), points.last()) {
                (Some(first), Some(last)) => format!(
                    "there are {} points, from {} to {}",
                    points.len(),
                    first.cycle.0,
                    last.cycle.0
                ),
                _ => "there are no points".into(),
            };
            Fault::new(
                Code::PointUnknown,
                format!("find point {wish} of {}", self.told()),
                there,
                format!("List them with: lifeboat store points {}", self.folder.name),
            )
        })
    }

    /// Checks that a point has a disk; its size.
    pub(super) fn disk(&self, point: &Point, disk: DiskNumber) -> Result<u64, Fault> {
        point.disks.get(usize::from(disk.0)).copied().ok_or_else(|| {
            Fault::new(
                Code::PointUnknown,
                format!("find {disk} of {} at {}", self.told(), point.cycle),
                format!("it has {} disks, counted from 0", point.disks.len()),
                format!("Look at: lifeboat store show {} {}", self.folder.name, point.cycle.0),
            )
        })
    }
}

/// The machine, as errors name it.
pub(super) fn told(folder: &MachineFolder) -> String {
    format!("machine {}", folder.name)
}

/// Whether a reference is a path rather than a name.
pub(super) fn is_path(reference: &str) -> bool {
    reference.contains('/') || reference == "." || reference == ".."
}

fn names<'a>(machines: impl Iterator<Item = &'a MachineFolder>) -> String {
    let names: Vec<&str> = machines.map(|machine| machine.name.as_str()).collect();
    match names.len() {
        0 => "no machines".into(),
        1..=20 => names.join(", "),
        many => format!("{} and {} more", names[..20].join(", "), many - 20),
    }
}

fn unknown(doing: String, cause: String) -> Fault {
    Fault::new(
        Code::StoredMachineUnknown,
        doing,
        cause,
        "List the machines with: lifeboat store list",
    )
}

/// A point as people name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PointWish {
    Number(Cycle),
    Latest,
    LatestApp,
}

impl FromStr for PointWish {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "latest" => Ok(Self::Latest),
            "latest-app" => Ok(Self::LatestApp),
            number => number
                .parse()
                .map(|number| Self::Number(Cycle(number)))
                .map_err(|_| "a point is a number, `latest` or `latest-app`"),
        }
    }
}

impl std::fmt::Display for PointWish {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(cycle) => write!(f, "{}", cycle.0),
            Self::Latest => f.write_str("latest"),
            Self::LatestApp => f.write_str("latest-app"),
        }
    }
}
