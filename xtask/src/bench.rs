//! Benchmarks and soaks: crate `bench` in release, which has what they are.

use std::{ffi::OsString, os::unix::process::CommandExt as _, process::Command};

use anyhow::{Context as _, Result};

use crate::metadata::root;

/// Runs `lifeboat-bench` with these arguments, in our place: it cleans up
/// after itself, also when it is interrupted.
pub(crate) fn run(first: Option<&str>, arguments: Vec<OsString>) -> Result<()> {
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
