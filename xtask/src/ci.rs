//! Every check and test, the same here and in CI.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use crate::metadata::root;
use crate::{arrows, licences, tidy};

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Tests {
    /// All tests
    All,
    /// Without the stories in the lab
    Fast,
}

pub(crate) fn run(tests: Tests) -> Result<()> {
    let begun = Instant::now();
    step("format", || cargo(&["fmt", "--all", "--check"]))?;
    step("crate arrows", arrows::check)?;
    step("licences", licences::check)?;
    step("tidy", tidy::check)?;
    step("lints", || {
        cargo(&["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"])
    })?;
    // The stories run the product's own programs, which no test builds.
    step("build", || cargo(&["build", "--locked", "--workspace", "--bins"]))?;
    step("tests", || run_tests(tests))?;
    step("tests in documentation", || {
        cargo(&["test", "--locked", "--workspace", "--doc", "--quiet"])
    })?;
    println!("\nAll is well after {} s.", begun.elapsed().as_secs());
    Ok(())
}

fn run_tests(tests: Tests) -> Result<()> {
    let has_nextest = Command::new("cargo")
        .args(["nextest", "--version"])
        .output()
        .is_ok_and(|o| o.status.success());
    if has_nextest {
        let mut arguments = vec!["nextest", "run", "--locked", "--workspace", "--profile", "ci"];
        if tests == Tests::Fast {
            arguments.extend(["--filterset", "not (package(lab) and kind(test))"]);
        }
        return cargo(&arguments);
    }
    let mut arguments = vec!["test", "--locked", "--workspace", "--lib", "--bins"];
    if tests == Tests::All {
        arguments.push("--tests");
    }
    // The lab's stories must run one at a time.
    arguments.extend(["--", "--test-threads", "1"]);
    cargo(&arguments)
}

fn step(name: &str, run: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("── {name}");
    let begun = Instant::now();
    run().with_context(|| format!("{name} failed"))?;
    println!("   {name}: {:.1} s", begun.elapsed().as_secs_f64());
    Ok(())
}

fn cargo(arguments: &[&str]) -> Result<()> {
    cargo_with(arguments, &[])
}

/// Runs cargo at the root of the repository, with variables in its environment.
pub(crate) fn cargo_with(arguments: &[&str], variables: &[(&str, &str)]) -> Result<()> {
    // What is built once and thrown away need not be ready to be built again.
    let once = std::env::var_os("CI").map(|_| ("CARGO_INCREMENTAL", "0"));
    let status = Command::new("cargo")
        .args(arguments)
        .current_dir(root())
        .envs(once)
        .envs(variables.iter().copied())
        // An error's text says where; frames of the async runtime would bury it.
        .env("RUST_LIB_BACKTRACE", "0")
        .status()
        .context("run cargo")?;
    ensure!(status.success(), "cargo {} failed: {status}", arguments.join(" "));
    Ok(())
}
