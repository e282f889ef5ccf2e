//! One of the product's long-running programs: started, ended and started
//! anew, with one log over all its runs.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;

use crate::place::Place;
use crate::process::Process;
use crate::run::wait_for;

/// How long it may take to be ready, or to end in order.
const PATIENCE: Duration = Duration::from_secs(10);

/// A program, running or not.
#[derive(Debug)]
pub(super) struct Program {
    name: String,
    /// What it logs once it works.
    ready: &'static str,
    process: Option<Process>,
}

impl Program {
    pub(super) fn new(name: String, ready: &'static str) -> Self {
        Self { name, ready, process: None }
    }

    /// Starts it and waits until this run of it is ready.
    pub(super) async fn start(&mut self, place: &Place, command: &mut Command) -> Result<()> {
        let readies = |log: &str| log.matches(self.ready).count();
        let before = match &self.process {
            Some(process) => readies(&process.log()?),
            None => 0,
        };
        let process = self.process.insert(place.spawn(&self.name, command).await?);
        wait_for(&format!("start {}", self.name), PATIENCE, async || {
            let log = process.log()?;
            ensure!(process.is_running()?, "{} ended: {log}", self.name);
            Ok((readies(&log) > before).then_some(()))
        })
        .await
    }

    /// Ends it with SIGKILL.
    pub(super) async fn kill(&mut self) -> Result<()> {
        match &mut self.process {
            Some(process) => process.kill().await,
            None => Ok(()),
        }
    }

    /// Asks it to end and waits until it did, in order.
    pub(super) async fn stop(&mut self) -> Result<()> {
        let Some(process) = &mut self.process else { return Ok(()) };
        let status = process.terminate(PATIENCE).await?;
        ensure!(status.success(), "{} ended with {status}", self.name);
        Ok(())
    }

    /// Lets it live on when this process ends.
    pub(super) async fn keep_running(self) {
        if let Some(process) = self.process {
            process.keep_running().await;
        }
    }

    /// All that it has logged, over all its runs.
    pub(super) fn log(&self) -> Result<String> {
        let process = self.process.as_ref();
        process.with_context(|| format!("{} never ran", self.name))?.log()
    }
}
