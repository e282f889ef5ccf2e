//! Benchmarks: `cargo xtask bench NAME` builds this and runs `lifeboat-bench
//! NAME`, `cargo xtask soak NAME` runs `lifeboat-bench soak NAME`.
//!
//! | looking for | module |
//! | --- | --- |
//! | a figure, its goal, how it is told | [`figure`] |
//! | taking turns with an opponent, medians | [`pairing`] |
//! | the folder, and that it goes in any case | [`workplace`] |
//! | processes of ours and of others | [`process`] |
//! | reproducible bytes | [`content`] |
//! | the figures of the replica store | [`replica`] |
//!
//! Rules: our run and the opponent's are made in turn in one run of this
//! program, because machines are shared and noisy; the median counts; a goal
//! that was missed is told and is no failure. Progress goes to stderr.
//!
//! To add a benchmark: a folder beside `replica/` with its table of groups, and
//! a variant of [`Command`].

mod content;
mod figure;
mod pairing;
mod process;
mod replica;
mod workplace;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Measures Lifeboat beside what others use
#[derive(Parser)]
#[command(name = "lifeboat-bench")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The replica store: ingest, points, views, diff, memory
    Replica(replica::Arguments),
    /// What takes too long for a benchmark
    #[command(subcommand)]
    Soak(Soak),
    /// What runs in a process of its own
    #[command(subcommand, hide = true)]
    Probe(replica::probe::Probe),
}

#[derive(Subcommand)]
enum Soak {
    /// Memory with every block of 20 TiB in the index; takes an hour or more and 100 GiB
    ReplicaMemory(replica::memory::SoakArguments),
}

fn main() -> Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .init();
    match Arguments::parse().command {
        Command::Replica(arguments) => replica::run(arguments),
        Command::Soak(Soak::ReplicaMemory(arguments)) => replica::memory::soak(&arguments),
        Command::Probe(probe) => probe.run(),
    }
}
