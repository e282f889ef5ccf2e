//! Benchmarks: `cargo xtask bench NAME` builds this and runs `lifeboat-bench
//! NAME`, `cargo xtask soak NAME` runs `lifeboat-bench soak NAME`.
//!
//! | looking for | module |
//! | --- | --- |
//! | a figure, its goal, how it is told | [`figure`] |
//! | taking turns with an opponent, medians | [`pairing`] |
//! | the folder, and that it goes in any case | [`workplace`] |
//! | processes of ours and of others | [`process`] |
//! | arguments, groups, one after the other | [`suite`] |
//! | reproducible bytes | [`content`] |
//! | a disk with real content | [`image`] |
//! | what compression alone costs | [`codec`] |
//! | the figures of the replica store | [`replica`] |
//! | the figures of replication | [`replication`] |
//! | the figures of failover | [`failover`] |
//! | what is measured on real guests | [`lab`] |
//!
//! Rules: our run and the opponent's are made in turn in one run of this
//! program, because machines are shared and noisy; the median counts; a goal
//! that was missed is told and is no failure. Progress goes to stderr.
//!
//! To add a benchmark: a folder beside `replica/` with its table of groups, and
//! a variant of [`Command`].

mod codec;
mod content;
mod failover;
mod figure;
mod image;
mod lab;
mod pairing;
mod process;
mod replica;
mod replication;
mod suite;
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
    Replica(suite::Arguments),
    /// Replication: first copy, cycles, resynchronisation, many machines
    Replication(suite::Arguments),
    /// Failover: how soon a machine runs, how fast it reads, what a reverse sends
    Failover(suite::Arguments),
    /// What takes too long for a benchmark
    #[command(subcommand)]
    Soak(Soak),
    /// What runs in a process of its own
    #[command(subcommand, hide = true)]
    Probe(Probe),
}

#[derive(Subcommand)]
enum Probe {
    #[command(flatten)]
    Replica(replica::probe::Probe),
    #[command(flatten)]
    Replication(replication::probe::Probe),
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
        Command::Replication(arguments) => replication::run(arguments),
        Command::Failover(arguments) => failover::run(arguments),
        Command::Soak(Soak::ReplicaMemory(arguments)) => replica::memory::soak(&arguments),
        Command::Probe(Probe::Replica(probe)) => probe.run(),
        Command::Probe(Probe::Replication(probe)) => probe.run(),
    }
}
