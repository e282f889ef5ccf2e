//! A file system of its own at a place, to be filled up.

use std::fs::File;

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;

use crate::place::Place;
use crate::run::run;

/// What fills it up, in its top folder.
const BALLAST: &str = "ballast";
const FILL: &str = "fill a file system";

/// A file system of its own over a folder of a place. It is gone with the
/// place's power, however that goes; its bytes are a file in the place's folder.
#[derive(Debug)]
pub struct Volume<'a> {
    place: &'a Place,
    inside: String,
}

impl Place {
    /// Puts an empty file system (ext4) of so many bytes over the folder
    /// `inside`, which is made.
    ///
    /// # Errors
    /// When a tool fails or the machine has no loop device.
    pub async fn volume(&self, inside: &str, bytes: u64) -> Result<Volume<'_>> {
        let image =
            self.folder().join(format!("{}.ext4", inside.trim_matches('/').replace('/', "-")));
        let file = File::create(&image).with_context(|| format!("make {}", image.display()))?;
        file.set_len(bytes).with_context(|| format!("size {}", image.display()))?;
        let what = "make a file system";
        let mut format = self.command("mke2fs");
        format.args(["-q", "-F", "-t", "ext4", "-m", "0"]).arg(&image);
        run(&mut format, what).await?;
        run(self.command("mkdir").args(["-p", inside]), what).await?;
        // The kernel lets go of the loop device when the last mount is gone.
        let mut mount = self.command("mount");
        run(mount.args(["-o", "loop"]).arg(&image).arg(inside), what).await?;
        Ok(Volume { place: self, inside: inside.to_owned() })
    }
}

impl Volume<'_> {
    /// Fills it up until about so many bytes are free.
    ///
    /// # Errors
    /// When less is free already.
    pub async fn leave(&self, bytes: u64) -> Result<()> {
        let free = self.free().await?;
        let size = free.checked_sub(bytes).context("less is free already")?;
        run(&mut self.ballast(size), FILL).await.map(drop)
    }

    /// Fills it up at once, to the last few blocks.
    ///
    /// # Errors
    /// When more stays free than a guest's block takes.
    pub async fn leave_nothing(&self) -> Result<()> {
        // What there is room for is taken, before the system says that it is not all.
        let filled = run(&mut self.ballast(self.free().await?), FILL).await;
        let free = self.free().await?;
        ensure!(free < 64 << 10, "{free} bytes are free still: {filled:?}");
        Ok(())
    }

    fn ballast(&self, bytes: u64) -> Command {
        let mut fill = self.place.command("fallocate");
        fill.args(["--length", &bytes.to_string(), &format!("{}/{BALLAST}", self.inside)]);
        fill
    }

    /// Takes away what was put there to fill it up.
    ///
    /// # Errors
    /// When nothing was.
    pub async fn make_room(&self) -> Result<()> {
        let mut remove = self.place.command("rm");
        run(remove.arg(format!("{}/{BALLAST}", self.inside)), "make room").await.map(drop)
    }

    /// Bytes that are free.
    ///
    /// # Errors
    /// When the system does not say.
    pub async fn free(&self) -> Result<u64> {
        let mut ask = self.place.command("stat");
        let said = run(ask.args(["-f", "-c", "%a %S", &self.inside]), "ask for room").await?;
        let mut numbers = said.split_whitespace().map(str::parse::<u64>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(blocks)), Some(Ok(size))) => Ok(blocks * size),
            _ => anyhow::bail!("read what is free in {said:?}"),
        }
    }
}
