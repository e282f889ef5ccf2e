//! Chores of the workspace: `cargo xtask ci`, `cargo xtask openapi`.

use anyhow::Result;
use clap::{Parser, Subcommand};

mod arrows;
mod ci;
mod licences;
mod metadata;
mod openapi;
mod tidy;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Every check and test; `fast` leaves out the lab
    Ci {
        /// Which tests to run
        #[arg(value_enum, default_value = "all")]
        tests: ci::Tests,
    },
    /// Write the OpenAPI document of the API to openapi.json
    Openapi,
    /// Check which crate depends on which
    Arrows,
    /// Check the licences of everything that is linked
    Licences,
    /// Check what no compiler checks: unfinished words, overlong files
    Tidy,
}

fn main() -> Result<()> {
    match Arguments::parse().chore {
        Chore::Ci { tests } => ci::run(tests),
        Chore::Openapi => openapi::write(),
        Chore::Arrows => arrows::check(),
        Chore::Licences => licences::check(),
        Chore::Tidy => tidy::check(),
    }
}
