//! The controller at the third place, and the CLI beside it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use api::List;
use api::host::Host;
use api::machine::Machine;
use api::network::Network;
use api::problem::Problem;
use api::protection::{Protection, ProtectionState, RecoveryPoint, Replication};
use serde::de::DeserializeOwned;
use tokio::process::Command;

use crate::lab::Lab;
use crate::place::Place;
use crate::product::binary;
use crate::product::program::Program;
use crate::run::wait_for;
use crate::site::SiteName;

const SOON: Duration = Duration::from_secs(60);

/// How long the controller may take until it answers.
const PATIENCE: Duration = Duration::from_secs(10);
/// The controller's data folder.
const DATA: &str = "/var/lib/lifeboat/controller";
/// The client's home at the third place, with its settings.
const HOME: &str = "/var/lib/lifeboat/home";

/// A controller that runs at the third place, with an administrator's token
/// for the CLI.
#[derive(Debug)]
pub struct Controller<'lab> {
    place: &'lab Place,
    binary: PathBuf,
    program: Program,
}

/// What a command of the CLI said.
#[derive(Debug)]
pub struct Answer {
    /// The exit code.
    pub code: i32,
    /// Standard output.
    pub output: String,
    /// Standard error.
    pub error: String,
}

impl Answer {
    /// The error that the command printed for programs.
    ///
    /// # Errors
    /// When it printed none.
    pub fn problem(&self) -> Result<Problem> {
        serde_json::from_str(&self.error).with_context(|| format!("read a problem in {self:?}"))
    }
}

impl<'lab> Controller<'lab> {
    /// Starts a controller with new data and makes the first token.
    ///
    /// # Errors
    /// When it does not answer within ten seconds.
    pub async fn start(lab: &'lab Lab) -> Result<Self> {
        let place = lab.third_place();
        let home = place.outside(HOME);
        std::fs::create_dir_all(&home).with_context(|| format!("make {}", home.display()))?;
        let program = Program::new("controller".to_owned(), "the controller is ready");
        let mut controller = Self { place, binary: binary()?, program };
        controller.begin().await?;
        Ok(controller)
    }

    /// Starts on no data, and makes the first token.
    async fn begin(&mut self) -> Result<()> {
        self.power_on().await?;
        let saved = self.cli(&["controller", "admin-token", "--save"]).await?;
        ensure!(saved.code == 0, "make the first token: {saved:?}");
        wait_for("hear from the controller", PATIENCE, async || {
            Ok((self.cli(&["health"]).await?.code == 0).then_some(()))
        })
        .await
    }

    /// It is lost with all that it had, and a new one starts in its place.
    ///
    /// # Errors
    /// When the new one does not answer within ten seconds.
    pub async fn lose_all(&mut self) -> Result<()> {
        self.kill().await?;
        let data = self.place.outside(DATA);
        std::fs::remove_dir_all(&data).with_context(|| format!("remove {}", data.display()))?;
        self.begin().await
    }

    /// Starts the controller's process anew, on the data that is there.
    ///
    /// # Errors
    /// When it ends at once.
    pub async fn power_on(&mut self) -> Result<()> {
        let mut command = self.place.command(&self.binary);
        command.args(["controller", "run"]);
        self.program.start(self.place, &mut command).await
    }

    /// Ends the controller with SIGKILL.
    ///
    /// # Errors
    /// When it does not go.
    pub async fn kill(&mut self) -> Result<()> {
        self.program.kill().await
    }

    /// Asks the controller to end and waits until it did.
    ///
    /// # Errors
    /// When it does not end in order.
    pub async fn stop(&mut self) -> Result<()> {
        self.program.stop().await
    }

    /// Lets the controller live on when this process ends.
    pub async fn keep_running(self) {
        self.program.keep_running().await;
    }

    /// Writes the controller's configuration file, for its next start.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn configure(&self, text: &str) -> Result<()> {
        let path = self.place.outside("/etc/lifeboat/controller.toml");
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    }

    /// Where it runs.
    #[must_use]
    pub const fn place(&self) -> &'lab Place {
        self.place
    }

    /// All that the controller has logged.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn log(&self) -> Result<String> {
        self.program.log()
    }

    /// A command of the CLI at the third place, as the administrator.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = self.place.command(&self.binary);
        command.env("HOME", HOME).env_remove("XDG_CONFIG_HOME").kill_on_drop(true);
        command
    }

    /// Runs a command of the CLI, whatever becomes of it.
    ///
    /// # Errors
    /// When it cannot be run.
    pub async fn cli(&self, arguments: &[&str]) -> Result<Answer> {
        let output = self.command().args(arguments).output().await.context("run the CLI")?;
        Ok(Answer {
            code: output.status.code().unwrap_or(-1),
            output: String::from_utf8_lossy(&output.stdout).into_owned(),
            error: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs a command of the CLI that must succeed; what it prints for people.
    ///
    /// # Errors
    /// When it fails.
    pub async fn say(&self, arguments: &[&str]) -> Result<String> {
        let answer = self.cli(arguments).await?;
        ensure!(answer.code == 0, "lifeboat {}: {answer:?}", arguments.join(" "));
        Ok(answer.output)
    }

    /// Runs a command of the CLI that must succeed; what it prints for programs.
    ///
    /// # Errors
    /// When it fails or prints something else.
    pub async fn ask<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<T> {
        let text = self.say(&[&["--json"], arguments].concat()).await?;
        serde_json::from_str(&text).with_context(|| format!("read the answer to {arguments:?}"))
    }

    /// Runs a command of the CLI that must be refused.
    ///
    /// # Errors
    /// When it succeeds or prints no problem.
    pub async fn refuses(&self, arguments: &[&str]) -> Result<Problem> {
        let answer = self.cli(&[&["--json"], arguments].concat()).await?;
        ensure!(answer.code != 0, "{arguments:?} was not refused: {answer:?}");
        answer.problem()
    }

    /// The host of that name.
    ///
    /// # Errors
    /// When there is none.
    pub async fn host(&self, name: &str) -> Result<Host> {
        self.ask(&["host", "show", name]).await
    }

    /// All machines.
    ///
    /// # Errors
    /// When the controller does not answer.
    pub async fn machines(&self) -> Result<Vec<Machine>> {
        Ok(self.ask::<List<Machine>>(&["machine", "list"]).await?.items)
    }

    /// Waits until it shows so many machines.
    ///
    /// # Errors
    /// When it does not within a minute.
    pub async fn shows_machines(&self, count: usize) -> Result<()> {
        wait_for(&format!("{count} machines"), SOON, async || {
            Ok((self.machines().await?.len() == count).then_some(()))
        })
        .await
    }

    /// Waits until a machine is protected and only its changes are sent.
    ///
    /// # Errors
    /// When it is not within `limit`.
    pub async fn replicates(&self, machine: &str, limit: Duration) -> Result<()> {
        wait_for(&format!("steady replication of {machine}"), limit, async || {
            let now = self.protection(machine).await?;
            let is_steady = now.replication == Replication::Steady;
            Ok((is_steady && now.state == ProtectionState::Protected).then_some(()))
        })
        .await
    }

    /// All virtual networks.
    ///
    /// # Errors
    /// When the controller does not answer.
    pub async fn networks(&self) -> Result<Vec<Network>> {
        Ok(self.ask::<List<Network>>(&["network", "list"]).await?.items)
    }

    /// A protected machine.
    ///
    /// # Errors
    /// When it is not one.
    pub async fn protection(&self, machine: &str) -> Result<Protection> {
        self.ask(&["protected", "show", machine]).await
    }

    /// All protected machines.
    ///
    /// # Errors
    /// When the controller does not answer.
    pub async fn protections(&self) -> Result<Vec<Protection>> {
        Ok(self.ask::<List<Protection>>(&["protected", "list"]).await?.items)
    }

    /// Recovery points of a machine that the controller knows of, as it lists
    /// them.
    ///
    /// # Errors
    /// When the machine is not protected.
    pub async fn points(&self, machine: &str) -> Result<Vec<RecoveryPoint>> {
        Ok(self.ask::<List<RecoveryPoint>>(&["point", "list", machine]).await?.items)
    }

    /// Makes the sites east and west known.
    ///
    /// # Errors
    /// When they are known already.
    pub async fn create_sites(&self) -> Result<()> {
        for site in [SiteName::East, SiteName::West] {
            self.say(&["site", "create", &site.to_string()]).await?;
        }
        Ok(())
    }

    /// A token that lets one agent become a host of a site.
    ///
    /// # Errors
    /// When the controller makes none.
    pub async fn enrolment_token(&self, more: &[&str]) -> Result<String> {
        let token = self.say(&[&["token", "enrolment"], more].concat()).await?;
        Ok(token.trim().to_owned())
    }
}
