//! Benchmarks and soaks: crate `bench` in release, which has what they are.

use std::{ffi::OsString, os::unix::process::CommandExt as _, process::Command};

use anyhow::{Context as _, Result};

use crate::ci::cargo_with;
use crate::metadata::root;

/// Suites with figures of real guests.
const IN_THE_LAB: [&str; 2] = ["replication", "failover"];

/// Runs `lifeboat-bench` with these arguments, in our place: it cleans up
/// after itself, also when it is interrupted.
pub(crate) fn run(first: Option<&str>, arguments: Vec<OsString>) -> Result<()> {
    if first == Some("soak") && arguments.first().is_some_and(|soak| soak == "failover") {
        return soak_failover();
    }
    if arguments.first().is_some_and(|suite| IN_THE_LAB.iter().any(|name| suite == name)) {
        build_lab()?;
    }
    // Relative paths in the arguments are those of the caller.
    let error = Command::new("cargo")
        .args(["run", "--release", "--locked", "--quiet", "--manifest-path"])
        .arg(root().join("Cargo.toml"))
        .args(["--package", "bench", "--"])
        .args(first)
        .args(arguments)
        .exec();
    Err(error).context("run cargo")
}

/// Each trouble at each step of a failover, on real guests: the lab's story with
/// all of them.
fn soak_failover() -> Result<()> {
    let all_of_them = [("LIFEBOAT_SOAK", "1")];
    cargo_with(&["build", "--locked", "--package", "cli", "--package", "lab", "--bins"], &[])?;
    let story = ["test", "--locked", "-p", "lab", "--test", "failover_disturbed"];
    cargo_with(&[&story[..], &["--", "--nocapture"]].concat(), &all_of_them)
}

/// Builds the product and the lab, whose guests say what they do.
fn build_lab() -> Result<()> {
    let build = ["build", "--release", "--locked", "--quiet"];
    cargo_with(&[&build[..], &["--package", "cli", "--package", "lab", "--bins"]].concat(), &[])
}
