//! The figures of the replica store, for `cargo xtask bench replica`.
//!
//! | figures | file |
//! | --- | --- |
//! | taking an image in | [`ingest`] |
//! | scattered small writes, sealing | [`writes`] |
//! | opening views and stores, differences | [`points`] |
//! | making a point | [`creation`] |
//! | reading a point over NBD | [`serving`] |
//! | memory | [`memory`] |
//! | room that a day of points takes | [`database`] |
//!
//! All figures are taken with the defaults of the store.

mod creation;
mod database;
mod image;
mod ingest;
pub(crate) mod memory;
mod points;
pub(crate) mod probe;
mod scale;
mod serving;
mod stores;
mod writes;

use std::{path::PathBuf, time::Instant};

use anyhow::{Context as _, Result, ensure};

use crate::{
    figure::{Figure, Report},
    workplace::Workplace,
};
use image::Image;
use scale::Scale;

/// What to measure, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// One JSON object per figure and line
    #[arg(long)]
    json: bool,
    /// Small sizes, a minute in all: to see that it works
    #[arg(long)]
    quick: bool,
    /// Only these figures
    #[arg(long, value_name = "FIGURE", num_args = 1..)]
    only: Vec<String>,
    /// Where to make the folder to work in: the disk that is measured
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// Figures that are measured together.
struct Group {
    figures: &'static [&'static str],
    /// Bytes of the realistic image that it needs.
    image: fn(&Scale) -> u64,
    /// Bytes on the medium at most, beside the image.
    room: fn(&Scale) -> u64,
    measure: fn(&mut Bench) -> Result<()>,
}

const GROUPS: &[Group] = &[
    ingest::GROUP,
    writes::GROUP,
    points::MANY,
    points::HUGE,
    serving::GROUP,
    creation::GROUP,
    memory::GROUP,
    database::GROUP,
];

/// A run of the benchmark.
struct Bench {
    workplace: Workplace,
    scale: Scale,
    /// Made when it is first needed.
    image: Option<Image>,
    image_bytes: u64,
    report: Report,
}

impl Bench {
    /// The realistic image, at least as large as the group said.
    fn image(&mut self) -> Result<Image> {
        if let Some(image) = &self.image {
            return Ok(image.clone());
        }
        let image = Image::make(&self.workplace.path("image.raw"), self.image_bytes)?;
        eprintln!("   image: {}", image.composition());
        self.workplace.quiesce()?;
        Ok(self.image.insert(image).clone())
    }

    fn tell(&mut self, figure: Figure) -> Result<()> {
        self.report.add(figure)
    }
}

/// Measures what was asked for.
pub(crate) fn run(arguments: Arguments) -> Result<()> {
    let Arguments { json, quick, only, folder } = arguments;
    let known: Vec<&str> = GROUPS.iter().flat_map(|group| group.figures).copied().collect();
    for name in &only {
        ensure!(
            known.contains(&name.as_str()),
            "there is no figure {name}; there are {}",
            known.join(", ")
        );
    }
    let scale = if quick { Scale::QUICK } else { Scale::FULL };
    let wanted = |group: &&Group| {
        only.is_empty() || group.figures.iter().any(|name| only.iter().any(|only| only == name))
    };
    let groups: Vec<&Group> = GROUPS.iter().filter(wanted).collect();
    let image_bytes = groups.iter().map(|group| (group.image)(&scale)).max().unwrap_or(0);
    let room = groups.iter().map(|group| (group.room)(&scale)).max().unwrap_or(0);
    let workplace = Workplace::new(folder.as_deref(), image_bytes + room)?;
    let mut bench =
        Bench { workplace, scale, image: None, image_bytes, report: Report::new(json, only) };
    for group in groups {
        let names = group.figures.join(", ");
        eprintln!("── {names}");
        let begun = Instant::now();
        (group.measure)(&mut bench).with_context(|| format!("measure {names}"))?;
        eprintln!("   {:.1} s", begun.elapsed().as_secs_f64());
    }
    bench.report.finish();
    Ok(())
}
