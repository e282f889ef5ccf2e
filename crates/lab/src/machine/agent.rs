//! What QEMU's guest agent is asked.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use guest::report::Report;
use serde_json::{Value, json};

use super::Guest;
use crate::run::wait_for;

/// How long a command in the guest may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// How a command in a guest ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exec {
    /// Its exit status; none when a signal ended it.
    pub status: Option<i64>,
    /// What it printed.
    pub stdout: String,
    /// What it printed as errors.
    pub stderr: String,
}

impl Guest {
    /// Waits until the guest agent answers.
    ///
    /// # Errors
    /// When it does not within `limit`.
    pub async fn answers(&self, limit: Duration) -> Result<()> {
        let what = format!("wait for the guest agent of {}", self.name());
        wait_for(&what, limit, async || Ok(self.ask("guest-ping", json!({})).await.ok().map(drop)))
            .await
    }

    /// Runs a command in the guest and returns what it printed.
    ///
    /// # Errors
    /// When it fails, with what it printed as errors, or takes longer than two
    /// minutes.
    pub async fn exec(&self, words: &[&str]) -> Result<String> {
        let ended = self.exec_to_end(words).await?;
        if ended.status != Some(0) {
            let (name, status) = (self.name(), ended.status);
            bail!("{words:?} in {name} ended with {status:?}: {}", ended.stderr.trim());
        }
        Ok(ended.stdout)
    }

    /// Runs a command in the guest and says how it ended.
    ///
    /// # Errors
    /// When it cannot be started or takes longer than two minutes.
    pub async fn exec_to_end(&self, words: &[&str]) -> Result<Exec> {
        let [program, arguments @ ..] = words else {
            bail!("no command to run in {}", self.name());
        };
        let order = json!({ "path": program, "arg": arguments, "capture-output": true });
        let started = self.ask("guest-exec", order).await?;
        let pid = started["pid"].as_i64().context("the agent named no process")?;
        let what = format!("{words:?} in {}", self.name());
        let ended = wait_for(&what, PATIENCE, async || {
            let status = self.ask("guest-exec-status", json!({ "pid": pid })).await?;
            Ok((status["exited"] == true).then_some(status))
        })
        .await?;
        let text = |key: &str| -> Result<String> {
            let bytes = STANDARD.decode(ended[key].as_str().unwrap_or_default());
            let bytes = bytes.with_context(|| format!("read {key} of {what}"))?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        Ok(Exec {
            status: ended["exitcode"].as_i64(),
            stdout: text("out-data")?,
            stderr: text("err-data")?,
        })
    }

    /// Freezes the guest's file systems and returns how many.
    ///
    /// # Errors
    /// When the agent refuses.
    pub async fn freeze(&self) -> Result<u64> {
        let frozen = self.ask("guest-fsfreeze-freeze", json!({})).await?;
        frozen.as_u64().context("the agent said no number")
    }

    /// Thaws the guest's file systems and returns how many.
    ///
    /// # Errors
    /// When the agent refuses.
    pub async fn thaw(&self) -> Result<u64> {
        let thawed = self.ask("guest-fsfreeze-thaw", json!({})).await?;
        thawed.as_u64().context("the agent said no number")
    }

    /// Looks at all disks now, between two writes of the loads.
    ///
    /// # Errors
    /// When the guest cannot look; what it finds is in the report.
    pub async fn check(&self) -> Result<Report> {
        let json = self.exec(&["guest", "check"]).await?;
        serde_json::from_str(&json).with_context(|| format!("read the report of {}", self.name()))
    }

    /// Starts the workload, which must not run.
    ///
    /// # Errors
    /// When it runs already.
    pub async fn start_workload(&self, records_per_second: u32) -> Result<()> {
        let rate = records_per_second.to_string();
        self.exec(&["guest", "workload", "start", &rate]).await.map(drop)
    }

    /// Stops the workload between two records.
    ///
    /// # Errors
    /// When it does not stop within ten seconds.
    pub async fn stop_workload(&self) -> Result<()> {
        self.exec(&["guest", "workload", "stop"]).await.map(drop)
    }

    /// Starts the overwrite load on `blocks` blocks of 4 KiB of a disk. A
    /// region that exists keeps its size.
    ///
    /// # Errors
    /// When it runs already.
    pub async fn start_overwrite(
        &self,
        disk: u16,
        blocks: u32,
        writes_per_second: u32,
    ) -> Result<()> {
        let [disk, blocks, rate] =
            [disk.into(), blocks, writes_per_second].map(|n: u32| n.to_string());
        let words = ["guest", "overwrite", "start", &disk, &blocks, &rate];
        self.exec(&words).await.map(drop)
    }

    /// Stops the overwrite load between two writes.
    ///
    /// # Errors
    /// When it does not stop within ten seconds.
    pub async fn stop_overwrite(&self) -> Result<()> {
        self.exec(&["guest", "overwrite", "stop"]).await.map(drop)
    }

    /// The guest's IPv4 addresses now, without loopback.
    ///
    /// # Errors
    /// When the agent does not answer.
    pub async fn addresses(&self) -> Result<Vec<Ipv4Addr>> {
        let interfaces = self.ask("guest-network-get-interfaces", json!({})).await?;
        let all = interfaces.as_array().into_iter().flatten();
        let addresses = all.flat_map(|each| each["ip-addresses"].as_array().into_iter().flatten());
        let parsed = addresses.filter_map(|each| each["ip-address"].as_str()?.parse().ok());
        Ok(parsed.filter(|address: &Ipv4Addr| !address.is_loopback()).collect())
    }

    /// Waits until the guest has an IPv4 address and returns it.
    ///
    /// # Errors
    /// When it has none within `limit`.
    pub async fn address(&self, limit: Duration) -> Result<Ipv4Addr> {
        let what = format!("wait for an address of {}", self.name());
        wait_for(&what, limit, async || Ok(self.addresses().await?.first().copied())).await
    }

    /// Gives the guest agent a command of its protocol and returns the answer.
    ///
    /// # Errors
    /// When it does not answer within ten seconds, or refuses.
    pub async fn ask(&self, command: &str, arguments: Value) -> Result<Value> {
        let order = json!({ "execute": command, "arguments": arguments }).to_string();
        let words = ["qemu-agent-command", "--timeout", "10", self.name(), &order];
        let answer = self.site().virsh(&words).await?;
        let mut answer: Value = serde_json::from_str(&answer)
            .with_context(|| format!("read the agent's answer to {command}"))?;
        Ok(answer["return"].take())
    }
}
