//! An agent at a site.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use tokio::io::AsyncWriteExt as _;

use crate::product::clock::Clock;
use crate::product::program::Program;
use crate::product::{Answer, Controller, binary};
use crate::site::Site;

/// The controller's address for agents, as all places know it.
const CONTROLLER: &str = "third-place:7443";
/// What stories have no other way to hear of is logged too.
const LOGGED: &str = "info,agent::keep::tending=debug";
const STATE_FOLDER: &str = "/var/lib/lifeboat/agent";

/// An agent at a site, running or not.
#[derive(Debug)]
pub struct Agent {
    site: Site,
    name: String,
    state_folder: String,
    binary: PathBuf,
    program: Program,
    /// Its own, from its next start on; else the machine's.
    clock: Option<Clock>,
}

fn program(name: &str) -> Program {
    Program::new(format!("agent-{name}"), "the agent starts")
}

impl Agent {
    /// An agent of a site, before it is enrolled.
    ///
    /// # Errors
    /// When the product was not built.
    pub fn of(site: &Site) -> Result<Self> {
        Ok(Self {
            site: site.clone(),
            program: program(site.name()),
            name: site.name().to_owned(),
            state_folder: STATE_FOLDER.to_owned(),
            binary: binary()?,
            clock: None,
        })
    }

    /// An agent of a site, enrolled there with `more` of the token's options, and
    /// started.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn enrolled(site: &Site, controller: &Controller<'_>, more: &[&str]) -> Result<Self> {
        let options = [&["--site", site.name()], more].concat();
        let token = controller.enrolment_token(&options).await?;
        let mut agent = Self::of(site)?;
        agent.enrol(&token).await?;
        Ok(agent)
    }

    /// The same site's agent under another name and with another state folder.
    #[must_use]
    pub fn second(&self, name: &str) -> Self {
        Self {
            site: self.site.clone(),
            program: program(name),
            name: name.to_owned(),
            state_folder: format!("/var/lib/lifeboat/{name}"),
            binary: self.binary.clone(),
            clock: None,
        }
    }

    /// What it is called, as its site unless it is a [`second`](Self::second) one.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its state folder is on the host.
    #[must_use]
    pub fn state_folder(&self) -> PathBuf {
        self.site.outside(&self.state_folder)
    }

    /// The id of the host that it is enrolled as.
    ///
    /// # Errors
    /// When it is not enrolled.
    pub fn host_id(&self) -> Result<String> {
        let file = std::fs::read(self.state_folder().join("identity.json"))?;
        let identity: serde_json::Value = serde_json::from_slice(&file)?;
        Ok(identity["host"].as_str().context("a host")?.to_owned())
    }

    /// Tries to enrol it, whatever becomes of it.
    ///
    /// # Errors
    /// When the command cannot be run.
    pub async fn try_enrol(&self, token: &str, more: &[&str]) -> Result<Answer> {
        let mut command = self.site.command(&self.binary);
        command
            .args(["--json", "agent", "enrol", "--controller", CONTROLLER])
            .args(["--state-folder", &self.state_folder, "--name", &self.name])
            .args(more)
            .kill_on_drop(true)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().context("run the agent's enrolment")?;
        let mut input = child.stdin.take().context("its standard input")?;
        input.write_all(token.as_bytes()).await.context("hand it the token")?;
        drop(input);
        let output = child.wait_with_output().await.context("wait for the enrolment")?;
        Ok(Answer {
            code: output.status.code().unwrap_or(-1),
            output: String::from_utf8_lossy(&output.stdout).into_owned(),
            error: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Enrols it and starts it.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn enrol(&mut self, token: &str) -> Result<()> {
        let answer = self.try_enrol(token, &[]).await?;
        ensure!(answer.code == 0, "enrol {}: {answer:?}", self.name);
        self.start().await
    }

    /// Starts it.
    ///
    /// # Errors
    /// When it ends at once.
    pub async fn start(&mut self) -> Result<()> {
        self.start_as(&[], &[]).await
    }

    /// Starts it behind other words, such as `setpriv …`, and with more
    /// arguments.
    ///
    /// # Errors
    /// When it ends at once.
    pub async fn start_as(&mut self, before: &[&str], more: &[&str]) -> Result<()> {
        let binary = self.binary.to_string_lossy().into_owned();
        let clock = self.clock.as_ref().map(Clock::words).unwrap_or_default();
        let words: Vec<&str> = clock
            .iter()
            .map(String::as_str)
            .chain(before.iter().copied())
            .chain([binary.as_str(), "agent", "run", "--state-folder", &self.state_folder])
            .chain(more.iter().copied())
            .collect();
        let mut command = self.site.command(words[0]);
        command.args(&words[1..]).env("LIFEBOAT_LOG", LOGGED);
        self.program.start(&self.site, &mut command).await
    }

    /// Sets its clock, and no other, by so many seconds ahead of the machine's, or
    /// behind it. The first time, it is started anew to have a clock of its own.
    ///
    /// # Errors
    /// When the package faketime is not installed, or it does not start.
    pub async fn set_clock(&mut self, ahead_seconds: i64) -> Result<()> {
        if let Some(clock) = &self.clock {
            return clock.set(ahead_seconds);
        }
        self.stop().await?;
        let clock = Clock::at(self.site.folder().join(format!("{}.clock", self.name)))?;
        clock.set(ahead_seconds)?;
        self.clock = Some(clock);
        self.start().await
    }

    /// Ends it with SIGKILL.
    ///
    /// # Errors
    /// When it does not go.
    pub async fn kill(&mut self) -> Result<()> {
        self.program.kill().await
    }

    /// Asks it to end and waits until it did.
    ///
    /// # Errors
    /// When it does not end in order.
    pub async fn stop(&mut self) -> Result<()> {
        self.program.stop().await
    }

    /// Lets it live on when this process ends.
    pub async fn keep_running(self) {
        self.program.keep_running().await;
    }

    /// All that it has logged, over all its runs.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn log(&self) -> Result<String> {
        self.program.log()
    }

    /// What `lifeboat agent status` says for programs.
    ///
    /// # Errors
    /// When it fails.
    pub async fn status(&self) -> Result<serde_json::Value> {
        let mut command = self.site.command(&self.binary);
        command.args(["--json", "agent", "status", "--state-folder", &self.state_folder]);
        let output = command.kill_on_drop(true).output().await.context("ask for its status")?;
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("read {}", String::from_utf8_lossy(&output.stderr)))
    }
}
