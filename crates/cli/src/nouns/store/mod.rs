//! `lifeboat store`: a store's folder itself, when all else is gone.
//!
//! | verbs | file |
//! | --- | --- |
//! | `list`, `points`, `show` | [`list`], [`points`], [`show`] |
//! | `verify`, `repair` | [`verify`], [`repair`] |
//! | `diff` | [`diff`] |
//! | `serve` | [`serve`] |
//! | `export`, `import` | [`export`], [`import`] |
//! | `drop`, `hold`, `release`, `reclaim` | [`keep`] |
//!
//! Which machine and which point is meant is found out in [`place`]; all errors
//! of the engine get their codes in [`faults`].

mod configuration;
mod diff;
mod export;
mod faults;
mod import;
mod keep;
mod list;
mod long;
mod place;
mod points;
mod repair;
mod serve;
mod show;
mod verify;
mod views;

use std::path::PathBuf;

use clap::Subcommand;

use crate::failure::Failure;
use place::Place;

/// `lifeboat store`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The folder that holds one folder per machine, or a machine's own
    #[arg(
        long,
        global = true,
        env = "LIFEBOAT_STORE",
        default_value = "/var/lib/lifeboat/store",
        value_name = "DIR"
    )]
    store: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
#[command(after_help = NAMES)]
enum Command {
    /// List the machines
    List,
    /// List a machine's recovery points
    Points(points::Arguments),
    /// Show all about a machine, or about one of its points
    Show(show::Arguments),
    /// Read everything, or a sample, and prove it
    Verify(verify::Arguments),
    /// Show what differs between two points
    Diff(diff::Arguments),
    /// Serve a point's disks over NBD, at once and read-only
    Serve(serve::Arguments),
    /// Write a point as a folder of ordinary disk images
    Export(export::Arguments),
    /// Make a point of an exported folder, or of any disk images
    Import(import::Arguments),
    /// Drop points; `reclaim` gives their room back
    Drop(keep::Drop),
    /// Keep a point whatever the policy says
    Hold(keep::Point),
    /// Keep a point no longer than the policy says
    Release(keep::Point),
    /// Give room back that no point needs
    Reclaim(keep::Reclaim),
    /// Mend what is damaged with bytes from another store
    Repair(repair::Arguments),
}

const NAMES: &str = "\
MACHINE is the folder's name, the name or UUID in the machine's newest
configuration, or a path; it may be left out where it comes last and the store
has one machine. POINT is a number, `latest` or `latest-app`. Disks count from 0.";

pub(crate) async fn run(arguments: Arguments, json: bool) -> Result<(), Failure> {
    let place = Place { folder: arguments.store, json };
    match arguments.command {
        Command::List => list::run(&place),
        Command::Points(arguments) => points::run(&place, &arguments),
        Command::Show(arguments) => show::run(&place, &arguments),
        Command::Verify(arguments) => verify::run(&place, &arguments).await,
        Command::Diff(arguments) => diff::run(&place, &arguments).await,
        Command::Serve(arguments) => serve::run(&place, &arguments).await,
        Command::Export(arguments) => export::run(&place, &arguments).await,
        Command::Import(arguments) => import::run(&place, arguments).await,
        Command::Drop(arguments) => keep::drop_points(&place, &arguments),
        Command::Hold(arguments) => keep::hold(&place, &arguments),
        Command::Release(arguments) => keep::release(&place, &arguments),
        Command::Reclaim(arguments) => keep::reclaim(&place, &arguments).await,
        Command::Repair(arguments) => repair::run(&place, &arguments).await,
    }
}
