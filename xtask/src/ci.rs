//! Every check and test, the same here and in CI.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::metadata::{self, root};
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
    // The stories run the product's own programs. Built apart from the tests, half
    // of what they depend on would be built twice: tests want more of its features.
    step("build", || cargo(&["build", "--locked", "--workspace", "--bins", "--tests"]))?;
    match Listed::by_nextest()? {
        Some(listed) => {
            // Stories wait a lot; what they leave of the processors is used.
            let (tested, linted) = std::thread::scope(|scope| {
                let beside = scope.spawn(|| lint("nice", &["-n", "19", "cargo"]));
                let tested = step("tests", || listed.run(tests));
                (tested, beside.join().expect("linting does not panic"))
            });
            step("lints", || linted?.tell())?;
            tested?;
        }
        None => {
            step("lints", || lint("cargo", &[])?.tell())?;
            step("tests", || run_one_by_one(tests))?;
        }
    }
    step("tests in documentation", || {
        cargo(&["test", "--locked", "--workspace", "--doc", "--quiet"])
    })?;
    println!("\nAll is well after {} s.", begun.elapsed().as_secs());
    Ok(())
}

/// What the compiler and the linter said.
struct Linted(Vec<Output>);

impl Linted {
    fn tell(self) -> Result<()> {
        for output in &self.0 {
            print!("{}", String::from_utf8_lossy(&output.stderr));
        }
        let failed = self.0.iter().find(|output| !output.status.success());
        failed.map_or(Ok(()), |output| Err(anyhow!("cargo failed: {}", output.status)))
    }
}

/// Checks the product as it is shipped, without what tests turn on in it; and lints
/// everything.
fn lint(program: &str, before: &[&str]) -> Result<Linted> {
    let shipped = &["check", "--quiet", "--locked", "--package", "cli", "--bins"][..];
    let all =
        &["clippy", "--quiet", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"];
    let said = [shipped, all].map(|arguments| {
        prepared(program).args(before).args(arguments).output().context("run cargo")
    });
    Ok(Linted(said.into_iter().collect::<Result<_>>()?))
}

/// Tests that are built and listed, so that they run without Cargo: whoever lints
/// beside them holds its lock.
struct Listed {
    workspace: PathBuf,
    programs: PathBuf,
}

impl Listed {
    /// None without nextest.
    fn by_nextest() -> Result<Option<Self>> {
        let version = Command::new("cargo").args(["nextest", "--version"]).output();
        if !version.is_ok_and(|said| said.status.success()) {
            return Ok(None);
        }
        let folder = metadata::read()?.target_directory.join("ci");
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        let keep = |name: &str, arguments: &[&str]| {
            let path = folder.join(name);
            let file = File::create(&path).with_context(|| format!("make {}", path.display()))?;
            succeeds(prepared("cargo").args(arguments).arg("--locked").stdout(file))?;
            Ok::<_, anyhow::Error>(path)
        };
        let list = ["nextest", "list", "--workspace", "--list-type=binaries-only"];
        Ok(Some(Self {
            workspace: keep("workspace.json", &["metadata", "--format-version=1"])?,
            programs: keep("programs.json", &[&list[..], &["--message-format=json"]].concat())?,
        }))
    }

    fn run(&self, tests: Tests) -> Result<()> {
        let mut run = prepared("cargo");
        run.args(["nextest", "run", "--profile", "ci"]);
        run.arg("--cargo-metadata").arg(&self.workspace);
        run.arg("--binaries-metadata").arg(&self.programs);
        if tests == Tests::Fast {
            run.args(["--filterset", "not (package(lab) and kind(test))"]);
        }
        succeeds(&mut run)
    }
}

/// The lab's stories must run one at a time, and so everything does without nextest.
fn run_one_by_one(tests: Tests) -> Result<()> {
    let mut arguments = vec!["test", "--locked", "--workspace", "--lib", "--bins"];
    if tests == Tests::All {
        arguments.push("--tests");
    }
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
    succeeds(prepared("cargo").args(arguments).envs(variables.iter().copied()))
}

fn succeeds(cargo: &mut Command) -> Result<()> {
    let status = cargo.status().context("run cargo")?;
    let words: Vec<_> = cargo.get_args().map(OsStr::to_string_lossy).collect();
    ensure!(status.success(), "cargo {} failed: {status}", words.join(" "));
    Ok(())
}

/// A program at the root of the repository, in the environment that cargo gets.
fn prepared(program: &str) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    if std::env::var_os("CI").is_some() {
        // What is built once and thrown away need not be ready to be built again.
        command.env("CARGO_INCREMENTAL", "0");
    }
    // An error's text says where; frames of the async runtime would bury it.
    command.env("RUST_LIB_BACKTRACE", "0");
    command
}
