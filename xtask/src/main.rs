//! Chores of the workspace: `cargo xtask ci`, `cargo xtask openapi`,
//! `cargo xtask bench replica`, `cargo xtask bench replication`.

use std::ffi::OsString;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod arrows;
mod bench;
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
    /// Measure in release: `bench replica`, `bench replication`; `bench --help` says more
    #[command(disable_help_flag = true)]
    Bench {
        /// What to measure, and how
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// What takes too long for a benchmark: `soak replica-memory`, `soak failover`; `soak --help` says more
    #[command(disable_help_flag = true)]
    Soak {
        /// What to do, and how
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

fn main() -> Result<()> {
    match Arguments::parse().chore {
        Chore::Ci { tests } => ci::run(tests),
        Chore::Openapi => openapi::write(),
        Chore::Arrows => arrows::check(),
        Chore::Licences => licences::check(),
        Chore::Tidy => tidy::check(),
        Chore::Bench { arguments } => bench::run(None, arguments),
        Chore::Soak { arguments } => bench::run(Some("soak"), arguments),
    }
}
