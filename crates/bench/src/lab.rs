//! What is measured on real guests. Guests are the lab's; this crate knows
//! nothing of it and runs its programs, which lie beside this one or where the
//! environment says, such as `LIFEBOAT_LAB_IOPS` for `lifeboat-lab-iops`.

use std::{ffi::OsStr, path::PathBuf, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use serde::de::DeserializeOwned;

use crate::process::program;

/// A program of the lab that prints a line of JSON for each round.
pub(crate) struct LabProgram {
    name: &'static str,
    path: PathBuf,
}

impl LabProgram {
    /// Finds it; otherwise why it cannot be run.
    pub(crate) fn find(name: &'static str) -> Result<Result<Self, &'static str>> {
        if !nix::unistd::geteuid().is_root() {
            return Ok(Err("it takes root to have a guest of our own"));
        }
        let variable = name.to_uppercase().replace('-', "_");
        let path = match std::env::var_os(variable) {
            Some(path) => path.into(),
            None => std::env::current_exe().context("find this program")?.with_file_name(name),
        };
        match path.exists() {
            true => Ok(Ok(Self { name, path })),
            false => Ok(Err("run: cargo build --release -p cli -p lab --bins")),
        }
    }

    /// Runs it to its end; what it measured in each round, at least in one.
    pub(crate) fn rounds<T: DeserializeOwned>(
        &self,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Result<Vec<T>> {
        let name = self.name;
        let mut command = program(&self.path);
        // What it says of its progress, and why it fails, is for whoever waits.
        command.args(arguments).stdin(Stdio::null()).stderr(Stdio::inherit());
        let output = command.output().with_context(|| format!("run {name}"))?;
        ensure!(output.status.success(), "{name} ended with {}", output.status);
        let told = String::from_utf8(output.stdout).context("read what it measured")?;
        let rounds: Vec<T> = told
            .lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("understand {line:?}")))
            .collect::<Result<_>>()?;
        ensure!(!rounds.is_empty(), "{name} measured nothing");
        Ok(rounds)
    }
}
