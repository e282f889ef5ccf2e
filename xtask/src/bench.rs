//! Benchmarks and soaks: crate `bench` in release, which has what they are.

use std::{ffi::OsString, os::unix::process::CommandExt as _, process::Command};

use anyhow::{Context as _, Result, ensure};

use crate::metadata::root;

/// Suites with figures of real guests.
const IN_THE_LAB: [&str; 2] = ["replication", "failover"];

/// Runs `lifeboat-bench` with these arguments, in our place: it cleans up
/// after itself, also when it is interrupted.
pub(crate) fn run(first: Option<&str>, arguments: Vec<OsString>) -> Result<()> {
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

/// Builds the product and the lab, whose guests say what they do.
fn build_lab() -> Result<()> {
    let status = Command::new("cargo")
        .args(["build", "--release", "--locked", "--quiet", "--manifest-path"])
        .arg(root().join("Cargo.toml"))
        .args(["--package", "cli", "--package", "lab", "--bins"])
        .status()
        .context("run cargo")?;
    ensure!(status.success(), "the lab could not be built");
    Ok(())
}
