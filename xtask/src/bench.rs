//! Benchmarks and soaks: crate `bench` in release, which has what they are.

use std::{ffi::OsString, os::unix::process::CommandExt as _, process::Command};

use anyhow::{Context as _, Result, ensure};

use crate::metadata::root;

/// Runs `lifeboat-bench` with these arguments, in our place: it cleans up
/// after itself, also when it is interrupted.
pub(crate) fn run(first: Option<&str>, arguments: Vec<OsString>) -> Result<()> {
    if arguments.first().is_some_and(|suite| suite == "replication") {
        build_lab()?;
    }
    if first == Some("soak") && arguments.first().is_some_and(|soak| soak == "failover") {
        return soak_failover();
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
    let cargo = |arguments: &[&str]| {
        let mut command = Command::new("cargo");
        command.args(arguments).current_dir(root()).env("LIFEBOAT_SOAK", "1");
        let status = command.status().context("run cargo")?;
        ensure!(status.success(), "cargo {} failed: {status}", arguments.join(" "));
        Ok(())
    };
    cargo(&["build", "--locked", "--package", "cli", "--package", "lab", "--bins"])?;
    cargo(&["test", "--locked", "-p", "lab", "--test", "failover_disturbed", "--", "--nocapture"])
}

/// Builds the product and the lab, whose guests count their writes.
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
