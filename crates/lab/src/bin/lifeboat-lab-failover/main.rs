//! Measures what failovers take, on real guests: `cargo xtask bench failover`
//! runs it and tells the figures. Each round is a line of JSON.
//!
//! | looking for | module |
//! | --- | --- |
//! | from the order to a machine that answers, its site lost | [`unplanned`] |
//! | how long nothing is written in a planned failover | [`planned`] |
//! | reading from a recovery point, and making disks independent of it | [`views`] |
//! | what is sent when the direction is turned | [`reverse`] |
//! | what all of them begin with | [`ground`] |

mod ground;
mod planned;
mod reverse;
mod unplanned;
mod views;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;

/// Prints a line of JSON for each round of a measurement.
#[derive(Parser)]
#[command(name = "lifeboat-lab-failover")]
enum Arguments {
    /// Unplanned failovers beside starts of the same machine from its own disk
    Unplanned(unplanned::Arguments),
    /// Planned failovers beside shutting down and starting the same machine
    Planned(planned::Arguments),
    /// Reads of a machine that runs from a point beside one on a local disk, and
    /// hydration beside nbdcopy
    Views(views::Arguments),
    /// Bytes that a site sends when the direction is turned
    Reverse(reverse::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Runtime::new().context("start the runtime");
    let measured = runtime.and_then(|runtime| {
        runtime.block_on(async {
            match arguments {
                Arguments::Unplanned(arguments) => Box::pin(unplanned::measure(&arguments)).await,
                Arguments::Planned(arguments) => Box::pin(planned::measure(&arguments)).await,
                Arguments::Views(arguments) => Box::pin(views::measure(&arguments)).await,
                Arguments::Reverse(arguments) => Box::pin(reverse::measure(&arguments)).await,
            }
        })
    });
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lifeboat-lab-failover: {error:#}");
            ExitCode::FAILURE
        }
    }
}
