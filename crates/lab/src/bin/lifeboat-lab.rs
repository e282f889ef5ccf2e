//! A lab that stays up, for a person to look around in.

use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use lab::{Image, Lab, Place};

/// Two sites on this machine, with a libvirt each.
#[derive(Parser)]
#[command(name = "lifeboat-lab")]
struct Arguments {
    #[command(subcommand)]
    wish: Wish,
}

#[derive(Subcommand)]
enum Wish {
    /// Brings a lab up and leaves it running.
    Up,
    /// Ends the lab that was left running and removes its files.
    Down,
    /// Says what runs.
    Status,
    /// Runs a command at east, west or the third-place of the lab that runs.
    Enter {
        /// east, west or third-place.
        place: String,
        /// The command and its arguments; a shell when there is none.
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Builds the guest's kernel and initial file system, and says where they are.
    GuestImage,
}

fn main() -> ExitCode {
    let wish = Arguments::parse().wish;
    let runtime = tokio::runtime::Runtime::new().context("start the runtime");
    match runtime.and_then(|runtime| runtime.block_on(obey(wish))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lifeboat-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn obey(wish: Wish) -> Result<()> {
    match wish {
        Wish::Up => {
            Lab::start("a person looks around").await?.keep().await?;
            println!("The lab is up. `lifeboat-lab enter east -- virsh list` looks at it;");
            println!("`lifeboat-lab down` ends it, and so does the next lab.");
            Ok(())
        }
        Wish::Down => match Lab::resume().await? {
            Some(lab) => lab.stop().await,
            None => Lab::clear().await,
        },
        Wish::Status => status(),
        Wish::Enter { place, command } => enter(&place, &command),
        Wish::GuestImage => {
            println!("{}", Image::ensure().await?.folder().display());
            Ok(())
        }
    }
}

fn status() -> Result<()> {
    let Some(standing) = lab::standing()?.filter(|standing| !standing.places.is_empty()) else {
        println!("No lab runs.");
        return Ok(());
    };
    let how = if standing.kept { "kept" } else { "in use" };
    println!("{} ({how}), in {}", standing.story, standing.folder.display());
    for (place, pid) in standing.places {
        println!("  {place}: first process {pid}");
    }
    Ok(())
}

fn enter(name: &str, command: &[String]) -> Result<()> {
    let Some(place) = Place::standing(name)? else {
        bail!("no lab runs that has {name} under power");
    };
    let default = ["sh".to_owned()];
    let words = if command.is_empty() { &default } else { command };
    let [program, arguments @ ..] = words else {
        bail!("no command to run");
    };
    let mut enter = place.command(program);
    enter.args(arguments);
    let error = enter.into_std().exec();
    Err(error).with_context(|| format!("enter {name}"))
}
