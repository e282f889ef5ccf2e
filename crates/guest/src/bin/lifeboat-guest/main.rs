//! The programs inside a guest, as one static binary.
//!
//! As the first process it is `init`; called under another name or with a word
//! it is one of the others. What a person or the lab calls, through the guest
//! agent or the console:
//!
//! ```text
//! guest check                              prints a report of all disks as JSON
//! guest workload start RATE | stop         records per second
//! guest overwrite start DISK BLOCKS RATE | stop
//! guest iops DISK MIB SECONDS              prints random writes a second
//! guest reads DISK FILE                    prints bytes a second, read in order
//! guest reads DISK FILE SECONDS            prints random reads a second
//! ```

mod check;
mod disks;
mod init;
mod iops;
mod modules;
mod network;
mod overwrite;
mod port;
mod power;
mod reads;
mod service;
mod workload;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match dispatch(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("guest: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(words: &[&str]) -> Result<()> {
    let (called, words) = words.split_first().context("no name to go by")?;
    let name = Path::new(called).file_name().unwrap_or_default();
    match (name.to_str().unwrap_or_default(), words) {
        ("init", _) if std::process::id() == 1 => init::run(),
        ("shutdown" | "poweroff" | "reboot" | "halt", words) => power::ask(called, words),
        ("dhcp-event", [event, ..]) => network::dhcp_event(event),
        (_, ["network"]) => network::run(),
        (_, ["check"]) => check::print(),
        (_, ["workload", "run", rate]) => workload::run(parse(rate)?),
        (_, ["workload", "start", rate]) => service::start("workload", &[rate]),
        (_, ["workload", "stop"]) => service::stop("workload"),
        (_, ["overwrite", "run", disk, blocks, rate]) => {
            overwrite::run(parse(disk)?, parse(blocks)?, parse(rate)?)
        }
        (_, ["overwrite", "start", disk, blocks, rate]) => {
            service::start("overwrite", &[disk, blocks, rate])
        }
        (_, ["iops", disk, mib, seconds]) => iops::run(parse(disk)?, parse(mib)?, parse(seconds)?),
        (_, ["reads", disk, file]) => reads::sequential(parse(disk)?, file),
        (_, ["reads", disk, file, seconds]) => reads::random(parse(disk)?, file, parse(seconds)?),
        (_, ["overwrite", "stop"]) => service::stop("overwrite"),
        (_, other) => bail!("nothing is called {other:?}"),
    }
}

fn parse<T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>>(
    word: &str,
) -> Result<T> {
    word.parse().with_context(|| format!("read {word:?}"))
}
