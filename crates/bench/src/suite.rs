//! What all benchmarks of figures share: their arguments, groups of figures
//! that are measured together, and going through them.

use std::{path::PathBuf, time::Instant};

use anyhow::{Context as _, Result, ensure};

use crate::{
    figure::{Figure, Report},
    image::Image,
    workplace::Workplace,
};

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

/// Figures that are measured together, at a scale of `S`.
pub(crate) struct Group<S> {
    pub(crate) figures: &'static [&'static str],
    /// Bytes of the realistic image that it needs.
    pub(crate) image: fn(&S) -> u64,
    /// Bytes on the medium at most, beside the image.
    pub(crate) room: fn(&S) -> u64,
    pub(crate) measure: fn(&mut Bench<S>) -> Result<()>,
}

/// A run of a benchmark.
pub(crate) struct Bench<S> {
    pub(crate) workplace: Workplace,
    pub(crate) scale: S,
    /// Made when it is first needed.
    image: Option<Image>,
    image_bytes: u64,
    report: Report,
}

impl<S> Bench<S> {
    /// The realistic image, at least as large as the group said.
    pub(crate) fn image(&mut self) -> Result<Image> {
        if let Some(image) = &self.image {
            return Ok(image.clone());
        }
        let image = Image::make(&self.workplace.path("image.raw"), self.image_bytes)?;
        eprintln!("   image: {}", image.composition());
        self.workplace.quiesce()?;
        Ok(self.image.insert(image).clone())
    }

    pub(crate) fn tell(&mut self, figure: Figure) -> Result<()> {
        self.report.add(figure)
    }

    /// Says that figures cannot be had here, and why.
    pub(crate) fn skip(&mut self, figures: &[&'static str], why: &str) {
        for figure in figures {
            self.report.skip(figure, why);
        }
    }
}

/// Measures what was asked for, of these groups, at one of two scales.
pub(crate) fn run<S>(arguments: Arguments, groups: &[Group<S>], full: S, small: S) -> Result<()> {
    let Arguments { json, quick, only, folder } = arguments;
    let known: Vec<&str> = groups.iter().flat_map(|group| group.figures).copied().collect();
    for name in &only {
        ensure!(
            known.contains(&name.as_str()),
            "there is no figure {name}; there are {}",
            known.join(", ")
        );
    }
    let scale = if quick { small } else { full };
    let wanted = |group: &&Group<S>| {
        only.is_empty() || group.figures.iter().any(|name| only.iter().any(|only| only == name))
    };
    let groups: Vec<&Group<S>> = groups.iter().filter(wanted).collect();
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
